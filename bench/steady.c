/*-------------------------------------------------------------------------
 *
 * steady.c
 *		An ordinary day: gateways that beat for their channels, joins and
 *		leaves at a steady rate, listeners.
 *
 *	steady SECONDS NOTIFY_CHANNEL BEAT JOIN LEAVE JOB
 *
 * There are CHANNELS channels before; as many join as leave, the oldest first.
 * BEAT takes $1, the channels of a gateway as an array; JOIN $1 room, $2
 * channel_name, $3 user_id; LEAVE $1 channel_name.  JOB, unless it is empty, is
 * a statement that runs each JOB_PAUSE seconds, first after JOB_FIRST.
 *
 * Prints "ready" when all connections are open, works for SECONDS from a SIGUSR1
 * on, then prints on one line: p50, p99 and maximum of the milliseconds from the answer
 * to a change until a listener has read it, over all listeners; changes;
 * deliveries that never came.  Then it waits until it is ended, so that its
 * connections are there when somebody reads what they have used.
 *
 *-------------------------------------------------------------------------
 */
#include <unistd.h>

#include "client.h"

#define CHANNELS 100000
#define ROOMS 1000
#define GATEWAYS 10
#define LISTENERS 5
#define BEAT_PAUSE 20.0
#define JOB_PAUSE 30.0
#define JOB_FIRST 10.0
#define JOINS 100				/* a second, and as many leaves */

/* Give deliveries so long after the last change; seconds. */
#define PATIENCE 3.0

/* What a connection has been asked for. */
typedef struct Session
{
	PGconn	   *conn;
	bool		busy;
	long		change;			/* being answered, or -1 */
} Session;

static Session beats[GATEWAYS];
static Session changers[GATEWAYS];
static Session job;
static PGconn *listeners[LISTENERS];

static long nchanges;			/* change 2n: a join, 2n + 1: a leave */
static long sent;
static double *answered;		/* by change */
static double *delivered;		/* by listener and change */

/* Send a prepared statement over a session that is not busy. */
static void
send_prepared(Session *session, const char *name, int count, const char *const *values, long change)
{
	if (!PQsendQueryPrepared(session->conn, name, count, values, NULL, NULL, 0))
		die("cannot send", PQerrorMessage(session->conn));
	session->busy = true;
	session->change = change;
}

/* The heartbeat of a gateway: each tenth channel of those that are present. */
static void
send_beat(int gateway)
{
	long		first = sent / 2;
	char	   *names = malloc((CHANNELS / GATEWAYS + 2) * 48);
	char	   *end = names;
	const char *values[] = {names};

	if (beats[gateway].busy)
		die("a beat took longer than the pause between two", "this machine is too busy");
	*end++ = '{';
	for (long i = first + (gateway - first % GATEWAYS + GATEWAYS) % GATEWAYS;
		 i < first + CHANNELS; i += GATEWAYS)
		end += sprintf(end, CHANNEL_PREFIX "%lld,", CHANNEL_BASE + i);
	end[-1] = '}';
	*end = '\0';
	send_prepared(&beats[gateway], "beat", 1, values, -1);
	free(names);
}

/* Send a join or a leave over an idle session; false: there is none. */
static bool
send_change(long change)
{
	char		room[32];
	char		channel[64];
	char		user[32];
	const char *join[] = {room, channel, user};
	const char *leave[] = {channel};
	long		i = change % 2 ? change / 2 : CHANNELS + change / 2;

	snprintf(room, sizeof(room), "room-%ld", i % ROOMS);
	snprintf(channel, sizeof(channel), CHANNEL_PREFIX "%lld", CHANNEL_BASE + i);
	snprintf(user, sizeof(user), "user-%ld", i);
	for (int s = 0; s < GATEWAYS; s++)
	{
		if (changers[s].busy)
			continue;
		if (change % 2)
			send_prepared(&changers[s], "leave", 1, leave, change);
		else
			send_prepared(&changers[s], "join", 3, join, change);
		return true;
	}
	return false;
}

/* Read answers of a session. */
static void
read_answer(Session *session)
{
	PGresult   *result;

	if (!PQconsumeInput(session->conn))
		die("connection lost", PQerrorMessage(session->conn));
	while (session->busy && !PQisBusy(session->conn))
	{
		result = PQgetResult(session->conn);
		if (result == NULL)
		{
			if (session->change >= 0)
				answered[session->change] = now();
			session->busy = false;
			return;
		}
		if (PQresultStatus(result) != PGRES_TUPLES_OK &&
			PQresultStatus(result) != PGRES_COMMAND_OK)
			die("statement", PQerrorMessage(session->conn));
		PQclear(result);
	}
}

/* Note the changes that an event tells. */
static void
read_event(int listener, const char *payload, double time)
{
	bool		leave = strstr(payload, "\"event\":\"leave\"") || strstr(payload, "\"event\" : \"leave\"");

	while ((payload = strstr(payload, CHANNEL_PREFIX)))
	{
		long		i = (long) (strtoll(payload + strlen(CHANNEL_PREFIX), NULL, 10) - CHANNEL_BASE);
		long		change = leave ? 2 * i + 1 : 2 * (i - CHANNELS);

		payload += strlen(CHANNEL_PREFIX);
		if (change >= 0 && change < nchanges && delivered[listener * nchanges + change] == 0)
			delivered[listener * nchanges + change] = time;
	}
}

