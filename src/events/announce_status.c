/*-------------------------------------------------------------------------
 *
 * announce_status.c
 *		Makes events of users whose status is news.
 *
 * Whether a user is online anywhere is counted in the table, less what is to
 * be told later; the events of this turn tell what it was before.
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
 * The connections of users (as names) to count, as a bigint[]: with more of
 * them nothing that is told would be different.  None where it is not "wanted".
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

/* Append the statuses of users (as names) that are news. */
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

/* The statuses that are news; "gone" gets those who went offline. */
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
