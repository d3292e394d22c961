/*-------------------------------------------------------------------------
 *
 * event.h
 *		What listeners are told, before it is written as a payload.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_EVENT_H
#define PRESENCE_EVENT_H

#include "postgres.h"

#include "base/hint.h"
#include "events/roster.h"
#include "nodes/pg_list.h"
#include "tables/store_people.h"
#include "tables/store_presences.h"

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

/* The user whose last connection in the room an event takes away. */
static inline const char *
presence_event_leaver(const PresenceEvent *event)
{
	return event->user_changed ? event->previous_user : event->row->user;
}

#endif							/* PRESENCE_EVENT_H */
