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
 * that wait for a later turn.  Undoing the hints of both kinds leaves what had
 * been told when they came.  A hint of which the news has been told along with
 * another one is covered (backlog.c), and is undone no more.
 *
 * Whether a user is online anywhere is counted in the table, less what is to
 * be told later; the events of this turn tell what it was before.
 *
 * Dead presences that nobody has removed yet are found where a room is loaded.
 * The worker counts them until it tells that they left, which is soon: what it
 * has told fits together.  For a transaction that announces itself they count
 * for nothing, as for readers, for maybe nobody removes them.  That they left is
 * told when they are removed, or before their user joins.
 *
 * A turn costs what its hints cost, and the rooms that it loads.  Transactions
 * announce with this, too, in their own commit, so every loop over hints, rows
 * or events can be interrupted.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "announce.h"
#include "catalog/pg_type.h"
#include "clock.h"
#include "guc.h"
#include "liveness.h"
#include "miscadmin.h"
#include "shmem.h"
#include "utils/array.h"
#include "utils/builtins.h"

/* Presences, or users, looked up by one statement. */
#define LOOK_UP_BATCH 10000

/* What happens to one room. */
typedef struct TurnRoom
{
	const char *name;			/* key */
	char		status;			/* for simplehash */
	PresenceRosterRoom *room;	/* NULL: not on the roster yet */
	bool		doubtful;		/* others have told of it, too */
	List	   *events;
} TurnRoom;

#define SH_PREFIX turnrooms
#define SH_ELEMENT_TYPE TurnRoom
#define SH_KEY_TYPE const char *
#define SH_KEY name
#define SH_HASH_KEY(tb, key) presence_hint_hash(key)
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
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
#define SH_HASH_KEY(tb, key) presence_hint_hash(key)
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* One announcement. */
typedef struct Turn
{
	PresenceRoster *roster;
	PresenceBacklog *backlog;
	Snapshot	snapshot;
	PresenceTime cutoff;		/* a last sign of life before it counts for
								 * nothing; 0: every presence counts */
	turnrooms_hash *rooms;
	turnusers_hash *users;
	List	   *named;			/* their names, in the order of what happened */
	List	   *subjects;		/* PresenceSubject that this turn touches */
	List	   *order;			/* names of rooms with events, as they came up */
} Turn;

/* Remember that this turn touches a presence. */
static void
touch(Turn *turn, PresenceSubject *subject)
{
	if (subject->turn.touched)
		return;
	subject->turn.touched = true;
	turn->subjects = lappend(turn->subjects, subject);
}

