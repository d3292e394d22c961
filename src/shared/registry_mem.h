/*-------------------------------------------------------------------------
 *
 * registry_mem.h
 *		The entries of the registry, and the entries that they are kept in.
 *
 * For registry.c alone.  Whoever deals with an entry holds the lock of its
 * partition, exclusively to change anything but "seen".
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_REGISTRY_MEM_H
#define PRESENCE_REGISTRY_MEM_H

#include "postgres.h"

#include "base/clock.h"
#include "base/name.h"
#include "port/atomics.h"
#include "storage/lwlock.h"

#define PRESENCE_REGISTRY_LOCKS 128

#define ENTRY_NAME_SIZE 68

/* Flags of a entry. */
#define ENTRY_USED		0x01	/* heads an entry; else free or a spill */
#define ENTRY_VERIFIED	0x02	/* its rows are known to be committed */
#define ENTRY_EXPIRING		0x04	/* somebody is removing its rows */
#define ENTRY_REVIVED	0x08	/* came back to life in a running transaction */
#define ENTRY_INVALID	0x10	/* what the pins' transactions added may be
								 * gone */

#define ROWS_UNKNOWN PG_INT32_MIN

/* A entry; the first one of an entry has all that is known of the channel. */
typedef struct RegistryEntry
{
	pg_atomic_uint64 seen;		/* PresenceTime; store: shared lock is enough */
	uint32		next;			/* in the chain or free list; 0 ends it */
	uint32		spill;			/* next entry of the name; 0: none */
	uint32		hash;
	Oid			database;
	uint32		generation;		/* counts the owners of this entry */
	uint32		pins;			/* transactions that are adding the channel */
	int32		rows;			/* committed rows as counted, or ROWS_UNKNOWN */
	uint32		changes;		/* transactions that changed the channel */
	uint16		length;			/* of the name, in bytes */
	uint8		flags;
	char		name[ENTRY_NAME_SIZE];
} RegistryEntry;

StaticAssertDecl(sizeof(RegistryEntry) <= 112,
				 "a channel must not cost more than 128 bytes with its bucket");

extern Size presence_registry_mem_shmem_size(void);
extern void presence_registry_mem_shmem_init(void *area, bool found);

extern LWLock *presence_registry_mem_partition(uint32 hash);
extern RegistryEntry *presence_registry_mem_find(const PresenceName *name);
extern RegistryEntry *presence_registry_mem_insert(const PresenceName *name,
												  PresenceTime seen, int rows);
extern void presence_registry_mem_delete(RegistryEntry *entry);
extern void presence_registry_mem_read_name(const RegistryEntry *entry,
											char *target);

/* These need no lock. */
extern RegistryEntry *presence_registry_mem_entry(uint32 index);
extern uint32 presence_registry_mem_index(const RegistryEntry *entry);
extern RegistryEntry *presence_registry_mem_next(Oid database, uint32 *index);
extern void presence_registry_mem_warn_full(const PresenceName *name);

#endif							/* PRESENCE_REGISTRY_MEM_H */
