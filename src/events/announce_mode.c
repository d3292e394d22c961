/*-------------------------------------------------------------------------
 *
 * announce_mode.c
 *		Folds the events of rooms whose changes are not announced one by one.
 *
 * A room may be announced by its counts, at most once per
 * presence.counts_interval, or not at all: because its row says so, or, if
 * that says nothing, because it has more than presence.announce_max
 * connections.  Its events are made as those of any room, because statuses,
 * short-lived state and the roster depend on them, but they are not sent.
 *
 * How a room is announced is read with its members, and again if a hint says
 * that it has changed, or if the row said something before.  So rooms on the
 * roster that say nothing cost nothing.  The roster remembers how a room was
 * announced last; whenever that is different at the end of a turn, a resync
 * stands for its changes in this turn, and says how it is announced from now
 * on.
 *
 * A worker that has just loaded a room cannot know whether an earlier one had
 * it above presence.announce_max: unless the room is well below, it sends such
 * a resync as well.
 *
 * A transaction that announces its own changes does not know when counts were
 * announced last, and neither announces counts nor has presence.announce_max.
 *
 * No locks: the caller has locked the tables before it took the snapshot.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/guc.h"
#include "events/announce_turn.h"
#include "miscadmin.h"
#include "tables/store_rooms.h"

/* Number of connections below which a room is announced as before; percent. */
#define LOW_WATER 80

/* Whether a room has fewer connections than make a difference. */
static bool
is_small(PresenceRosterCounts counts)
{
	return counts.connections * 100 < (int64) presence_announce_max * LOW_WATER;
}

/* How a room is to be announced that says so, and was announced like that. */
static PresenceAnnounce
decide(const PresenceTurn *turn, PresenceAnnounce own, PresenceAnnounce before,
	   PresenceRosterCounts counts)
{
	if (own != PRESENCE_ANNOUNCE_DEFAULT)
		return own;
	if (!turn->worker || presence_announce_max == 0 || is_small(counts))
		return PRESENCE_ANNOUNCE_ALL;
	if (before == PRESENCE_ANNOUNCE_COUNTS ||
		counts.connections > presence_announce_max)
		return PRESENCE_ANNOUNCE_COUNTS;
	return PRESENCE_ANNOUNCE_ALL;
}

/* Keep a room's place in the order of events. */
static void
put_in_order(PresenceTurn *turn, PresenceTurnRoom *room)
{
	if (!room->ordered)
		turn->order = lappend(turn->order, unconstify(char *, room->name));
	room->ordered = true;
}

/* Note that what a room says about how it is announced has changed. */
void
presence_turn_note_announce(PresenceTurn *turn, const PresenceHint *hint)
{
	PresenceTurnRoom *room = presence_turn_room(turn, presence_hint_text(hint,
																		 PRESENCE_FIELD_ROOM));

	put_in_order(turn, room);
	if (room->says)
		return;
	room->says = true;
	room->said = presence_store_parse_announce(presence_hint_text(hint,
																  PRESENCE_FIELD_PREVIOUS));
}

/* Add the rooms whose counts are due to the turn. */
void
presence_turn_add_owed(PresenceTurn *turn)
{
	ListCell   *lc;

	foreach(lc, presence_roster_take_owed(turn->roster, presence_clock_now()))
	{
		PresenceTurnRoom *room = presence_turn_room(turn, lfirst(lc));

		CHECK_FOR_INTERRUPTS();
		room->owed = true;
		put_in_order(turn, room);
	}
}

/* Read how a room says that it is announced, if that may have changed. */
static void
read_announce(const PresenceTurn *turn, PresenceReader *rooms, PresenceTurnRoom *room)
{
	PresenceRosterAnnounce *announce = presence_roster_announce(room->room);
	PresenceRosterCounts counts = presence_roster_counts(room->room);

	if (!room->loaded && !room->says && announce->own == PRESENCE_ANNOUNCE_DEFAULT)
		return;
	if (rooms->relation == NULL)
		*rooms = presence_store_rooms_open();
	announce->own = presence_store_rooms_announce(rooms, room->name);
	if (!room->loaded)
		return;
	announce->now = decide(turn, announce->own, PRESENCE_ANNOUNCE_ALL, counts);
	room->unsure = announce->own == PRESENCE_ANNOUNCE_DEFAULT && turn->worker &&
		presence_announce_max > 0 && !is_small(counts);
}

