/*-------------------------------------------------------------------------
 *
 * visit_store.c
 *		Statements on presence.visits.
 *
 * Rows are only ever added, about in the order of their ids, and never changed.
 * So the old ones are found from the lowest id on, by the primary key: what that
 * costs does not depend on how many are kept.
 *
 * No locks but those of the statements; locked rows are skipped.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "tables/store.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "visits/visit_store.h"

#define VISIT_COLUMNS "room, channel_name, user_id, joined_at, left_at, reason"

/* Parameters of the statements that add, in the order of the columns. */
enum
{
	VISIT_ROOM,
	VISIT_CHANNEL,
	VISIT_USER,
	VISIT_JOINED_AT,
	VISIT_LEFT_AT,
	VISIT_REASON,
	VISIT_NCOLUMNS
};

static PresenceStatement add_visit = {
	"INSERT INTO presence.visits (" VISIT_COLUMNS ") VALUES ($1, $2, $3, $4, $5, $6)",
	VISIT_NCOLUMNS, {TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID}
};

static PresenceStatement add_visits = {
	"INSERT INTO presence.visits (" VISIT_COLUMNS ")"
	" SELECT t.* FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2),"
	" pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5),"
	" pg_catalog.unnest($6)) AS t",
	VISIT_NCOLUMNS, {TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID,
	TIMESTAMPTZARRAYOID, TEXTARRAYOID}
};

/* The last of the next 1,000 rows, if there is an old one among them. */
static PresenceStatement look_at_visits = {
	"SELECT pg_catalog.max(n.id) FROM ("
	"SELECT v.id, v.left_at FROM presence.visits v WHERE v.id " SQL_GT " $1"
	" ORDER BY v.id LIMIT 1000) n HAVING pg_catalog.min(n.left_at) " SQL_LT " $2",
	2, {INT8OID, TIMESTAMPTZOID},.few = true
};

static PresenceStatement forget_visits = {
	"DELETE FROM presence.visits v USING ("
	"SELECT x.ctid AS tid FROM presence.visits x WHERE x.id " SQL_GT " $1"
	" AND x.id " SQL_LE " $2 AND x.left_at " SQL_LT " $3"
	" FOR UPDATE SKIP LOCKED) l WHERE v.ctid " SQL_EQ " l.tid",
	3, {INT8OID, INT8OID, TIMESTAMPTZOID}
};

/* The name of a reason as a text datum. */
static Datum
reason_datum(PresenceReason reason)
{
	return CStringGetTextDatum(presence_hint_reason_name(reason));
}

/* Fill in the parameters for a visit. */
static void
fill_row(const PresenceVisit *visit, Datum *row)
{
	row[VISIT_ROOM] = visit->room;
	row[VISIT_CHANNEL] = visit->channel;
	row[VISIT_USER] = visit->user;
	row[VISIT_JOINED_AT] = TimestampTzGetDatum(visit->joined_at);
	row[VISIT_LEFT_AT] = TimestampTzGetDatum(visit->left_at);
	row[VISIT_REASON] = reason_datum(visit->reason);
}

/* Add one visit, without arrays, which cost more than the row. */
static void
add_one(const PresenceVisit *visit)
{
	Datum		row[VISIT_NCOLUMNS];
	char		nulls[VISIT_NCOLUMNS + 1] = "      ";

	fill_row(visit, row);
	if (visit->anonymous)
		nulls[VISIT_USER] = 'n';
	(void) presence_store_run(&add_visit, row, nulls);
}

/* Make an array of one column of visits; "nulls" may be NULL. */
static Datum
column_array(Datum *values, bool *nulls, int count, bool is_time)
{
	int			lbound = 1;

	return PointerGetDatum(construct_md_array(values, nulls, 1, &count, &lbound,
											  is_time ? TIMESTAMPTZOID : TEXTOID,
											  is_time ? (int) sizeof(TimestampTz) : -1,
											  is_time && FLOAT8PASSBYVAL,
											  is_time ? TYPALIGN_DOUBLE : TYPALIGN_INT));
}

/* Add several visits by one statement. */
static void
add_several(const PresenceVisit *visits, int count)
{
	Datum	   *columns[VISIT_NCOLUMNS];
	bool	   *anonymous = palloc(count * sizeof(bool));
	Datum		arrays[VISIT_NCOLUMNS];

	for (int c = 0; c < VISIT_NCOLUMNS; c++)
		columns[c] = palloc(count * sizeof(Datum));
	for (int i = 0; i < count; i++)
	{
		Datum		row[VISIT_NCOLUMNS];

		fill_row(&visits[i], row);
		for (int c = 0; c < VISIT_NCOLUMNS; c++)
			columns[c][i] = row[c];
		anonymous[i] = visits[i].anonymous;
	}
	for (int c = 0; c < VISIT_NCOLUMNS; c++)
		arrays[c] = column_array(columns[c], c == VISIT_USER ? anonymous : NULL, count,
								 c == VISIT_JOINED_AT || c == VISIT_LEFT_AT);
	(void) presence_store_run(&add_visits, arrays, NULL);
}

/* Add visits, in their order. */
void
presence_visit_store_add(const PresenceVisit *visits, int count)
{
	if (count == 1)
		add_one(visits);
	else
		add_several(visits, count);
}

/*
 * Remove visits that ended before a time from the next 1,000 after an id (0:
 * from the first ones).  Returns the last of these ids, or 0 if none of them is
 * old, and so hardly any later one.
 */
int64
presence_visit_store_forget(int64 after, TimestampTz before)
{
	Datum		values[3];
	bool		isnull;

	values[0] = Int64GetDatum(after != 0 ? after : PG_INT64_MIN);
	values[1] = TimestampTzGetDatum(before);
	if (presence_store_run(&look_at_visits, values, NULL) == 0)
	{
		SPI_freetuptable(SPI_tuptable);
		return 0;
	}
	values[1] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	after = DatumGetInt64(values[1]);
	SPI_freetuptable(SPI_tuptable);
	values[1] = Int64GetDatum(after);
	values[2] = TimestampTzGetDatum(before);
	(void) presence_store_run(&forget_visits, values, NULL);
	return after;
}
