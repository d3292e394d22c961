/*-------------------------------------------------------------------------
 *
 * announce.h
 *		From hints to events.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_ANNOUNCE_H
#define PRESENCE_ANNOUNCE_H

#include "postgres.h"

#include "backlog.h"
#include "hint.h"
#include "nodes/pg_list.h"
#include "roster.h"
#include "store_people.h"
#include "store_presences.h"
#include "utils/snapshot.h"

typedef enum PresenceEventKind
{
	PRESENCE_EVENT_JOIN,
	PRESENCE_EVENT_LEAVE,
	PRESENCE_EVENT_UPDATE,
	PRESENCE_EVENT_BULK,
	PRESENCE_EVENT_RESYNC,
	PRESENCE_EVENT_STATUS,
	PRESENCE_EVENT_BROADCAST
} PresenceEventKind;

/* One thing to tell listeners. */
typedef struct PresenceEvent
{
	PresenceEventKind kind;
	const char *room;			/* NULL: all rooms */
	PresenceRow *row;			/* who joined, left or changed */
	PresenceReason reason;
	bool		user_changed;
	const char *previous_user;	/* where user_changed; NULL: anonymous */
	bool		user_joined;
	bool		user_left;
	bool		user_back;		/* who left has come back in the same turn */
	PresenceTime left_at;		/* where user_left: when that was noted */
	bool		undone;			/* a join whose leave follows in the same turn */
	PresenceRosterCounts counts;
	List	   *folded;			/* the events that a bulk stands for */
	const char *payload;		/* of a broadcast */
	const PresencePerson *person;	/* of a status */
} PresenceEvent;

extern const char *presence_event_leaver(const PresenceEvent *event);
extern List *presence_announce(PresenceRoster *roster, PresenceBacklog *backlog,
							   PresenceWaiting *const *now, int nhints,
							   Snapshot snapshot, List **gone);
extern List *presence_announce_alone(PresenceHint *const *hints, int nhints,
									 Snapshot snapshot);

#endif							/* PRESENCE_ANNOUNCE_H */
