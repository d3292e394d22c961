/*-------------------------------------------------------------------------
 *
 * writer.c
 *		Sessions that perform all possible operations on presences, at random.
 *
 * Errors that random transactions must expect are ignored (fate.c).
 * Any other error is a failure, and so is a statement that takes too long.
 *
 *-------------------------------------------------------------------------
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "names.h"

#define MAX_WRITERS 64

typedef struct Writer
{
	PGconn	   *conn;
	Random		random;
	atomic_int	pid;
	atomic_llong operations;
	double		longest;		/* seconds that an operation took */
} Writer;

static Writer writers[MAX_WRITERS];
static atomic_llong versions;

/*
 * Channels that are not added or touched for a while, so that they expire: at
 * any time a seventh of them, for one and a half times max_age.
 */
bool
writer_is_silent(int channel)
{
	return channel % 7 == (int) (now_seconds() * 1000 / options.max_age_ms / 1.5) % 7;
}

/*
 * A channel at random; "alive": one that is not silent.  Silent ones are mostly
 * avoided anyway, so that they expire.
 */
static int
pick_channel(Writer *writer, bool alive)
{
	int			channel;

	alive = alive || random_below(&writer->random, 10) > 0;

	do
		channel = random_below(&writer->random, CHANNELS);
	while (alive && writer_is_silent(channel));
	return channel;
}

/* A room at random; low numbers more often, so that some are crowded. */
static int
pick_room(Writer *writer)
{
	int			room = random_below(&writer->random, ROOMS);

	return random_below(&writer->random, 2) ? room : room % 4;
}

/* Run a statement with parameters; false: it failed. */
static bool
run(Writer *writer, const char *sql, int n, const char *const *values)
{
	double		began = now_seconds();
	PGresult   *result = PQexecParams(writer->conn, sql, n, NULL, values, NULL, NULL, 0);
	bool		good = PQresultStatus(result) == PGRES_TUPLES_OK ||
		PQresultStatus(result) == PGRES_COMMAND_OK;

	if (now_seconds() - began > writer->longest)
		writer->longest = now_seconds() - began;
	if (!good && !is_fate(result))
		fail("%s: %s", sql, PQresultErrorMessage(result));
	PQclear(result);
	return good;
}

/* A meta: none, one with a version, or one too large for a payload. */
static const char *
make_meta(Writer *writer, char *buffer, int size)
{
	long long	version = atomic_fetch_add(&versions, 1);
	int			kind = random_below(&writer->random, 40);

	if (kind < 6)
		return NULL;
	if (kind > 6)
		snprintf(buffer, size, "{\"v\": %lld, \"name\": \"\\\"q\\\" \xc3\xa9\"}", version);
	else
		snprintf(buffer, size, "{\"v\": %lld, \"fill\": \"%0*d\"}", version,
				 6000 + random_below(&writer->random, 3000), 0);
	return buffer;
}

/* A user, or NULL: anonymous. */
static const char *
make_user(Writer *writer, char *buffer)
{
	if (random_below(&writer->random, 4) == 0)
		return NULL;
	return name_user(random_below(&writer->random, USERS), buffer);
}

/* An array of channels, in SQL syntax. */
static const char *
make_channels(Writer *writer, char *buffer, int size, bool alive)
{
	int			count = 1 + random_below(&writer->random, random_below(&writer->random, 8) ? 8 : 80);
	int			used = snprintf(buffer, size, "{");

	for (int i = 0; i < count; i++)
	{
		char		name[NAME_SIZE];

		used += snprintf(buffer + used, size - used, "%s\"%s\"", i ? "," : "",
						 name_channel(pick_channel(writer, alive), name));
	}
	snprintf(buffer + used, size - used, "}");
	return buffer;
}

/* A room and a channel, in the first two values. */
typedef struct Pair
{
	char		room[NAME_SIZE];
	char		channel[NAME_SIZE];
} Pair;

static void
make_pair(Writer *writer, Pair *pair, const char **values, bool alive)
{
	values[0] = name_room(pick_room(writer), pair->room);
	values[1] = name_channel(pick_channel(writer, alive), pair->channel);
}

static bool
do_add(Writer *writer)
{
	char		user[NAME_SIZE];
	char		meta[16000];
	Pair		pair;
	const char *values[4];

	make_pair(writer, &pair, values, true);
	values[2] = make_user(writer, user);
	values[3] = make_meta(writer, meta, sizeof(meta));
	return run(writer, "SELECT presence_add($1, $2, $3, $4)", 4, values);
}

