/*-------------------------------------------------------------------------
 *
 * scan.c
 *		Scans tables by their indexes, without SPI.
 *
 * Statements run in snapshots that show the changes of the transaction itself,
 * and show nothing that is not committed.  The scans of one room need others.
 * The readers are for those who announce: to start an executor for the rows of
 * one user would cost many times as much as to find them.
 *
 * Nothing here asks for privileges, and no policies apply: neither who may
 * enter nor what is announced depends on what the caller sees.
 *
 * Callers have called presence_scan_lock() before they took the snapshot,
 * because TRUNCATE empties the table for older snapshots, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "base/compat.h"
#include "catalog/pg_am.h"
#include "miscadmin.h"
#include "nodes/primnodes.h"
#include "shared/liveness.h"
#include "storage/lmgr.h"
#include "tables/extension.h"
#include "tables/scan.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"

/* Columns of presence.presences. */
enum
{
	PRESENCE_ROOM = 2,
	PRESENCE_CHANNEL = 3,
	PRESENCE_LAST_SEEN = 7
};

/* A scan in progress. */
typedef struct RoomScan
{
	Relation	relation;
	ScanKeyData keys[2];
	SysScanDesc scan;
} RoomScan;

/* Lock the table until the transaction ends. */
void
presence_scan_lock(void)
{
	LockRelationOid(presence_extension_table("presences"), AccessShareLock);
}

/* Begin to scan a room, or one of its channels (0: all). */
static void
begin(RoomScan *scan, Datum room, Datum channel, Snapshot snapshot)
{
	scan->relation = table_open(presence_extension_table("presences"), NoLock);
	list_free(RelationGetIndexList(scan->relation));	/* finds rd_pkindex */
	ScanKeyInit(&scan->keys[0], PRESENCE_ROOM, BTEqualStrategyNumber, F_TEXTEQ, room);
	ScanKeyInit(&scan->keys[1], PRESENCE_CHANNEL, BTEqualStrategyNumber, F_TEXTEQ, channel);
	scan->scan = systable_beginscan(scan->relation, scan->relation->rd_pkindex,
									OidIsValid(scan->relation->rd_pkindex),
									snapshot, channel ? 2 : 1, scan->keys);
}

/* End a scan. */
static void
end(RoomScan *scan)
{
	systable_endscan(scan->scan);
	table_close(scan->relation, NoLock);
}

/* Number of members of a room in a snapshot. */
int64
presence_scan_count(Datum room, Snapshot snapshot)
{
	RoomScan	scan;
	int64		count = 0;

	begin(&scan, room, 0, snapshot);
	while (HeapTupleIsValid(systable_getnext(scan.scan)))
	{
		CHECK_FOR_INTERRUPTS();
		count++;
	}
	end(&scan);
	return count;
}

/* Whether a member has expired. */
static bool
has_expired(HeapTuple row, TupleDesc desc, const PresenceCutoff *cutoff)
{
	bool		isnull;
	Datum		channel = heap_getattr(row, PRESENCE_CHANNEL, desc, &isnull);
	Datum		last_seen = heap_getattr(row, PRESENCE_LAST_SEEN, desc, &isnull);
	text	   *name = DatumGetTextPP(channel);

	return !presence_liveness_is_live(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name),
									  DatumGetTimestampTz(last_seen), cutoff);
}

/* Number of members of a room in a snapshot who have expired. */
int64
presence_scan_count_expired(Datum room, Snapshot snapshot,
							const PresenceCutoff *cutoff)
{
	RoomScan	scan;
	HeapTuple	row;
	int64		count = 0;

	begin(&scan, room, 0, snapshot);
	while (HeapTupleIsValid(row = systable_getnext(scan.scan)))
	{
		CHECK_FOR_INTERRUPTS();
		count += has_expired(row, RelationGetDescr(scan.relation), cutoff);
	}
	end(&scan);
	return count;
}

/*
 * The running transaction that has inserted the row of a channel in a room;
 * InvalidTransactionId if there is none.
 */
