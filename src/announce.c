/*-------------------------------------------------------------------------
 *
 * announce.c
 *		Turns hints of committed changes into the events that listeners get.
 *
 * The roster holds what listeners have been told, the table holds what is,
 * and the hints say where to look.  Hints may come in another order than the
 * transactions committed, and more than one may speak of the same presence,
 * so a hint is not believed: a join is told when the table shows the presence
 * and the roster does not, a leave when the roster shows it, an update when
 * both do.  All the rest has been told or no longer matters; but a presence
 * that came and went in two transactions between two turns is told to have
 * joined and left: who read the room in between has seen it.
 *
 * A room that is not on the roster is loaded from the table, in a snapshot
 * for which the hints are complete: whatever the snapshot shows as committed
 * has been told before, or is among the hints to announce, or among those
 * that wait for a later turn ("later").  Undoing the hints of both kinds
 * leaves what had been told when they came.  A hint of which the news has been
 * told along with another one is marked as covered, and is undone no more.
 *
 * Whether a user is online anywhere is counted in the table, less what is to
 * be told later; the events of this turn tell what it was before.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "announce.h"
#include "catalog/pg_type.h"
#include "clock.h"
#include "common/hashfn.h"
#include "guc.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

static inline uint32
hash_string(const char *string)
{
	return hash_bytes((const unsigned char *) string, strlen(string));
}

/* What happens to one room. */
typedef struct TurnRoom
{
	const char *name;			/* key */
	char		status;			/* for simplehash */
	List	   *hints;			/* of this room, to announce or later */
	PresenceRosterRoom *room;	/* NULL: not on the roster yet */
	bool		doubtful;		/* others have told of it, too */
	List	   *events;
} TurnRoom;

#define SH_PREFIX turnrooms
#define SH_ELEMENT_TYPE TurnRoom
#define SH_KEY_TYPE const char *
#define SH_KEY name
#define SH_HASH_KEY(tb, key) hash_string(key)
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/*
 * Which presence is meant.  The id alone does not say it: plain SQL may rename
 * the channel or the room of a row, which then leaves and joins.
 */
typedef struct TurnKey
{
	int64		id;
	const char *room;
	const char *channel;
} TurnKey;

static inline uint32
hash_key(TurnKey key)
{
	return hash_combine(murmurhash32((uint32) key.id ^ (uint32) (key.id >> 32)),
						hash_string(key.channel));
}

static inline bool
same_key(TurnKey a, TurnKey b)
{
	return a.id == b.id && strcmp(a.channel, b.channel) == 0 &&
		strcmp(a.room, b.room) == 0;
}

/* What is known of one presence. */
typedef struct TurnPresence
{
	TurnKey		key;
	char		status;			/* for simplehash */
	int			change;			/* hints that it joined less hints that it
								 * left */
	bool		updated;		/* told in this turn, as the row is now */
	bool		counted;		/* among what is told later */
	const PresenceHint *join;	/* the hint that says that it joined, or NULL */
	PresenceHint *leave;		/* the hint that says that it left, or NULL */
	bool		leaves_later;	/* "leave" is for a later turn */
	bool		gone;			/* "row" is what "leave" says */
	bool		brief;			/* came and went between two turns */
	struct PresenceEvent *told; /* its join in this turn, or NULL */
	PresenceRow *row;			/* as the table shows it, or NULL */
} TurnPresence;

#define SH_PREFIX turnpresences
#define SH_ELEMENT_TYPE TurnPresence
#define SH_KEY_TYPE TurnKey
#define SH_KEY key
#define SH_HASH_KEY(tb, key) hash_key(key)
#define SH_EQUAL(tb, a, b) same_key(a, b)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* What happens to one user. */
typedef struct TurnUser
{
	const char *name;			/* key */
	char		status;			/* for simplehash */
	int64		change;			/* connections announced as come less gone */
	int64		later;			/* connections that come less go later on */
	bool		chose;			/* the chosen status or message changed */
	const char *chosen_before;	/* status before, where "chose" */
	const char *message_before;
	bool		left;			/* a connection has gone, told or not */
	TimestampTz last_seen;		/* newest sign of life of those that went */
} TurnUser;

