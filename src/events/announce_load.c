/*-------------------------------------------------------------------------
 *
 * announce_load.c
 *		Reads the rooms and presences of a turn from the tables.
 *
 * Presences are announced with their current row.  The hint of a join mostly
 * has the whole row.  If no other hint of the presence is pending, that is the
 * current one, because the hints of all transactions that the snapshot shows
 * are known.  Otherwise, and after hints were lost or the table was truncated,
 * the presence is looked up.
 *
 * A room that is not on the roster is loaded from the table, in a snapshot for
 * which the hints are complete: whatever the snapshot shows as committed has
 * been announced before, or is among the hints of this turn, or among those
 * pending for a later turn.  Undoing both kinds of hints leaves what had been
 * announced before them.  A hint that was announced along with another one is
 * covered (backlog.c), and is not undone.
 *
 * A loaded room may have expired presences that have not been removed yet.
 * The worker counts them until it announces that they left, which is soon, so
 * that its counts are consistent.  A transaction that announces its own
 * changes does not count them, as readers do not, because there may be nobody
 * to remove them.  Their leave is announced when they are removed, or before
 * their user joins.
 *
 * No locks: the caller has locked the tables before it took the snapshot.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "events/announce_turn.h"
#include "miscadmin.h"
#include "shared/liveness.h"
#include "tables/store_presences.h"

/* Look up presences in the table. */
static void
look_up(PresenceTurn *turn, List *rooms, List *channels)
{
	ListCell   *lc;

	foreach(lc, presence_store_look_up(presence_turn_text_array(rooms),
									   presence_turn_text_array(channels),
									   turn->snapshot))
	{
		PresenceRow *row = lfirst(lc);
		PresenceSubject *subject = presence_backlog_find(turn->backlog, row->id,
														 row->room, row->channel);

		CHECK_FOR_INTERRUPTS();
		if (subject == NULL)
			continue;
		/* It may be another presence of the same room and channel. */
		presence_turn_touch(turn, subject);
		subject->turn.row = row;
	}
}

/* Whether the hint of a join has the current row of its presence. */
static bool
has_current_row(PresenceTurn *turn, const PresenceWaiting *waiting)
{
	return waiting->hint->kind == PRESENCE_HINT_JOIN && waiting->hint->whole &&
		waiting->subject->nhints == 1 &&
		!presence_backlog_is_unreliable(turn->backlog, waiting);
}

/*
 * Get the rows of the presences that joined or changed by hints, each once.
 */
void
presence_turn_look_up_rows(PresenceTurn *turn, PresenceWaiting *const *now, int nhints)
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
		presence_turn_touch(turn, subject);
		if (has_current_row(turn, now[i]))
		{
			subject->turn.row = presence_turn_row_of(now[i]->hint);
			continue;
		}
		rooms = lappend(rooms, unconstify(char *, subject->key.room));
		channels = lappend(channels, unconstify(char *, subject->key.channel));
		if (list_length(rooms) < PRESENCE_LOOK_UP_BATCH)
			continue;
		look_up(turn, rooms, channels);
		rooms = channels = NIL;
	}
	if (rooms != NIL)
		look_up(turn, rooms, channels);
}

/*
 * Find the presences that have left already, and keep their rows as the hints
 * of their leaves have them.  One added and removed by the same transaction
 * was never visible to others.  One that leaves in a later turn is still
 * updated in this one, because a roster rebuilt in between takes its user from
 * the leave.
 */
void
presence_turn_note_gone(PresenceTurn *turn)
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
			subject->turn.row = presence_turn_row_of(leave->hint);
	}
}

