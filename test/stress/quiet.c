/*-------------------------------------------------------------------------
 *
 * quiet.c
 *		Brings everything to rest, and compares the copies with the table.
 *
 * Writers and chaos are already paused when this is called.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "copy.h"
#include "harness.h"

static PGconn *control;
static int	marks;
static int	points;

/* Query on the control connection; NULL: not connected at the moment. */
static PGresult *
ask(const char *sql)
{
	PGresult   *result;

	if (control == NULL || PQstatus(control) != CONNECTION_OK)
	{
		PQfinish(control);
		control = connect_patiently("control");
		if (control == NULL)
			return NULL;
	}
	result = PQexec(control, sql);
	if (PQresultStatus(result) == PGRES_TUPLES_OK ||
		PQresultStatus(result) == PGRES_COMMAND_OK)
		return result;
	if (!is_fate(result))
		fail("%s: %s", sql, PQresultErrorMessage(result));
	PQclear(result);
	return NULL;
}

/* Run a statement for its effect only. */
static bool
tell(const char *sql)
{
	PGresult   *result = ask(sql);

	PQclear(result);
	return result != NULL;
}

/* Send a heartbeat for all present channels. */
void
quiet_beat(void)
{
	(void) tell("SELECT presence_touch_many(ARRAY(SELECT DISTINCT channel_name FROM presence.presences))");
}

/* Read the table into a copy; false: not possible now. */
static bool
read_truth(Copy *truth)
{
	PGresult   *result = ask("SELECT room, channel_name, id, user_id, meta IS NULL, COALESCE(meta->>'v', '-1')"
							 " FROM presence.presences");

	if (result == NULL)
		return false;
	copy_reset(truth);
	for (int i = 0; i < PQntuples(result); i++)
	{
		int			room = name_number(PQgetvalue(result, i, 0));
		int			channel = name_number(PQgetvalue(result, i, 1));
		Member	   *member;

		if (room < 0 || room >= ALL_ROOMS || channel < 0 || channel >= channels_of_room(room))
			continue;
		member = &truth->rooms[room].members[channel];
		member->id = atoll(PQgetvalue(result, i, 2));
		member->user = PQgetisnull(result, i, 3) ? -1 : name_number(PQgetvalue(result, i, 3));
		member->version = strcmp(PQgetvalue(result, i, 4), "t") == 0 ? NO_VERSION :
			atoll(PQgetvalue(result, i, 5));
	}
	PQclear(result);
	return true;
}

/*
 * Whether the worker has nothing left to announce; "seq" is its last number.
 * Without presences no worker need run.
 */
static bool
is_drained(long long *seq)
{
	PGresult   *result = ask("SELECT seq, queue_bytes, worker_pid, EXISTS (SELECT FROM presence.presences)"
							 " FROM presence.stats");
	bool		drained = false;

	if (result == NULL)
		return false;
	*seq = atoll(PQgetvalue(result, 0, 0));
	drained = atoll(PQgetvalue(result, 0, 1)) == 0 &&
		(!PQgetisnull(result, 0, 2) || strcmp(PQgetvalue(result, 0, 3), "f") == 0);
	PQclear(result);
	return drained;
}

/* Wait until nothing changes any more; false: that is not reached. */
static bool
wait_until_drained(double deadline, bool beating)
{
	long long	before = -2;
	int			stable = 0;

	while (stable < 3)
	{
		long long	seq = -1;

		if (now_seconds() > deadline)
			return false;
		if (beating)
			quiet_beat();
		stable = is_drained(&seq) && seq == before ? stable + 1 : 0;
		before = seq;
		nap(0.05);
	}
	return true;
}

/* Wait until every listener has processed all that was sent before. */
static bool
wait_for_listeners(double deadline, bool beating)
{
	char		sql[50];

	snprintf(sql, sizeof(sql), "NOTIFY converge, '%d'", ++marks);
	if (!tell(sql))
		return false;
	for (int i = 0; i < options.listeners; i++)
		while (!listener_has_seen(listeners[i], marks))
		{
			if (now_seconds() > deadline)
				return false;
			if (beating)
				quiet_beat();
			nap(0.01);
		}
	return true;
}

/* How many presences differ, over all listeners. */
static int
compare_all(const Copy *truth, bool tell_all)
{
	int			count = 0;

	for (int i = 0; i < options.listeners; i++)
	{
		int			differences = listener_compare(listeners[i], truth, false);

		if (differences > 0 && tell_all)
			(void) listener_compare(listeners[i], truth, true);
		count += differences;
	}
	return count;
}

/* Print the server's view of its state. */
static void
show_state(void)
{
	PGresult   *result = ask("SELECT s.*, a.state, a.query, a.wait_event_type, a.wait_event, a.xact_start"
							 " FROM presence.stats s LEFT JOIN pg_stat_activity a ON a.pid = s.worker_pid");

	for (int i = 0; result && i < PQnfields(result); i++)
		printf("#   %s: %s\n", PQfname(result, i), PQgetvalue(result, 0, i));
	PQclear(result);
}

/*
 * Wait until every copy equals the table, which must be empty if "empty".  While
 * the server crashes marks may get lost, so each try sends another one.  The
 * last try may be cut short by the deadline: then the result of the one before
 * it is reported.
 */
bool
quiet_converge(bool empty)
{
	static Copy truth;
	double		deadline = now_seconds() + PATIENCE;
	const char *found = NULL;
	const char *what = "no try";
	int			members = 0;

	if (truth.rooms[0].members == NULL)
		copy_init(&truth);
	while (now_seconds() < deadline)
	{
		what = "the worker does not come to rest";
		if (!wait_until_drained(deadline, !empty))
			continue;
		what = "a listener does not get what is sent";
		if (!wait_for_listeners(connection_may_break() ? Min(now_seconds() + 5, deadline) : deadline, !empty) ||
			!read_truth(&truth))
			continue;
		members = 0;
		for (int r = 0; r < ALL_ROOMS; r++)
			for (int c = 0; c < channels_of_room(r); c++)
				members += truth.rooms[r].members[c].id != 0;
		found = "copies and table differ";
		if (compare_all(&truth, false) > 0)
			continue;
		found = "dead presences stay in the table";
		if (empty && members > 0)
			continue;
		points++;
		return true;
	}
	fail("no convergence: %s (%d presences in the table)", found ? found : what, members);
	show_state();
	(void) compare_all(&truth, true);
	while (options.hold)
	{
		if (!empty)
			quiet_beat();
		nap(0.05);
	}
	return false;
}

/* Print what every session does. */
void
quiet_show_sessions(void)
{
	PGresult   *result = ask("SELECT concat_ws(' | ', pid, backend_type, application_name, state, wait_event_type, wait_event,"
							 " pg_blocking_pids(pid), now() - query_start, left(query, 300)) FROM pg_stat_activity");

	for (int i = 0; i < PQntuples(result); i++)
		printf("#   %s\n", PQgetvalue(result, i, 0));
	PQclear(result);
}

/* How many times all was quiet and every copy equaled the table. */
int
quiet_points(void)
{
	return points;
}

/* Disconnect. */
void
quiet_end(void)
{
	PQfinish(control);
}
