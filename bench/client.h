/*-------------------------------------------------------------------------
 *
 * client.h
 *		What the benchmark's libpq clients share: connections and time.
 *
 * Connections follow the environment (PGHOST, PGDATABASE ...).  An error ends
 * the program: a number from a run that failed would be a lie.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include <libpq-fe.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Names of channels: this and 19 digits make 40 bytes. */
#define CHANNEL_PREFIX "channel-000000000000-"
#define CHANNEL_BASE 1000000000000000000LL

/* End with a message. */
static inline void
die(const char *what, const char *why)
{
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

/* Seconds since the epoch. */
static inline double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* Run a statement to its end. */
static inline void
run_statement(PGconn *conn, const char *sql)
{
	PGresult   *result = PQexec(conn, sql);

	if (PQresultStatus(result) != PGRES_COMMAND_OK &&
		PQresultStatus(result) != PGRES_TUPLES_OK)
		die(sql, PQerrorMessage(conn));
	PQclear(result);
}

/* Open a connection, as the environment says where no options do. */
static inline PGconn *
open_connection(const char *options)
{
	PGconn	   *conn = PQconnectdb(options);

	if (PQstatus(conn) != CONNECTION_OK)
		die("cannot connect", PQerrorMessage(conn));
	return conn;
}

/* Open a connection that listens; its role tells its CPU from the others'. */
static inline PGconn *
open_listener(const char *channel)
{
	PGconn	   *conn = open_connection("user=listener");
	char		sql[200];

	snprintf(sql, sizeof(sql), "LISTEN \"%s\"", channel);
	run_statement(conn, sql);
	return conn;
}

/*
 * Say that all is prepared, and wait for the word to begin, SIGUSR1: whoever
 * measures has read by then what the server had used before.
 */
static inline void
await_start(void)
{
	sigset_t	word;
	int			number;

	sigemptyset(&word);
	sigaddset(&word, SIGUSR1);
	sigprocmask(SIG_BLOCK, &word, NULL);
	puts("ready");
	fflush(stdout);
	sigwait(&word, &number);
}

/* Wait until a listener has something to read, or for so many seconds. */
static inline void
wait_readable(PGconn *conn, double seconds)
{
	struct pollfd fd = {PQsocket(conn), POLLIN, 0};

	if (poll(&fd, 1, (int) (seconds * 1000) + 1) > 0 && !PQconsumeInput(conn))
		die("connection lost", PQerrorMessage(conn));
}

static inline int
compare_doubles(const void *a, const void *b)
{
	double		left = *(const double *) a;
	double		right = *(const double *) b;

	return (left > right) - (left < right);
}

/* The value below which a part of the sorted values lies. */
static inline double
percentile(const double *sorted, long count, double part)
{
	long		i = (long) (count * part);

	return count == 0 ? 0 : sorted[i < count ? i : count - 1];
}

#endif							/* BENCH_CLIENT_H */
