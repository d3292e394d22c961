/*-------------------------------------------------------------------------
 *
 * store_channels.c
 *		The statements on the signs of life of channels: columns channel_name and
 *		last_seen of presence.presences.
 *
 * A heartbeat waits for nobody: it skips rows that somebody has locked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "tables/extension.h"
#include "tables/store.h"
#include "tables/store_channels.h"
#include "utils/timestamp.h"

static PresenceStatement has_channel = {
	"SELECT 1 FROM presence.presences p"
	" WHERE p.channel_name " SQL_EQ " $1 AND p.last_seen " SQL_GE " $2",
	2, {TEXTOID, TIMESTAMPTZOID}
};

static PresenceStatement has_older = {
	"SELECT 1 FROM presence.presences p"
	" WHERE p.channel_name " SQL_EQ " $1 AND p.last_seen " SQL_LT " $2",
	2, {TEXTOID, TIMESTAMPTZOID}
};

/*
 * Finds the rows that the caller may update, by the policies of an UPDATE,
 * and updates none: presence.note_touchable() answers false.
 */
#define PROBE_UPDATE \
	"UPDATE presence.presences AS p SET last_seen = p.last_seen" \
	" WHERE p.channel_name " SQL_EQ " $1 AND presence.note_touchable(p.channel_name, $2)"

static PresenceStatement probe_update = {
	PROBE_UPDATE,
	2, {TEXTOID, INT8OID}
};

static PresenceStatement probe_pair = {
	PROBE_UPDATE " AND p.room " SQL_EQ " $3",
	3, {TEXTOID, INT8OID, TEXTOID}
};

/*
 * A heartbeat waits for nobody: a row that is locked is being changed, or
 * beaten for, by another transaction.
 */
