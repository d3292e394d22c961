/*-------------------------------------------------------------------------
 *
 * batches.c
 *		One session that calls a statement for many channels, in arrays, as a
 *		gateway does for its sockets.
 *
 *	batches STATEMENT CHANNELS EACH
 *
 * STATEMENT takes $1, an array of EACH names, and answers a number: those that
 * are not present.  It is called until all CHANNELS have been named.
 *
 * Prints "ready" when the connection is open, begins at a SIGUSR1, and prints
 * on one line: seconds, channels that were not present.  Then it waits until it
 * is ended, and its session with it.
 *
 *-------------------------------------------------------------------------
 */
#include <unistd.h>

#include "client.h"

/* The names of some channels, as an array. */
static char *
format_names(long first, long count)
{
	char	   *names = malloc(count * 48 + 2);
	char	   *end = names;

	*end++ = '{';
	for (long i = first; i < first + count; i++)
		end += sprintf(end, CHANNEL_PREFIX "%lld,", CHANNEL_BASE + i);
	end[-1] = '}';
	*end = '\0';
	return names;
}

/* Call the statement for some channels; returns what it answers. */
static long
call(PGconn *conn, const char *names)
{
	PGresult   *result = PQexecPrepared(conn, "batch", 1, &names, NULL, NULL, 0);
	long		missing;

	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
		die("batch", PQerrorMessage(conn));
	missing = atol(PQgetvalue(result, 0, 0));
	PQclear(result);
	return missing;
}

int
main(int argc, char **argv)
{
	PGconn	   *conn = open_connection("");
	long		nbatches;
	char	  **batches;
	long		missing = 0;
	double		start;

	if (argc != 4 || atol(argv[3]) < 1)
		die("usage", "batches STATEMENT CHANNELS EACH");
	nbatches = atol(argv[2]) / atol(argv[3]);
	batches = malloc(nbatches * sizeof(char *));
	for (long i = 0; i < nbatches; i++)
		batches[i] = format_names(i * atol(argv[3]), atol(argv[3]));
	if (PQresultStatus(PQprepare(conn, "batch", argv[1], 0, NULL)) != PGRES_COMMAND_OK)
		die(argv[1], PQerrorMessage(conn));
	await_start();
	start = now();
	for (long i = 0; i < nbatches; i++)
		missing += call(conn, batches[i]);
	printf("%.6f %ld\n", now() - start, missing);
	fflush(stdout);
	pause();
	return 0;
}
