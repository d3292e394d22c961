/*-------------------------------------------------------------------------
 *
 * chaos.c
 *		Causes disturbances while the writers write.
 *
 *	worker	terminates the worker at random moments
 *	crash	kills a server process, so that the server restarts
 *	mode	changes presence.notify
 *	stall	makes a listener stop reading, inside a transaction, and fills the
 *			notification queue
 *	freeze	stops the worker, or another process, as a busy machine might
 *	burst	changes thousands of presences in one transaction
 *	locks	holds locks on rows and tables, as a member may
 *	big		keeps changing a room with very many members
 *	extension	drops the extension and creates it again
 *	triggers	nothing more: the triggers disturb enough (020_convergence.pl)
 *
 * Each kind performs one act after the other, and pauses between two of them
 * when all threads must.  A paused act leaves nothing behind that blocks others.
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

/* Run a statement; false: it failed, which is reported if unexpected. */
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

/* A number from a query; -1: no result. */
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

/* Wait; less if a pause or the end comes first. */
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

/* How many acts were performed. */
long long
chaos_acts(void)
{
	return atomic_load(&acts);
}

/* One act of the chosen kind; none if that kind has no acts. */
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

/* The thread that causes the disturbances. */
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
