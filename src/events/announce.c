/*-------------------------------------------------------------------------
 *
 * announce.c
 *		Turns hints of committed changes into events for listeners.
 *
 * A turn takes hints, loads the rooms they concern into the roster and looks
 * up the presences (announce_load.c), makes events of what has not been
 * announced yet (announce_room.c), collapses the events of a room if there are
 * many or if it is not announced by each change (announce_mode.c), and adds the
 * statuses that changed with them (announce_status.c).
 *
 * The cost of a turn depends on its hints and on the rooms that it loads, not
 * on what else is pending.  Transactions that announce their own changes run
 * this in their commit, so every loop over hints, rows or events checks for
 * interrupts.
 *
 * Roster, backlog and turn are private memory of the announcing process: no
 * locks.  The caller has locked the tables before it took the snapshot.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "events/announce.h"
#include "events/announce_turn.h"
#include "miscadmin.h"
#include "shared/liveness.h"

/* Collect the rooms and presences of this turn. */
static void
sort_hints(PresenceTurn *turn, PresenceWaiting *const *now, int nhints)
{
	for (int i = 0; i < nhints; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (now[i]->hint->kind == PRESENCE_HINT_ANNOUNCE)
			presence_turn_note_announce(turn, now[i]->hint);
		if (now[i]->subject == NULL)
			continue;
		(void) presence_turn_room(turn, presence_hint_text(now[i]->hint, PRESENCE_FIELD_ROOM));
		presence_turn_touch(turn, now[i]->subject);
	}
}

/*
 * Resync the rooms announced by transactions themselves as well: what they
 * announced may have overtaken what was still pending here.  The roster
 * forgets these rooms, because it may be wrong about them: the hints of such
 * transactions reach the queue only if it is open, so a join may have come
 * without its leave.  Of rooms whose changes are not announced these
 * transactions have announced nothing either.
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
		if (presence_roster_announce(room->room)->now == PRESENCE_ANNOUNCE_ALL)
		{
			event = palloc0(sizeof(PresenceEvent));
			event->kind = PRESENCE_EVENT_RESYNC;
			event->room = room->name;
			events = lappend(events, event);
		}
		presence_roster_forget(turn->roster, room->room);
	}
	return events;
}

/* Mark the leaves of users who are back in the room at the end of the turn. */
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

/* The events of all rooms, room by room, in the order of their first event. */
static List *
collect_events(PresenceTurn *turn)
{
	List	   *events = NIL;
	ListCell   *lc;

	foreach(lc, turn->order)
	{
		const char *name = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		events = list_concat(events,
							 presence_turn_fold(turn, turnrooms_lookup(turn->rooms, name)));
	}
	return events;
}

/*
 * Cover the pending hints of a presence that this turn has announced along
 * with others: its updates, if an event has shown the current row, and all
 * hints if it has left.
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
			break;				/* the subject may have been freed */
	}
}

/* Bring the backlog up to date with what this turn has announced. */
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
 * Make events of hints, and bring roster and backlog up to date.  All hints of
 * transactions that the snapshot shows must be known to the backlog; "now" are
 * those of them to announce in this turn.  "gone" gets the users who went
 * offline, as PresenceLastSeen.  SPI must be connected.  Everything is
 * allocated in the current memory context.
 */
static List *
announce(PresenceRoster *roster, PresenceBacklog *backlog,
		 PresenceWaiting *const *now, int nhints, Snapshot snapshot,
		 const PresenceCutoff *cutoff, bool worker, List **gone)
{
	PresenceTurn turn = {roster, backlog, snapshot, *cutoff, worker};
	List	   *events;

	turn.rooms = turnrooms_create(CurrentMemoryContext, 64, NULL);
	turn.users = turnusers_create(CurrentMemoryContext, 64, NULL);
	*gone = NIL;
	sort_hints(&turn, now, nhints);
	presence_turn_add_owed(&turn);
	presence_turn_load_rooms(&turn);
	presence_turn_read_announce(&turn);
	presence_turn_look_up_rows(&turn, now, nhints);
	presence_turn_note_gone(&turn);
	presence_turn_announce_hints(&turn, now, nhints);
	end_turn(&turn, now, nhints);
	note_returns(&turn);
	events = collect_events(&turn);
	events = list_concat(events, resync_self_announced(&turn));
	return list_concat(events, presence_turn_collect_statuses(&turn, gone));
}

/* Make events for the worker, which keeps its roster. */
List *
presence_announce(PresenceRoster *roster, PresenceBacklog *backlog,
				  PresenceWaiting *const *now, int nhints, Snapshot snapshot,
				  List **gone)
{
	PresenceCutoff nobody = {0};

	return announce(roster, backlog, now, nhints, snapshot, &nobody, true, gone);
}

/*
 * Make events of all hints of the running transaction, which announces them
 * itself, with a temporary roster.
 */
List *
presence_announce_alone(PresenceHint *const *hints, int nhints, Snapshot snapshot)
{
	PresenceBacklog *backlog = presence_backlog_create(CurrentMemoryContext);
	PresenceCutoff cutoff = presence_liveness_cutoff();
	PresenceWaiting **now;
	Size		bytes;
	List	   *gone;
	int			ntaken;

	presence_backlog_append_known(backlog, hints, nhints);
	now = presence_backlog_take(backlog, SIZE_MAX, &ntaken, &bytes);
	return announce(presence_roster_create(CurrentMemoryContext), backlog, now,
					ntaken, snapshot, &cutoff, false, &gone);
}
