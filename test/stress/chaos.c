/*-------------------------------------------------------------------------
 *
 * chaos.c
 *		Makes trouble while the writers write.
 *
 *	worker	terminates the worker at random moments
 *	crash	kills a server process, so that the server starts anew
 *	mode	changes presence.notify
 *	stall	lets a listener stop reading, inside a transaction, and fills the
 *			queue of notifications
 *	freeze	stops the worker, or somebody else, as a busy machine might
 *	burst	changes thousands of presences in one transaction
 *	locks	holds locks on rows and tables, as a member may
 *	big		keeps a room with very many members in motion
 *	extension	drops the extension and creates it again
 *	triggers	nothing more: the triggers are the trouble (020_convergence.pl)
 *
 * Each kind does one act after the other, and rests between two of them when
 * all have to.  An act that is to rest leaves nothing behind that keeps others.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chaos.h"

static const struct
{
	const char *name;
	void		(*act) (PGconn *conn, Random *random);
}			kinds[] = {
	{"worker", chaos_terminate_worker}, {"crash", chaos_kill_somebody},
	{"mode", chaos_change_mode}, {"stall", chaos_stop_reading},
	{"freeze", chaos_freeze_somebody}, {"burst", chaos_burst},
	{"locks", chaos_hold_locks}, {"big", chaos_crowd},
	{"extension", chaos_drop_extension}
};

static atomic_llong acts;

/* Run a statement; false: it failed, which matters if it was not to be. */
bool
chaos_run_with(PGconn *conn, const char *sql, int n, const char *const *values)
{
	PGresult   *result = PQexecParams(conn, sql, n, NULL, values, NULL, NULL, 0);
	bool		good = PQresultStatus(result) == PGRES_TUPLES_OK ||
		PQresultStatus(result) == PGRES_COMMAND_OK;

	if (!good && !is_fate(result))
		fail("%s: %s", sql, PQresultErrorMessage(result));
	PQclear(result);
	return good;
}

bool
chaos_run(PGconn *conn, const char *sql)
{
	return chaos_run_with(conn, sql, 0, NULL);
}

/* A number from a query; -1: there is none. */
int
chaos_ask_number(PGconn *conn, const char *sql)
{
	PGresult   *result = PQexec(conn, sql);
	int			number = -1;

	if (PQresultStatus(result) != PGRES_TUPLES_OK && !is_fate(result))
		fail("%s: %s", sql, PQresultErrorMessage(result));
	if (PQntuples(result) > 0 && !PQgetisnull(result, 0, 0))
		number = atoi(PQgetvalue(result, 0, 0));
	PQclear(result);
	return number;
}

/* Wait, or less when a pause or the end comes. */
void
chaos_wait(double seconds)
{
	double		end = now_seconds() + seconds;

	while (now_seconds() < end && !atomic_load(&paused) && !atomic_load(&finished))
		nap(0.01);
}

double
chaos_between(Random *random, double low, double high)
{
	return low + (high - low) * random_below(random, 1000) / 1000;
}

/* How many acts there were. */
long long
chaos_acts(void)
{
	return atomic_load(&acts);
}

/* One act of the kind that was chosen; none where that has no acts. */
static void
act(PGconn *conn, Random *random)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (chaos_is(kinds[i].name))
		{
			kinds[i].act(conn, random);
			atomic_fetch_add(&acts, 1);
			return;
		}
	chaos_wait(0.1);
}

/* The thread that makes trouble. */
void *
chaos_main(void *argument)
{
	Random		random = options.seed * 3000 + 1;
	PGconn	   *conn = NULL;

	(void) argument;
	while (!atomic_load(&finished))
	{
		rest_while_paused();
		if (conn == NULL || PQstatus(conn) != CONNECTION_OK)
		{
			PQfinish(conn);
			conn = connect_patiently("chaos");
			if (conn == NULL)
				continue;
		}
		act(conn, &random);
	}
	PQfinish(conn);
	return NULL;
}
