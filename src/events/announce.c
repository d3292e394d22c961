/*-------------------------------------------------------------------------
 *
 * announce.c
 *		Turns hints of committed changes into the events that listeners get.
 *
 * A turn takes hints, has the rooms that they touch on the roster, reads what
 * the tables show (announce_load.c), tells what is news of it (announce_room.c),
 * folds the events of a room where they are many, and adds the statuses that
 * changed with them (announce_status.c).
 *
 * A turn costs what its hints cost, and the rooms that it loads.  Transactions
 * announce with this, too, in their own commit, so every loop over hints, rows
 * or events can be interrupted.
 *
 * Roster, backlog and turn are the announcer's own memory: no locks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/guc.h"
#include "events/announce.h"
#include "events/announce_turn.h"
#include "miscadmin.h"
#include "shared/liveness.h"

/* Find the rooms and presences of this turn. */
static void
sort_hints(PresenceTurn *turn, PresenceWaiting *const *now, int nhints)
{
	for (int i = 0; i < nhints; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (now[i]->subject == NULL)
			continue;
		(void) presence_turn_room(turn, presence_hint_text(now[i]->hint, PRESENCE_FIELD_ROOM));
		presence_turn_touch(turn, now[i]->subject);
	}
}

/* Whether an event is a broadcast. */
static bool
is_broadcast(const PresenceEvent *event)
{
	return event->kind == PRESENCE_EVENT_BROADCAST;
}

/*
 * Fold the changes of a room into one event where they are many; broadcasts
 * follow it.
 */
static List *
fold_events(PresenceTurnRoom *room)
{
	PresenceEvent *bulk;
	List	   *changes = NIL;
	List	   *broadcasts = NIL;
	ListCell   *lc;

	foreach(lc, room->events)
	{
		CHECK_FOR_INTERRUPTS();
		if (is_broadcast(lfirst(lc)))
			broadcasts = lappend(broadcasts, lfirst(lc));
		else
			changes = lappend(changes, lfirst(lc));
	}
	if (list_length(changes) <= presence_bulk_threshold)
		return room->events;
	bulk = palloc0(sizeof(PresenceEvent));
	bulk->kind = PRESENCE_EVENT_BULK;
	bulk->room = room->name;
	bulk->counts = presence_roster_counts(room->room);
	bulk->folded = changes;
	return list_concat(list_make1(bulk), broadcasts);
}

/*
 * Have rooms read again of which transactions have told themselves: what they
 * told may have overtaken what was still to be told here.  The roster forgets
 * them, too.  Not all of the transactions' hints find the queue open: it may
 * hold a join and miss the leave that came after it.
 */
static List *
resync_self_announced(PresenceTurn *turn)
{
	List	   *events = NIL;
	turnrooms_iterator iterator;
	PresenceTurnRoom *room;

	turnrooms_start_iterate(turn->rooms, &iterator);
	while ((room = turnrooms_iterate(turn->rooms, &iterator)))
	{
		PresenceEvent *event;

		CHECK_FOR_INTERRUPTS();
		if (!room->self_announced)
			continue;
		event = palloc0(sizeof(PresenceEvent));
		event->kind = PRESENCE_EVENT_RESYNC;
		event->room = room->name;
		events = lappend(events, event);
		presence_roster_forget(turn->roster, room->room);
	}
	return events;
}

/* Mark who left and is in the room again when the turn is over. */
static void
note_returns(PresenceTurn *turn)
{
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, turn->order)
	{
		PresenceTurnRoom *room = turnrooms_lookup(turn->rooms, lfirst(lc));

		foreach(lc2, room->events)
		{
			PresenceEvent *event = lfirst(lc2);

			CHECK_FOR_INTERRUPTS();
			if (event->user_left)
				event->user_back = presence_roster_has_user(room->room,
															presence_event_leaver(event));
		}
	}
}