/* Find or make what happens to a room. */
static TurnRoom *
get_room(Turn *turn, const char *name)
{
	bool		found;
	TurnRoom   *room = turnrooms_insert(turn->rooms, name, &found);

	if (!found)
	{
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
		user->chose = false;
		user->chosen_before = NULL;
		user->message_before = NULL;
		user->left = false;
		user->last_seen = DT_NOBEGIN;
		turn->named = lappend(turn->named, unconstify(char *, user->name));
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

/* Find the rooms and presences of this turn. */
static void
sort_hints(Turn *turn, PresenceWaiting *const *now, int nhints)
{
	for (int i = 0; i < nhints; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (now[i]->subject == NULL)
			continue;
		(void) get_room(turn, presence_hint_text(now[i]->hint, PRESENCE_FIELD_ROOM));
		touch(turn, now[i]->subject);
	}
}

/* A text[] of strings. */
static Datum
text_array(List *strings)
{
	Datum	   *datums = palloc(Max(list_length(strings), 1) * sizeof(Datum));
	ListCell   *lc;

	foreach(lc, strings)
	{
		CHECK_FOR_INTERRUPTS();
		datums[foreach_current_index(lc)] = CStringGetTextDatum(lfirst(lc));
	}
	return PointerGetDatum(construct_array(datums, list_length(strings), TEXTOID,
										   -1, false, TYPALIGN_INT));
}

/* Look presences up in the table. */
static void
look_up(Turn *turn, List *rooms, List *channels)
{
	ListCell   *lc;

	foreach(lc, presence_store_look_up(text_array(rooms), text_array(channels),
									   turn->snapshot))
	{
		PresenceRow *row = lfirst(lc);
		PresenceSubject *subject = presence_backlog_find(turn->backlog, row->id,
														 row->room, row->channel);

		CHECK_FOR_INTERRUPTS();
		if (subject == NULL)
			continue;
		touch(turn, subject);	/* it may be another one than was looked for */
		subject->turn.row = row;
	}
}

/* Read the presences that hints say are there or have changed, each once. */
static void
look_up_rows(Turn *turn, PresenceWaiting *const *now, int nhints)
{
	List	   *rooms = NIL;
	List	   *channels = NIL;

	for (int i = 0; i < nhints; i++)
	{
		PresenceSubject *subject = now[i]->subject;

		CHECK_FOR_INTERRUPTS();
		if (subject == NULL || subject->turn.sought || now[i]->hint->announced ||
			now[i]->hint->kind == PRESENCE_HINT_LEAVE)
			continue;
		subject->turn.sought = true;
		touch(turn, subject);
		rooms = lappend(rooms, unconstify(char *, subject->key.room));
		channels = lappend(channels, unconstify(char *, subject->key.channel));
		if (list_length(rooms) < LOOK_UP_BATCH)
			continue;
		look_up(turn, rooms, channels);
		rooms = channels = NIL;
	}
	if (rooms != NIL)
		look_up(turn, rooms, channels);
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
	ListCell   *lc;

	foreach(lc, turn->subjects)
	{
		PresenceSubject *subject = lfirst(lc);
		const PresenceWaiting *join = subject->join;
		const PresenceWaiting *leave = subject->leave;

		CHECK_FOR_INTERRUPTS();
		if (subject->turn.row || leave == NULL || leave->hint->announced)
			continue;
		subject->turn.brief = join != NULL && join->hint->xid != leave->hint->xid;
		if (subject->turn.brief || (join == NULL && !leave->now))
			subject->turn.row = row_of_leave(leave->hint);
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

/* A user in a chain of updates. */
typedef struct ChainUser
{
	const char *name;			/* key */
	char		status;			/* for simplehash */
	int			balance;		/* how often it is left less reached */
} ChainUser;

#define SH_PREFIX chain
#define SH_ELEMENT_TYPE ChainUser
#define SH_KEY_TYPE const char *
#define SH_KEY name
#define SH_HASH_KEY(tb, key) presence_hint_hash(key)
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* How often a user is left less reached, to be changed by the caller. */
static int *
get_balance(chain_hash *users, const char *name, int *of_nobody)
{
	ChainUser  *user;
	bool		found;

	if (name == NULL)
		return of_nobody;
	user = chain_insert(users, name, &found);
	if (!found)
		user->balance = 0;
	return &user->balance;
}

/*
 * The user that a presence had before its updates among the hints that wait,
 * if they changed it from the user it has now.  The updates form a chain of
 * users: it begins with the one that is left more often than it is reached.
 */
static const char *
first_user(PresenceSubject *subject, const char *now)
{
	chain_hash *users = chain_create(CurrentMemoryContext, 4, NULL);
	int			of_nobody = 0;
	const char *first = now;
	dlist_iter	iter;

	dlist_foreach(iter, &subject->hints)
	{
		const PresenceHint *hint = dlist_container(PresenceWaiting, link, iter.cur)->hint;

		CHECK_FOR_INTERRUPTS();
		if (hint->kind != PRESENCE_HINT_UPDATE)
			continue;
		++*get_balance(users, presence_hint_text(hint, PRESENCE_FIELD_PREVIOUS), &of_nobody);
		--*get_balance(users, presence_hint_text(hint, PRESENCE_FIELD_USER), &of_nobody);
	}
	dlist_foreach(iter, &subject->hints)
	{
		const PresenceHint *hint = dlist_container(PresenceWaiting, link, iter.cur)->hint;
		const char *before = presence_hint_text(hint, PRESENCE_FIELD_PREVIOUS);

		CHECK_FOR_INTERRUPTS();
		if (hint->kind != PRESENCE_HINT_UPDATE ||
			*get_balance(users, before, &of_nobody) <= 0)
			continue;
		first = before;
		break;
	}
	chain_destroy(users);
	return first;
}

/* Take off the roster who joined with the hints; users become what they were. */
static void
undo_arrivals(TurnRoom *room, dlist_head *subjects)
{
	dlist_iter	iter;

	dlist_foreach(iter, subjects)
	{
		PresenceSubject *subject = dlist_container(PresenceSubject, link, iter.cur);
		PresenceRosterMember *member = presence_roster_member(room->room,
															  subject->key.channel);
		bool		ignored;

		CHECK_FOR_INTERRUPTS();
		if (member == NULL || member->id != subject->key.id)
			continue;
		if (subject->change > 0)
			(void) presence_roster_leave(room->room, member);
		else
			presence_roster_set_user(room->room, member,
									 first_user(subject, member->user),
									 &ignored, &ignored);
	}
}

/* Put back on the roster who left with the hints. */
static void
undo_departures(TurnRoom *room, dlist_head *subjects)
{
	dlist_iter	iter;

	dlist_foreach(iter, subjects)
	{
		PresenceSubject *subject = dlist_container(PresenceSubject, link, iter.cur);
		const char *channel = subject->key.channel;
		const char *user;

		CHECK_FOR_INTERRUPTS();
		if (subject->change >= 0 || subject->leave == NULL ||
			presence_roster_member(room->room, channel))
			continue;
		user = presence_hint_text(subject->leave->hint, PRESENCE_FIELD_USER);
		(void) presence_roster_join(room->room, channel, subject->key.id,
									first_user(subject, user), false);
	}
}

/*
 * Bring the roster back to what had been told of a room before the hints that
 * wait: a presence was there if it is there less its joins plus its leaves, in
 * whatever order these came.
 */
static void
undo_hints(Turn *turn, TurnRoom *room)
{
	dlist_head *subjects = presence_backlog_of_room(turn->backlog, room->name);

	if (subjects == NULL)
		return;
	undo_arrivals(room, subjects);
	undo_departures(room, subjects);
}

/* Put a presence of the table on the roster. */
static void
load_member(void *arg, const PresenceRow *row)
{
	Turn	   *turn = arg;
	TurnRoom   *room = turnrooms_lookup(turn->rooms, row->room);

	bool		dead = !presence_liveness_is_live(row->channel, strlen(row->channel),
												  row->last_seen, turn->cutoff);

	(void) presence_roster_join(room->room, row->channel, row->id, row->user, dead);
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
		CHECK_FOR_INTERRUPTS();
		if (room->room)
			continue;
		room->room = presence_roster_make(turn->roster, room->name);
		names = lappend(names, unconstify(char *, room->name));
		fresh = lappend(fresh, room);
	}
	if (names == NIL)
		return;
	presence_store_each_member(text_array(names), turn->snapshot, load_member, turn);
	foreach(lc, fresh)
	{
		CHECK_FOR_INTERRUPTS();
		undo_hints(turn, lfirst(lc));
	}
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
		   const PresenceWaiting *waiting)
{
	const PresenceHint *hint = waiting->hint;
	PresenceSubject *subject = waiting->subject;
	const char *user = member->user ? pstrdup(member->user) : NULL;
	bool		last = presence_roster_leave(room->room, member);
	PresenceEvent *event;

	subject->turn.over = true;
	if (hint->announced)
		return;
	count_user(turn, user, -1);
	event = add_event(turn, room, PRESENCE_EVENT_LEAVE, row_of_leave(hint));
	event->row->user = unconstify(char *, user);
	event->reason = hint->reason;
	event->user_left = last;
	event->left_at = hint->noted;
	if (subject->turn.told)
		subject->turn.told->undone = true;
	subject->turn.told = NULL;
}

/* The presence of a dead member, as the table or the hint that it left has it. */
static PresenceRow *
row_of_dead(Turn *turn, TurnRoom *room, const PresenceRosterMember *member)
{
	PresenceSubject *subject = presence_backlog_find(turn->backlog, member->id,
													 room->name, member->channel);
	PresenceRow *row;
	ListCell   *lc;

	if (subject && subject->leave)
		return row_of_leave(subject->leave->hint);
	foreach(lc, presence_store_look_up(text_array(list_make1(unconstify(char *, room->name))),
									   text_array(list_make1(unconstify(char *, member->channel))),
									   turn->snapshot))
		if (((PresenceRow *) lfirst(lc))->id == member->id)
			return lfirst(lc);
	row = palloc0(sizeof(PresenceRow));
	row->id = member->id;
	row->room = unconstify(char *, room->name);
	row->channel = pstrdup(member->channel);
	return row;
}

/*
 * A user comes whose presences in the room are all dead, and whom nobody sees
 * there: they leave first, and not again when somebody removes them.
 */
static void
tell_dead(Turn *turn, TurnRoom *room, const char *user)
{
	PresenceRosterMember *member;

	while ((member = presence_roster_next_dead(room->room, user)))
	{
		PresenceRow *row = row_of_dead(turn, room, member);
		bool		last;
		PresenceEvent *event;

		CHECK_FOR_INTERRUPTS();
		row->user = pstrdup(user);
		last = presence_roster_leave(room->room, member);
		event = add_event(turn, room, PRESENCE_EVENT_LEAVE, row);
		event->reason = PRESENCE_REASON_EXPIRED;
		event->user_left = last;
	}
}

/*
 * A join is not told, so its leave must not be either: not now, and not by
 * whoever builds the roster anew and finds that hint still waiting.
 */
static void
drop_leave(Turn *turn, PresenceSubject *subject)
{
	PresenceWaiting *leave = subject->leave;

	if (leave == NULL || leave->hint->covered)
		return;
	see_user(turn, leave->hint);
	leave->hint->covered = true;
	subject->turn.over = true;
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
			PresenceSubject *subject)
{
	PresenceSubject *other;

	if (member->id == subject->key.id)
		return false;
	other = presence_backlog_find(turn->backlog, member->id, room->name,
								  subject->key.channel);
	if (other && other->leave && !other->leave->hint->covered)
	{
		touch(turn, other);
		see_user(turn, other->leave->hint);
		tell_leave(turn, room, member, other->leave);
		other->leave->hint->covered = true;
		return true;
	}
	if (subject->turn.brief)
	{
		drop_leave(turn, subject);
		return false;
	}
	(void) presence_roster_leave(room->room, member);
	return true;
}

/* A presence has joined. */
static void
tell_join(Turn *turn, TurnRoom *room, const PresenceWaiting *waiting)
{
	const PresenceHint *hint = waiting->hint;
	PresenceSubject *subject = waiting->subject;
	PresenceRow *row = subject->turn.row;
	PresenceRosterMember *member = presence_roster_member(room->room,
														  subject->key.channel);
	PresenceEvent *event;
	const char *user;
	bool		first;

	if (row == NULL && !hint->announced)
	{
		drop_leave(turn, subject);
		return;
	}
	if (member && !clear_place(turn, room, member, subject))
		return;
	user = row ? row->user : presence_hint_text(hint, PRESENCE_FIELD_USER);
	if (!hint->announced)
		tell_dead(turn, room, user);
	first = presence_roster_join(room->room, subject->key.channel, hint->id,
								 user, false);
	if (hint->announced)
		return;
	count_user(turn, row->user, 1);
	event = add_event(turn, room, PRESENCE_EVENT_JOIN, row);
	event->user_joined = first;
	subject->turn.updated = true;
	subject->turn.told = event;
}

/* A member's user or meta has changed. */
static void
tell_update(Turn *turn, TurnRoom *room, PresenceRosterMember *member,
			const PresenceWaiting *waiting)
{
	const PresenceHint *hint = waiting->hint;
	PresenceSubject *subject = waiting->subject;
	PresenceRow *row = subject->turn.row;
	const char *user = hint->announced ?
		presence_hint_text(hint, PRESENCE_FIELD_USER) : row ? row->user : NULL;
	bool		changed = !same_user(member->user, user);
	const char *before = member->user ? pstrdup(member->user) : NULL;
	bool		joined = false;
	bool		left = false;
	PresenceEvent *event;

	if (!hint->announced && (row == NULL || subject->turn.updated))
		return;
	if (changed && !hint->announced)
	{
		tell_dead(turn, room, user);
		member = presence_roster_member(room->room, subject->key.channel);
	}
	if (changed)
		presence_roster_set_user(room->room, member, user, &joined, &left);
	if (hint->announced)
		return;
	if (changed)
	{
		count_user(turn, before, -1);
		count_user(turn, user, 1);
	}
	subject->turn.updated = true;
	event = add_event(turn, room, PRESENCE_EVENT_UPDATE, row);
	event->user_changed = changed;
	event->previous_user = before;
	event->user_joined = joined;
	event->user_left = left;
	event->left_at = hint->noted;
}

/*
 * A presence left that is not on the roster: tell both ends of a brief one.
 * Nothing more can be told of it.
 */
static void
tell_brief(Turn *turn, TurnRoom *room, const PresenceWaiting *waiting)
{
	PresenceSubject *subject = waiting->subject;
	PresenceRosterMember *member;

	subject->turn.over = true;
	if (!subject->turn.brief)
		return;
	tell_join(turn, room, subject->join);
	member = presence_roster_member(room->room, subject->key.channel);
	if (member && member->id == subject->key.id)
		tell_leave(turn, room, member, waiting);
	subject->turn.brief = false;
	subject->turn.row = NULL;
}

/* Tell what a hint says, as far as it is news. */
static void
tell(Turn *turn, const PresenceWaiting *waiting)
{
	const PresenceHint *hint = waiting->hint;
	TurnRoom   *room = get_room(turn, presence_hint_text(hint, PRESENCE_FIELD_ROOM));
	PresenceRosterMember *member;

	room->doubtful |= hint->announced;
	if (hint->kind == PRESENCE_HINT_JOIN)
	{
		tell_join(turn, room, waiting);
		return;
	}
	see_user(turn, hint);
	member = presence_roster_member(room->room, waiting->subject->key.channel);
	if (member == NULL || member->id != hint->id)
	{
		if (hint->kind == PRESENCE_HINT_LEAVE)
			tell_brief(turn, room, waiting);
	}
	else if (hint->kind == PRESENCE_HINT_LEAVE)
		tell_leave(turn, room, member, waiting);
	else
		tell_update(turn, room, member, waiting);
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
tell_hints(Turn *turn, PresenceWaiting *const *now, int nhints)
{
	for (int i = 0; i < nhints; i++)
	{
		const PresenceHint *hint = now[i]->hint;

		CHECK_FOR_INTERRUPTS();
		if (now[i]->subject)
		{
			if (!hint->covered)
				tell(turn, now[i]);
		}
		else if (hint->announced)
			continue;
		else if (hint->kind == PRESENCE_HINT_BROADCAST)
			tell_broadcast(turn, hint);
		else if (hint->kind == PRESENCE_HINT_STATUS)
			tell_choice(turn, hint);
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
resync_doubtful(Turn *turn)
{
	List	   *events = NIL;
	turnrooms_iterator iterator;
	TurnRoom   *room;

	turnrooms_start_iterate(turn->rooms, &iterator);
	while ((room = turnrooms_iterate(turn->rooms, &iterator)))
	{
		PresenceEvent *event;

		CHECK_FOR_INTERRUPTS();
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
cover_told(Turn *turn, PresenceSubject *subject)
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
				see_user(turn, waiting->hint);
			presence_backlog_cover(turn->backlog, waiting);
		}
		if (--rest == 0)
			break;				/* the subject may be gone */
	}
}

/* Bring what waits up to date with what this turn has told. */
static void
end_turn(Turn *turn, PresenceWaiting *const *now, int nhints)
{
	ListCell   *lc;

	foreach(lc, turn->subjects)
	{
		CHECK_FOR_INTERRUPTS();
		cover_told(turn, lfirst(lc));
	}
	presence_backlog_end_turn(turn->backlog, now, nhints);
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

/*
 * How many connections a user has with what is told by now.  Those that have
 * died go with their removal, which follows soon: but without shared memory
 * maybe never, so there they are gone already.
 */
static int64
connections_now(const PresencePerson *person, int64 later)
{
	return (presence_shmem_ready() ? person->connections : person->living) - later;
}

/* Tell the status of a user if it is news. */
static PresenceEvent *
status_event(const Turn *turn, const TurnUser *user, int64 later,
			 PresencePerson *person, List **gone)
{
	int64		now = connections_now(person, later);
	bool		were_dead = turn->cutoff != 0 &&
		person->living - later - user->change <= 0;
	int64		before = now > 0 && were_dead ? 0 : now - user->change;
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

/*
 * The connections of users (as names) to count, as a bigint[]: with more of
 * them nothing that is told would be different.  None where it is not "wanted".
 */
static Datum
connections_to_count(Turn *turn, List *names, bool wanted)
{
	Datum	   *most = palloc0(list_length(names) * sizeof(Datum));
	ListCell   *lc;

	foreach(lc, names)
	{
		const char *name = lfirst(lc);
		int64		change = turnusers_lookup(turn->users, name)->change;
		int64		later = presence_backlog_of_user(turn->backlog, name);

		CHECK_FOR_INTERRUPTS();
		if (!wanted)
			break;
		most[foreach_current_index(lc)] = Int64GetDatum((change < 0 ? -change : change) +
														(later < 0 ? -later : later) + 1);
	}
	return PointerGetDatum(construct_array(most, list_length(names), INT8OID,
										   sizeof(int64), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

/* Append the statuses of users (as names) that are news. */
static List *
add_statuses(Turn *turn, List *events, List *names, List **gone)
{
	bool		dead_matter = turn->cutoff != 0 || !presence_shmem_ready();
	ListCell   *lc;

	foreach(lc, presence_store_people(text_array(names),
									  connections_to_count(turn, names, true),
									  connections_to_count(turn, names, dead_matter),
									  turn->snapshot))
	{
		PresencePerson *person = lfirst(lc);
		PresenceEvent *event;

		CHECK_FOR_INTERRUPTS();
		event = status_event(turn, turnusers_lookup(turn->users, person->user),
							 presence_backlog_of_user(turn->backlog, person->user),
							 person, gone);
		if (event)
			events = lappend(events, event);
	}
	return events;
}

/* The statuses that are news; "gone" gets those who went offline. */
static List *
collect_statuses(Turn *turn, List **gone)
{
	List	   *names = NIL;
	List	   *events = NIL;
	ListCell   *lc;

	foreach(lc, turn->named)
	{
		TurnUser   *user = turnusers_lookup(turn->users, lfirst(lc));

		CHECK_FOR_INTERRUPTS();
		if (user->change == 0 && !user->chose && !user->left)
			continue;
		names = lappend(names, lfirst(lc));
		if (list_length(names) < LOOK_UP_BATCH)
			continue;
		events = add_statuses(turn, events, names, gone);
		names = NIL;
	}
	return names == NIL ? events : add_statuses(turn, events, names, gone);
}

/* The user whose last connection in the room an event takes away. */
const char *
presence_event_leaver(const PresenceEvent *event)
{
	return event->user_changed ? event->previous_user : event->row->user;
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
	Turn		turn = {roster, backlog, snapshot, cutoff};
	List	   *events;

	turn.rooms = turnrooms_create(CurrentMemoryContext, 64, NULL);
	turn.users = turnusers_create(CurrentMemoryContext, 64, NULL);
	*gone = NIL;
	sort_hints(&turn, now, nhints);
	load_rooms(&turn);
	look_up_rows(&turn, now, nhints);
	note_gone(&turn);
	tell_hints(&turn, now, nhints);
	end_turn(&turn, now, nhints);
	note_returns(&turn);
	events = collect_events(&turn);
	events = list_concat(events, resync_doubtful(&turn));
	return list_concat(events, collect_statuses(&turn, gone));
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
