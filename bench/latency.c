/*-------------------------------------------------------------------------
 *
 * latency.c
 *		Measures how long after its commit a join is delivered to listeners.
 *
 *	latency RATE SECONDS LISTENERS NOTIFY_CHANNEL STATEMENT
 *
 * Sends RATE joins a second, whether or not earlier ones have been answered,
 * over SENDERS connections.  STATEMENT takes $1 room, $2 channel_name and $3
 * user_id; rooms are a thousand.  A join counts as committed when its answer
 * arrives here, and as delivered when a listener of this process has read a
 * notification with its channel's name: one clock, and the reading of both is
 * part of the price.  What is delivered before the answer took no time.
 *
 * Prints "ready" when all connections are open, begins at a SIGUSR1, and then
 * prints on one line: p50, p95,
 * p99 and maximum in milliseconds, over all listeners; joins a second that were
 * achieved; deliveries that never came.  Then it waits until it is ended, so
 * that its connections are there when somebody reads what they have used.
 *
 *-------------------------------------------------------------------------
 */
#include <unistd.h>

#include "client.h"

#define SENDERS 32
#define ROOMS 1000

/* Give up on deliveries when none has come for so long; seconds. */
#define PATIENCE 5.0

typedef struct Sender
{
	PGconn	   *conn;
	long		join;			/* being answered, or -1 */
} Sender;

static Sender senders[SENDERS];
static PGconn **listeners;
static int	nlisteners;
static struct pollfd *fds;

static long njoins;
static double *committed;		/* by join */
static double *delivered;		/* by listener and join */
static long ndelivered;
static double last_delivery;

/* Send a join over an idle connection. */
static void
send_join(Sender *sender, long join)
{
	char		room[32];
	char		channel[64];
	char		user[32];
	const char *values[] = {room, channel, user};

	snprintf(room, sizeof(room), "room-%ld", join % ROOMS);
	snprintf(channel, sizeof(channel), CHANNEL_PREFIX "%lld", CHANNEL_BASE + join);
	snprintf(user, sizeof(user), "user-%ld", join);
	if (!PQsendQueryPrepared(sender->conn, "join", 3, values, NULL, NULL, 0))
		die("cannot send", PQerrorMessage(sender->conn));
	sender->join = join;
}

/* Read answers of a sender. */
static void
read_answer(Sender *sender)
{
	PGresult   *result;

	if (!PQconsumeInput(sender->conn))
		die("connection lost", PQerrorMessage(sender->conn));
	while (sender->join >= 0 && !PQisBusy(sender->conn))
	{
		result = PQgetResult(sender->conn);
		if (result == NULL)
		{
			committed[sender->join] = now();
			sender->join = -1;
			return;
		}
		if (PQresultStatus(result) != PGRES_TUPLES_OK &&
			PQresultStatus(result) != PGRES_COMMAND_OK)
			die("join", PQerrorMessage(sender->conn));
		PQclear(result);
	}
}

/* Note the joins that a payload tells: one, or those of a bulk. */
static void
read_payload(int listener, const char *payload, double time)
{
	while ((payload = strstr(payload, CHANNEL_PREFIX)))
	{
		long		join;

		payload += strlen(CHANNEL_PREFIX);
		join = (long) (strtoll(payload, NULL, 10) - CHANNEL_BASE);
		if (join < 0 || join >= njoins || delivered[listener * njoins + join] != 0)
			continue;
		delivered[listener * njoins + join] = time;
		ndelivered++;
		last_delivery = time;
	}
}

/* Read what a listener got. */
static void
read_notifications(int listener)
{
	PGconn	   *conn = listeners[listener];
	PGnotify   *notify;
	double		time;

	if (!PQconsumeInput(conn))
		die("connection lost", PQerrorMessage(conn));
	time = now();
	while ((notify = PQnotifies(conn)))
	{
		read_payload(listener, notify->extra, time);
		PQfreemem(notify);
	}
}

