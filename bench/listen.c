/*-------------------------------------------------------------------------
 *
 * listen.c
 *		Listens as a gateway does, and says when what was expected has come.
 *
 *	listen drain CHANNEL ...
 *		reads and forgets, until it is ended: the listener that a load needs
 *	listen weigh CHANNEL
 *		prints "ready" once it listens, and when it is ended the number of
 *		notifications that have come, and the bytes of their payloads
 *	listen silent PROBES SPREAD MAX_AGE
 *		adds PROBES channels, touches each once, SPREAD seconds for all of
 *		them, and prints by how much "leave" came later than MAX_AGE after the
 *		touch was sent: p50, p99 and maximum in milliseconds, leaves missing
 *	listen reach FIRST LAST EACH TOTAL TIMEOUT
 *		waits until the rooms "room-FIRST" to "room-LAST", which have EACH
 *		connections, have announced TOTAL connections together, and prints
 *		the time (seconds since the epoch), connections missing, and resyncs.
 *		After a resync it reads the rooms again, as a gateway must
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

/* Set by a SIGTERM. */
static volatile sig_atomic_t ended = 0;

static void
note_end(int number)
{
	(void) number;
	ended = 1;
}

/* Count what comes, and its bytes. */
static void
weigh(const char *channel)
{
	PGconn	   *listener = open_listener(channel);
	PGnotify   *notify;
	long		count = 0;
	long		bytes = 0;

	signal(SIGTERM, note_end);
	puts("ready");
	fflush(stdout);
	while (!ended)
	{
		wait_readable(listener, 0.1);
		while ((notify = PQnotifies(listener)))
		{
			count++;
			bytes += strlen(notify->extra);
			PQfreemem(notify);
		}
	}
	printf("%ld %ld\n", count, bytes);
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

/* Rooms that are being counted. */
typedef struct Rooms
{
	int			first;
	int			last;
	long	   *connections;	/* by room, from the first */
	long		total;
	int			resyncs;
} Rooms;

/* A room has so many connections. */
static void
set_connections(Rooms *rooms, int room, long connections)
{
	if (room < rooms->first || room > rooms->last)
		return;
	rooms->total += connections - rooms->connections[room - rooms->first];
	rooms->connections[room - rooms->first] = connections;
}

/* Read the rooms anew. */
static void
read_rooms(PGconn *conn, Rooms *rooms)
{
	PGresult   *result = PQexec(conn, "SELECT substr(room, 6), count(*) FROM presence.members"
								" WHERE room LIKE 'room-%' GROUP BY room");

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		die("reading the rooms", PQerrorMessage(conn));
	for (int i = rooms->first; i <= rooms->last; i++)
		set_connections(rooms, i, 0);
	for (int i = 0; i < PQntuples(result); i++)
		set_connections(rooms, atoi(PQgetvalue(result, i, 0)), atol(PQgetvalue(result, i, 1)));
	PQclear(result);
}

/* Read events; whether one of them was a resync. */
static bool
read_events(PGconn *listener, Rooms *rooms)
{
	PGnotify   *notify;
	bool		resync = false;

	wait_readable(listener, 0.1);
	while ((notify = PQnotifies(listener)))
	{
		const char *room = strstr(notify->extra, "\"room\":\"room-");
		const char *connections = strstr(notify->extra, "\"connections\":");

		if (strstr(notify->extra, "\"event\":\"resync\""))
		{
			rooms->resyncs++;
			resync = true;
		}
		else if (room && connections)
			set_connections(rooms, atoi(room + strlen("\"room\":\"room-")),
							atol(connections + strlen("\"connections\":")));
		PQfreemem(notify);
	}
	return resync;
}

/* When the rooms have announced so many connections. */
static void
reach(int first, int last, long each, long total, double timeout)
{
	PGconn	   *listener = open_listener("presence_changed");
	Rooms		rooms = {.first = first, .last = last};
	double		end = now() + timeout;

	rooms.connections = calloc(last - first + 1, sizeof(long));
	for (int i = first; i <= last; i++)
		set_connections(&rooms, i, each);
	while (rooms.total != total && now() < end)
		if (read_events(listener, &rooms))
			read_rooms(listener, &rooms);
	printf("%.6f %ld %d\n", now(), labs(total - rooms.total), rooms.resyncs);
}

int
main(int argc, char **argv)
{
	if (argc > 2 && strcmp(argv[1], "drain") == 0)
		drain(argc - 2, argv + 2);
	else if (argc == 3 && strcmp(argv[1], "weigh") == 0)
		weigh(argv[2]);
	else if (argc == 5 && strcmp(argv[1], "silent") == 0)
		silent(atoi(argv[2]), atof(argv[3]), atof(argv[4]));
	else if (argc == 7 && strcmp(argv[1], "reach") == 0)
		reach(atoi(argv[2]), atoi(argv[3]), atol(argv[4]), atol(argv[5]), atof(argv[6]));
	else
		die("usage", "listen drain CHANNEL ... | weigh CHANNEL | silent PROBES SPREAD MAX_AGE |"
			" reach FIRST LAST EACH TOTAL TIMEOUT");
	return 0;
}
