/*-------------------------------------------------------------------------
 *
 * main.c
 *		Runs many writing and many listening sessions, and compares at every
 *		quiet point the listeners' copies with the table.
 *
 * usage: converge --conninfo STRING [--name WORD] [--seconds N] [--chaos KIND]
 *				   [--writers N] [--listeners N] [--max-age MILLISECONDS]
 *				   [--big MEMBERS] [--seed N] [--hold 1]
 *
 * A quiet point: writers and chaos are paused, all present channels have sent a
 * heartbeat, the queue is empty, and each listener has processed a NOTIFY sent
 * after that.  Then every copy must equal the table.  At the end the heartbeats
 * stop, and table and copies must become empty.  Exits with 0 if nothing was
 * wrong; with --hold 1 it waits for a debugger when the copies do not become
 * equal to the table.
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

#include "harness.h"
#include "names.h"

/* Failures that are printed; more are only counted. */
#define MAX_TOLD 8

Options		options = {"", "run", "none", 10, 8, 4, 2000, 0, false};
atomic_bool paused;
atomic_bool finished;
atomic_int	resting;

static atomic_int nfailures;
Listener   *listeners[64];

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

/* Report a failure. */
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

/* Wait until the pause is over. */
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

/* Whether connections are lost because the server is killed. */
bool
connection_may_break(void)
{
	return chaos_is("crash");
}

/* The server's notices do not matter. */
static void
ignore_notice(void *argument, const char *message)
{
	(void) argument;
	(void) message;
}

/* Connect, waiting for a server that is starting.  NULL: not yet. */
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

/* How many threads pause: writers, chaos, and where it is wanted the holder. */
static int
nactors(void)
{
	return options.writers + 1 + holder_is_wanted();
}

/* Pause writers, chaos and holder. */
static bool
pause_all(void)
{
	double		deadline = now_seconds() + PATIENCE;

	atomic_store(&paused, true);
	while (atomic_load(&resting) < nactors())
	{
		if (now_seconds() > deadline)
		{
			fail("%d of %d writers and chaos do not come back from their statements",
				 nactors() - atomic_load(&resting), nactors());
			quiet_show_sessions();
			return false;
		}
		quiet_beat();
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
	good = pause_all() && quiet_converge(false);
	for (int i = 0; i < options.listeners && good; i++)
		listener_set_exact(listeners[i]);
	if (last)
		good = good && quiet_converge(true);
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
		else if (strcmp(argv[i], "--name") == 0)
			options.name = value;
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
		else if (strcmp(argv[i], "--big") == 0)
			big_room_size = atoi(value);
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

/* Print what has been done and received. */
static void
report(void)
{
	long long	events = 0;
	long long	resyncs = 0;

	for (int i = 0; i < options.listeners; i++)
	{
		listener_report(listeners[i]);
		listener_count(listeners[i], &events, &resyncs);
	}
	printf("# converge: %s: %lld operations, %lld acts of chaos, %lld events heard, %lld resyncs, %d quiet points compared, %d rounds of holds,"
		   " the longest statement took %.3f s, %d failures, seed %llu\n",
		   options.name, writer_operations(), chaos_acts(), events, resyncs, quiet_points(), holder_rounds(),
		   writer_longest(), failures(), (unsigned long long) options.seed);
}

int
main(int argc, char **argv)
{
	pthread_t	threads[66];
	double		end;
	bool		good = true;

	read_options(argc, argv);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 0; i < options.listeners; i++)
		listeners[i] = listener_start(i);
	for (int i = 0; i < options.writers; i++)
		pthread_create(&threads[i], NULL, writer_main, (void *) (intptr_t) i);
	pthread_create(&threads[options.writers], NULL, chaos_main, NULL);

	if (holder_is_wanted())
		pthread_create(&threads[options.writers + 1], NULL, holder_main, NULL);

	end = now_seconds() + options.seconds;
	while (good && end - now_seconds() > 4)
		good = do_turn(2.5, false);
	good = good && do_turn(Max(end - now_seconds() - 1, 1), true);

	atomic_store(&finished, true);
	for (int i = 0; i < nactors(); i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < options.listeners; i++)
		listener_join(listeners[i]);
	report();
	quiet_end();
	return failures() == 0 && good ? 0 : 1;
}
