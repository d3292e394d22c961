/*-------------------------------------------------------------------------
 *
 * store_people.c
 *		Statements on users: presence.people and presence.user_last_seen.
 *
 * Those who announce read users one by one, and need little of each, so they
 * scan the indexes themselves: starting an executor would cost many times as
 * much as the scan.  No privileges or policies apply, and the tables have been
 * locked.
 *
 * No statement waits for a row of presence.user_last_seen: transactions insert
 * new rows, and statements that update or remove rows skip locked ones.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "base/clock.h"
#include "base/compat.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "shared/liveness.h"
#include "storage/bufmgr.h"
#include "tables/extension.h"
#include "tables/store.h"
#include "tables/store_people.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

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

/* ------------------------------------------------------------------ readers */

/* Columns of presence.presences. */
enum
{
	PRESENCE_CHANNEL = 3,
	PRESENCE_USER = 4,
	PRESENCE_SEEN = 7
};

/* Columns of presence.people. */
enum
{
	PERSON_USER = 1,
	PERSON_STATUS,
	PERSON_MESSAGE,
	PERSON_CHOSEN_AT
};

/* Columns of presence.user_last_seen. */
enum
{
	GONE_USER = 1,
	GONE_SEEN
};

/*
 * A table that is read for the rows of one user after the other.  The scan of
 * its index is begun once, for the first user.
 */
typedef struct UserTable
{
	Relation	relation;
	Relation	index;			/* NULL: there is none to use */
	AttrNumber	column;			/* of the user */
	IndexScanDesc scan;			/* of the index, or NULL */
	TableScanDesc whole;		/* of the table, for one user */
	TupleTableSlot *slot;		/* the current row; NULL: no user was read */
} UserTable;

struct PresencePeople
{
	UserTable	presences;
	UserTable	people;
	UserTable	gone;
	PresenceTime cutoff;		/* presences last seen before it are expired */
	bool		chosen;			/* anybody may have chosen a status */
};

/* Open a table's index, if it finds a column's values; NULL: it does not. */
static Relation
open_index(Relation relation, Oid index, AttrNumber column)
{
	Relation	opened;

	if (!OidIsValid(index) ||
		!list_member_oid(RelationGetIndexList(relation), index))
		return NULL;
	opened = index_open(index, AccessShareLock);
	if (opened->rd_index->indisvalid && opened->rd_rel->relam == BTREE_AM_OID &&
		opened->rd_index->indkey.values[0] == column)
		return opened;
	index_close(opened, AccessShareLock);
	return NULL;
}

/* Open a table; "index" is the name of the one on the column of the user. */
static UserTable
open_table(const char *name, const char *index, AttrNumber column)
{
	UserTable	table = {.column = column};

	table.relation = table_open(presence_extension_table(name), AccessShareLock);
	table.index = open_index(table.relation,
							 get_relname_relid(index, RelationGetNamespace(table.relation)),
							 column);
	return table;
}

/* Close it, and its index; their locks are kept. */
static void
close_table(UserTable *table)
{
	if (table->scan)
		index_endscan(table->scan);
	if (table->slot)
		ExecDropSingleTupleTableSlot(table->slot);
	if (table->index)
		index_close(table->index, NoLock);
	table_close(table->relation, NoLock);
}

/* Begin to scan a table for the rows of a user, in the active snapshot. */
static void
begin_scan(UserTable *table, const char *user)
{
	ScanKeyData key;

	if (table->slot == NULL)
		table->slot = table_slot_create(table->relation, NULL);
	ScanKeyInit(&key, table->index ? 1 : table->column, BTEqualStrategyNumber,
				F_TEXTEQ, CStringGetTextDatum(user));
	if (table->index == NULL)
	{
		table->whole = table_beginscan(table->relation, GetActiveSnapshot(), 1, &key);
		return;
	}
	if (table->scan == NULL)
		table->scan = presence_compat_index_beginscan(table->relation, table->index,
													  GetActiveSnapshot(), 1);
	index_rescan(table->scan, &key, 1, NULL, 0);
}

/* Whether there is another row of the user; it becomes the current one. */
static bool
next_row(UserTable *table)
{
	if (table->index)
		return index_getnext_slot(table->scan, ForwardScanDirection, table->slot);
	return table_scan_getnextslot(table->whole, ForwardScanDirection, table->slot);
}

