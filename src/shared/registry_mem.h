/*-------------------------------------------------------------------------
 *
 * registry_mem.h
 *		Entries of the registry and the cells that store them.
 *
 * Private to registry.c and registry_entry.c.  Callers hold the lock of the entry's partition,
 * exclusively to change anything but "seen".
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_REGISTRY_MEM_H
#define PRESENCE_REGISTRY_MEM_H

#include "postgres.h"

#include "base/clock.h"
#include "base/name.h"
#include "port/atomics.h"
#include "shared/database.h"
#include "storage/lwlock.h"

#define PRESENCE_REGISTRY_LOCKS 128

#define ENTRY_NAME_SIZE 68

/* Flags of an entry, in its first cell. */
#define ENTRY_USED		0x01	/* first cell; else free or a continuation */
#define ENTRY_VERIFIED	0x02	/* the channel has committed rows */
#define ENTRY_EXPIRING	0x04	/* a transaction is removing its rows */
#define ENTRY_REVIVED	0x08	/* had expired; is being added again */
#define ENTRY_INVALID	0x10	/* rows added by the transactions that hold
								 * pins may be gone */
#define ENTRY_GOODBYE	0x20	/* said goodbye: leaves at its deadline */
#define ENTRY_DISCONNECTED 0x40 /* the session that held it has ended */

#define ROWS_UNKNOWN PG_INT32_MIN

/*
 * One cell.  An entry takes one cell, or several if its name is long: the
 * first one heads the entry and has all fields, the others hold the rest of
 * the name and use only "spill" and "name".  A pointer to an entry is a
 * pointer to its first cell.
 */
typedef struct RegistryEntry
{
	pg_atomic_uint64 seen;		/* PresenceTime; storing needs shared lock */
	uint32		next;			/* cell in the chain or free list; 0: none */
	uint32		spill;			/* cell with more of the name; 0: none */
	uint32		hash;
	Oid			database;
	uint32		generation;		/* number of entries that began in this cell */
	uint32		pins;			/* running transactions that add the channel */
	int32		rows;			/* count of committed rows, or ROWS_UNKNOWN */
	uint32		changes;		/* transactions that changed the channel */
	uint32		ttl;			/* time to live, milliseconds; 0: max_age */
	uint32		holder;			/* process that holds it, from 1; 0: none */
	uint16		length;			/* of the name, in bytes */
	uint8		flags;
	char		name[ENTRY_NAME_SIZE];
} RegistryEntry;

StaticAssertDecl(sizeof(RegistryEntry) <= 120,
				 "a channel must not cost more than 128 bytes with its bucket");

extern Size presence_registry_mem_shmem_size(void);
extern void presence_registry_mem_shmem_init(void *area, bool found);

extern LWLock *presence_registry_mem_partition(uint32 hash);
extern RegistryEntry *presence_registry_mem_lock(PresenceEntryRef ref, LWLockMode mode);
extern void presence_registry_mem_unlock(const RegistryEntry *entry);
extern RegistryEntry *presence_registry_mem_find(const PresenceName *name);
extern RegistryEntry *presence_registry_mem_insert(const PresenceName *name,
												   PresenceTime seen, int rows);
extern void presence_registry_mem_delete(RegistryEntry *entry);
extern void presence_registry_mem_read_name(const RegistryEntry *entry,
											char *target);

/* These need no lock. */
extern PresenceEntryRef presence_registry_mem_ref(const RegistryEntry *entry);
extern bool presence_registry_mem_is_meant(const RegistryEntry *entry, PresenceEntryRef ref);
extern RegistryEntry *presence_registry_mem_entry(uint32 index);
extern uint32 presence_registry_mem_index(const RegistryEntry *entry);
extern RegistryEntry *presence_registry_mem_next(Oid database, uint32 *index);
extern void presence_registry_mem_warn_full(const PresenceName *name);

#endif							/* PRESENCE_REGISTRY_MEM_H */