static bool
do_add_many(Writer *writer)
{
	char		room[NAME_SIZE];
	char		channels[40000];
	const char *values[2];

	values[0] = name_room(pick_room(writer), room);
	values[1] = make_channels(writer, channels, sizeof(channels), true);
	return run(writer, "SELECT presence_add_many($1, $2)", 2, values);
}

static bool
do_update(Writer *writer)
{
	char		meta[16000];
	Pair		pair;
	const char *values[3];

	make_pair(writer, &pair, values, true);
	values[2] = make_meta(writer, meta, sizeof(meta));
	if (values[2] == NULL)
		values[2] = "{\"v\": null}";
	return run(writer, "SELECT presence_update($1, $2, $3)", 3, values);
}

static bool
do_remove(Writer *writer)
{
	Pair		pair;
	const char *values[2];

	make_pair(writer, &pair, values, false);
	return run(writer, "SELECT presence_remove($1, $2)", 2, values);
}

static bool
do_touch(Writer *writer)
{
	char		channel[NAME_SIZE];
	const char *values[1];

	values[0] = name_channel(pick_channel(writer, true), channel);
	return run(writer, random_below(&writer->random, 3) ? "SELECT presence_touch($1)" :
			   "SELECT presence_touch($1, 0.3)", 1, values);
}

/*
 * Hold channels, or release some.  Where the registry is full a hold is refused,
 * which ends the transaction.
 */
static bool
do_hold(Writer *writer)
{
	static const char *const statements[] = {
		"SELECT presence_hold($1)", "SELECT presence_release($1)", "SELECT presence_hold_many($1)"
	};
	char		channels[40000];
	const char *values[1];
	int			kind = random_below(&writer->random, 3);

	values[0] = kind == 2 ? make_channels(writer, channels, sizeof(channels), true) :
		name_channel(pick_channel(writer, true), channels);
	return run(writer, statements[kind], 1, values);
}

static bool
do_leave_all(Writer *writer)
{
	char		channel[NAME_SIZE];
	const char *values[1];

	values[0] = name_channel(pick_channel(writer, false), channel);
	return run(writer, random_below(&writer->random, 2) ? "SELECT presence_leave_all($1)" :
			   "SELECT presence_leave_all($1, 0.2)", 1, values);
}

static bool
do_many(Writer *writer)
{
	char		channels[40000];
	const char *values[1];
	bool		touch = random_below(&writer->random, 4) != 0;

	values[0] = make_channels(writer, channels, sizeof(channels), touch);
	return run(writer, touch ? "SELECT presence_touch_many($1)" :
			   "SELECT presence_leave_all_many($1)", 1, values);
}

static bool
do_plain_insert(Writer *writer)
{
	Pair		pair;
	const char *values[2];

	make_pair(writer, &pair, values, true);
	return run(writer, "INSERT INTO presence.presences (room, channel_name) VALUES ($1, $2)"
			   " ON CONFLICT DO NOTHING", 2, values);
}

static bool
do_plain_delete(Writer *writer)
{
	Pair		pair;
	const char *values[2];

	make_pair(writer, &pair, values, false);
	if (random_below(&writer->random, 60) == 0)
		return run(writer, "DELETE FROM presence.presences WHERE room = $1", 1, values);
	return run(writer, "DELETE FROM presence.presences WHERE room = $1 AND channel_name = $2",
			   2, values);
}

static bool
do_plain_update(Writer *writer)
{
	char		user[NAME_SIZE];
	char		channel[NAME_SIZE];
	Pair		pair;
	const char *values[3];

	make_pair(writer, &pair, values, false);
	values[2] = make_user(writer, user);
	if (random_below(&writer->random, 3) > 0)
		return run(writer, "UPDATE presence.presences SET user_id = $3"
				   " WHERE room = $1 AND channel_name = $2", 3, values);
	values[2] = name_channel(pick_channel(writer, true), channel);
	return run(writer, "UPDATE presence.presences SET channel_name = $3"
			   " WHERE room = $1 AND channel_name = $2", 3, values);
}

static bool
do_plain_move(Writer *writer)
{
	char		room[NAME_SIZE];
	Pair		pair;
	const char *values[3];

	make_pair(writer, &pair, values, false);
	values[2] = name_room(pick_room(writer), room);
	return run(writer, "UPDATE presence.presences SET room = $3"
			   " WHERE room = $1 AND channel_name = $2", 3, values);
}

static bool
do_caught_error(Writer *writer)
{
	return run(writer, "DO $$ BEGIN PERFORM presence_add('room 0', 'channel 1');"
			   " PERFORM presence_remove('room 0', 'channel 2'); PERFORM 1 / 0;"
			   " EXCEPTION WHEN division_by_zero THEN PERFORM presence_touch('channel 1'); END $$",
			   0, NULL);
}