#define SH_PREFIX turnusers
#define SH_ELEMENT_TYPE TurnUser
#define SH_KEY_TYPE const char *
#define SH_KEY name
#define SH_HASH_KEY(tb, key) hash_string(key)
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* One announcement. */
typedef struct Turn
{
	PresenceRoster *roster;
	Snapshot	snapshot;
	turnrooms_hash *rooms;
	turnpresences_hash *presences;
	turnusers_hash *users;
	List	   *order;			/* names of rooms with events, as they came up */
} Turn;

/* Find or make what is known of a presence. */
static TurnPresence *
get_presence(Turn *turn, const char *room, const char *channel, int64 id)
{
	TurnKey		key = {id, room, channel};
	bool		found;
	TurnPresence *presence = turnpresences_insert(turn->presences, key, &found);

	if (!found)
	{
		presence->change = 0;
		presence->updated = false;
		presence->counted = false;
		presence->join = NULL;
		presence->leave = NULL;
		presence->leaves_later = false;
		presence->gone = false;
		presence->brief = false;
		presence->told = NULL;
		presence->row = NULL;
	}
	return presence;
}

/* The presence that a hint speaks of. */
static TurnPresence *
get_hinted(Turn *turn, const PresenceHint *hint)
{
	return get_presence(turn, presence_hint_text(hint, PRESENCE_FIELD_ROOM),
						presence_hint_text(hint, PRESENCE_FIELD_CHANNEL), hint->id);
}

/* Find or make what happens to a room. */
static TurnRoom *
get_room(Turn *turn, const char *name)
{
	bool		found;
	TurnRoom   *room = turnrooms_insert(turn->rooms, name, &found);

	if (!found)
	{
		room->hints = NIL;
		room->events = NIL;
		room->doubtful = false;
		room->room = presence_roster_find(turn->roster, name);
	}
	return room;
}

/* Find or make what happens to a user; NULL for nobody. */
static TurnUser *
get_user(Turn *turn, const char *name)
{
	bool		found;
	TurnUser   *user;

	if (name == NULL)
		return NULL;
	user = turnusers_insert(turn->users, name, &found);
	if (!found)
	{
		user->change = 0;
		user->later = 0;
		user->chose = false;
		user->chosen_before = NULL;
		user->message_before = NULL;
		user->left = false;
		user->last_seen = DT_NOBEGIN;
	}
	return user;
}

/* A user's connections come or go with the events of this turn. */
static void
count_user(Turn *turn, const char *name, int change)
{
	TurnUser   *user = get_user(turn, name);

	if (user)
		user->change += change;
}

/* Whether a hint speaks of one presence, and has news. */
static bool
is_change(const PresenceHint *hint)
{
	return !hint->covered &&
		(hint->kind == PRESENCE_HINT_JOIN ||
		 hint->kind == PRESENCE_HINT_LEAVE ||
		 hint->kind == PRESENCE_HINT_UPDATE);
}

/* Sort hints by room and presence. */
static void
sort_hints(Turn *turn, PresenceHint *const *hints, int nhints, bool later)
{
	for (int i = 0; i < nhints; i++)
	{
		PresenceHint *hint = hints[i];
		TurnRoom   *room;
		TurnPresence *presence;

		if (!is_change(hint))
			continue;
		room = get_room(turn, presence_hint_text(hint, PRESENCE_FIELD_ROOM));
		room->hints = lappend(room->hints, hint);
		presence = get_hinted(turn, hint);
		if (hint->kind == PRESENCE_HINT_JOIN)
		{
			presence->change++;
			presence->join = hint;
		}
		else if (hint->kind == PRESENCE_HINT_LEAVE)
		{
			presence->change--;
			presence->leave = hint;
			presence->leaves_later = later;
		}
	}
}

/* A text[] of strings. */
static Datum
text_array(List *strings)
{
	Datum	   *datums = palloc(Max(list_length(strings), 1) * sizeof(Datum));
	ListCell   *lc;

	foreach(lc, strings)
		datums[foreach_current_index(lc)] = CStringGetTextDatum(lfirst(lc));
	return PointerGetDatum(construct_array(datums, list_length(strings), TEXTOID,
										   -1, false, TYPALIGN_INT));
}