/* A user in a chain of updates. */
typedef struct ChainUser
{
	const char *name;			/* key */
	char		status;			/* for simplehash */
	int			balance;		/* how many updates leave it less reach it */
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

/* The balance of a user, for the caller to change. */
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
 * The user of a presence before its pending updates; "now" is its user after
 * them.  The updates form a chain of users, which begins with the user that is
 * left more often than it is reached.
 */
static const char *
first_user(PresenceSubject *subject, const char *now)
{
	chain_hash *users;
	int			of_nobody = 0;
	const char *first = now;
	dlist_iter	iter;

	if (subject->nhints == (subject->join != NULL) + (subject->leave != NULL))
		return now;				/* no updates */
	users = chain_create(CurrentMemoryContext, 4, NULL);
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

/*
 * Undo changes of user.  Members that joined by pending hints were not put on
 * the roster.
 */
static void
undo_updates(PresenceTurnRoom *room, dlist_head *subjects)
{
	dlist_iter	iter;

	dlist_foreach(iter, subjects)
	{
		PresenceSubject *subject = dlist_container(PresenceSubject, link, iter.cur);
		PresenceRosterMember *member = presence_roster_member(room->room,
															  subject->key.channel);
		bool		ignored;

		CHECK_FOR_INTERRUPTS();
		if (member && member->id == subject->key.id)
			presence_roster_set_user(room->room, member,
									 first_user(subject, member->user),
									 &ignored, &ignored);
	}
}

/* Put back members that left by pending hints. */
static void
undo_departures(PresenceTurnRoom *room, dlist_head *subjects)
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
 * Bring the roster back to what had been announced of a room before the
 * pending hints: whether a presence was there is whether it is there now, less
 * its joins plus its leaves, in whatever order these arrived.
 */
static void
undo_hints(PresenceTurn *turn, PresenceTurnRoom *room)
{
	dlist_head *subjects = presence_backlog_of_room(turn->backlog, room->name);

	if (subjects == NULL)
		return;
	undo_updates(room, subjects);
	undo_departures(room, subjects);
}

/* State of loading rooms, one after the other. */
typedef struct Loading
{
	PresenceTurn *turn;
	PresenceTurnRoom *room;		/* the current one, or NULL */
	bool		pending;		/* it has pending hints */
} Loading;

/* Whether a presence joined by pending hints, so that it would be undone. */
static bool
has_just_arrived(const Loading *loading, const PresenceRow *row)
{
	PresenceSubject *subject = NULL;

	if (loading->pending)
		subject = presence_backlog_find(loading->turn->backlog, row->id, row->room,
										row->channel);
	return subject && subject->change > 0;
}

/* Put a presence of the table on the roster. */
static void
load_member(void *arg, const PresenceRow *row)
{
	Loading    *loading = arg;
	PresenceTurn *turn = loading->turn;
	bool		expired;

	if (loading->room == NULL || loading->room->name != row->room)
	{
		loading->room = turnrooms_lookup(turn->rooms, row->room);
		loading->pending = presence_backlog_of_room(turn->backlog, row->room) != NULL;
	}
	if (has_just_arrived(loading, row))
		return;
	expired = !presence_liveness_is_live(row->channel, strlen(row->channel),
										 row->last_seen, &turn->cutoff);
	(void) presence_roster_join(loading->room->room, row->channel, row->id, row->user,
								expired);
}

/* Load the rooms that are not on the roster. */
void
presence_turn_load_rooms(PresenceTurn *turn)
{
	List	   *names = NIL;
	List	   *fresh = NIL;
	Loading		loading = {turn};
	turnrooms_iterator iterator;
	PresenceTurnRoom *room;
	ListCell   *lc;

	turnrooms_start_iterate(turn->rooms, &iterator);
	while ((room = turnrooms_iterate(turn->rooms, &iterator)))
	{
		CHECK_FOR_INTERRUPTS();
		if (room->room)
			continue;
		room->room = presence_roster_make(turn->roster, room->name);
		room->loaded = true;
		names = lappend(names, unconstify(char *, room->name));
		fresh = lappend(fresh, room);
	}
	if (names == NIL)
		return;
	presence_store_each_member(names, turn->snapshot, load_member, &loading);
	foreach(lc, fresh)
	{
		CHECK_FOR_INTERRUPTS();
		undo_hints(turn, lfirst(lc));
	}
}
