/*-------------------------------------------------------------------------
 *
 * scan.c
 *		Scans the presences of one room by the primary key, without SPI.
 *
 * Statements run in snapshots that show the changes of the transaction itself,
 * and show nothing that is not committed.  These scans need others.  They ask
 * for no privileges, and no policies apply: who may enter does not depend on
 * what the caller sees.
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
#include "base/compat.h"
#include "miscadmin.h"
#include "shared/liveness.h"
#include "storage/lmgr.h"
#include "tables/extension.h"
#include "tables/scan.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
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

/* Whether a member gave its last sign of life before a cutoff. */
static bool
has_expired(HeapTuple row, TupleDesc desc, PresenceTime cutoff)
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
presence_scan_count_expired(Datum room, Snapshot snapshot, PresenceTime cutoff)
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
