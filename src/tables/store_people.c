/*-------------------------------------------------------------------------
 *
 * store_people.c
 *		Statements on users: presence.people and presence.user_last_seen.
 *
 * No statement waits for a row of presence.user_last_seen: transactions insert
 * new rows, and statements that update or remove rows skip locked ones.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "tables/store.h"
#include "tables/store_people.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

static PresenceStatement people = {
	"SELECT u.user_id, pe.chosen_status, pe.custom_message,"
	" CASE WHEN pe.chosen_status " SQL_EQ " 'offline' THEN pe.chosen_at"
	" ELSE (SELECT pg_catalog.max(s.last_seen) FROM presence.user_last_seen s"
	" WHERE s.user_id " SQL_EQ " u.user_id) END,"
	" (SELECT pg_catalog.count(*) FROM (SELECT FROM presence.presences p"
	" WHERE p.user_id " SQL_EQ " u.user_id LIMIT u.most) c),"
	" (SELECT pg_catalog.count(*) FROM (SELECT FROM presence.presences p"
	" WHERE p.user_id " SQL_EQ " u.user_id"
	" AND presence.is_live(p.channel_name, p.last_seen) LIMIT u.living) l)"
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3))"
	" AS u (user_id, most, living)"
	" LEFT JOIN LATERAL (SELECT pe.chosen_status, pe.custom_message, pe.chosen_at"
	" FROM presence.people pe WHERE pe.user_id " SQL_EQ " u.user_id OFFSET 0) pe ON true",
	3, {TEXTARRAYOID, INT8ARRAYOID, INT8ARRAYOID},
	.few = true
};

#define NEWEST_OF_EACH \
	"SELECT t.user_id, pg_catalog.max(t.last_seen) AS last_seen" \
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS t (user_id, last_seen)" \
	" GROUP BY t.user_id"

static PresenceStatement add_last_seen = {
	"INSERT INTO presence.user_last_seen (user_id, last_seen) " NEWEST_OF_EACH,
	2, {TEXTARRAYOID, TIMESTAMPTZARRAYOID}
};

/* Updates one row per user, or adds one if the user has no unlocked row. */
static PresenceStatement merge_last_seen = {
	"WITH t AS MATERIALIZED (" NEWEST_OF_EACH "),"
	" l AS MATERIALIZED (SELECT o.tid, t.user_id, t.last_seen FROM t"
	" LEFT JOIN LATERAL (SELECT s.ctid AS tid FROM presence.user_last_seen s"
	" WHERE s.user_id " SQL_EQ " t.user_id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) o ON true),"
	" u AS (UPDATE presence.user_last_seen AS s"
	" SET last_seen = GREATEST(s.last_seen, l.last_seen) FROM l WHERE s.ctid " SQL_EQ " l.tid)"
	" INSERT INTO presence.user_last_seen (user_id, last_seen)"
	" SELECT l.user_id, l.last_seen FROM l WHERE l.tid IS NULL",
	2, {TEXTARRAYOID, TIMESTAMPTZARRAYOID}
};

/*
 * Removes, of the rows in a range of blocks, all that are too old and all but
 * the newest of each user, except locked ones.
 */
static PresenceStatement forget_last_seen = {
	"DELETE FROM presence.user_last_seen s USING ("
	"SELECT x.ctid AS tid FROM presence.user_last_seen x WHERE " SQL_IN_BLOCKS("x")
	" AND (x.last_seen " SQL_LT " $3 OR EXISTS ("
	"SELECT FROM presence.user_last_seen y WHERE y.user_id " SQL_EQ " x.user_id"
	" AND ROW(y.last_seen, y.ctid) " SQL_GT " ROW(x.last_seen, x.ctid) OFFSET 0))"
	" FOR UPDATE SKIP LOCKED) l WHERE s.ctid " SQL_EQ " l.tid",
	3, {TIDOID, TIDOID, TIMESTAMPTZOID}
};

/*
 * The users (text[]), as a snapshot shows them.  The connections of each are
 * counted up to the number in "most" (bigint[]), live ones up to the number in
 * "living" (bigint[]).
 */
List *
presence_store_people(Datum users, Datum most, Datum living, Snapshot snapshot)
{
	Datum		values[] = {users, most, living};
	uint64		count = presence_store_run_at(&people, values, NULL, snapshot, 0);
	List	   *result = NIL;

	for (uint64 i = 0; i < count; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		PresencePerson *person = palloc0(sizeof(PresencePerson));
		bool		isnull;
		Datum		last_seen = SPI_getbinval(tuple, desc, 4, &isnull);

		CHECK_FOR_INTERRUPTS();
		person->user = presence_store_text(tuple, 1);
		person->chosen_status = presence_store_text(tuple, 2);
		person->custom_message = presence_store_text(tuple, 3);
		person->last_seen = isnull ? DT_NOBEGIN : DatumGetTimestampTz(last_seen);
		person->connections = DatumGetInt64(SPI_getbinval(tuple, desc, 5, &isnull));
		person->living = DatumGetInt64(SPI_getbinval(tuple, desc, 6, &isnull));
		result = lappend(result, person);
	}
	SPI_freetuptable(SPI_tuptable);
	return result;
}

/* Run a statement with the users of "seen" (text[]) and their times. */
static void
run_last_seen(PresenceStatement *statement, List *seen)
{
	int			count = list_length(seen);
	Datum	   *users = palloc(count * sizeof(Datum));
	Datum	   *times = palloc(count * sizeof(Datum));
	Datum		values[2];
	ListCell   *lc;

	foreach(lc, seen)
	{
		PresenceLastSeen *one = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		users[foreach_current_index(lc)] = CStringGetTextDatum(one->user);
		times[foreach_current_index(lc)] = TimestampTzGetDatum(one->last_seen);
	}
	values[0] = PointerGetDatum(construct_array(users, count, TEXTOID, -1,
												false, TYPALIGN_INT));
	values[1] = PointerGetDatum(construct_array(times, count, TIMESTAMPTZOID,
												sizeof(TimestampTz), FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	(void) presence_store_run(statement, values, NULL);
}

/*
 * Store when users were last seen, in new rows: this never waits, and cannot
 * fail with a serialization error.
 */
void
presence_store_add_last_seen(List *seen)
{
	run_last_seen(&add_last_seen, seen);
}

/* Store when users were last seen, in their existing rows if possible. */
void
presence_store_merge_last_seen(List *seen)
{
	run_last_seen(&merge_last_seen, seen);
}

/*
 * Remove rows of user_last_seen from a range of blocks: those from before a
 * time, and those of users that have a newer one.
 */
void
presence_store_forget_last_seen(BlockNumber from, BlockNumber to, TimestampTz before)
{
	presence_store_run_in_blocks(&forget_last_seen, from, to, before);
}