/* Read the presences that hints say are there or have changed. */
static void
look_up_rows(Turn *turn, PresenceHint *const *hints, int nhints)
{
	List	   *rooms = NIL;
	List	   *channels = NIL;
	ListCell   *lc;

	for (int i = 0; i < nhints; i++)
	{
		PresenceHint *hint = hints[i];

		if (hint->announced ||
			(hint->kind != PRESENCE_HINT_JOIN && hint->kind != PRESENCE_HINT_UPDATE))
			continue;
		rooms = lappend(rooms, unconstify(char *, presence_hint_text(hint, PRESENCE_FIELD_ROOM)));
		channels = lappend(channels, unconstify(char *, presence_hint_text(hint, PRESENCE_FIELD_CHANNEL)));
	}
	if (rooms == NIL)
		return;
	foreach(lc, presence_store_look_up(text_array(rooms), text_array(channels),
									   turn->snapshot))
	{
		PresenceRow *row = lfirst(lc);

		get_presence(turn, row->room, row->channel, row->id)->row = row;
	}
}

/* The presence that a leave speaks of, as it was. */
static PresenceRow *
row_of_leave(const PresenceHint *hint)
{
	PresenceRow *row = palloc0(sizeof(PresenceRow));

	row->id = hint->id;
	row->room = unconstify(char *, presence_hint_text(hint, PRESENCE_FIELD_ROOM));
	row->channel = unconstify(char *, presence_hint_text(hint, PRESENCE_FIELD_CHANNEL));
	row->user = unconstify(char *, presence_hint_text(hint, PRESENCE_FIELD_USER));
	row->meta = presence_hint_meta(hint);
	row->truncated = hint->truncated;
	row->joined_at = hint->joined_at;
	return row;
}

/*
 * Find the presences that are gone again, and remember them as they were.
 * One that its own transaction has removed was never there for others.  One
 * that leaves in a later turn is updated in this one: whoever builds the
 * roster anew in between takes the leave for its word.
 */
static void
note_gone(Turn *turn)
{
	turnpresences_iterator iterator;
	TurnPresence *presence;

	turnpresences_start_iterate(turn->presences, &iterator);
	while ((presence = turnpresences_iterate(turn->presences, &iterator)))
	{
		if (presence->row || presence->leave == NULL || presence->leave->announced)
			continue;
		presence->brief = presence->join != NULL &&
			presence->join->xid != presence->leave->xid;
		presence->gone = presence->brief ||
			(presence->leaves_later && presence->join == NULL);
		if (presence->gone)
			presence->row = row_of_leave(presence->leave);
	}
}

/* Whether two users, either of them possibly NULL, are the same. */
static bool
same_user(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return strcmp(a, b) == 0;
}

/*
 * The user that a presence had before its updates among the hints, if they
 * changed it from the user it has now.  The updates form a chain of users:
 * it begins with the one that is left more often than it is reached.
 */
static const char *
first_user(List *hints, int64 id, const char *now)
{
	ListCell   *lc;

	foreach(lc, hints)
	{
		PresenceHint *hint = lfirst(lc);
		const char *before = presence_hint_text(hint, PRESENCE_FIELD_PREVIOUS);
		int			balance = 0;
		ListCell   *lc2;

		if (hint->kind != PRESENCE_HINT_UPDATE || hint->id != id)
			continue;
		foreach(lc2, hints)
		{
			PresenceHint *other = lfirst(lc2);

			if (other->kind != PRESENCE_HINT_UPDATE || other->id != id)
				continue;
			if (same_user(presence_hint_text(other, PRESENCE_FIELD_PREVIOUS), before))
				balance++;
			if (same_user(presence_hint_text(other, PRESENCE_FIELD_USER), before))
				balance--;
		}
		if (balance > 0)
			return before;
	}
	return now;
}

/*
 * Bring the roster back to what had been told of a room before its hints: a
 * presence was there if it is there less its joins plus its leaves, in
 * whatever order these came.
 */
