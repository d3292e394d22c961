/*-------------------------------------------------------------------------
 *
 * listen.c
 *		Listens as a gateway does, and says when what was expected has come.
 *
 *	listen drain CHANNEL ...
 *		reads and forgets, until it is ended: the listener that a load needs
 *	listen silent PROBES SPREAD MAX_AGE
 *		adds PROBES channels, touches each once, SPREAD seconds for all of
 *		them, and prints by how much "leave" came later than MAX_AGE after the
 *		touch was sent: p50, p99 and maximum in milliseconds, leaves missing
 *	listen gone ROOMS TIMEOUT
 *		waits until rooms "room-0" ... have told that nobody is left, and
 *		prints the time (seconds since the epoch), rooms missing, and resyncs
 *
 *-------------------------------------------------------------------------
 */
#include "client.h"

/* A leave that is later than this is missing; seconds. */
#define PATIENCE 10.0

/* Read and forget. */
static void
drain(int nchannels, char **channels)
{
	PGconn	   *conn = open_connection("");
	PGnotify   *notify;
	char		sql[200];

	for (int i = 0; i < nchannels; i++)
	{
		snprintf(sql, sizeof(sql), "LISTEN \"%s\"", channels[i]);
		run_statement(conn, sql);
	}
	for (;;)
	{
		wait_readable(conn, 60);
		while ((notify = PQnotifies(conn)))
			PQfreemem(notify);
	}
}

/* Call a function for a probe. */
static void
call_probe(PGconn *conn, const char *format, int probe)
{
	char		sql[200];

	snprintf(sql, sizeof(sql), format, probe % 10, probe);
	run_statement(conn, sql);
}

/* Touch every probe once, evenly spread; notes when. */
static void
touch_probes(PGconn *conn, int nprobes, double spread, double *touched)
{
	double		start = now();

	for (int i = 0; i < nprobes; i++)
	{
		double		wait = start + spread * i / nprobes - now();
		struct timespec ts = {(time_t) wait, (long) ((wait - (time_t) wait) * 1e9)};

		if (wait > 0)
			nanosleep(&ts, NULL);
		touched[i] = now();
		call_probe(conn, "SELECT presence_touch('probe-%2$d')", i);
	}
}

/* Read leaves of probes; how many. */
static int
read_leaves(PGconn *listener, int nprobes, double *gone)
{
	PGnotify   *notify;
	int			count = 0;

	wait_readable(listener, 0.1);
	while ((notify = PQnotifies(listener)))
	{
		const char *probe = strstr(notify->extra, "\"channel_name\":\"probe-");
		int			i = probe ? atoi(probe + strlen("\"channel_name\":\"probe-")) : -1;

		if (i >= 0 && i < nprobes && gone[i] == 0 &&
			strstr(notify->extra, "\"event\":\"leave\""))
		{
			gone[i] = now();
			count++;
		}
		PQfreemem(notify);
	}
	return count;
}

/* How late leaves of silent channels come. */
static void
silent(int nprobes, double spread, double max_age)
{
	PGconn	   *conn = open_connection("");
	PGconn	   *listener = open_listener("presence_changed");
	double	   *touched = calloc(nprobes, sizeof(double));
	double	   *gone = calloc(nprobes, sizeof(double));
	int			count = 0;
	double		end;

	for (int i = 0; i < nprobes; i++)
		call_probe(conn, "SELECT presence_add('probes-%1$d', 'probe-%2$d')", i);
	touch_probes(conn, nprobes, spread, touched);
	end = now() + max_age + PATIENCE;
	while (count < nprobes && now() < end)
		count += read_leaves(listener, nprobes, gone);
	count = 0;
	for (int i = 0; i < nprobes; i++)
		if (gone[i] != 0)
			touched[count++] = (gone[i] - touched[i] - max_age) * 1000;
	qsort(touched, count, sizeof(double), compare_doubles);
	printf("%.1f %.1f %.1f %d\n", percentile(touched, count, 0.5),
		   percentile(touched, count, 0.99), percentile(touched, count, 1),
		   nprobes - count);
}

/* Read what rooms tell; how many have become empty. */
static int
read_empty_rooms(PGconn *listener, int nrooms, bool *empty, int *resyncs)
{
	PGnotify   *notify;
	int			count = 0;

	wait_readable(listener, 0.1);
	while ((notify = PQnotifies(listener)))
	{
		const char *room = strstr(notify->extra, "\"room\":\"room-");
		int			i = room ? atoi(room + strlen("\"room\":\"room-")) : -1;

		if (strstr(notify->extra, "\"event\":\"resync\""))
			(*resyncs)++;
		if (i >= 0 && i < nrooms && !empty[i] &&
			strstr(notify->extra, "\"connections\":0,"))
		{
			empty[i] = true;
			count++;
		}
		PQfreemem(notify);
	}
	return count;
}

/* When the last of the rooms was told to be empty. */
static void
gone(int nrooms, double timeout)
{
	PGconn	   *listener = open_listener("presence_changed");
	bool	   *empty = calloc(nrooms, sizeof(bool));
	double		end = now() + timeout;
	int			resyncs = 0;
	int			count = 0;

	while (count < nrooms && now() < end)
		count += read_empty_rooms(listener, nrooms, empty, &resyncs);
	printf("%.6f %d %d\n", now(), nrooms - count, resyncs);
}

int
main(int argc, char **argv)
{
	if (argc > 2 && strcmp(argv[1], "drain") == 0)
		drain(argc - 2, argv + 2);
	else if (argc == 5 && strcmp(argv[1], "silent") == 0)
		silent(atoi(argv[2]), atof(argv[3]), atof(argv[4]));
	else if (argc == 4 && strcmp(argv[1], "gone") == 0)
		gone(atoi(argv[2]), atof(argv[3]));
	else
		die("usage", "listen drain CHANNEL ... | silent PROBES SPREAD MAX_AGE | gone ROOMS TIMEOUT");
	return 0;
}
