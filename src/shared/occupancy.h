/*-------------------------------------------------------------------------
 *
 * occupancy.h
 *		How many places of each room with max_members are taken.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_OCCUPANCY_H
#define PRESENCE_OCCUPANCY_H

#include "postgres.h"

#include "base/clock.h"
#include "base/name.h"

/* Number of locks, each for one partition of the rooms. */
#define PRESENCE_OCCUPANCY_LOCKS 64

typedef enum PresenceOccupancyAnswer
{
	PRESENCE_OCCUPANCY_UNKNOWN, /* the room is not counted */
	PRESENCE_OCCUPANCY_FULL,
	PRESENCE_OCCUPANCY_RESERVED
} PresenceOccupancyAnswer;

/* A request for places in a room, and what was found. */
typedef struct PresenceOccupancyRequest
{
	int64		max_members;
	int64		held;			/* places that the transaction has reserved */
	int64		needed;			/* those that it needs in all, from now on */
	int64		counted;		/* members who need one, but have one already */
	int64		expired;		/* members who had expired after "since" */
	uint64		since;			/* value of "left" before that was found out */

	/* Set if the room is full. */
	uint64		left;			/* how many have ever left */
	PresenceTime look_at;		/* when to look for expired members again */
	bool		contested;		/* others have reserved places */
} PresenceOccupancyRequest;

extern Size presence_occupancy_shmem_size(void);
extern void presence_occupancy_shmem_init(void *area, bool found);

/* Places. */
extern PresenceOccupancyAnswer presence_occupancy_reserve(const PresenceName *room,
														  PresenceOccupancyRequest *request);
extern void presence_occupancy_return(const PresenceName *room, int64 places);
extern bool presence_occupancy_in_use(void);
extern void presence_occupancy_settle(const PresenceName *room, int64 joined,
									  int64 left, int64 reserved);
extern void presence_occupancy_put_off(const PresenceName *room, PresenceTime until);

/* Counting; the caller holds the heavyweight lock of the room. */
extern bool presence_occupancy_open(const PresenceName *room, uint64 *settled,
									bool *known);
extern bool presence_occupancy_begin(const PresenceName *room, uint64 settled);
extern bool presence_occupancy_finish(const PresenceName *room, int64 members);
extern int64 presence_occupancy_suspend(const PresenceName *room);

extern void presence_occupancy_forget(Oid database);

#endif							/* PRESENCE_OCCUPANCY_H */