/* Read how the rooms of a turn say that they are announced. */
void
presence_turn_read_announce(PresenceTurn *turn)
{
	PresenceReader rooms = {0};
	turnrooms_iterator iterator;
	PresenceTurnRoom *room;

	turnrooms_start_iterate(turn->rooms, &iterator);
	while ((room = turnrooms_iterate(turn->rooms, &iterator)))
	{
		CHECK_FOR_INTERRUPTS();
		read_announce(turn, &rooms, room);
	}
	if (rooms.relation)
		presence_scan_close(&rooms);
}

/* An event of a room that stands for others. */
static PresenceEvent *
make_event(const PresenceTurnRoom *room, PresenceEventKind kind, List *folded)
{
	PresenceEvent *event = palloc0(sizeof(PresenceEvent));

	event->kind = kind;
	event->room = room->name;
	event->folded = folded;
	if (room->room)
		event->counts = presence_roster_counts(room->room);
	return event;
}

/* Separate the events of a room that are broadcasts from its changes. */
static List *
take_broadcasts(PresenceTurnRoom *room)
{
	List	   *broadcasts = NIL;
	List	   *changes = NIL;
	ListCell   *lc;

	foreach(lc, room->events)
	{
		PresenceEvent *event = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (event->kind == PRESENCE_EVENT_BROADCAST)
			broadcasts = lappend(broadcasts, event);
		else
			changes = lappend(changes, event);
	}
	room->events = changes;
	return broadcasts;
}

/*
 * Whether a room's counts have to be announced: also if they are what they
 * were, for somebody may have read the room in between.
 */
static bool
has_new_counts(const PresenceTurnRoom *room)
{
	ListCell   *lc;

	if (room->owed || room->self_announced)
		return true;
	foreach(lc, room->events)
	{
		const PresenceEvent *event = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (event->kind != PRESENCE_EVENT_UPDATE || event->user_changed)
			return true;
	}
	return false;
}

/*
 * Whether to announce counts in this turn; if not, but later, that is noted.
 * The counts of a room that transactions have announced as well may be wrong:
 * it is about to leave the roster, and will be read again.
 */
static bool
announces_counts(PresenceTurn *turn, const PresenceTurnRoom *room)
{
	if (!turn->worker || !has_new_counts(room))
		return false;
	if (!room->self_announced &&
		presence_roster_tell(turn->roster, room->name, presence_clock_now()))
		return true;
	presence_roster_owe(turn->roster, room->name);
	return false;
}

/* How the room was announced until now, or would have been by what it said. */
static bool
has_switched(const PresenceTurn *turn, const PresenceTurnRoom *room,
			 PresenceAnnounce before, PresenceAnnounce now)
{
	return before != now || room->unsure ||
		(room->says && now != decide(turn, room->said, PRESENCE_ANNOUNCE_ALL,
									 presence_roster_counts(room->room)));
}

/* The events of a room whose changes are announced, or many of them as one. */
static List *
fold_many(PresenceTurnRoom *room)
{
	List	   *all = room->events;
	List	   *broadcasts = take_broadcasts(room);

	if (list_length(room->events) <= presence_bulk_threshold)
		return all;
	return list_concat(list_make1(make_event(room, PRESENCE_EVENT_BULK, room->events)),
					   broadcasts);
}

/*
 * The events of a room to send.  Broadcasts are sent in any case, and follow
 * an event that stands for changes.
 */
List *
presence_turn_fold(PresenceTurn *turn, PresenceTurnRoom *room)
{
	PresenceRosterAnnounce *announce = room->room ? presence_roster_announce(room->room) : NULL;
	PresenceAnnounce before = announce ? announce->now : PRESENCE_ANNOUNCE_ALL;
	List	   *events = NIL;
	List	   *broadcasts;

	if (announce)
		announce->now = decide(turn, announce->own, before, presence_roster_counts(room->room));
	room->switched = announce && has_switched(turn, room, before, announce->now);
	if (!room->switched && before == PRESENCE_ANNOUNCE_ALL)
		return fold_many(room);
	broadcasts = take_broadcasts(room);
	if (room->events != NIL)
		events = list_make1(make_event(room, PRESENCE_EVENT_QUIET, room->events));
	if (room->switched)
	{
		PresenceEvent *resync = make_event(room, PRESENCE_EVENT_RESYNC, NIL);

		resync->announce = announce->now;
		events = lappend(events, resync);
	}
	else if (before == PRESENCE_ANNOUNCE_COUNTS && announces_counts(turn, room))
		events = lappend(events, make_event(room, PRESENCE_EVENT_COUNTS, NIL));
	return list_concat(events, broadcasts);
}
