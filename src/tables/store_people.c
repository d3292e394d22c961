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
 * Nothing waits for a row of presence.user_last_seen: transactions insert new
 * rows, and who updates or removes rows skips locked ones.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "base/clock.h"
#include "base/compat.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "shared/liveness.h"
#include "storage/bufmgr.h"
#include "tables/extension.h"
#include "tables/scan.h"
#include "tables/store.h"
#include "tables/store_people.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Number of rows inserted at a time. */
#define INSERT_BATCH 64

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

struct PresencePeople
{
	PresenceReader presences;
	PresenceReader people;
	PresenceReader gone;
	PresenceCutoff cutoff;		/* who has expired */
	bool		chosen;			/* anybody may have chosen a status */
};

/*
 * Begin to read users in a snapshot, including the changes made by this
 * transaction so far.  It is active until presence_store_people_end().
 */
PresencePeople *
presence_store_people_begin(Snapshot snapshot)
{
	PresencePeople *people = palloc(sizeof(PresencePeople));

	people->presences = presence_scan_open("presences", "presences_user_id_idx", PRESENCE_USER);
	people->people = presence_scan_open("people", "people_pkey", PERSON_USER);
	people->gone = presence_scan_open("user_last_seen", "user_last_seen_user_id", GONE_USER);
	people->cutoff = presence_liveness_cutoff();
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
	presence_scan_close(&people->presences);
	presence_scan_close(&people->people);
	presence_scan_close(&people->gone);
	PopActiveSnapshot();
	pfree(people);
}

/* Whether the channel of the current presence lives. */
static bool
is_live(PresencePeople *people)
{
	text	   *channel = DatumGetTextPP(presence_scan_column(&people->presences, PRESENCE_CHANNEL));
	Datum		seen = presence_scan_column(&people->presences, PRESENCE_SEEN);

	return presence_liveness_is_live(VARDATA_ANY(channel), VARSIZE_ANY_EXHDR(channel),
									 DatumGetTimestampTz(seen), &people->cutoff);
}

/* Count the connections of a user, up to a number of all and of live ones. */
static void
count_connections(PresencePeople *people, PresencePerson *person, int64 most,
				  int64 living)
{
	PresenceReader *table = &people->presences;

	presence_scan_seek(table, person->user);
	while ((person->connections < most || person->living < living) &&
		   presence_scan_next(table))
	{
		CHECK_FOR_INTERRUPTS();
		if (person->connections < most)
			person->connections++;
		if (person->living < living && is_live(people))
			person->living++;
	}
	presence_scan_rest(table);
}

