/*-------------------------------------------------------------------------
 *
 * store_presences.c
 *		Statements on presences, each a channel in a room.
 *
 * All transactions that remove presences, or add many channels to a room, lock
 * rows in the order of channel, then room, so they cannot deadlock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/xact.h"
#include "base/hint.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "tables/scan.h"
#include "tables/store.h"
#include "tables/store_presences.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Every statement that locks more than one presence does so in this order. */
#define LOCK_ORDER "p.channel_name, p.room"

#define ROW_COLUMNS \
	"p.id, p.room, p.channel_name, p.user_id, p.meta, p.joined_at, p.last_seen"

/* What a removal needs to know of a locked presence. */
#define LOCKED_COLUMNS "p.ctid, p.channel_name, p.last_seen"

static PresenceStatement insert_presence = {
	"INSERT INTO presence.presences AS p"
	" (room, channel_name, user_id, meta, joined_at, last_seen)"
	" VALUES ($1, $2, $3, $4, $5, $5)"
	" ON CONFLICT (room, channel_name) DO NOTHING",
	5, {TEXTOID, TEXTOID, TEXTOID, JSONBOID, TIMESTAMPTZOID}
};

/* Whether user and meta of a presence "p" stay as they are by an add "n". */
#define SAME(n) \
	"(" n ".user_id IS NULL OR COALESCE(" n ".user_id " SQL_EQ " p.user_id, false))" \
	" AND (" n ".meta IS NULL OR COALESCE(" n ".meta " SQL_EQ " p.meta, false))"

#define ENTRANTS \
	"ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4))" \
	" WITH ORDINALITY AS n (channel, user_id, meta, number)"

/*
 * Adds and updates in the given order, which is that of locks.  A presence that
 * changes is locked where the order says so.  ORDER BY sorts nothing.
 */
static PresenceStatement insert_presences = {
	"INSERT INTO presence.presences AS p"
	" (room, channel_name, user_id, meta, joined_at, last_seen)"
	" SELECT $1, n.channel, n.user_id, n.meta, $5, $5 FROM " ENTRANTS " ORDER BY n.number"
	" ON CONFLICT (room, channel_name) DO UPDATE"
	" SET user_id = COALESCE(excluded.user_id, p.user_id), meta = COALESCE(excluded.meta, p.meta)"
	" WHERE NOT (" SAME("excluded") ")",
	5, {TEXTOID, TEXTARRAYOID, TEXTARRAYOID, JSONBARRAYOID, TIMESTAMPTZOID}
};

/* OFFSET 0 forces one index lookup per channel, and no other join. */
static PresenceStatement find_same = {
	"SELECT n.number FROM " ENTRANTS ", LATERAL (SELECT q.user_id, q.meta"
	" FROM presence.presences q WHERE q.room " SQL_EQ " $1"
	" AND q.channel_name " SQL_EQ " n.channel OFFSET 0) p WHERE " SAME("n"),
	4, {TEXTOID, TEXTARRAYOID, TEXTARRAYOID, JSONBARRAYOID}
};

static PresenceStatement find_presence = {
	"SELECT " ROW_COLUMNS " FROM presence.presences p"
	" WHERE p.room " SQL_EQ " $1 AND p.channel_name " SQL_EQ " $2",
	2, {TEXTOID, TEXTOID}
};

static PresenceStatement replace_presence = {
	"UPDATE presence.presences AS p"
	" SET user_id = COALESCE($3, p.user_id), meta = COALESCE($4, p.meta)"
	" WHERE p.room " SQL_EQ " $1 AND p.channel_name " SQL_EQ " $2"
	" RETURNING " ROW_COLUMNS,
	4, {TEXTOID, TEXTOID, TEXTOID, JSONBOID}
};

/* Removes the keys that the patch sets to null, and sets the others. */
#define MERGED_META \
	"((COALESCE(p.meta, '{}') OPERATOR(pg_catalog.||) $3) OPERATOR(pg_catalog.-)" \
	" ARRAY(SELECT e.key FROM pg_catalog.jsonb_each($3) e" \
	" WHERE pg_catalog.jsonb_typeof(e.value) " SQL_EQ " 'null'))"

