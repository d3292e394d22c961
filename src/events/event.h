/*-------------------------------------------------------------------------
 *
 * event.h
 *		One event for listeners, before it is written as a payload.
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
#include "tables/store_rooms.h"

typedef enum PresenceEventKind
{
	PRESENCE_EVENT_JOIN,
	PRESENCE_EVENT_LEAVE,
	PRESENCE_EVENT_UPDATE,
	PRESENCE_EVENT_BULK,
	PRESENCE_EVENT_RESYNC,
	PRESENCE_EVENT_COUNTS,
	PRESENCE_EVENT_QUIET,		/* stands for events that are not sent */
	PRESENCE_EVENT_STATUS,
	PRESENCE_EVENT_BROADCAST
} PresenceEventKind;

/* An event. */
typedef struct PresenceEvent
{
	PresenceEventKind kind;
	const char *room;			/* NULL: all rooms */
	PresenceRow *row;			/* the presence that joined, left or changed */
	PresenceReason reason;
	bool		user_changed;
	const char *previous_user;	/* if user_changed; NULL: anonymous */
	bool		user_joined;
	bool		user_left;
	bool		user_back;		/* the user that left is back within the turn */
	PresenceTime left_at;		/* if user_left: when that was noted */
	bool		undone;			/* a join with its leave in the same turn */
	PresenceRosterCounts counts;
	List	   *folded;			/* the events that this one stands for */
	PresenceAnnounce announce;	/* of a resync: of the room from now on */
	const char *payload;		/* of a broadcast */
	const PresencePerson *person;	/* of a status */
} PresenceEvent;

/* The user who left with an event that has user_left. */
static inline const char *
presence_event_leaver(const PresenceEvent *event)
{
	return event->user_changed ? event->previous_user : event->row->user;
}

#endif							/* PRESENCE_EVENT_H */
