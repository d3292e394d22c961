/*-------------------------------------------------------------------------
 *
 * main.c
 *		Lets many sessions write and many listen, and compares at every quiet
 *		point what the listeners believe with what the table says.
 *
 * usage: converge --conninfo STRING [--seconds N] [--chaos KIND] [--writers N]
 *				   [--listeners N] [--max-age MILLISECONDS] [--seed N] [--hold 1]
 *
 * A quiet point: writers and chaos rest, everybody present beats, the queue is
 * empty, and each listener has taken a NOTIFY sent after that.  Then every
 * copy must be the table.  At the end the hearts stop, and table and copies
 * must become empty.  Exits with 0 when nothing was wrong; with --hold 1 it
 * stays for a debugger when the copies do not become the table.
 *
 *-------------------------------------------------------------------------
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "copy.h"
#include "harness.h"

/* Seconds within which everything must come to rest. */
#define PATIENCE 30

/* Failures that are told; more are only counted. */
#define MAX_TOLD 8

Options		options = {"", "none", 10, 8, 4, 2000, 0, false};
atomic_bool paused;
atomic_bool finished;
atomic_int	resting;

static atomic_int nfailures;
static Listener *listeners[64];
static PGconn *control;
static int	marks;

double
now_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

void
nap(double seconds)
{
	usleep((useconds_t) (seconds * 1e6));
}

/* xorshift64* */
uint64_t
random_next(Random *random)
{
	uint64_t	x = *random + (*random == 0);

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*random = x;
	return x * UINT64_C(2685821657736338717);
}

int
random_below(Random *random, int limit)
{
	return (int) ((random_next(random) >> 33) % limit);
}

/* Something is wrong. */
void
fail(const char *format,...)
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	va_list		arguments;

	if (atomic_fetch_add(&nfailures, 1) >= MAX_TOLD)
		return;
	pthread_mutex_lock(&mutex);
	printf("# WRONG at %.3f: ", now_seconds());
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	fflush(stdout);
	pthread_mutex_unlock(&mutex);
}

int
failures(void)
{
	return atomic_load(&nfailures);
}

/* Rest until the pause is over. */
void
rest_while_paused(void)
{
	if (!atomic_load(&paused))
		return;
	atomic_fetch_add(&resting, 1);
	while (atomic_load(&paused) && !atomic_load(&finished))
		nap(0.005);
	atomic_fetch_sub(&resting, 1);
}

bool
chaos_is(const char *kind)
{
	return strcmp(options.chaos, kind) == 0;
}

/* Whether connections get lost because somebody kills the server. */
bool
connection_may_break(void)
{
	return chaos_is("crash");
}

/* What the server has to say beside its answers does not matter. */
static void
ignore_notice(void *argument, const char *message)
{
	(void) argument;
	(void) message;
}

/* Whether a statement failed because the server was killed. */
bool
is_breakage(const PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	return connection_may_break() && (state == NULL || strncmp(state, "57P", 3) == 0);
}

/* Connect; a server that is starting is waited for.  NULL: not yet. */
PGconn *
connect_patiently(const char *name)
{
	PGconn	   *conn = PQconnectdb(options.conninfo);

	if (PQstatus(conn) == CONNECTION_OK)
	{
		char		sql[100];

		PQsetNoticeProcessor(conn, ignore_notice, NULL);
		snprintf(sql, sizeof(sql), "SET application_name = '%s'", name);
		PQclear(PQexec(conn, sql));
		return conn;
	}
	if (!connection_may_break())
		fail("no connection: %s", PQerrorMessage(conn));
	PQfinish(conn);
	nap(0.1);
	return NULL;
}

/* Ask on the control connection; NULL: it is not there at the moment. */
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
	if (!is_breakage(result))
		fail("%s: %s", sql, PQresultErrorMessage(result));
	PQclear(result);
	return NULL;
}

/* Ask for nothing but the effect. */
static bool
tell(const char *sql)
{
	PGresult   *result = ask(sql);

	PQclear(result);
	return result != NULL;
}

/* Everybody present gives a sign of life. */
static void
beat(void)
{
	(void) tell("SELECT presence_touch_many(ARRAY(SELECT DISTINCT channel_name FROM presence.presences))");
}

/* The table as a copy; false: not now. */
static bool
read_truth(Copy *truth)
{
	PGresult   *result = ask("SELECT room, channel_name, id, user_id, meta IS NULL, COALESCE(meta->>'v', '-1')"
							 " FROM presence.presences");

	memset(truth, 0, sizeof(*truth));
	if (result == NULL)
		return false;
	for (int i = 0; i < PQntuples(result); i++)
	{
		int			room = name_number(PQgetvalue(result, i, 0));
		int			channel = name_number(PQgetvalue(result, i, 1));
		Member	   *member = &truth->rooms[room].members[channel];

		member->id = atoll(PQgetvalue(result, i, 2));
		member->user = PQgetisnull(result, i, 3) ? -1 : name_number(PQgetvalue(result, i, 3));
		member->version = strcmp(PQgetvalue(result, i, 4), "t") == 0 ? NO_VERSION :
			atoll(PQgetvalue(result, i, 5));
	}
	PQclear(result);
	return true;
}