/* End the scan for a user, and release the current row. */
static void
end_scan(UserTable *table)
{
	ExecClearTuple(table->slot);
	if (table->whole)
		table_endscan(table->whole);
	table->whole = NULL;
}

/* A column of the current row; 0 for NULL. */
static Datum
get_column(UserTable *table, AttrNumber column)
{
	bool		isnull;
	Datum		datum = slot_getattr(table->slot, column, &isnull);

	return isnull ? (Datum) 0 : datum;
}

/* The same for a text, as a palloc'd string, or NULL. */
static char *
get_string(UserTable *table, AttrNumber column)
{
	Datum		datum = get_column(table, column);

	return datum ? TextDatumGetCString(datum) : NULL;
}

/*
 * Begin to read users in a snapshot, including the changes made by this
 * transaction so far.  It is active until presence_store_people_end().
 */
PresencePeople *
presence_store_people_begin(Snapshot snapshot)
{
	PresencePeople *people = palloc(sizeof(PresencePeople));

	people->presences = open_table("presences", "presences_user_id_idx", PRESENCE_USER);
	people->people = open_table("people", "people_pkey", PERSON_USER);
	people->gone = open_table("user_last_seen", "user_last_seen_user_id", GONE_USER);
	people->cutoff = presence_liveness_cutoff(presence_clock_now(),
											  presence_liveness_max_age());
	people->chosen = RelationGetNumberOfBlocks(people->people.relation) > 0;
	CommandCounterIncrement();
	PushCopiedSnapshot(snapshot);
	UpdateActiveSnapshotCommandId();
	return people;
}

/* End reading users. */
void
presence_store_people_end(PresencePeople *people)
{
	close_table(&people->presences);
	close_table(&people->people);
	close_table(&people->gone);
	PopActiveSnapshot();
	pfree(people);
}

/* Whether the channel of the current presence lives. */
static bool
is_live(PresencePeople *people)
{
	text	   *channel = DatumGetTextPP(get_column(&people->presences, PRESENCE_CHANNEL));
	Datum		seen = get_column(&people->presences, PRESENCE_SEEN);

	return presence_liveness_is_live(VARDATA_ANY(channel), VARSIZE_ANY_EXHDR(channel),
									 DatumGetTimestampTz(seen), people->cutoff);
}

/* Count the connections of a user, up to a number of all and of live ones. */
static void
count_connections(PresencePeople *people, PresencePerson *person, int64 most,
				  int64 living)
{
	UserTable  *table = &people->presences;

	begin_scan(table, person->user);
	while ((person->connections < most || person->living < living) &&
		   next_row(table))
	{
		CHECK_FOR_INTERRUPTS();
		if (person->connections < most)
			person->connections++;
		if (person->living < living && is_live(people))
			person->living++;
	}
	end_scan(table);
}

/* Read what a user has chosen. */
static void
read_choice(PresencePeople *people, PresencePerson *person)
{
	UserTable  *table = &people->people;

	begin_scan(table, person->user);
	if (next_row(table))
	{
		person->chosen_status = get_string(table, PERSON_STATUS);
		person->custom_message = get_string(table, PERSON_MESSAGE);
		person->last_seen = DatumGetTimestampTz(get_column(table, PERSON_CHOSEN_AT));
	}
	end_scan(table);
}

/*
 * Read a user.  The connections are counted up to "most", the live ones up to
 * "living".
 */
PresencePerson *
presence_store_people_read(PresencePeople *people, const char *user, int64 most,
						   int64 living)
{
	PresencePerson *person = palloc0(sizeof(PresencePerson));

	person->user = user;
	person->last_seen = DT_NOBEGIN;
	if (most > 0 || living > 0)
		count_connections(people, person, most, living);
	if (people->chosen)
		read_choice(people, person);
	return person;
}

/* When a user without connections was last seen; DT_NOBEGIN: not known. */
TimestampTz
presence_store_people_last_seen(PresencePeople *people, const char *user)
{
	UserTable  *table = &people->gone;
	TimestampTz newest = DT_NOBEGIN;

	begin_scan(table, user);
	while (next_row(table))
	{
		TimestampTz seen = DatumGetTimestampTz(get_column(table, GONE_SEEN));

		CHECK_FOR_INTERRUPTS();
		newest = Max(newest, seen);
	}
	end_scan(table);
	return newest;
}

/* ------------------------------------------------------------------- writers */

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
