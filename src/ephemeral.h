/*-------------------------------------------------------------------------
 *
 * ephemeral.h
 *		Short-lived values of rooms, in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_EPHEMERAL_H
#define PRESENCE_EPHEMERAL_H

#include "postgres.h"

#include "clock.h"
#include "entry.h"
#include "nodes/pg_list.h"

/* A copy of one value. */
typedef struct PresenceState
{
	char	   *key;
	char	   *value;			/* JSON text; NULL: gone */
	PresenceTime updated;
	PresenceTime expires;
} PresenceState;

/* One walk of the worker through the rooms with changes to tell. */
typedef struct PresenceStateRound
{
	PresenceTime now;
	uint32		rooms;			/* still to look at */
	uint32		entries;		/* still to take of the first of them */
	bool		lost;			/* changes were forgotten untold */
	char	   *room;			/* whose states were taken last */
	char	   *buffer;
} PresenceStateRound;

typedef struct PresenceStateUsage
{
	uint64		entries;
	uint64		bytes;			/* of keys and values */
	uint64		evictions;
} PresenceStateUsage;

extern void presence_ephemeral_name(PresenceStateName *name, const char *room,
									int room_length, const char *prefix,
									const char *key, int key_length);
extern void presence_ephemeral_set(const PresenceStateName *name,
								   const char *value, int length,
								   PresenceTime ttl);
extern bool presence_ephemeral_remove(const PresenceStateName *name);
extern List *presence_ephemeral_read(const char *room, int room_length,
									 const char *prefix, int prefix_length);
extern bool presence_ephemeral_shows_user(const char *room, const char *user);
extern void presence_ephemeral_user_left(const char *room, const char *user,
										 PresenceTime when);
extern void presence_ephemeral_clear(Oid database);

extern PresenceTime presence_ephemeral_next_due(void);
extern PresenceTime presence_ephemeral_next_expiry(void);
extern void presence_ephemeral_expire(PresenceTime now);
extern PresenceStateRound *presence_ephemeral_begin_round(PresenceTime now);
extern bool presence_ephemeral_take(PresenceStateRound *round, List **states);
extern void presence_ephemeral_end_round(void);

extern bool presence_ephemeral_is_empty(Oid database);
extern PresenceStateUsage presence_ephemeral_usage(Oid database);
extern void presence_ephemeral_reset_evictions(Oid database);

#endif							/* PRESENCE_EPHEMERAL_H */
