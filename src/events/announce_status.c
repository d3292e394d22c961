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
#include "catalog/pg_type.h"
#include "events/announce_turn.h"
#include "miscadmin.h"
#include "tables/store_people.h"
#include "utils/array.h"

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

/* Make an event of the status of a user; NULL if it has not changed. */
static PresenceEvent *
status_event(const PresenceTurn *turn, const PresenceTurnUser *user, int64 later,
			 PresencePerson *person, List **gone)
{
	int64		now = connections_now(person, later);
	bool		had_expired = turn->cutoff != 0 &&
		person->living - later - user->change <= 0;
	int64		before = now > 0 && had_expired ? 0 : now - user->change;
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
		(hidden || presence_turn_same_user(person->custom_message, message_before)))
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
 * The limits up to which to count connections of users (as names), as a
 * bigint[]: counting further would not change any event.  Zeros unless
 * "wanted".
 */
static Datum
connections_to_count(PresenceTurn *turn, List *names, bool wanted)
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

/* Append events of users (as names) whose status has changed. */
static List *
add_statuses(PresenceTurn *turn, List *events, List *names, List **gone)
{
	bool		expired_matter = turn->cutoff != 0 || !presence_shmem_ready();
	ListCell   *lc;

	foreach(lc, presence_store_people(presence_turn_text_array(names),
									  connections_to_count(turn, names, true),
									  connections_to_count(turn, names, expired_matter),
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

/* Make events of changed statuses; "gone" gets the users who went offline. */
List *
presence_turn_collect_statuses(PresenceTurn *turn, List **gone)
{
	List	   *names = NIL;
	List	   *events = NIL;
	ListCell   *lc;

	foreach(lc, turn->named)
	{
		PresenceTurnUser *user = turnusers_lookup(turn->users, lfirst(lc));

		CHECK_FOR_INTERRUPTS();
		if (user->change == 0 && !user->chose && !user->left)
			continue;
		names = lappend(names, lfirst(lc));
		if (list_length(names) < PRESENCE_LOOK_UP_BATCH)
			continue;
		events = add_statuses(turn, events, names, gone);
		names = NIL;
	}
	return names == NIL ? events : add_statuses(turn, events, names, gone);
}
