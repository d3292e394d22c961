/*-------------------------------------------------------------------------
 *
 * store_channels.c
 *		Statements on the heartbeats of channels: columns channel_name and
 *		last_seen of presence.presences.
 *
 * A heartbeat never waits: it skips locked rows.
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

static PresenceStatement older_channels = {
	"SELECT pg_catalog.array_agg(DISTINCT p.channel_name) FROM presence.presences p"
	" WHERE p.channel_name " SQL_EQ " ANY ($1) AND p.last_seen " SQL_LT " $2",
	2, {TEXTARRAYOID, TIMESTAMPTZOID}
};

/*
 * Finds the rows that the caller may update, by the policies for UPDATE, and
 * updates none: presence.note_touchable() returns false.
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
 * A heartbeat skips locked rows: another transaction is changing them, or is
 * writing a heartbeat itself.
 */
#define BEAT(channels) \
	"UPDATE presence.presences AS p SET last_seen = $2" \
	" FROM (SELECT q.ctid AS tid, q.last_seen FROM presence.presences q" \
	" WHERE q.channel_name " SQL_EQ " " channels \
	" AND q.last_seen " SQL_GE " $3 AND q.last_seen " SQL_LT " $4" \
	" FOR NO KEY UPDATE SKIP LOCKED) l" \
	" WHERE p.ctid " SQL_EQ " l.tid RETURNING l.last_seen"

static PresenceStatement beat = {
	BEAT("$1"),
	4, {TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

static PresenceStatement beat_many = {
	BEAT("ANY ($1)"),
	4, {TEXTARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

static PresenceStatement remaining = {
	"SELECT pg_catalog.array_agg(DISTINCT p.channel_name) FROM presence.presences p"
	" WHERE p.channel_name " SQL_EQ " ANY ($1)",
	1, {TEXTARRAYOID}
};

static PresenceStatement count_channels = {
	"SELECT p.channel_name, pg_catalog.count(*) FROM presence.presences p"
	" WHERE p.channel_name " SQL_EQ " ANY ($1)"
	" AND presence.is_live(p.channel_name, p.last_seen) GROUP BY p.channel_name",
	1, {TEXTARRAYOID}
};

static PresenceStatement older = {
	"SELECT pg_catalog.array_agg(DISTINCT p.channel_name) FROM presence.presences p"
	" WHERE presence.is_older(p.channel_name, p.last_seen, $1)",
	1, {INT8OID},
	.whole = true
};

/* A last_seen in the future is set to now. */
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
 * Call presence.note_touchable() for the rows of a channel that the caller may
 * update, with the number of the probe.
 */
void
presence_store_probe_update(Datum channel, int64 probe)
{
	Datum		values[] = {channel, Int64GetDatum(probe)};

	(void) presence_store_run(&probe_update, values, NULL);
}

/* The same for the row of a channel in a room. */
void
presence_store_probe_pair(Datum room, Datum channel, int64 probe)
{
	Datum		values[] = {channel, Int64GetDatum(probe), room};

	(void) presence_store_run(&probe_pair, values, NULL);
}

/*
 * Run a statement that writes a heartbeat; returns how many rows it changed,
 * and sets *oldest to the oldest last_seen that was replaced, or infinity.
 */
static uint64
run_beat(PresenceStatement *statement, Datum *values, TimestampTz *oldest)
{
	uint64		count = presence_store_run(statement, values, NULL);

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
 * Write a heartbeat into rows whose last_seen is in [since, before), except
 * locked ones; returns their number.  *oldest is set to the oldest last_seen
 * that was replaced, or infinity.
 */
uint64
presence_store_touch(Datum channel, TimestampTz now, TimestampTz since,
					 TimestampTz before, TimestampTz *oldest)
{
	Datum		values[] = {channel, TimestampTzGetDatum(now),
	TimestampTzGetDatum(since), TimestampTzGetDatum(before)};

	return run_beat(&beat, values, oldest);
}

/* The same for channels (text[]), and any last_seen before a time. */
uint64
presence_store_touch_many(Datum channels, TimestampTz now, TimestampTz before,
						  TimestampTz *oldest)
{
	Datum		values[] = {channels, TimestampTzGetDatum(now),
	TimestampTzGetDatum(DT_NOBEGIN), TimestampTzGetDatum(before)};

	return run_beat(&beat_many, values, oldest);
}

/*
 * Those of the channels (text[]) that have rows with a last_seen before a time;
 * NULL if none.
 */
ArrayType *
presence_store_older_channels(Datum channels, TimestampTz before)
{
	Datum		values[] = {channels, TimestampTzGetDatum(before)};

	(void) presence_store_run(&older_channels, values, NULL);
	return presence_store_array();
}

/*
 * Those of the channels (text[]) that have rows, NULL if none.  Runs as the
 * owner, in the newest snapshot, so it sees all rows.
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

/*
 * Count the presences of channels (text[]) that live, as far as the caller sees
 * them.  Returns how many
 * channels have any; "found" gets these.
 */
int
presence_store_count_channels(ArrayType *channels, PresenceChannelCount **found)
{
	Datum		value = PointerGetDatum(channels);
	uint64		count = presence_store_run(&count_channels, &value, NULL);

	*found = palloc_extended(Max(count, 1) * sizeof(PresenceChannelCount), MCXT_ALLOC_HUGE);
	for (uint64 i = 0; i < count; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		(*found)[i].channel = DatumGetTextPCopy(SPI_getbinval(tuple, desc, 1, &isnull));
		(*found)[i].count = DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull));
	}
	SPI_freetuptable(SPI_tuptable);
	return count;
}

/* Channels with rows older than an age in microseconds; NULL if none. */
ArrayType *
presence_store_older(int64 age)
{
	Datum		value = Int64GetDatum(age);

	(void) presence_store_run(&older, &value, NULL);
	return presence_store_array();
}

/* Set last_seen to "now" in rows where it is after a limit. */
void
presence_store_pull_back(TimestampTz now, TimestampTz limit)
{
	Datum		values[] = {TimestampTzGetDatum(now), TimestampTzGetDatum(limit)};

	(void) presence_store_run(&pull_back, values, NULL);
}

/* Those of the channels (text[]) with rows older than an age; NULL if none. */
ArrayType *
presence_store_older_among(ArrayType *channels, int64 age)
{
	Datum		values[] = {PointerGetDatum(channels), Int64GetDatum(age)};

	(void) presence_store_run(&older_among, values, NULL);
	return presence_store_array();
}

/* Visit the rows fetched from a portal; false if the visitor has stopped. */
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

/* Visit the channels that a statement finds; false if the visitor stopped. */
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

/* Visit channels of rows older than an age; false if the visitor stopped. */
bool
presence_store_each_older(int64 age, PresenceChannelVisitor visit, void *arg)
{
	Datum		value = Int64GetDatum(age);

	return each(&each_older, &value, visit, arg);
}

/* The oldest last_seen of rows no older than an age; DT_NOEND if none. */
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
