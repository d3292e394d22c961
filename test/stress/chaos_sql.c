/*-------------------------------------------------------------------------
 *
 * chaos_sql.c
 *		Disturbances that a session causes by SQL alone.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "chaos.h"
#include "names.h"

/* Space for the names of all channels, quoted. */
#define ARRAY_SIZE (CHANNELS * (NAME_SIZE + 10))

/* Append a name to an array in SQL syntax. */
static char *
append_name(char *at, const char *name)
{
	*at++ = '"';
	for (; *name; name++)
	{
		if (*name == '"' || *name == '\\')
			*at++ = '\\';
		*at++ = *name;
	}
	*at++ = '"';
	return at;
}

/* An array of some rooms, beginning at a random one. */
static const char *
make_rooms(Random *random, int count)
{
	static char buffer[ROOMS * (NAME_SIZE + 10)];
	char	   *at = buffer;
	int			first = random_below(random, ROOMS);

	for (int i = 0; i < count; i++)
	{
		char		name[NAME_SIZE];

		*at++ = i ? ',' : '{';
		at = append_name(at, name_room((first + i) % ROOMS, name));
	}
	strcpy(at, "}");
	return buffer;
}

/* An array of all channels that are not meant to expire. */
static const char *
make_channels(void)
{
	static char buffer[ARRAY_SIZE];
	char	   *at = buffer;

	*at++ = '{';
	for (int i = 0; i < CHANNELS; i++)
	{
		char		name[NAME_SIZE];

		if (writer_is_silent(i))
			continue;
		if (at > buffer + 1)
			*at++ = ',';
		at = append_name(at, name_channel(i, name));
	}
	strcpy(at, "}");
	return buffer;
}

/*
 * The bursts, of rooms $1 and channels $2, or $3 times.  Each changes thousands
 * of presences, or some of them thousands of times.
 */
static const char *const bursts[] = {
	/* all join */
	"SELECT count(presence_add(r, c, CASE WHEN random() < 0.5 THEN 'user 0' END))"
	" FROM unnest($1::text[]) r, unnest($2::text[]) c WHERE $3::int > 0",
	/* all leave and join again */
	"WITH gone AS (DELETE FROM presence.presences WHERE room = ANY ($1) AND channel_name = ANY ($2)"
	" RETURNING 1) SELECT count(presence_add(r, c)) FROM (SELECT count(*) FROM gone) g,"
	" unnest($1::text[]) r, unnest($2::text[]) c WHERE $3::int > 0",
	/* all are changed, by one statement */
	"UPDATE presence.presences SET user_id = CASE WHEN user_id IS NULL THEN 'user ' || 3 * (id % 8) END,"
	" meta = jsonb_build_object('v', 1000000000 + id) WHERE room = ANY ($1) AND channel_name = ANY ($2) AND $3::int > 0",
	/* one is changed thousands of times, also its user */
	"SELECT count(presence_update(r, c, jsonb_build_object('v', 2000000000 + i))), count(presence_add(r, c, 'user ' || 3 * (i % 8)))"
	" FROM (SELECT ($1::text[])[1] AS r, ($2::text[])[1] AS c) s, generate_series(1, $3::int) i",
	/* one joins and leaves thousands of times */
	"SELECT count(presence_add(r, c)), count(presence_remove(r, c))"
	" FROM (SELECT ($1::text[])[1] AS r, ($2::text[])[2] AS c) s, generate_series(1, $3::int) i",
	/* all leave */
	"SELECT presence_leave_all_many($2), $1::text[] IS NULL, $3::int"
};

/* Thousands of subtransactions, some of them rolled back. */
static const char *const subtransactions =
"DO $$ BEGIN FOR i IN 1..500 LOOP BEGIN"
" PERFORM presence_add('room ' || 4 * (i % 4), 'channel ' || i % 7, NULL, jsonb_build_object('v', 3000000000 + i));"
" IF i % 3 = 0 THEN PERFORM presence_remove('room ' || 4 * (i % 4), 'channel ' || i % 5); END IF;"
" IF i % 2 = 0 THEN RAISE division_by_zero; END IF;"
" EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$";

/*
 * A transaction of one to three bursts, some of which are rolled back.  A slow
 * server gets smaller ones, so that they do not delay all others for minutes.
 */
