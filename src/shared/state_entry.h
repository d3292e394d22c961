/*-------------------------------------------------------------------------
 *
 * state_entry.h
 *		Rooms and their short-lived entries, from set to gone.
 *
 * Whoever calls a function that is not about the lock holds it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_STATE_ENTRY_H
#define PRESENCE_STATE_ENTRY_H

#include "postgres.h"

#include "base/clock.h"
#include "base/name.h"
#include "port/atomics.h"
#include "shared/state_mem.h"
#include "storage/lwlock.h"

/* What the keys of cursors and of those who type begin with. */
#define PRESENCE_CURSOR_PREFIX "cursor:"
#define PRESENCE_TYPING_PREFIX "typing:"

/* A key is a name with a prefix or without. */
#define PRESENCE_MAX_KEY_BYTES \
	(PRESENCE_MAX_NAME_BYTES + (int) sizeof(PRESENCE_CURSOR_PREFIX) - 1)

/* Of a value as JSON text: the most that presence.max_state_size allows. */
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

/* What is known of one database. */
typedef struct PresenceStateDatabase
{
	Oid			oid;			/* InvalidOid: record is free */
	uint32		rooms;
	uint32		held;			/* cells of live entries and their rooms */
	uint32		spare;			/* cells of tombstones and vacant rooms */
	uint32		live;			/* the oldest of each; 0: none */
	uint32		tombstones;
	uint32		vacant;
	uint32		dirty;			/* first dirty room; 0: none */
	uint32		ndirty;
	bool		lost;			/* changes were forgotten untold */
	bool		in_flight;		/* a worker is telling what it took */
	uint64		entries;		/* live */
	uint64		bytes;			/* of live keys and values */
	uint64		evictions;
	pg_atomic_uint64 next_due;	/* no room is to be announced before */
	pg_atomic_uint64 next_expiry;	/* nothing expires before */
} PresenceStateDatabase;

/* A copy of an entry: its key and its value behind each other. */
typedef struct PresenceStateCopy
{
	PresenceTime updated;
	PresenceTime expires;
	uint16		key_length;
	uint16		value_length;
	bool		gone;
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
								 pg_atomic_uint64 * next, PresenceTime time);

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
