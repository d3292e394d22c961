/*-------------------------------------------------------------------------
 *
 * chaos.c
 *		Makes trouble while the writers write.
 *
 *	worker	terminates the worker at random moments
 *	crash	kills a server process, so that the server starts anew
 *	mode	changes presence.notify
 *	stall	lets a listener stop reading, inside a transaction
 *
 *-------------------------------------------------------------------------
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

/* Run a statement; errors matter only where the connection should live. */
static void
run(PGconn *conn, const char *sql)
{
	PGresult   *result = PQexec(conn, sql);

	if (PQresultStatus(result) != PGRES_TUPLES_OK &&
		PQresultStatus(result) != PGRES_COMMAND_OK && !is_breakage(result))
		fail("%s: %s", sql, PQresultErrorMessage(result));
	PQclear(result);
}

/* Wait, or less when a pause or the end comes. */
static void
wait_for(double seconds)
{
	double		end = now_seconds() + seconds;

	while (now_seconds() < end && !atomic_load(&paused) && !atomic_load(&finished))
		nap(0.01);
}

static double
between(Random *random, double low, double high)
{
	return low + (high - low) * random_below(random, 1000) / 1000;
}

static void
terminate_worker(PGconn *conn, Random *random)
{
	wait_for(between(random, 0.02, 0.6));
	run(conn, "SELECT pg_terminate_backend(worker_pid) FROM presence.stats WHERE worker_pid IS NOT NULL");
}

static void
kill_somebody(PGconn *conn, Random *random)
{
	int			pid;

	(void) conn;
	wait_for(between(random, 1.5, 3));
	pid = writer_any_pid(random);
	if (pid > 0 && !atomic_load(&paused))
		kill(pid, SIGKILL);
}

static void
change_mode(PGconn *conn, Random *random)
{
	static const char *const modes[] = {"transaction", "auto", "off", "auto"};
	char		sql[100];

	snprintf(sql, sizeof(sql), "ALTER SYSTEM SET presence.notify = '%s'",
			 modes[random_below(random, 4)]);
	run(conn, sql);
	run(conn, "SELECT pg_reload_conf()");
	wait_for(between(random, 0.05, 0.5));
	if (!atomic_load(&paused))
		return;
	run(conn, "ALTER SYSTEM SET presence.notify = 'auto'");
	run(conn, "SELECT pg_reload_conf()");
}

static void
stop_reading(PGconn *conn, Random *random)
{
	PGnotify   *notify;

	wait_for(between(random, 0.1, 0.3));
	run(conn, "LISTEN presence_changed");
	run(conn, "BEGIN");
	run(conn, "SELECT 1");
	wait_for(between(random, 2, 4));
	run(conn, "COMMIT");
	run(conn, "UNLISTEN *");
	while ((notify = PQnotifies(conn)) != NULL)
		PQfreemem(notify);
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
		if (chaos_is("none"))
			continue;
		if (conn == NULL || PQstatus(conn) != CONNECTION_OK)
		{
			PQfinish(conn);
			conn = connect_patiently("chaos");
			if (conn == NULL)
				continue;
		}
		if (chaos_is("worker"))
			terminate_worker(conn, &random);
		else if (chaos_is("crash"))
			kill_somebody(conn, &random);
		else if (chaos_is("mode"))
			change_mode(conn, &random);
		else
			stop_reading(conn, &random);
	}
	PQfinish(conn);
	return NULL;
}