static PresenceStatement merge_meta = {
	"UPDATE presence.presences AS p SET meta = " MERGED_META
	" WHERE p.room " SQL_EQ " $1 AND p.channel_name " SQL_EQ " $2"
	" AND NOT COALESCE(p.meta, '{}') " SQL_EQ " " MERGED_META,
	3, {TEXTOID, TEXTOID, JSONBOID}
};

/* Whether such a patch would change nothing. */
static PresenceStatement has_meta = {
	"SELECT 1 FROM presence.presences p"
	" WHERE p.room " SQL_EQ " $1 AND p.channel_name " SQL_EQ " $2"
	" AND COALESCE(p.meta, '{}') " SQL_EQ " " MERGED_META,
	3, {TEXTOID, TEXTOID, JSONBOID}
};

static PresenceStatement lock_presence = {
	"SELECT " LOCKED_COLUMNS " FROM presence.presences p"
	" WHERE p.room " SQL_EQ " $1 AND p.channel_name " SQL_EQ " $2 FOR UPDATE",
	2, {TEXTOID, TEXTOID}
};

static PresenceStatement lock_channels = {
	"SELECT " LOCKED_COLUMNS " FROM presence.presences p"
	" WHERE p.channel_name " SQL_EQ " ANY ($1) ORDER BY " LOCK_ORDER " FOR UPDATE",
	1, {TEXTARRAYOID}
};

static PresenceStatement lock_channels_skip = {
	"SELECT " LOCKED_COLUMNS " FROM presence.presences p"
	" WHERE p.channel_name " SQL_EQ " ANY ($1) ORDER BY " LOCK_ORDER " FOR UPDATE SKIP LOCKED",
	1, {TEXTARRAYOID}
};

/* One statement per combination of arguments, so that each uses its index. */
#define LOCK_MEMBERS(more) \
	"SELECT " LOCKED_COLUMNS " FROM presence.presences p" \
	" WHERE p.room " SQL_EQ " $1" more " ORDER BY " LOCK_ORDER " FOR UPDATE"

static PresenceStatement lock_room = {
	LOCK_MEMBERS(""),
	1, {TEXTOID}
};

static PresenceStatement lock_room_user = {
	LOCK_MEMBERS(" AND p.user_id " SQL_EQ " $2"),
	2, {TEXTOID, TEXTOID}
};

static PresenceStatement lock_room_channel = {
	LOCK_MEMBERS(" AND p.channel_name " SQL_EQ " $3"),
	3, {TEXTOID, TEXTOID, TEXTOID}
};

static PresenceStatement lock_room_user_channel = {
	LOCK_MEMBERS(" AND p.user_id " SQL_EQ " $2 AND p.channel_name " SQL_EQ " $3"),
	3, {TEXTOID, TEXTOID, TEXTOID}
};

static PresenceStatement lock_user = {
	"SELECT " LOCKED_COLUMNS " FROM presence.presences p"
	" WHERE p.user_id " SQL_EQ " $1 ORDER BY " LOCK_ORDER " FOR UPDATE",
	1, {TEXTOID}
};

/* Presences that a ban forbids. */
#define BANNED_PRESENCES \
	" FROM presence.bans b JOIN presence.presences p ON p.user_id " SQL_EQ " b.user_id" \
	" WHERE (b.room IS NULL OR b.room " SQL_EQ " p.room)" \
	" AND b.until " SQL_GT " pg_catalog.clock_timestamp()"

static PresenceStatement lock_banned = {
	"SELECT " LOCKED_COLUMNS BANNED_PRESENCES " AND b.user_id " SQL_EQ " ANY ($1)"
	" ORDER BY " LOCK_ORDER " LIMIT $2 FOR UPDATE OF p SKIP LOCKED",
	2, {TEXTARRAYOID, INT8OID}
};

static PresenceStatement lock_all_banned = {
	"SELECT " LOCKED_COLUMNS BANNED_PRESENCES
	" ORDER BY " LOCK_ORDER " LIMIT $1 FOR UPDATE OF p SKIP LOCKED",
	1, {INT8OID}
};

static PresenceStatement banned_exist = {
	"SELECT 1" BANNED_PRESENCES " AND ($1 IS NULL OR b.user_id " SQL_EQ " ANY ($1)) LIMIT 1",
	1, {TEXTARRAYOID}
};