/* Read what a user has chosen. */
static void
read_choice(PresencePeople *people, PresencePerson *person)
{
	PresenceReader *table = &people->people;

	presence_scan_seek(table, person->user);
	if (presence_scan_next(table))
	{
		person->chosen_status = presence_scan_string(table, PERSON_STATUS);
		person->custom_message = presence_scan_string(table, PERSON_MESSAGE);
		person->last_seen = DatumGetTimestampTz(presence_scan_column(table, PERSON_CHOSEN_AT));
	}
	presence_scan_rest(table);
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

/*
 * When a user without connections was last seen; DT_NOBEGIN: not known.  "row"
 * gets where that is stored.
 */
TimestampTz
presence_store_people_last_seen(PresencePeople *people, const char *user,
								ItemPointer row)
{
	PresenceReader *table = &people->gone;
	TimestampTz newest = DT_NOBEGIN;

	ItemPointerSetInvalid(row);
	presence_scan_seek(table, user);
	while (presence_scan_next(table))
	{
		TimestampTz seen = DatumGetTimestampTz(presence_scan_column(table, GONE_SEEN));

		CHECK_FOR_INTERRUPTS();
		if (seen > newest)
		{
			newest = seen;
			*row = table->slot->tts_tid;
		}
	}
	presence_scan_rest(table);
	return newest;
}

/* ------------------------------------------------------------------- writers */

/* presence.user_last_seen, open to be written. */
typedef struct Writer
{
	Relation	relation;
	EState	   *estate;
	ResultRelInfo *info;
	TupleTableSlot *slots[INSERT_BATCH];
	int			nslots;
} Writer;

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
 * Whether nothing but its indexes needs to know of rows that are written to
 * presence.user_last_seen.
 */
static bool
is_plain(Relation relation)
{
	TupleDesc	desc = RelationGetDescr(relation);
	TupleConstr *constraints = desc->constr;

	return relation->rd_rel->relkind == RELKIND_RELATION &&
		!relation->rd_rel->relispartition &&
		relation->rd_rel->relreplident == REPLICA_IDENTITY_FULL &&
		relation->trigdesc == NULL && relation->rd_rules == NULL &&
		desc->natts == GONE_SEEN &&
		TupleDescAttr(desc, GONE_USER - 1)->atttypid == TEXTOID &&
		TupleDescAttr(desc, GONE_SEEN - 1)->atttypid == TIMESTAMPTZOID &&
		(constraints == NULL || constraints->num_check == 0);
}

/* Order by user, as the index does, the newest time first. */
static int
compare_last_seen(const ListCell *a, const ListCell *b)
{
	const PresenceLastSeen *left = lfirst(a);
	const PresenceLastSeen *right = lfirst(b);
	int			order = strcmp(left->user, right->user);

	if (order != 0)
		return order;
	return (left->last_seen < right->last_seen) - (left->last_seen > right->last_seen);
}

/* The times of users, the newest of each, in the order of the index. */
static List *
newest_of_each(List *seen)
{
	List	   *newest = NIL;
	const PresenceLastSeen *last = NULL;
	ListCell   *lc;

	list_sort(seen, compare_last_seen);
	foreach(lc, seen)
	{
		PresenceLastSeen *one = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (last == NULL || strcmp(last->user, one->user) != 0)
			newest = lappend(newest, one);
		last = one;
	}
	return newest;
}

/* Put a user's row into a slot. */
static void
fill_slot(TupleTableSlot *slot, const PresenceLastSeen *one)
{
	ExecClearTuple(slot);
	slot->tts_values[GONE_USER - 1] = CStringGetTextDatum(one->user);
	slot->tts_values[GONE_SEEN - 1] = TimestampTzGetDatum(one->last_seen);
	memset(slot->tts_isnull, false, GONE_SEEN * sizeof(bool));
	ExecStoreVirtualTuple(slot);
}

/* Open the table to write to it without an executor. */
static Writer
open_writer(Relation relation, int nslots)
{
	Writer		writer = {relation, CreateExecutorState(), makeNode(ResultRelInfo)};

	InitResultRelInfo(writer.info, relation, 0, NULL, 0);
	ExecOpenIndices(writer.info, false);
	writer.nslots = Min(nslots, INSERT_BATCH);
	for (int i = 0; i < writer.nslots; i++)
		writer.slots[i] = table_slot_create(relation, NULL);
	return writer;
}

/* Close it; its lock is kept. */
static void
close_writer(Writer *writer)
{
	for (int i = 0; i < writer->nslots; i++)
		ExecDropSingleTupleTableSlot(writer->slots[i]);
	ExecCloseIndices(writer->info);
	FreeExecutorState(writer->estate);
	CommandCounterIncrement();
}

/* Insert rows for users, so many at a time as there are slots. */
static void
insert_directly(Writer *writer, List *seen)
{
	for (int first = 0; first < list_length(seen); first += writer->nslots)
	{
		int			count = Min(writer->nslots, list_length(seen) - first);

		for (int i = 0; i < count; i++)
			fill_slot(writer->slots[i], list_nth(seen, first + i));
		table_multi_insert(writer->relation, writer->slots, count,
						   GetCurrentCommandId(true), 0, NULL);
		for (int i = 0; i < count; i++)
		{
			CHECK_FOR_INTERRUPTS();
			list_free(presence_compat_insert_index_tuples(writer->info, writer->slots[i],
														  writer->estate));
			ResetPerTupleExprContext(writer->estate);
		}
	}
}

/*
 * Update the row of a user; false if there is none, or somebody has locked or
 * changed it.
 */
static bool
update_directly(Writer *writer, PresenceLastSeen *one)
{
	TupleTableSlot *slot = writer->slots[0];
	TM_FailureData failure;
	PresenceCompatIndexes which;

	if (!ItemPointerIsValid(&one->row) ||
		table_tuple_lock(writer->relation, &one->row, GetActiveSnapshot(), slot,
						 GetCurrentCommandId(true), LockTupleNoKeyExclusive,
						 LockWaitSkip, 0, &failure) != TM_Ok)
		return false;
	fill_slot(slot, one);
	simple_table_tuple_update(writer->relation, &one->row, slot, GetActiveSnapshot(),
							  &which);
	list_free(presence_compat_update_index_tuples(writer->info, slot, writer->estate,
												  which));
	ResetPerTupleExprContext(writer->estate);
	return true;
}

/* Update the rows of users; returns those for whom that is not possible. */
static List *
update_known(Writer *writer, List *seen)
{
	List	   *rest = NIL;
	ListCell   *lc;

	foreach(lc, seen)
	{
		CHECK_FOR_INTERRUPTS();
		if (!update_directly(writer, lfirst(lc)))
			rest = lappend(rest, lfirst(lc));
	}
	return rest;
}

/*
 * Write times without an executor, which costs more than the rows, but for what
 * it does for indexes; false if somebody has added to the table what only an
 * executor does.  There is an active snapshot, which the expressions of indexes
 * may need.
 */
static bool
write_directly(List *seen)
{
	Relation	relation = table_open(presence_extension_table("user_last_seen"),
									  RowExclusiveLock);
	bool		plain = is_plain(relation);

	if (plain)
	{
		Writer		writer = open_writer(relation, list_length(seen));

		insert_directly(&writer, update_known(&writer, newest_of_each(seen)));
		close_writer(&writer);
	}
	table_close(relation, NoLock);
	return plain;
}

/*
 * Store when users were last seen, in new rows, one for each user: this never
 * waits, and cannot fail with a serialization error.
 */
void
presence_store_add_last_seen(List *seen)
{
	if (!write_directly(seen))
		run_last_seen(&add_last_seen, seen);
}

/*
 * Store when users were last seen: in their existing rows, if these can be had
 * without waiting, else in new rows.
 */
void
presence_store_write_last_seen(List *seen)
{
	List	   *known = NIL;
	List	   *unknown = NIL;
	ListCell   *lc;

	foreach(lc, seen)
	{
		PresenceLastSeen *one = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (one->looked_up)
			known = lappend(known, one);
		else
			unknown = lappend(unknown, one);
	}
	if (known != NIL && !write_directly(known))
		unknown = list_concat(unknown, known);
	if (unknown != NIL)
		run_last_seen(&merge_last_seen, unknown);
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