/* Wait for input until a time, and read it. */
static void
read_until(double time)
{
	double		wait = time - now();
	struct timespec ts = {0, 0};

	if (wait > 0)
	{
		ts.tv_sec = (time_t) wait;
		ts.tv_nsec = (long) ((wait - (time_t) wait) * 1e9);
	}
	if (ppoll(fds, SENDERS + nlisteners, &ts, NULL) <= 0)
		return;
	for (int i = 0; i < SENDERS; i++)
		if (fds[i].revents)
			read_answer(&senders[i]);
	for (int i = 0; i < nlisteners; i++)
		if (fds[SENDERS + i].revents)
			read_notifications(i);
}

/* An idle sender, or NULL. */
static Sender *
idle_sender(void)
{
	for (int i = 0; i < SENDERS; i++)
		if (senders[i].join < 0)
			return &senders[i];
	return NULL;
}

/* Send all joins at their times; answers the rate that was achieved. */
static double
send_all(double rate)
{
	double		start = now();
	long		sent = 0;

	while (sent < njoins)
	{
		double		due = start + sent / rate;
		Sender	   *sender = idle_sender();

		if (sender && now() >= due)
			send_join(sender, sent++);
		read_until(sender ? (sent < njoins ? start + sent / rate : 0) : now() + 0.001);
	}
	return njoins / (now() - start);
}

/* Wait for what is under way. */
static void
await_rest(void)
{
	bool		busy = true;

	last_delivery = now();
	while (busy || (ndelivered < njoins * nlisteners &&
					now() < last_delivery + PATIENCE))
	{
		busy = false;
		for (int i = 0; i < SENDERS; i++)
			busy |= senders[i].join >= 0;
		read_until(now() + 0.01);
	}
}

/* Open all connections. */
static void
open_all(const char *channel, const char *statement)
{
	fds = calloc(SENDERS + nlisteners, sizeof(struct pollfd));
	listeners = calloc(nlisteners, sizeof(PGconn *));
	for (int i = 0; i < SENDERS; i++)
	{
		PGconn	   *conn = open_connection("");

		PQclear(PQprepare(conn, "join", statement, 3, NULL));
		senders[i].conn = conn;
		senders[i].join = -1;
		fds[i].fd = PQsocket(conn);
		fds[i].events = POLLIN;
	}
	for (int i = 0; i < nlisteners; i++)
	{
		listeners[i] = open_listener(channel);
		fds[SENDERS + i].fd = PQsocket(listeners[i]);
		fds[SENDERS + i].events = POLLIN;
	}
}

/* Print what was measured. */
static void
report(double rate)
{
	double	   *latencies = malloc(sizeof(double) * (ndelivered + 1));
	long		count = 0;

	for (int i = 0; i < nlisteners; i++)
	{
		for (long join = 0; join < njoins; join++)
		{
			double		time = delivered[i * njoins + join];

			if (time != 0)
				latencies[count++] = time > committed[join] ? (time - committed[join]) * 1000 : 0;
		}
	}
	qsort(latencies, count, sizeof(double), compare_doubles);
	printf("%.2f %.2f %.2f %.2f %.0f %ld\n",
		   percentile(latencies, count, 0.5), percentile(latencies, count, 0.95),
		   percentile(latencies, count, 0.99), percentile(latencies, count, 1),
		   rate, njoins * nlisteners - count);
	fflush(stdout);
}

int
main(int argc, char **argv)
{
	double		rate;

	if (argc != 6)
		die("usage", "latency RATE SECONDS LISTENERS NOTIFY_CHANNEL STATEMENT");
	rate = atof(argv[1]);
	njoins = (long) (rate * atof(argv[2]));
	nlisteners = atoi(argv[3]);
	committed = calloc(njoins, sizeof(double));
	delivered = calloc(njoins * nlisteners, sizeof(double));
	open_all(argv[4], argv[5]);
	await_start();
	rate = send_all(rate);
	await_rest();
	report(rate);
	pause();
	return 0;
}