static PresenceStatement beat = {
	"UPDATE presence.presences AS p SET last_seen = $2"
	" FROM (SELECT q.ctid AS tid, q.last_seen FROM presence.presences q"
	" WHERE q.channel_name " SQL_EQ " $1 AND q.last_seen " SQL_GE " $3 AND q.last_seen " SQL_LT " $4"
	" FOR NO KEY UPDATE SKIP LOCKED) l"
	" WHERE p.ctid " SQL_EQ " l.tid RETURNING l.last_seen",
	4, {TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

static PresenceStatement remaining = {
	"SELECT pg_catalog.array_agg(DISTINCT p.channel_name) FROM presence.presences p"
	" WHERE p.channel_name " SQL_EQ " ANY ($1)",
	1, {TEXTARRAYOID}
};

static PresenceStatement older = {
	"SELECT pg_catalog.array_agg(DISTINCT p.channel_name) FROM presence.presences p"
	" WHERE presence.is_older(p.channel_name, p.last_seen, $1)",
	1, {INT8OID},
	.whole = true
};

/* Nobody was seen in the future: who is said to have been is seen now. */
static PresenceStatement pull_back = {
	"UPDATE presence.presences AS p SET last_seen = $1"
	" FROM (SELECT q.ctid AS tid FROM presence.presences q"
	" WHERE q.last_seen " SQL_GT " $2 FOR NO KEY UPDATE SKIP LOCKED) l"
	" WHERE p.ctid " SQL_EQ " l.tid",
	2, {TIMESTAMPTZOID, TIMESTAMPTZOID},
	.whole = true
};

static PresenceStatement each_older = {
	"SELECT p.channel_name, p.last_seen FROM presence.presences p"
	" WHERE presence.is_older(p.channel_name, p.last_seen, $1)",
	1, {INT8OID},
	.whole = true
};

static PresenceStatement older_among = {
	"SELECT pg_catalog.array_agg(DISTINCT p.channel_name) FROM presence.presences p"
	" WHERE p.channel_name " SQL_EQ " ANY ($1)"
	" AND presence.is_older(p.channel_name, p.last_seen, $2)",
	2, {TEXTARRAYOID, INT8OID}
};

static PresenceStatement each_channel = {
	"SELECT p.channel_name, pg_catalog.max(p.last_seen) FROM presence.presences p"
	" GROUP BY p.channel_name",
	0,
	.whole = true
};

static PresenceStatement oldest_living = {
	"SELECT pg_catalog.min(p.last_seen) FROM presence.presences p"
	" WHERE NOT presence.is_older(p.channel_name, p.last_seen, $1)",
	1, {INT8OID},
	.whole = true
};

/* Whether a channel has rows with a last_seen since a time. */
bool
presence_store_has_channel(Datum channel, TimestampTz since)
{
	Datum		values[] = {channel, TimestampTzGetDatum(since)};

	return presence_store_finds(&has_channel, values);
}

/* Whether a channel has rows with a last_seen before a time. */
bool
presence_store_has_older(Datum channel, TimestampTz before)
{
	Datum		values[] = {channel, TimestampTzGetDatum(before)};

	return presence_store_finds(&has_older, values);
}

/*
 * Have presence.note_touchable() see the rows of a channel that the caller may
 * update, with the number of the probe.
 */
void
presence_store_probe_update(Datum channel, int64 probe)
{
	Datum		values[] = {channel, Int64GetDatum(probe)};

	(void) presence_store_run(&probe_update, values, NULL);
}

/* The same with the row of a room. */
void
presence_store_probe_pair(Datum room, Datum channel, int64 probe)
{
	Datum		values[] = {channel, Int64GetDatum(probe), room};

	(void) presence_store_run(&probe_pair, values, NULL);
}

/*
 * Write a sign of life into rows whose last_seen is in [since, before), except
 * those that somebody has locked; how many.  "oldest" gets the oldest that was
 * there, or infinity.
 */
uint64
presence_store_touch(Datum channel, TimestampTz now, TimestampTz since,
					TimestampTz before, TimestampTz *oldest)
{
	Datum		values[] = {channel, TimestampTzGetDatum(now),
	TimestampTzGetDatum(since), TimestampTzGetDatum(before)};
	uint64		count = presence_store_run(&beat, values, NULL);

	*oldest = DT_NOEND;
	for (uint64 i = 0; i < count; i++)
	{
		bool		isnull;
		Datum		last_seen = SPI_getbinval(SPI_tuptable->vals[i],
											  SPI_tuptable->tupdesc, 1, &isnull);

		CHECK_FOR_INTERRUPTS();
		*oldest = Min(*oldest, DatumGetTimestampTz(last_seen));
	}
	SPI_freetuptable(SPI_tuptable);
	return count;
}

/*
 * Those of the channels (text[]) that have rows, whoever asks, also ones that
 * are too new for the transaction's snapshot; NULL: none.
 */
ArrayType *
presence_store_remaining(Datum channels)
{
	PresenceSession caller = presence_extension_become_owner();
	ArrayType  *left;

	(void) presence_store_run_newest(&remaining, &channels, NULL);
	left = presence_store_array();
	presence_extension_become_caller(caller);
	return left;
}

/* Channels silent for longer than an age in microseconds; NULL: none. */
ArrayType *
presence_store_older(int64 age)
{
	Datum		value = Int64GetDatum(age);

	(void) presence_store_run(&older, &value, NULL);
	return presence_store_array();
}

/* Let rows whose last_seen is after a limit be seen now. */
void
presence_store_pull_back(TimestampTz now, TimestampTz limit)
{
	Datum		values[] = {TimestampTzGetDatum(now), TimestampTzGetDatum(limit)};

	(void) presence_store_run(&pull_back, values, NULL);
}

/* Those of the channels (text[]) that have rows older than an age; NULL: none. */
ArrayType *
presence_store_older_among(ArrayType *channels, int64 age)
{
	Datum		values[] = {PointerGetDatum(channels), Int64GetDatum(age)};

	(void) presence_store_run(&older_among, values, NULL);
	return presence_store_array();
}

/* Visit what was fetched from a portal; false: the visitor has had enough. */
static bool
visit_channels(PresenceChannelVisitor visit, void *arg)
{
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		text	   *channel = DatumGetTextPP(SPI_getbinval(tuple, desc, 1, &isnull));
		Datum		seen = SPI_getbinval(tuple, desc, 2, &isnull);

		if (!visit(arg, VARDATA_ANY(channel), VARSIZE_ANY_EXHDR(channel),
				   DatumGetTimestampTz(seen)))
			return false;
	}
	return true;
}

/* Visit the channels that a statement finds; false: not to the end. */
static bool
each(PresenceStatement *statement, Datum *values, PresenceChannelVisitor visit, void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	Portal		portal = SPI_cursor_open(NULL, presence_store_plan(statement),
										 values, NULL, true);
	bool		more = true;
	bool		goes_on = true;

	while (more && goes_on)
	{
		SPI_cursor_fetch(portal, true, 10000);
		more = SPI_processed > 0;
		goes_on = visit_channels(visit, arg);
		SPI_freetuptable(SPI_tuptable);
		CHECK_FOR_INTERRUPTS();
	}
	SPI_cursor_close(portal);
	MemoryContextSwitchTo(context);
	return goes_on;
}

/* Visit every channel with the newest last_seen of its rows. */
void
presence_store_each_channel(PresenceChannelVisitor visit, void *arg)
{
	(void) each(&each_channel, NULL, visit, arg);
}

/* Visit channels by their rows that are older than an age; false: not all. */
bool
presence_store_each_older(int64 age, PresenceChannelVisitor visit, void *arg)
{
	Datum		value = Int64GetDatum(age);

	return each(&each_older, &value, visit, arg);
}

/* The oldest last_seen of rows no older than an age; DT_NOEND: there is none. */
TimestampTz
presence_store_oldest_living(int64 age)
{
	Datum		value = Int64GetDatum(age);
	TimestampTz last_seen;
	bool		isnull;
	Datum		datum;

	(void) presence_store_run(&oldest_living, &value, NULL);
	datum = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	last_seen = isnull ? DT_NOEND : DatumGetTimestampTz(datum);
	SPI_freetuptable(SPI_tuptable);
	return last_seen;
}