static PresenceStatement delete_rows = {
	"DELETE FROM presence.presences p WHERE p.ctid " SQL_EQ " ANY ($1)",
	1, {TIDARRAYOID}
};

/* OFFSET 0 forces one index lookup per pair, and no other join. */
static PresenceStatement look_up = {
	"SELECT " ROW_COLUMNS
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS k (room, channel),"
	" LATERAL (SELECT " ROW_COLUMNS " FROM presence.presences p"
	" WHERE p.room " SQL_EQ " k.room AND p.channel_name " SQL_EQ " k.channel OFFSET 0) p",
	2, {TEXTARRAYOID, TEXTARRAYOID}
};

/* OFFSET 0 forces a lookup of the user's connections, not the room's. */
static PresenceStatement has_user = {
	"SELECT 1 FROM (SELECT q.room FROM presence.presences q"
	" WHERE q.user_id " SQL_EQ " $2 OFFSET 0) p WHERE p.room " SQL_EQ " $1",
	2, {TEXTOID, TEXTOID}
};

static PresenceStatement count_live = {
	"SELECT pg_catalog.count(*) FROM (SELECT FROM presence.presences p"
	" WHERE p.room " SQL_EQ " $1 AND presence.is_live(p.channel_name, p.last_seen) LIMIT $2) l",
	2, {TEXTOID, INT8OID}
};

/*
 * Read one row of ROW_COLUMNS into the current memory context.  Unless "whole"
 * is set, a meta that is too large for any payload is left out.
 */
static void
read_row(HeapTuple tuple, PresenceRow *row, bool whole)
{
	TupleDesc	desc = SPI_tuptable->tupdesc;
	bool		isnull;
	Datum		meta;

	row->id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	row->room = presence_store_text(tuple, 2);
	row->channel = presence_store_text(tuple, 3);
	row->user = presence_store_text(tuple, 4);
	meta = SPI_getbinval(tuple, desc, 5, &isnull);
	row->meta = NULL;
	row->truncated = !isnull &&
		toast_raw_datum_size(meta) > PRESENCE_HINT_MAX_META;
	if (!isnull && (whole || !row->truncated))
		row->meta = (Jsonb *) PG_DETOAST_DATUM_COPY(meta);
	row->joined_at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 6, &isnull));
	row->last_seen = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 7, &isnull));
}

/* Read one row of LOCKED_COLUMNS into the current memory context. */
static PresenceLocked *
read_locked(HeapTuple tuple)
{
	TupleDesc	desc = SPI_tuptable->tupdesc;
	bool		isnull;
	ItemPointer tid = (ItemPointer) DatumGetPointer(SPI_getbinval(tuple, desc, 1, &isnull));
	text	   *channel = DatumGetTextPP(SPI_getbinval(tuple, desc, 2, &isnull));
	int			length = VARSIZE_ANY_EXHDR(channel);
	PresenceLocked *locked = palloc(offsetof(PresenceLocked, channel) + length);

	locked->tid = *tid;
	locked->last_seen = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 3, &isnull));
	locked->length = length;
	memcpy(locked->channel, VARDATA_ANY(channel), length);
	return locked;
}

/* Read all locked rows of a result. */
static List *
all_locked(uint64 count)
{
	List	   *rows = NIL;

	for (uint64 i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		rows = lappend(rows, read_locked(SPI_tuptable->vals[i]));
	}
	SPI_freetuptable(SPI_tuptable);
	return rows;
}

/* Read the first row of a result, if there is one. */
static bool
first_row(uint64 count, PresenceRow *row)
{
	if (count > 0)
		read_row(SPI_tuptable->vals[0], row, true);
	SPI_freetuptable(SPI_tuptable);
	return count > 0;
}

/* Read all rows of a result. */
static List *
all_rows(uint64 count)
{
	List	   *rows = NIL;

	for (uint64 i = 0; i < count; i++)
	{
		PresenceRow *row = palloc(sizeof(PresenceRow));

		CHECK_FOR_INTERRUPTS();
		read_row(SPI_tuptable->vals[i], row, false);
		rows = lappend(rows, row);
	}
	SPI_freetuptable(SPI_tuptable);
	return rows;
}

