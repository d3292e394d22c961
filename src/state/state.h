/*-------------------------------------------------------------------------
 *
 * state.h
 *		Short-lived state of rooms, in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_STATE_H
#define PRESENCE_STATE_H

#include "postgres.h"

#include "base/clock.h"
#include "nodes/pg_list.h"
#include "state/state_entry.h"

/* A copy of one value. */
typedef struct PresenceState
{
	char	   *key;
	char	   *value;			/* JSON text; NULL: removed */
	PresenceTime updated;
	PresenceTime expires;
} PresenceState;

/* One pass of the worker over the rooms with changes to announce. */
typedef struct PresenceStateRound
{
	PresenceTime now;
	uint32		rooms;			/* rooms left to look at */
	uint32		entries;		/* entries left to take from the first one */
	bool		lost;			/* changes were dropped without announcement */
	char	   *room;			/* whose states were taken last */
	char	   *buffer;
} PresenceStateRound;

typedef struct PresenceStateUsage
{
	uint64		entries;
	uint64		bytes;			/* of keys and values */
	uint64		evictions;
} PresenceStateUsage;

extern void presence_state_name(PresenceStateName *name, const char *room,
								int room_length, const char *prefix,
								const char *key, int key_length);
extern void presence_state_set(const PresenceStateName *name,
							   const char *value, int length,
							   PresenceTime ttl);
extern bool presence_state_remove(const PresenceStateName *name);
extern List *presence_state_read(const char *room, int room_length,
								 const char *prefix, int prefix_length);
extern bool presence_state_shows_user(const char *room, const char *user);
extern void presence_state_user_left(const char *room, const char *user,
									 PresenceTime when);
extern void presence_state_clear(Oid database);

extern PresenceTime presence_state_next_due(void);
extern PresenceTime presence_state_next_expiry(void);
extern void presence_state_expire(PresenceTime now);
extern PresenceStateRound *presence_state_begin_round(PresenceTime now);
extern bool presence_state_take(PresenceStateRound *round, List **states);
extern void presence_state_end_round(void);

extern bool presence_state_is_empty(Oid database);
extern PresenceStateUsage presence_state_usage(Oid database);
extern void presence_state_reset_evictions(Oid database);

#endif							/* PRESENCE_STATE_H */