void
chaos_burst(PGconn *conn, Random *random)
{
	static int	most_rooms = ROOMS;
	static int	times = 2000;
	const char *rooms = make_rooms(random, 1 + random_below(random, most_rooms));
	char		number[12];
	const char *values[3] = {rooms, make_channels(), number};
	int			count = 1 + random_below(random, 3);
	double		began;
	double		taken;
	bool		good;

	snprintf(number, sizeof(number), "%d", times);
	chaos_wait(chaos_between(random, 0.05, 0.4));
	began = now_seconds();
	good = chaos_run(conn, "BEGIN");
	for (int i = 0; i < count && good; i++)
	{
		int			which = random_below(random, 7);

		if (random_below(random, 6) == 0)
			good = chaos_run(conn, "SAVEPOINT burst");
		if (which == 6)
			good = good && chaos_run_with(conn, subtransactions, 0, NULL);
		else
			good = good && chaos_run_with(conn, bursts[which], 3, values);
	}
	chaos_run(conn, good && random_below(random, 6) ? "COMMIT" : "ROLLBACK");
	taken = now_seconds() - began;
	most_rooms = taken > 4 ? Max(most_rooms / 2, 1) : Min(most_rooms + 1, ROOMS);
	times = taken > 4 ? Max(times / 2, 100) : Min(times + 200, 5000);
}

/*
 * Lock rows or a table for a while, as role converge_member, which has the
 * privileges that presence_grant gives.
 */
void
chaos_hold_locks(PGconn *conn, Random *random)
{
	static const char *const modes[] = {
		"ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE",
		"EXCLUSIVE", "ACCESS EXCLUSIVE"
	};
	static const char *const tables[] = {"presences", "presences", "rooms", "people", "bans", "invitations"};
	static const char *const strengths[] = {"UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"};
	const char *values[1] = {make_rooms(random, 1 + random_below(random, ROOMS))};
	char		sql[200];
	int			kind = random_below(random, 3);

	chaos_wait(chaos_between(random, 0.05, 0.3));
	chaos_run(conn, "SET ROLE converge_member");
	chaos_run(conn, "BEGIN");
	if (kind == 0)
	{
		snprintf(sql, sizeof(sql), "LOCK TABLE presence.%s IN %s MODE",
				 tables[random_below(random, 6)], modes[random_below(random, 7)]);
		(void) chaos_run(conn, sql);
	}
	else
	{
		snprintf(sql, sizeof(sql), "SELECT FROM presence.presences WHERE room = ANY ($1)%s FOR %s",
				 kind == 1 ? "" : " AND id % 10 = 0", strengths[random_below(random, 4)]);
		(void) chaos_run_with(conn, sql, 1, values);
	}
	chaos_wait(chaos_between(random, 0.1, random_below(random, 4) ? 0.6 : 4));
	chaos_run(conn, random_below(random, 2) ? "COMMIT" : "ROLLBACK");
	chaos_run(conn, "RESET ROLE");
}

/* Create the extension, retrying when that fails. */
static void
create_extension(PGconn *conn)
{
	double		deadline = now_seconds() + PATIENCE;

	while (!chaos_run(conn, "CREATE EXTENSION IF NOT EXISTS presence"))
	{
		if (now_seconds() > deadline)
		{
			fail("the extension cannot be created again");
			return;
		}
		nap(0.01);
	}
}

/* Drop the extension and create it again, at once or after a while. */
void
chaos_drop_extension(PGconn *conn, Random *random)
{
	int			kind = random_below(random, 4);

	chaos_wait(chaos_between(random, 0.3, 1.5));
	if (kind == 0)
	{
		(void) (chaos_run(conn, "BEGIN") && chaos_run(conn, "DROP EXTENSION presence") &&
				chaos_run(conn, "CREATE EXTENSION presence"));
		chaos_run(conn, "COMMIT");
	}
	else if (kind == 1)
	{
		(void) (chaos_run(conn, "BEGIN") && chaos_run(conn, "DROP EXTENSION presence"));
		chaos_wait(chaos_between(random, 0, 0.3));
		chaos_run(conn, "ROLLBACK");
	}
	else if (chaos_run(conn, "DROP EXTENSION presence"))
		chaos_wait(random_below(random, 2) ? 0 : chaos_between(random, 0.01, 1.5));
	create_extension(conn);
}
