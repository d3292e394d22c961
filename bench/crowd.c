/*-------------------------------------------------------------------------
 *
 * crowd.c
 *		Many listeners that ask the same at once, as after a network that was
 *		away, and how long they wait for their answers.
 *
 *	crowd LISTENERS STATEMENT ROWS BEFORE
 *
 * Each listens to presence_changed, and has asked BEFORE times before: none has
 * just connected, and everything that a session remembers is new to it.  An
 * answer that has not ROWS rows is an error.
 *
 * Prints "ready" when all connections are open, begins at a SIGUSR1, and prints
 * on one line: seconds until all had their answers, p50 and p99 of the
 * milliseconds that each waited, bytes of an answer.  Then it waits until it is
 * ended, so that its connections are there when somebody reads what they have
 * used.
 *
 *-------------------------------------------------------------------------
 */
#include <unistd.h>

#include "client.h"

static int	nlisteners;
static PGconn **listeners;
static struct pollfd *fds;		/* of those that wait; else -1 */
static double *waited;			/* milliseconds */
static long bytes;				/* of the last answer */

/* The bytes of an answer, which must have so many rows. */
static void
read_answer(PGconn *conn, int nrows)
{
	PGresult   *result = PQgetResult(conn);

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		die("cannot read", PQerrorMessage(conn));
	if (PQntuples(result) != nrows)
		die("an answer", "has not as many rows as it should");
	bytes = 0;
	for (int i = 0; i < nrows; i++)
		for (int j = 0; j < PQnfields(result); j++)
			bytes += PQgetlength(result, i, j);
	PQclear(result);
	while ((result = PQgetResult(conn)))
		PQclear(result);
}

/* Read what has come for a listener; whether that was its answer. */
static bool
read_input(PGconn *conn, int nrows)
{
	if (!PQconsumeInput(conn))
		die("connection lost", PQerrorMessage(conn));
	if (PQisBusy(conn))
		return false;
	read_answer(conn, nrows);
	return true;
}

/* All ask at once; until all have been answered. */
static void
ask_all(const char *statement, int nrows)
{
	double		start = now();
	int			waiting = nlisteners;

	for (int i = 0; i < nlisteners; i++)
	{
		if (!PQsendQuery(listeners[i], statement))
			die("cannot send", PQerrorMessage(listeners[i]));
		fds[i] = (struct pollfd) {PQsocket(listeners[i]), POLLIN, 0};
	}
	while (waiting > 0)
	{
		if (poll(fds, nlisteners, -1) < 0)
			die("poll", "failed");
		for (int i = 0; i < nlisteners; i++)
		{
			if (fds[i].fd < 0 || !fds[i].revents || !read_input(listeners[i], nrows))
				continue;
			waited[i] = (now() - start) * 1000;
			fds[i].fd = -1;
			waiting--;
		}
	}
}

int
main(int argc, char **argv)
{
	double		start;

	if (argc != 5)
		die("usage", "crowd LISTENERS STATEMENT ROWS BEFORE");
	nlisteners = atoi(argv[1]);
	listeners = calloc(nlisteners, sizeof(PGconn *));
	fds = calloc(nlisteners, sizeof(struct pollfd));
	waited = calloc(nlisteners, sizeof(double));
	for (int i = 0; i < nlisteners; i++)
		listeners[i] = open_listener("presence_changed");
	for (int i = 0; i < atoi(argv[4]); i++)
		ask_all(argv[2], atoi(argv[3]));
	await_start();
	start = now();
	ask_all(argv[2], atoi(argv[3]));
	start = now() - start;
	qsort(waited, nlisteners, sizeof(double), compare_doubles);
	printf("%.6f %.1f %.1f %ld\n", start, percentile(waited, nlisteners, 0.5),
		   percentile(waited, nlisteners, 0.99), bytes);
	fflush(stdout);
	pause();
	return 0;
}