static void
undo_hints(Turn *turn, TurnRoom *room)
{
	ListCell   *lc;

	foreach(lc, room->hints)
	{
		PresenceHint *hint = lfirst(lc);
		PresenceRosterMember *member;

		member = presence_roster_member(room->room,
										presence_hint_text(hint, PRESENCE_FIELD_CHANNEL));
		if (member && member->id == hint->id && get_hinted(turn, hint)->change > 0)
			(void) presence_roster_leave(room->room, member);
		else if (member && member->id == hint->id &&
				 hint->kind == PRESENCE_HINT_UPDATE)
		{
			bool		ignored;

			presence_roster_set_user(room->room, member,
									 first_user(room->hints, hint->id, member->user),
									 &ignored, &ignored);
		}
	}
	foreach(lc, room->hints)
	{
		PresenceHint *hint = lfirst(lc);
		const char *channel = presence_hint_text(hint, PRESENCE_FIELD_CHANNEL);

		if (hint->kind != PRESENCE_HINT_LEAVE ||
			get_hinted(turn, hint)->change >= 0 ||
			presence_roster_member(room->room, channel))
			continue;
		(void) presence_roster_join(room->room, channel, hint->id,
									first_user(room->hints, hint->id,
											   presence_hint_text(hint, PRESENCE_FIELD_USER)));
	}
}

/* Load the rooms that the roster does not have. */
static void
load_rooms(Turn *turn)
{
	List	   *names = NIL;
	List	   *fresh = NIL;
	turnrooms_iterator iterator;
	TurnRoom   *room;
	ListCell   *lc;

	turnrooms_start_iterate(turn->rooms, &iterator);
	while ((room = turnrooms_iterate(turn->rooms, &iterator)))
	{
		if (room->room || room->hints == NIL)
			continue;
		room->room = presence_roster_make(turn->roster, room->name);
		names = lappend(names, unconstify(char *, room->name));
		fresh = lappend(fresh, room);
	}
	if (names == NIL)
		return;
	foreach(lc, presence_store_load_rooms(text_array(names), turn->snapshot))
	{
		PresenceRow *row = lfirst(lc);

		room = turnrooms_lookup(turn->rooms, row->room);
		(void) presence_roster_join(room->room, row->channel, row->id, row->user);
	}
	foreach(lc, fresh)
		undo_hints(turn, lfirst(lc));
}

/* Make an event of a room, with the room's counts as they are now. */
static PresenceEvent *
add_event(Turn *turn, TurnRoom *room, PresenceEventKind kind, PresenceRow *row)
{
	PresenceEvent *event = palloc0(sizeof(PresenceEvent));

	event->kind = kind;
	event->room = room->name;
	event->row = row;
	if (room->room)
		event->counts = presence_roster_counts(room->room);
	if (room->events == NIL)
		turn->order = lappend(turn->order, unconstify(char *, room->name));
	room->events = lappend(room->events, event);
	return event;
}

/*
 * A user's connection has gone, or has another user now.  When it was seen is
 * remembered also where there is nothing to tell: because it came in the same
 * turn, or because its transaction has told it.
 */
static void
see_user(Turn *turn, const PresenceHint *hint)
{
	TurnUser   *user = get_user(turn, presence_hint_leaver(hint));

	if (user == NULL)
		return;
	user->left = true;
	user->last_seen = Max(user->last_seen, hint->last_seen);
}

/*
 * A member has left.  It leaves as the user that listeners know it by: an
 * update right before may not have been told.
 */
static void
tell_leave(Turn *turn, TurnRoom *room, PresenceRosterMember *member,
		   const PresenceHint *hint)
{
	const char *user = member->user ? pstrdup(member->user) : NULL;
	TurnPresence *presence = get_hinted(turn, hint);
	bool		last = presence_roster_leave(room->room, member);
	PresenceEvent *event;

	if (hint->announced)
		return;
	count_user(turn, user, -1);
	event = add_event(turn, room, PRESENCE_EVENT_LEAVE, row_of_leave(hint));
	event->row->user = unconstify(char *, user);
	event->reason = hint->reason;
	event->user_left = last;
	event->left_at = hint->noted;
	if (presence->told)
		presence->told->undone = true;
	presence->told = NULL;
}

/*
 * A join is not told, so its leave must not be either: not now, and not by
 * whoever builds the roster anew and finds that hint still waiting.
 */
static void
drop_leave(Turn *turn, PresenceHint *leave)
{
	if (leave == NULL || leave->covered)
		return;
	see_user(turn, leave);
	leave->covered = true;
}

/*
 * Take off the roster who has the place of a presence that joins; false: the
 * place is not free, there is no join to tell.
 *
 * The hint that the other one left comes later: that is told first.  Where no
 * such hint exists the other one is there still: the presence has been told
 * already, or it came and went before the other one came.
 */