static bool
do_prune(Writer *writer)
{
	int			kind = random_below(&writer->random, 200);

	if (kind == 0)
		return run(writer, "TRUNCATE presence.presences", 0, NULL);
	return run(writer, kind % 2 ? "SELECT prune_rooms()" : "SELECT prune_presences()", 0, NULL);
}

/* Perform one operation. */
static bool
do_something(Writer *writer)
{
	static const struct
	{
		int			weight;
		bool		(*run) (Writer *writer);
	}			operations[] = {
		{30, do_add}, {4, do_add_many}, {12, do_update}, {18, do_remove},
		{12, do_touch}, {3, do_hold}, {4, do_leave_all}, {6, do_many}, {4, do_plain_insert},
		{4, do_plain_delete}, {4, do_plain_update}, {2, do_plain_move},
		{1, do_caught_error}, {1, do_prune}
	};
	int			dice = random_below(&writer->random, 105);
	int			i = 0;

	while ((dice -= operations[i].weight) >= 0)
		i++;
	atomic_fetch_add(&writer->operations, 1);
	return operations[i].run(writer);
}

/* A transaction of many operations, some of them rolled back. */
static void
do_transaction(Writer *writer)
{
	static const char *const begins[] = {
		"BEGIN", "BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN ISOLATION LEVEL SERIALIZABLE"
	};
	int			steps = 1 + random_below(&writer->random, 8);
	int			depth = 0;
	bool		good = run(writer, begins[random_below(&writer->random, 4)], 0, NULL);

	for (int i = 0; i < steps && good; i++)
	{
		switch (random_below(&writer->random, 8))
		{
			case 0:
				good = run(writer, "SAVEPOINT s", 0, NULL);
				depth++;
				break;
			case 1:
				good = depth == 0 || run(writer, "ROLLBACK TO s", 0, NULL);
				break;
			case 2:
				good = depth == 0 || run(writer, "RELEASE s", 0, NULL);
				depth -= depth > 0;
				break;
			default:
				good = do_something(writer);
				if (!good && depth > 0)
					good = run(writer, "ROLLBACK TO s", 0, NULL);
		}
	}
	(void) run(writer, good && random_below(&writer->random, 5) ? "COMMIT" : "ROLLBACK", 0, NULL);
}

/* Connect if not connected. */
static bool
stay_connected(Writer *writer)
{
	if (writer->conn && PQstatus(writer->conn) == CONNECTION_OK)
		return true;
	if (writer->conn && !connection_may_break())
		fail("a writer lost its connection: %s", PQerrorMessage(writer->conn));
	PQfinish(writer->conn);
	writer->conn = connect_patiently("writer");
	atomic_store(&writer->pid, writer->conn ? PQbackendPID(writer->conn) : 0);
	return writer->conn != NULL &&
		run(writer, "SET statement_timeout = '60s'", 0, NULL);
}

/* End all holds, for nobody else lets go who is held. */
static void
end_holds(Writer *writer)
{
	if (writer->conn == NULL || PQstatus(writer->conn) != CONNECTION_OK)
		return;
	if (random_below(&writer->random, 3) == 0)
	{
		(void) run(writer, "SELECT presence_release_all()", 0, NULL);
		return;
	}
	if (random_below(&writer->random, 2))
		PQclear(PQexec(writer->conn, "SELECT pg_terminate_backend(pg_backend_pid())"));
	PQfinish(writer->conn);
	writer->conn = NULL;
	atomic_store(&writer->pid, 0);
}

/* A thread that writes; the argument is its number. */
void *
writer_main(void *argument)
{
	int			number = (int) (intptr_t) argument;
	Writer	   *writer = &writers[number];

	writer->random = options.seed * 1000 + number + 1;
	while (!atomic_load(&finished))
	{
		if (atomic_load(&paused))
			end_holds(writer);
		rest_while_paused();
		if (!stay_connected(writer))
			continue;
		if (random_below(&writer->random, 5) == 0)
			do_transaction(writer);
		else
			(void) do_something(writer);
	}
	PQfinish(writer->conn);
	return NULL;
}

/* How many operations were performed. */
long long
writer_operations(void)
{
	long long	sum = 0;

	for (int i = 0; i < options.writers; i++)
		sum += atomic_load(&writers[i].operations);
	return sum;
}

/* How long the slowest statement took, in seconds. */
double
writer_longest(void)
{
	double		longest = 0;

	for (int i = 0; i < options.writers; i++)
		if (writers[i].longest > longest)
			longest = writers[i].longest;
	return longest;
}

/* The server process of some writer. */
int
writer_any_pid(Random *random)
{
	return atomic_load(&writers[random_below(random, options.writers)].pid);
}