/* Read what a listener got. */
static void
read_listener(int listener)
{
	PGnotify   *notify;
	double		time;

	if (!PQconsumeInput(listeners[listener]))
		die("connection lost", PQerrorMessage(listeners[listener]));
	time = now();
	while ((notify = PQnotifies(listeners[listener])))
	{
		read_event(listener, notify->extra, time);
		PQfreemem(notify);
	}
}

/* Wait for input, until a time at the latest, and read it. */
static void
read_until(double time)
{
	struct pollfd fds[2 * GATEWAYS + 1 + LISTENERS];
	double		wait = time - now();
	struct timespec ts = {0, wait > 0 ? (long) ((wait < 0.9 ? wait : 0.9) * 1e9) : 0};

	for (int i = 0; i < GATEWAYS; i++)
	{
		fds[2 * i] = (struct pollfd) {PQsocket(beats[i].conn), POLLIN, 0};
		fds[2 * i + 1] = (struct pollfd) {PQsocket(changers[i].conn), POLLIN, 0};
	}
	fds[2 * GATEWAYS] = (struct pollfd) {PQsocket(job.conn), POLLIN, 0};
	for (int i = 0; i < LISTENERS; i++)
		fds[2 * GATEWAYS + 1 + i] = (struct pollfd) {PQsocket(listeners[i]), POLLIN, 0};
	if (ppoll(fds, 2 * GATEWAYS + 1 + LISTENERS, &ts, NULL) <= 0)
		return;
	for (int i = 0; i < GATEWAYS; i++)
	{
		if (fds[2 * i].revents)
			read_answer(&beats[i]);
		if (fds[2 * i + 1].revents)
			read_answer(&changers[i]);
	}
	if (fds[2 * GATEWAYS].revents)
		read_answer(&job);
	for (int i = 0; i < LISTENERS; i++)
		if (fds[2 * GATEWAYS + 1 + i].revents)
			read_listener(i);
}

/* The beats and the job that are due. */
static void
send_due(double elapsed, bool have_job)
{
	static long beaten = 0;
	static long worked = 0;

	if (elapsed >= beaten * BEAT_PAUSE / GATEWAYS)
		send_beat(beaten++ % GATEWAYS);
	if (have_job && !job.busy && elapsed >= JOB_FIRST + worked * JOB_PAUSE)
	{
		send_prepared(&job, "job", 0, NULL, -1);
		worked++;
	}
}

/* The day. */
static void
work(double seconds, bool have_job)
{
	double		start = now();
	double		elapsed;

	while ((elapsed = now() - start) < seconds)
	{
		send_due(elapsed, have_job);
		while (sent < nchanges && elapsed >= sent / (2.0 * JOINS) && send_change(sent))
			sent++;
		read_until(now() + 0.001);
	}
	while (now() < start + seconds + PATIENCE)
		read_until(now() + 0.1);
}

/* Prepare a statement; the server says what is wrong with it. */
static void
prepare(PGconn *conn, const char *name, const char *statement)
{
	PGresult   *result = PQprepare(conn, name, statement, 0, NULL);

	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		die(statement, PQerrorMessage(conn));
	PQclear(result);
}

/* Open all connections. */
static void
open_all(char **argv)
{
	for (int i = 0; i < GATEWAYS; i++)
	{
		beats[i].conn = open_connection("");
		prepare(beats[i].conn, "beat", argv[3]);
		changers[i].conn = open_connection("");
		prepare(changers[i].conn, "join", argv[4]);
		prepare(changers[i].conn, "leave", argv[5]);
	}
	job.conn = open_connection("");
	if (*argv[6])
		prepare(job.conn, "job", argv[6]);
	for (int i = 0; i < LISTENERS; i++)
		listeners[i] = open_listener(argv[2]);
}

/* Print what was measured. */
static void
report(void)
{
	double	   *latencies = malloc(sizeof(double) * (nchanges * LISTENERS + 1));
	long		count = 0;

	for (long i = 0; i < nchanges * LISTENERS; i++)
	{
		double		time = answered[i % nchanges];

		if (delivered[i] != 0 && time != 0)
			latencies[count++] = delivered[i] > time ? (delivered[i] - time) * 1000 : 0;
	}
	qsort(latencies, count, sizeof(double), compare_doubles);
	printf("%.2f %.2f %.2f %ld %ld\n", percentile(latencies, count, 0.5),
		   percentile(latencies, count, 0.99), percentile(latencies, count, 1),
		   sent, sent * LISTENERS - count);
	fflush(stdout);
}

int
main(int argc, char **argv)
{
	if (argc != 7)
		die("usage", "steady SECONDS NOTIFY_CHANNEL BEAT JOIN LEAVE JOB");
	nchanges = (long) (2 * JOINS * atof(argv[1]));
	answered = calloc(nchanges, sizeof(double));
	delivered = calloc(nchanges * LISTENERS, sizeof(double));
	open_all(argv);
	await_start();
	work(atof(argv[1]), *argv[6] != '\0');
	report();
	pause();
	return 0;
}