/* Whether the worker has nothing left to say; "seq" tells how far it is. */
static bool
is_drained(long long *seq)
{
	PGresult   *result = ask("SELECT seq, queue_bytes, worker_pid FROM presence.stats");
	bool		drained = false;

	if (result == NULL)
		return false;
	*seq = atoll(PQgetvalue(result, 0, 0));
	drained = atoll(PQgetvalue(result, 0, 1)) == 0 && !PQgetisnull(result, 0, 2);
	PQclear(result);
	return drained;
}

/* Wait until nothing moves any more; false: it does not come to that. */
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
			beat();
		stable = is_drained(&seq) && seq == before ? stable + 1 : 0;
		before = seq;
		nap(0.05);
	}
	return true;
}

/* Wait until every listener has taken all that was sent before. */
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
				beat();
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

/* Say what the server thinks it is doing. */
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
 * Wait until every copy is the table, which "empty" has to be.  In a crashing
 * server marks may get lost, so each try sends another one.  The last try may
 * be cut short by the deadline: then what the one before it found is told.
 */
static bool
converge(bool empty)
{
	static Copy truth;
	double		deadline = now_seconds() + PATIENCE;
	const char *found = NULL;
	const char *what = "no try";
	int			members = 0;

	while (now_seconds() < deadline)
	{
		what = "the worker does not come to rest";
		if (!wait_until_drained(deadline, !empty))
			continue;
		what = "a listener does not get what is sent";
		if (!wait_for_listeners(Min(now_seconds() + 5, deadline), !empty) || !read_truth(&truth))
			continue;
		members = 0;
		for (int r = 0; r < ROOMS; r++)
			for (int c = 0; c < CHANNELS; c++)
				members += truth.rooms[r].members[c].id != 0;
		found = "copies and table differ";
		if (compare_all(&truth, false) > 0)
			continue;
		found = "dead presences stay in the table";
		if (empty && members > 0)
			continue;
		return true;
	}
	fail("no convergence: %s (%d presences in the table)", found ? found : what, members);
	show_state();
	(void) compare_all(&truth, true);
	while (options.hold)
	{
		if (!empty)
			beat();
		nap(0.05);
	}
	return false;
}

/* Have everybody rest. */
static bool
pause_all(void)
{
	double		deadline = now_seconds() + PATIENCE;

	atomic_store(&paused, true);
	while (atomic_load(&resting) < options.writers + 1)
	{
		if (now_seconds() > deadline)
		{
			fail("a writer does not come back from its statement");
			return false;
		}
		beat();
		nap(0.05);
	}
	return true;
}

/* Write for some seconds, come to rest, compare. */
static bool
do_turn(double seconds, bool last)
{
	double		end = now_seconds() + seconds;
	long long	before = writer_operations();
	int			failed = failures();
	bool		good;

	while (now_seconds() < end && failures() == failed)
		nap(0.05);
	if (writer_operations() == before)
		fail("the writers stood still for %.1f seconds", seconds);
	good = pause_all() && converge(false);
	for (int i = 0; i < options.listeners && good; i++)
		listener_set_exact(listeners[i]);
	if (last)
		good = good && converge(true);
	else
		atomic_store(&paused, false);
	return good && failures() == failed;
}

static void
read_options(int argc, char **argv)
{
	options.seed = (uint64_t) time(NULL) ^ (uint64_t) getpid();
	for (int i = 1; i + 1 < argc; i += 2)
	{
		const char *value = argv[i + 1];

		if (strcmp(argv[i], "--conninfo") == 0)
			options.conninfo = value;
		else if (strcmp(argv[i], "--chaos") == 0)
			options.chaos = value;
		else if (strcmp(argv[i], "--seconds") == 0)
			options.seconds = atof(value);
		else if (strcmp(argv[i], "--writers") == 0)
			options.writers = Min(atoi(value), 64);
		else if (strcmp(argv[i], "--listeners") == 0)
			options.listeners = Min(atoi(value), 64);
		else if (strcmp(argv[i], "--max-age") == 0)
			options.max_age_ms = atoi(value);
		else if (strcmp(argv[i], "--hold") == 0)
			options.hold = atoi(value) != 0;
		else if (strcmp(argv[i], "--seed") == 0)
			options.seed = strtoull(value, NULL, 10);
		else
		{
			fprintf(stderr, "converge: unknown option %s\n", argv[i]);
			exit(2);
		}
	}
}

int
main(int argc, char **argv)
{
	pthread_t	threads[65];
	double		end;
	bool		good = true;

	read_options(argc, argv);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 0; i < options.listeners; i++)
		listeners[i] = listener_start(i);
	for (int i = 0; i < options.writers; i++)
		pthread_create(&threads[i], NULL, writer_main, (void *) (intptr_t) i);
	pthread_create(&threads[options.writers], NULL, chaos_main, NULL);

	end = now_seconds() + options.seconds;
	while (good && end - now_seconds() > 4)
		good = do_turn(2.5, false);
	good = good && do_turn(Max(end - now_seconds() - 1, 1), true);

	atomic_store(&finished, true);
	for (int i = 0; i <= options.writers; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < options.listeners; i++)
	{
		listener_join(listeners[i]);
		listener_report(listeners[i]);
	}
	printf("# %s: %lld operations, the longest statement took %.3f s, %d failures, seed %llu\n",
		   options.chaos, writer_operations(), writer_longest(), failures(),
		   (unsigned long long) options.seed);
	PQfinish(control);
	return failures() == 0 && good ? 0 : 1;
}