static bool
clear_place(Turn *turn, TurnRoom *room, PresenceRosterMember *member,
			const PresenceHint *hint)
{
	const char *channel = presence_hint_text(hint, PRESENCE_FIELD_CHANNEL);
	PresenceHint *leave = get_presence(turn, room->name, channel, member->id)->leave;
	TurnPresence *presence = get_hinted(turn, hint);

	if (member->id == hint->id)
		return false;
	if (leave && !leave->covered)
	{
		see_user(turn, leave);
		tell_leave(turn, room, member, leave);
		leave->covered = true;
		return true;
	}
	if (presence->brief)
	{
		drop_leave(turn, presence->leave);
		return false;
	}
	(void) presence_roster_leave(room->room, member);
	return true;
}

/* A presence has joined. */
static void
tell_join(Turn *turn, TurnRoom *room, const PresenceHint *hint)
{
	const char *channel = presence_hint_text(hint, PRESENCE_FIELD_CHANNEL);
	TurnPresence *presence = get_hinted(turn, hint);
	PresenceRow *row = presence->row;
	PresenceRosterMember *member = presence_roster_member(room->room, channel);
	PresenceEvent *event;
	bool		first;

	if (row == NULL && !hint->announced)
	{
		drop_leave(turn, presence->leave);
		return;
	}
	if (member && !clear_place(turn, room, member, hint))
		return;
	first = presence_roster_join(room->room, channel, hint->id,
								 row ? row->user :
								 presence_hint_text(hint, PRESENCE_FIELD_USER));
	if (hint->announced)
		return;
	count_user(turn, row->user, 1);
	event = add_event(turn, room, PRESENCE_EVENT_JOIN, row);
	event->user_joined = first;
	presence = get_hinted(turn, hint);
	presence->updated = true;
	presence->told = event;
}

/* A member's user or meta has changed. */
static void
tell_update(Turn *turn, TurnRoom *room, PresenceRosterMember *member,
			const PresenceHint *hint)
{
	TurnPresence *presence = get_hinted(turn, hint);
	const char *user = hint->announced ?
		presence_hint_text(hint, PRESENCE_FIELD_USER) :
		presence->row ? presence->row->user : NULL;
	bool		changed = !same_user(member->user, user);
	const char *before = member->user ? pstrdup(member->user) : NULL;
	bool		joined = false;
	bool		left = false;
	PresenceEvent *event;

	if (!hint->announced && (presence->row == NULL || presence->updated))
		return;
	if (changed)
		presence_roster_set_user(room->room, member, user, &joined, &left);
	if (hint->announced)
		return;
	if (changed)
	{
		count_user(turn, before, -1);
		count_user(turn, user, 1);
	}
	presence->updated = true;
	event = add_event(turn, room, PRESENCE_EVENT_UPDATE, presence->row);
	event->user_changed = changed;
	event->previous_user = before;
	event->user_joined = joined;
	event->user_left = left;
	event->left_at = hint->noted;
}

/* A presence left that is not on the roster: tell both ends of a brief one. */
static void
tell_brief(Turn *turn, TurnRoom *room, const PresenceHint *hint)
{
	TurnPresence *presence = get_hinted(turn, hint);
	PresenceRosterMember *member;

	if (!presence->brief)
		return;
	tell_join(turn, room, presence->join);
	member = presence_roster_member(room->room,
									presence_hint_text(hint, PRESENCE_FIELD_CHANNEL));
	if (member && member->id == hint->id)
		tell_leave(turn, room, member, hint);
	presence = get_hinted(turn, hint);
	presence->brief = false;
	presence->row = NULL;
}

/* Tell what a hint says, as far as it is news. */
static void
tell(Turn *turn, const PresenceHint *hint)
{
	TurnRoom   *room = get_room(turn, presence_hint_text(hint, PRESENCE_FIELD_ROOM));
	PresenceRosterMember *member;

	room->doubtful |= hint->announced;
	if (hint->kind == PRESENCE_HINT_JOIN)
	{
		tell_join(turn, room, hint);
		return;
	}
	see_user(turn, hint);
	member = presence_roster_member(room->room,
									presence_hint_text(hint, PRESENCE_FIELD_CHANNEL));
	if (member == NULL || member->id != hint->id)
	{
		if (hint->kind == PRESENCE_HINT_LEAVE)
			tell_brief(turn, room, hint);
	}
	else if (hint->kind == PRESENCE_HINT_LEAVE)
		tell_leave(turn, room, member, hint);
	else
		tell_update(turn, room, member, hint);
}