/* Insert a presence; false if it exists.  "nulls" is for user and meta. */
bool
presence_store_insert(Datum room, Datum channel, Datum user, Datum meta,
					  const char *nulls, TimestampTz now)
{
	Datum		values[] = {room, channel, user, meta, TimestampTzGetDatum(now)};
	char		all_nulls[] = {' ', ' ', nulls[0], nulls[1], ' '};

	return presence_store_run(&insert_presence, values, all_nulls) > 0;
}

/*
 * Insert presences of a room, given by arrays of channel, user and meta in the
 * order of channels; those that exist are updated, if that changes them.
 */
void
presence_store_insert_many(Datum room, const PresenceArrays *arrays, TimestampTz now)
{
	Datum		values[] = {room, arrays->channels, arrays->users, arrays->metas,
	TimestampTzGetDatum(now)};

	(void) presence_store_run(&insert_presences, values, NULL);
}

/*
 * Find the presences of a room, of those in the arrays, that exist and that an
 * add would not change; returns their numbers, from 1, palloc'd, and how many.
 */
int64 *
presence_store_find_same(Datum room, const PresenceArrays *arrays, uint64 *count)
{
	Datum		values[] = {room, arrays->channels, arrays->users, arrays->metas};
	int64	   *numbers;

	*count = presence_store_run(&find_same, values, NULL);
	numbers = palloc(sizeof(int64) * Max(*count, 1));
	for (uint64 i = 0; i < *count; i++)
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		numbers[i] = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i],
												 SPI_tuptable->tupdesc, 1, &isnull));
	}
	SPI_freetuptable(SPI_tuptable);
	return numbers;
}

/* Find a presence. */
bool
presence_store_find(Datum room, Datum channel, PresenceRow *row)
{
	Datum		values[] = {room, channel};

	return first_row(presence_store_run_at(&find_presence, values, NULL,
										   InvalidSnapshot, 1), row);
}

/* Replace user and meta of a presence, each if the argument is not NULL. */
bool
presence_store_replace(Datum room, Datum channel, Datum user, Datum meta,
					   const char *nulls, PresenceRow *row)
{
	Datum		values[] = {room, channel, user, meta};
	char		all_nulls[] = {' ', ' ', nulls[0], nulls[1]};

	return first_row(presence_store_run(&replace_presence, values, all_nulls), row);
}

/* Merge keys into the meta of a presence; returns whether that changed it. */
bool
presence_store_merge_meta(Datum room, Datum channel, Datum meta)
{
	Datum		values[] = {room, channel, meta};

	return presence_store_run(&merge_meta, values, NULL) > 0;
}

/* Whether there is a presence whose meta the merge would not change. */
bool
presence_store_has_meta(Datum room, Datum channel, Datum meta)
{
	Datum		values[] = {room, channel, meta};

	return presence_store_finds(&has_meta, values);
}

/* Lock a presence for removal. */
List *
presence_store_lock_presence(Datum room, Datum channel)
{
	Datum		values[] = {room, channel};

	return all_locked(presence_store_run(&lock_presence, values, NULL));
}

/* Lock the presences of channels (text[]) for removal, in order. */
List *
presence_store_lock_channels(Datum channels, bool skip_locked)
{
	return all_locked(presence_store_run(skip_locked ? &lock_channels_skip : &lock_channels,
										 &channels, NULL));
}

/*
 * Lock presences for removal: those of a room, optionally only of a user or a
 * channel there; without a room, those of a user in all rooms.  "nulls" is for
 * room, user and channel.
 */
List *
presence_store_lock_members(Datum room, Datum user, Datum channel,
							const char *nulls)
{
	Datum		values[] = {room, user, channel};
	bool		any_user = nulls[1] == 'n';
	bool		any_channel = nulls[2] == 'n';
	PresenceStatement *statement = any_user ?
		(any_channel ? &lock_room : &lock_room_channel) :
		(any_channel ? &lock_room_user : &lock_room_user_channel);

	if (nulls[0] == 'n')
		return all_locked(presence_store_run_newest(&lock_user, &user, NULL));
	return all_locked(presence_store_run_newest(statement, values, nulls));
}

/*
 * Lock at most "limit" presences that a ban forbids, skipping locked ones, of
 * some users (text[]), or of all if that is 0.
 */
List *
presence_store_lock_banned(Datum users, int limit)
{
	Datum		values[] = {users, Int64GetDatum(limit)};

	return all_locked(users ? presence_store_run_newest(&lock_banned, values, NULL) :
					  presence_store_run_newest(&lock_all_banned, values + 1, NULL));
}

