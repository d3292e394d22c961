/*-------------------------------------------------------------------------
 *
 * scan.h
 *		Scans of the presences of one room.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_SCAN_H
#define PRESENCE_SCAN_H

#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "base/clock.h"
#include "executor/tuptable.h"
#include "shared/registry.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

/*
 * A table that is read for one value of a column after the other.  Its index is
 * opened, and the scan of it begun, once, for the first value.
 */
typedef struct PresenceReader
{
	Relation	relation;
	const char *index_name;
	Relation	index;			/* NULL: there is none to use */
	AttrNumber	column;
	IndexScanDesc scan;			/* of the index, or NULL */
	TableScanDesc whole;		/* of the table, for one value, or NULL */
	TupleTableSlot *slot;		/* the current row; NULL: nothing was read */
} PresenceReader;

extern PresenceReader presence_scan_open(const char *name, const char *index,
										 AttrNumber column);
extern void presence_scan_seek(PresenceReader *reader, const char *value);
extern bool presence_scan_next(PresenceReader *reader);
extern void presence_scan_rest(PresenceReader *reader);
extern Datum presence_scan_column(PresenceReader *reader, AttrNumber column);
extern char *presence_scan_string(PresenceReader *reader, AttrNumber column);
extern void presence_scan_close(PresenceReader *reader);

extern void presence_scan_lock(void);
extern int64 presence_scan_count(Datum room, Snapshot snapshot);
extern int64 presence_scan_count_expired(Datum room, Snapshot snapshot,
										 const PresenceCutoff *cutoff);
extern TransactionId presence_scan_inserting(Datum room, Datum channel);

#endif							/* PRESENCE_SCAN_H */