TransactionId
presence_scan_inserting(Datum room, Datum channel)
{
	SnapshotData dirty;
	RoomScan	scan;
	TransactionId inserting = InvalidTransactionId;

	InitDirtySnapshot(dirty);
	begin(&scan, room, channel, &dirty);
	while (HeapTupleIsValid(systable_getnext(scan.scan)))
		if (TransactionIdIsValid(dirty.xmin))
			inserting = dirty.xmin;
	end(&scan);
	return inserting;
}

/* ------------------------------------------------------------------ readers */

/* Whether an index has all rows in which a column is not NULL. */
static bool
has_all_rows(Relation index, AttrNumber column)
{
	List	   *predicate = RelationGetIndexPredicate(index);
	NullTest   *test = predicate ? linitial(predicate) : NULL;

	if (predicate == NIL)
		return true;
	return list_length(predicate) == 1 && IsA(test, NullTest) &&
		test->nulltesttype == IS_NOT_NULL && IsA(test->arg, Var) &&
		castNode(Var, test->arg)->varattno == column;
}

/* Open the index of a reader, if it finds all rows by values of the column. */
static void
open_index(PresenceReader *reader)
{
	Relation	relation = reader->relation;
	Oid			index = get_relname_relid(reader->index_name,
										  RelationGetNamespace(relation));
	Relation	opened;

	if (!OidIsValid(index) ||
		!list_member_oid(RelationGetIndexList(relation), index))
		return;
	opened = index_open(index, AccessShareLock);
	if (opened->rd_index->indisvalid && opened->rd_rel->relam == BTREE_AM_OID &&
		opened->rd_index->indkey.values[0] == reader->column &&
		has_all_rows(opened, reader->column))
		reader->index = opened;
	else
		index_close(opened, AccessShareLock);
}

/* Open a table of the extension; "index" is the name of the one on a column. */
PresenceReader
presence_scan_open(const char *name, const char *index, AttrNumber column)
{
	PresenceReader reader = {.index_name = index,.column = column};

	reader.relation = table_open(presence_extension_table(name), AccessShareLock);
	return reader;
}

/* Begin to read the rows with a value, in the active snapshot. */
void
presence_scan_seek(PresenceReader *reader, const char *value)
{
	ScanKeyData key;

	if (reader->slot == NULL)
	{
		open_index(reader);
		reader->slot = table_slot_create(reader->relation, NULL);
	}
	ScanKeyInit(&key, reader->index ? 1 : reader->column, BTEqualStrategyNumber,
				F_TEXTEQ, CStringGetTextDatum(value));
	if (reader->index == NULL)
	{
		reader->whole = table_beginscan(reader->relation, GetActiveSnapshot(), 1, &key);
		return;
	}
	if (reader->scan == NULL)
		reader->scan = presence_compat_index_beginscan(reader->relation, reader->index,
													   GetActiveSnapshot(), 1);
	index_rescan(reader->scan, &key, 1, NULL, 0);
}

/* Whether there is another row; it becomes the current one. */
bool
presence_scan_next(PresenceReader *reader)
{
	if (reader->index)
		return index_getnext_slot(reader->scan, ForwardScanDirection, reader->slot);
	return table_scan_getnextslot(reader->whole, ForwardScanDirection, reader->slot);
}

/* Read no more rows with this value. */
void
presence_scan_rest(PresenceReader *reader)
{
	ExecClearTuple(reader->slot);
	if (reader->whole)
		table_endscan(reader->whole);
	reader->whole = NULL;
}

/* A column of the current row; 0 for NULL. */
Datum
presence_scan_column(PresenceReader *reader, AttrNumber column)
{
	bool		isnull;
	Datum		datum = slot_getattr(reader->slot, column, &isnull);

	return isnull ? (Datum) 0 : datum;
}

/* The same for a text, as a palloc'd string, or NULL. */
char *
presence_scan_string(PresenceReader *reader, AttrNumber column)
{
	Datum		datum = presence_scan_column(reader, column);

	return datum ? TextDatumGetCString(datum) : NULL;
}

/* Close a table, and its index; their locks are kept. */
void
presence_scan_close(PresenceReader *reader)
{
	if (reader->scan)
		index_endscan(reader->scan);
	if (reader->slot)
		ExecDropSingleTupleTableSlot(reader->slot);
	if (reader->index)
		index_close(reader->index, NoLock);
	table_close(reader->relation, NoLock);
}