/* The events of all rooms, room by room, as the rooms came up. */
static List *
collect_events(PresenceTurn *turn)
{
	List	   *events = NIL;
	ListCell   *lc;

	foreach(lc, turn->order)
	{
		const char *name = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		events = list_concat(events, fold_events(turnrooms_lookup(turn->rooms, name)));
	}
	return events;
}

/*
 * Cover what waits of a presence for later turns but has been told: its updates,
 * where an event has shown it as it is now, and all once it has gone.
 */
static void
cover_announced(PresenceTurn *turn, PresenceSubject *subject)
{
	bool		over = subject->turn.over;
	bool		updated = subject->turn.updated;
	int			rest = subject->nhints;
	dlist_mutable_iter iter;

	memset(&subject->turn, 0, sizeof(subject->turn));
	if (!over && !updated)
		return;
	dlist_foreach_modify(iter, &subject->hints)
	{
		PresenceWaiting *waiting = dlist_container(PresenceWaiting, link, iter.cur);
		bool		update = waiting->hint->kind == PRESENCE_HINT_UPDATE;

		CHECK_FOR_INTERRUPTS();
		if (!waiting->now && (over || update))
		{
			if (over && update)
				presence_turn_see_user(turn, waiting->hint);
			presence_backlog_cover(turn->backlog, waiting);
		}
		if (--rest == 0)
			break;				/* the subject may be gone */
	}
}

/* Bring what waits up to date with what this turn has told. */
static void
end_turn(PresenceTurn *turn, PresenceWaiting *const *now, int nhints)
{
	ListCell   *lc;

	foreach(lc, turn->subjects)
	{
		CHECK_FOR_INTERRUPTS();
		cover_announced(turn, lfirst(lc));
	}
	presence_backlog_end_turn(turn->backlog, now, nhints);
}

/*
 * Make the events that hints call for, and bring roster and backlog up to date.
 * All of the backlog that the snapshot shows is known; the hints are those of
 * it to tell in this turn.  "gone" gets the users who went offline, as
 * PresenceLastSeen.  Needs SPI.  Everything lives in the current memory context.
 */
static List *
announce(PresenceRoster *roster, PresenceBacklog *backlog,
		 PresenceWaiting *const *now, int nhints, Snapshot snapshot,
		 PresenceTime cutoff, List **gone)
{
	PresenceTurn turn = {roster, backlog, snapshot, cutoff};
	List	   *events;

	turn.rooms = turnrooms_create(CurrentMemoryContext, 64, NULL);
	turn.users = turnusers_create(CurrentMemoryContext, 64, NULL);
	*gone = NIL;
	sort_hints(&turn, now, nhints);
	presence_turn_load_rooms(&turn);
	presence_turn_look_up_rows(&turn, now, nhints);
	presence_turn_note_gone(&turn);
	presence_turn_announce_hints(&turn, now, nhints);
	end_turn(&turn, now, nhints);
	note_returns(&turn);
	events = collect_events(&turn);
	events = list_concat(events, resync_self_announced(&turn));
	return list_concat(events, presence_turn_collect_statuses(&turn, gone));
}

/* Make them for the worker, whose roster stays. */
List *
presence_announce(PresenceRoster *roster, PresenceBacklog *backlog,
				  PresenceWaiting *const *now, int nhints, Snapshot snapshot,
				  List **gone)
{
	return announce(roster, backlog, now, nhints, snapshot, 0, gone);
}

/*
 * The same for all hints of the running transaction, which announces itself
 * and keeps nothing.
 */
List *
presence_announce_alone(PresenceHint *const *hints, int nhints, Snapshot snapshot)
{
	PresenceBacklog *backlog = presence_backlog_create(CurrentMemoryContext);
	PresenceWaiting **now;
	Size		bytes;
	List	   *gone;
	int			ntaken;

	presence_backlog_append_known(backlog, hints, nhints);
	now = presence_backlog_take(backlog, SIZE_MAX, &ntaken, &bytes);
	return announce(presence_roster_create(CurrentMemoryContext), backlog, now,
					ntaken, snapshot,
					presence_liveness_cutoff(presence_clock_now(),
											 presence_liveness_max_age()),
					&gone);
}