/* Whether there are presences that a ban forbids, including locked ones. */
bool
presence_store_banned_exist(Datum users)
{
	uint64		count = presence_store_run_newest(&banned_exist, &users, users ? " " : "n");

	SPI_freetuptable(SPI_tuptable);
	return count > 0;
}

/* Delete presences that are locked; returns their number. */
uint64
presence_store_delete(List *rows)
{
	Datum	   *tids = palloc(list_length(rows) * sizeof(Datum));
	ListCell   *lc;
	Datum		array;

	if (rows == NIL)
		return 0;
	foreach(lc, rows)
	{
		CHECK_FOR_INTERRUPTS();
		tids[foreach_current_index(lc)] =
			PointerGetDatum(&((PresenceLocked *) lfirst(lc))->tid);
	}
	array = PointerGetDatum(construct_array(tids, list_length(rows), TIDOID,
											sizeof(ItemPointerData), false,
											TYPALIGN_SHORT));
	return presence_store_run_newest(&delete_rows, &array, NULL);
}

/* Columns of presence.presences. */
enum
{
	MEMBER_ID = 1,
	MEMBER_ROOM,
	MEMBER_CHANNEL,
	MEMBER_USER,
	MEMBER_SEEN = 7
};

/* Read the current row of a reader into "scratch", and visit it. */
static void
visit_member(PresenceReader *reader, char *room, PresenceRowVisitor visit,
			 void *arg, MemoryContext scratch)
{
	MemoryContext context = MemoryContextSwitchTo(scratch);
	PresenceRow row = {.room = room};

	row.id = DatumGetInt64(presence_scan_column(reader, MEMBER_ID));
	row.channel = presence_scan_string(reader, MEMBER_CHANNEL);
	row.user = presence_scan_string(reader, MEMBER_USER);
	row.last_seen = DatumGetTimestampTz(presence_scan_column(reader, MEMBER_SEEN));
	visit(arg, &row);
	MemoryContextSwitchTo(context);
	MemoryContextReset(scratch);
}

/*
 * Visit all presences of rooms, given by names, in a snapshot, including the
 * changes made by this transaction so far, room by room.  The rows have neither
 * meta nor joined_at, and are valid during the call of the visitor; their room
 * is the name as given.
 */
void
presence_store_each_member(List *rooms, Snapshot snapshot,
						   PresenceRowVisitor visit, void *arg)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "presence members",
												  ALLOCSET_DEFAULT_SIZES);
	PresenceReader reader = presence_scan_open("presences", "presences_pkey", MEMBER_ROOM);
	ListCell   *lc;

	CommandCounterIncrement();
	PushCopiedSnapshot(snapshot);
	UpdateActiveSnapshotCommandId();
	foreach(lc, rooms)
	{
		presence_scan_seek(&reader, lfirst(lc));
		while (presence_scan_next(&reader))
		{
			CHECK_FOR_INTERRUPTS();
			visit_member(&reader, lfirst(lc), visit, arg, scratch);
		}
		presence_scan_rest(&reader);
	}
	presence_scan_close(&reader);
	PopActiveSnapshot();
	MemoryContextDelete(scratch);
}

/* The presences of pairs of room and channel (two text[]) in a snapshot. */
List *
presence_store_look_up(Datum rooms, Datum channels, Snapshot snapshot)
{
	Datum		values[] = {rooms, channels};

	return all_rows(presence_store_run_at(&look_up, values, NULL, snapshot, 0));
}

/* Whether a user has a presence in a room, in a snapshot. */
bool
presence_store_has_user(const char *room, const char *user, Snapshot snapshot)
{
	Datum		values[] = {CStringGetTextDatum(room), CStringGetTextDatum(user)};
	uint64		count = presence_store_run_at(&has_user, values, NULL, snapshot, 1);

	SPI_freetuptable(SPI_tuptable);
	return count > 0;
}

/* Number of live presences in a room, counted up to a limit. */
uint64
presence_store_count_live(Datum room, int64 limit)
{
	Datum		values[] = {room, Int64GetDatum(limit)};

	(void) presence_store_run_newest(&count_live, values, NULL);
	return presence_store_count();
}
