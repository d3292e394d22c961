/*-------------------------------------------------------------------------
 *
 * announce_status.c
 *		Makes events of users whose status has changed.
 *
 * Whether a user is online is counted over all rooms in the table, without the
 * hints pending for later turns.  Without the events of this turn, too, that
 * is the status before.
 *
 * No locks: the caller has locked the tables before it took the snapshot.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/shmem.h"
#include "events/announce_turn.h"
#include "miscadmin.h"
#include "tables/store_people.h"

/* The status that others see. */
static const char *
effective_status(int64 connections, const char *chosen)
{
	return connections <= 0 ? "offline" : chosen ? chosen : "online";
}

/* Whether a user has chosen to appear offline. */
static bool
is_invisible(const PresencePerson *person)
{
	return person->chosen_status && strcmp(person->chosen_status, "offline") == 0;
}

/*
 * How many connections a user has by what has been announced, this turn
 * included.  Expired ones count until they are removed, which is soon; but
 * without shared memory they may never be removed, and do not count.
 */
static int64
connections_now(const PresencePerson *person, int64 later)
{
	return (presence_shmem_ready() ? person->connections : person->living) - later;
}

/*
 * When a user was last seen: of one who is visible, now; of an invisible one,
 * when that was chosen; of others by what is stored or has been seen in this
 * turn.  "gone", if not NULL, gets where it is stored.
 */
static TimestampTz
last_seen(PresencePeople *people, const PresencePerson *person,
		  const PresenceTurnUser *user, bool hidden, PresenceLastSeen *gone)
{
	ItemPointerData row;
	TimestampTz newest;

	if (!hidden)
		return presence_clock_wall();
	if (is_invisible(person))
		return person->last_seen;
	newest = Max(presence_store_people_last_seen(people, person->user, &row),
				 user->last_seen);
	if (gone)
	{
		gone->looked_up = true;
		gone->row = row;
		gone->last_seen = newest;
	}
	return newest;
}

/* A user who has gone offline. */
static PresenceLastSeen *
make_last_seen(const PresenceTurnUser *user)
{
	PresenceLastSeen *seen = palloc0(sizeof(PresenceLastSeen));

	seen->user = user->name;
	seen->last_seen = user->last_seen;
	return seen;
}

/* Make an event of the status of a user; NULL if it has not changed. */
static PresenceEvent *
status_event(const PresenceTurn *turn, PresencePeople *people,
			 const PresenceTurnUser *user, int64 later, PresencePerson *person,
			 List **gone)
{
	int64		now = connections_now(person, later);
	bool		had_expired = turn->cutoff.now != 0 &&
		person->living - later - user->change <= 0;
	int64		before = now > 0 && had_expired ? 0 : now - user->change;
	const char *chosen_before = user->chose ? user->chosen_before : person->chosen_status;
	const char *message_before = user->chose ? user->message_before : person->custom_message;
	PresenceLastSeen *seen = NULL;
	bool		hidden;
	PresenceEvent *event;

	if (now <= 0 && (before > 0 || user->left))
	{
		seen = make_last_seen(user);
		*gone = lappend(*gone, seen);
	}
	person->status = effective_status(now, person->chosen_status);
	hidden = strcmp(person->status, "offline") == 0;
	if (strcmp(person->status, effective_status(before, chosen_before)) == 0 &&
		(hidden || presence_turn_same_user(person->custom_message, message_before)))
		return NULL;
	person->last_seen = last_seen(people, person, user, hidden, seen);
	event = palloc0(sizeof(PresenceEvent));
	event->kind = PRESENCE_EVENT_STATUS;
	event->person = person;
	return event;
}

/*
 * Append an event of a user if its status has changed.  Connections are
 * counted up to a limit: counting further would not change the event.
 */
static List *
add_status(const PresenceTurn *turn, PresencePeople *people,
		   const PresenceTurnUser *user, List *events, List **gone)
{
	int64		later = presence_backlog_of_user(turn->backlog, user->name);
	int64		most = (user->change < 0 ? -user->change : user->change) +
		(later < 0 ? -later : later) + 1;
	bool		expired_matter = turn->cutoff.now != 0 || !presence_shmem_ready();
	PresencePerson *person = presence_store_people_read(people, user->name, most,
														expired_matter ? most : 0);
	PresenceEvent *event = status_event(turn, people, user, later, person, gone);

	return event ? lappend(events, event) : events;
}

/* Make events of changed statuses; "gone" gets the users who went offline. */
List *
presence_turn_collect_statuses(PresenceTurn *turn, List **gone)
{
	List	   *events = NIL;
	PresencePeople *people;
	ListCell   *lc;

	if (turn->named == NIL)
		return NIL;
	people = presence_store_people_begin(turn->snapshot);
	foreach(lc, turn->named)
	{
		PresenceTurnUser *user = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (user->change != 0 || user->chose || user->left)
			events = add_status(turn, people, user, events, gone);
	}
	presence_store_people_end(people);
	return events;
}
