/*-------------------------------------------------------------------------
 *
 * chaos_server.c
 *		Disturbs the server's processes, its settings and its queue.
 *
 *-------------------------------------------------------------------------
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "chaos.h"

void
chaos_terminate_worker(PGconn *conn, Random *random)
{
	chaos_wait(chaos_between(random, 0.02, 0.6));
	chaos_run(conn, "SELECT pg_terminate_backend(worker_pid) FROM presence.stats WHERE worker_pid IS NOT NULL");
}

void
chaos_kill_somebody(PGconn *conn, Random *random)
{
	int			pid;

	(void) conn;
	chaos_wait(chaos_between(random, 1.5, 3));
	pid = writer_any_pid(random);
	if (pid > 0 && !atomic_load(&paused))
		kill(pid, SIGKILL);
}

void
chaos_change_mode(PGconn *conn, Random *random)
{
	static const char *const modes[] = {"transaction", "auto", "off", "auto"};
	char		sql[100];

	snprintf(sql, sizeof(sql), "ALTER SYSTEM SET presence.notify = '%s'",
			 modes[random_below(random, 4)]);
	chaos_run(conn, sql);
	chaos_run(conn, "SELECT pg_reload_conf()");
	chaos_wait(chaos_between(random, 0.05, 0.5));
	if (!atomic_load(&paused))
		return;
	chaos_run(conn, "ALTER SYSTEM SET presence.notify = 'auto'");
	chaos_run(conn, "SELECT pg_reload_conf()");
}

/*
 * Notify until the queue is full, which only the oldest reader can change.
 * From PostgreSQL 17 on its size can be set; before that it is 8 GB.
 */
static void
fill_queue(void)
{
	PGconn	   *conn = connect_patiently("flood");
	bool		good = conn != NULL && PQserverVersion(conn) >= 170000;

	while (good && !atomic_load(&paused) && !atomic_load(&finished))
	{
		PGresult   *result = PQexec(conn, "SELECT pg_notify('flood', repeat('x', 7900) || i) FROM generate_series(1, 8) i");
		const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

		good = PQresultStatus(result) == PGRES_TUPLES_OK;
		if (!good && (state == NULL || strcmp(state, "54000") != 0))
			fail("filling the queue: %s", PQresultErrorMessage(result));
		PQclear(result);
	}
	PQfinish(conn);
}

void
chaos_stop_reading(PGconn *conn, Random *random)
{
	PGnotify   *notify;

	chaos_wait(chaos_between(random, 0.1, 0.3));
	chaos_run(conn, "LISTEN presence_changed");
	chaos_run(conn, "BEGIN");
	chaos_run(conn, "SELECT 1");
	if (random_below(random, 2) == 0)
		fill_queue();
	chaos_wait(chaos_between(random, 1, 4));
	chaos_run(conn, "COMMIT");
	chaos_run(conn, "UNLISTEN *");
	while ((notify = PQnotifies(conn)) != NULL)
		PQfreemem(notify);
}

/*
 * Stop the worker, or a writer's session, wherever it is; for a time shorter or
 * longer than what the worker regards as a stall, and than max_age.
 */
void
chaos_freeze_somebody(PGconn *conn, Random *random)
{
	bool		worker = random_below(random, 3) > 0;
	int			pid = worker ? chaos_ask_number(conn, "SELECT worker_pid FROM presence.stats") :
		writer_any_pid(random);

	if (pid > 0 && kill(pid, SIGSTOP) == 0)
	{
		chaos_wait(random_below(random, 2) ? chaos_between(random, 0.01, 0.3) :
				   chaos_between(random, 0.5, 2.5));
		(void) kill(pid, SIGCONT);
	}
	chaos_wait(chaos_between(random, 0.05, 0.6));
}
