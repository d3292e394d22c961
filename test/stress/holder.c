/*-------------------------------------------------------------------------
 *
 * holder.c
 *		Holds channels that nobody else writes, and checks when and why they go.
 *
 * A round: a session adds channels to a room of their own and holds them; at
 * times a second one takes them over.  While the session that holds them lives
 * they stay for longer than max_age, and no event may say that they expired or
 * that it is gone.  When it ends all of them must leave, disconnected.
 *
 * Quiet points touch all channels, which takes back the end of the session.
 * So a round that a pause interrupts is not looked at any further.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "names.h"

static PGconn *holding;
static PGconn *watching;
static atomic_int rounds;
static int	leaves;				/* events of its channels */
static int	generation;			/* part of the names of a round's channels */
static Random randoms;

/* Chaos that drops connections, objects or events is not for these checks. */
bool
holder_is_wanted(void)
{
	return strcmp(options.name, "small") != 0 &&
		(chaos_is("none") || chaos_is("worker") || chaos_is("freeze") || chaos_is("burst"));
}

int
holder_rounds(void)
{
	return atomic_load(&rounds);
}

static bool
is_over(void)
{
	return atomic_load(&paused) || atomic_load(&finished);
}

/* The answer to a query, -1 if it failed. */
static int
ask_number(PGconn *conn, const char *sql)
{
	PGresult   *result = PQexec(conn, sql);
	int			number = -1;

	if (PQresultStatus(result) == PGRES_TUPLES_OK)
		number = atoi(PQgetvalue(result, 0, 0));
	else if (!is_fate(result))
		fail("%s: %s", sql, PQresultErrorMessage(result));
	PQclear(result);
	return number;
}

/* Call a function with the channels of this round; how many it returns. */
static int
call(PGconn *conn, const char *function)
{
	char		sql[200];

	snprintf(sql, sizeof(sql), "SELECT count(*) FROM %s ARRAY(SELECT 'held-%d-' || i FROM generate_series(1, 5) i)%s",
			 function, generation, strchr(function, '(') == strrchr(function, '(') ? ")" : "))");
	return ask_number(conn, sql);
}

/* How many of the channels are there. */
static int
count_held(void)
{
	return ask_number(watching, "SELECT count(*) FROM presence.presences WHERE room = '" HELD_ROOM "'");
}

/* Look at the events: "reason" is the only one for which channels may leave. */
static void
check_reasons(const char *reason)
{
	PGnotify   *notify;
	char		expected[40];
	char		name[40];

	snprintf(name, sizeof(name), "\"held-%d-", generation);
	snprintf(expected, sizeof(expected), "\"reason\":\"%s\"", reason);
	(void) PQconsumeInput(watching);
	while ((notify = PQnotifies(watching)) != NULL)
	{
		bool		ours = strstr(notify->extra, "\"event\":\"leave\"") && strstr(notify->extra, name);

		leaves += ours;
		if (ours && !strstr(notify->extra, expected))
			fail("a held channel left, which should be for \"%s\": %s", reason, notify->extra);
		PQfreemem(notify);
	}
}

/* Another session takes the channels over. */
static void
take_over(void)
{
	PGconn	   *conn = connect_patiently("holder");

	(void) call(conn, "unnest(presence_hold_many(");
	PQfinish(holding);
	holding = conn;
}

/* The session ends, in one way or another. */
static void
end_session(void)
{
	static const char *const ends[] = {
		"SELECT pg_terminate_backend(pg_backend_pid())", "DISCARD ALL", "SELECT 1"
	};

	PQclear(PQexec(holding, ends[random_below(&randoms, 3)]));
	PQfinish(holding);
	holding = NULL;
}

/*
 * Add and hold, and see that all stay; false: the round is over.  A writer may
 * have truncated the table: then they leave for no reason, and not all are here.
 */
static bool
hold_for_a_while(void)
{
	double		end = now_seconds() + options.max_age_ms / 1000.0 * 1.4;
	int			missing;

	generation++;
	leaves = 0;
	(void) call(holding, "presence_add_many('" HELD_ROOM "',");
	missing = call(holding, "unnest(presence_hold_many(");
	while (missing == 0 && now_seconds() < end && !is_over())
	{
		if (random_below(&randoms, 40) == 0)
			take_over();
		check_reasons("none");
		nap(0.02);
	}
	return missing == 0 && !is_over();
}

/*
 * Look at the events of channels that have left, for a while, as a resync may
 * stand for them.
 */
static void
see_events(void)
{
	double		end = now_seconds() + 2;

	while (leaves < 5 && now_seconds() < end && !is_over())
	{
		check_reasons("disconnected");
		nap(0.02);
	}
}

/* After the end of the session all leave. */
static void
see_them_leave(void)
{
	double		deadline = now_seconds() + PATIENCE;

	while (count_held() > 0 && !is_over())
	{
		check_reasons("disconnected");
		if (now_seconds() > deadline)
		{
			fail("channels stay whose holder is gone");
			return;
		}
		nap(0.02);
	}
	see_events();
	if (!is_over())
		atomic_fetch_add(&rounds, 1);
}

/* A thread that holds. */
void *
holder_main(void *argument)
{
	(void) argument;
	randoms = options.seed * 3000 + 1;
	watching = connect_patiently("watcher");
	PQclear(PQexec(watching, "LISTEN presence_changed"));
	while (!atomic_load(&finished))
	{
		bool		complete;

		rest_while_paused();
		PQclear(PQexec(watching, "DELETE FROM presence.presences WHERE room = '" HELD_ROOM "'"));
		holding = connect_patiently("holder");
		if (holding == NULL)
			continue;
		complete = hold_for_a_while();
		end_session();
		if (complete)
			see_them_leave();
	}
	PQfinish(watching);
	return NULL;
}