/* A broadcast goes to its room as it is. */
static void
tell_broadcast(Turn *turn, const PresenceHint *hint)
{
	TurnRoom   *room = get_room(turn, presence_hint_text(hint, PRESENCE_FIELD_ROOM));

	add_event(turn, room, PRESENCE_EVENT_BROADCAST, NULL)->payload =
		presence_hint_text(hint, PRESENCE_FIELD_PAYLOAD);
}

/* A user has chosen; what counts is what held before the first choice. */
static void
tell_choice(Turn *turn, const PresenceHint *hint)
{
	TurnUser   *user = get_user(turn, presence_hint_text(hint, PRESENCE_FIELD_USER));

	if (user->chose)
		return;
	user->chose = true;
	user->chosen_before = presence_hint_text(hint, PRESENCE_FIELD_PREVIOUS);
	user->message_before = presence_hint_text(hint, PRESENCE_FIELD_PAYLOAD);
}

/* Tell all hints, in their order. */
static void
tell_hints(Turn *turn, PresenceHint *const *hints, int nhints)
{
	for (int i = 0; i < nhints; i++)
	{
		if (is_change(hints[i]))
			tell(turn, hints[i]);
		else if (hints[i]->announced)
			continue;
		else if (hints[i]->kind == PRESENCE_HINT_BROADCAST)
			tell_broadcast(turn, hints[i]);
		else if (hints[i]->kind == PRESENCE_HINT_STATUS)
			tell_choice(turn, hints[i]);
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
fold_events(TurnRoom *room)
{
	PresenceEvent *bulk;
	List	   *changes = NIL;
	List	   *broadcasts = NIL;
	ListCell   *lc;

	foreach(lc, room->events)
	{
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
resync_doubtful(Turn *turn)
{
	List	   *events = NIL;
	turnrooms_iterator iterator;
	TurnRoom   *room;

	turnrooms_start_iterate(turn->rooms, &iterator);
	while ((room = turnrooms_iterate(turn->rooms, &iterator)))
	{
		PresenceEvent *event;

		if (!room->doubtful)
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
note_returns(Turn *turn)
{
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, turn->order)
	{
		TurnRoom   *room = turnrooms_lookup(turn->rooms, lfirst(lc));

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
collect_events(Turn *turn)
{
	List	   *events = NIL;
	ListCell   *lc;

	foreach(lc, turn->order)
	{
		const char *name = lfirst(lc);

		events = list_concat(events, fold_events(turnrooms_lookup(turn->rooms, name)));
	}
	return events;
}

/* A user's connections come or go with what is told later on. */
static void
count_later_user(Turn *turn, const char *name, int change)
{
	TurnUser   *user = get_user(turn, name);

	if (user)
		user->later += change;
}

/*
 * By how much the hints for later change what the table shows of users: each
 * of their presences counts there with the user it has, but has been told, as
 * the roster knows, with the one it had, or not yet.
 */
static void
count_later(Turn *turn, PresenceHint *const *later, int nlater)
{
	for (int i = 0; i < nlater; i++)
	{
		const PresenceHint *hint = later[i];
		TurnPresence *presence;
		PresenceRosterMember *member;

		if (!is_change(hint) || hint->announced)
			continue;
		presence = get_hinted(turn, hint);
		if (presence->counted)
			continue;
		presence->counted = true;
		if (presence->row && !presence->gone)
			count_later_user(turn, presence->row->user, 1);
		member = presence_roster_member(get_room(turn, presence_hint_text(hint, PRESENCE_FIELD_ROOM))->room,
										presence_hint_text(hint, PRESENCE_FIELD_CHANNEL));
		if (member && member->id == hint->id)
			count_later_user(turn, member->user, -1);
	}
}

/* The status that others see. */
static const char *
effective_status(int64 connections, const char *chosen)
{
	return connections <= 0 ? "offline" : chosen ? chosen : "online";
}

/* Whether a user has chosen to look as if gone. */
static bool
is_invisible(const PresencePerson *person)
{
	return person->chosen_status && strcmp(person->chosen_status, "offline") == 0;
}

/* Tell the status of a user if it is news. */
static PresenceEvent *
status_event(const TurnUser *user, PresencePerson *person, List **gone)
{
	int64		now = person->connections - user->later;
	int64		before = now - user->change;
	const char *chosen_before = user->chose ? user->chosen_before : person->chosen_status;
	const char *message_before = user->chose ? user->message_before : person->custom_message;
	bool		hidden;
	PresenceEvent *event;

	if (now <= 0 && (before > 0 || user->left))
	{
		PresenceLastSeen *seen = palloc(sizeof(PresenceLastSeen));

		seen->user = person->user;
		seen->last_seen = user->last_seen;
		*gone = lappend(*gone, seen);
	}
	person->status = effective_status(now, person->chosen_status);
	hidden = strcmp(person->status, "offline") == 0;
	if (strcmp(person->status, effective_status(before, chosen_before)) == 0 &&
		(hidden || same_user(person->custom_message, message_before)))
		return NULL;
	if (!hidden)
		person->last_seen = presence_clock_wall();
	else if (!is_invisible(person) && user->last_seen > person->last_seen)
		person->last_seen = user->last_seen;
	event = palloc0(sizeof(PresenceEvent));
	event->kind = PRESENCE_EVENT_STATUS;
	event->person = person;
	return event;
}

/* The statuses that are news; "gone" gets those who went offline. */
static List *
collect_statuses(Turn *turn, List **gone)
{
	List	   *names = NIL;
	List	   *events = NIL;
	turnusers_iterator iterator;
	TurnUser   *user;
	ListCell   *lc;

	turnusers_start_iterate(turn->users, &iterator);
	while ((user = turnusers_iterate(turn->users, &iterator)))
		if (user->change != 0 || user->chose || user->left)
			names = lappend(names, unconstify(char *, user->name));
	if (names == NIL)
		return NIL;
	foreach(lc, presence_store_people(text_array(names), turn->snapshot))
	{
		PresencePerson *person = lfirst(lc);
		PresenceEvent *event = status_event(turnusers_lookup(turn->users, person->user),
											person, gone);

		if (event)
			events = lappend(events, event);
	}
	return events;
}

/*
 * Mark the updates for later that have been told: events show a presence as it
 * is now.  Whoever builds the roster anew must not take them back.
 */
static void
cover_updates(Turn *turn, PresenceHint *const *later, int nlater)
{
	for (int i = 0; i < nlater; i++)
		if (later[i]->kind == PRESENCE_HINT_UPDATE && is_change(later[i]) &&
			get_hinted(turn, later[i])->updated)
			later[i]->covered = true;
}

/* The user whose last connection in the room an event takes away. */
const char *
presence_event_leaver(const PresenceEvent *event)
{
	return event->user_changed ? event->previous_user : event->row->user;
}

/*
 * Make the events that hints call for, and bring the roster up to date.
 * "later" are hints that wait for another turn but belong to transactions
 * that the snapshot shows; some may come to be covered.
 * "gone" gets the users who went offline, as PresenceLastSeen.  Needs SPI.
 * Everything lives in the current memory context.
 */
List *
presence_announce(PresenceRoster *roster, PresenceHint *const *hints, int nhints,
				  PresenceHint *const *later, int nlater, Snapshot snapshot,
				  List **gone)
{
	Turn		turn = {roster, snapshot};
	List	   *events;

	turn.rooms = turnrooms_create(CurrentMemoryContext, 64, NULL);
	turn.presences = turnpresences_create(CurrentMemoryContext,
										  Max(nhints, 16), NULL);
	turn.users = turnusers_create(CurrentMemoryContext, 64, NULL);
	*gone = NIL;
	sort_hints(&turn, hints, nhints, false);
	sort_hints(&turn, later, nlater, true);
	load_rooms(&turn);
	look_up_rows(&turn, hints, nhints);
	look_up_rows(&turn, later, nlater);
	note_gone(&turn);
	tell_hints(&turn, hints, nhints);
	count_later(&turn, later, nlater);
	cover_updates(&turn, later, nlater);
	note_returns(&turn);
	events = collect_events(&turn);
	events = list_concat(events, resync_doubtful(&turn));
	return list_concat(events, collect_statuses(&turn, gone));
}
