/*-------------------------------------------------------------------------
 *
 * state_entry.h
 *		Life cycle of rooms and their short-lived entries.
 *
 * Callers hold the lock, except of the functions that take and release it, and
 * of presence_state_entry_database(), whose result may be stale without it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_STATE_ENTRY_H
#define PRESENCE_STATE_ENTRY_H

#include "postgres.h"

#include "base/clock.h"
#include "base/name.h"
#include "port/atomics.h"
#include "state/state_mem.h"
#include "storage/lwlock.h"

/* Prefixes of the keys of cursors and of typing indicators. */
#define PRESENCE_CURSOR_PREFIX "cursor:"
#define PRESENCE_TYPING_PREFIX "typing:"

/* A key is a name, with or without a prefix. */
#define PRESENCE_MAX_KEY_BYTES \
	(PRESENCE_MAX_NAME_BYTES + (int) sizeof(PRESENCE_CURSOR_PREFIX) - 1)

/* Maximum length of a value as JSON text, and of presence.max_state_size. */
#define PRESENCE_MAX_STATE_BYTES 7000

#define PRESENCE_STATE_NEVER PG_INT64_MAX

/* A key in a room of this process's database. */
typedef struct PresenceStateName
{
	PresenceName room;
	uint32		hash;			/* of the key within the room */
	int			key_length;		/* bytes */
	char		key[PRESENCE_MAX_KEY_BYTES];
} PresenceStateName;

/* The state of one database. */
typedef struct PresenceStateDatabase
{
	Oid			oid;			/* InvalidOid: record is free */
	uint32		rooms;
	uint32		held;			/* cells of live entries and their rooms */
	uint32		spare;			/* cells of tombstones and vacant rooms */
	uint32		live;			/* oldest live entry; 0: none */
	uint32		tombstones;		/* oldest tombstone; 0: none */
	uint32		vacant;			/* oldest vacant room; 0: none */
	uint32		dirty;			/* first dirty room; 0: none */
	uint32		ndirty;			/* number of dirty rooms */
	bool		lost;			/* changes were dropped without announcement */
	bool		in_flight;		/* a worker is announcing what it took */
	uint64		entries;		/* number of live entries */
	uint64		bytes;			/* of live keys and values */
	uint64		evictions;
	pg_atomic_uint64 next_due;	/* no room is to be announced before */
	pg_atomic_uint64 next_expiry;	/* nothing expires before */
} PresenceStateDatabase;

/* A copy of an entry: its key, followed by its value. */
typedef struct PresenceStateCopy
{
	PresenceTime updated;
	PresenceTime expires;
	uint16		key_length;
	uint16		value_length;
	bool		gone;			/* it is a tombstone */
	char		data[FLEXIBLE_ARRAY_MEMBER];
} PresenceStateCopy;

#define PRESENCE_STATE_COPY_SIZE(bytes) \
	MAXALIGN(offsetof(PresenceStateCopy, data) + (bytes))
#define PRESENCE_STATE_MAX_COPY \
	PRESENCE_STATE_COPY_SIZE(PRESENCE_MAX_KEY_BYTES + PRESENCE_MAX_STATE_BYTES)

extern Size presence_state_entry_shmem_size(void);
extern void presence_state_entry_shmem_init(void *area, bool found);

extern void presence_state_entry_lock(LWLockMode mode);
extern PresenceTime presence_state_entry_now(void);
extern void presence_state_entry_wake_nobody(void);
extern void presence_state_entry_unlock(void);

extern PresenceStateDatabase *presence_state_entry_database(Oid oid);
extern PresenceStateDatabase *presence_state_entry_my_database(void);
extern void presence_state_entry_init_database(PresenceStateDatabase *database, Oid oid);
extern void presence_state_entry_lower(PresenceStateDatabase *database,
									   pg_atomic_uint64 *next, PresenceTime time);

extern uint32 presence_state_entry_find_room(const PresenceName *name);
extern uint32 presence_state_entry_find(uint32 room, const PresenceStateName *name);
extern uint64 presence_state_entry_serial(void);
extern PresenceTime presence_state_entry_interval(void);
extern Size presence_state_entry_copy(PresenceNode *entry, char *target);

extern bool presence_state_entry_reserve(PresenceStateDatabase *database,
										 uint32 wanted);
extern void presence_state_entry_set(PresenceStateDatabase *database,
									 const PresenceStateName *name,
									 const char *value, int length,
									 PresenceTime expires);
extern void presence_state_entry_make_tombstone(uint32 index);
extern bool presence_state_entry_drop(uint32 index);
extern void presence_state_entry_clean(uint32 index);
extern void presence_state_entry_clean_room(uint32 index);
extern void presence_state_entry_drop_room(uint32 index);

#endif							/* PRESENCE_STATE_ENTRY_H */
