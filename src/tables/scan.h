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

#include "base/clock.h"
#include "utils/snapshot.h"

extern void presence_scan_lock(void);
extern int64 presence_scan_count(Datum room, Snapshot snapshot);
extern int64 presence_scan_count_expired(Datum room, Snapshot snapshot,
										 PresenceTime cutoff);
extern TransactionId presence_scan_inserting(Datum room, Datum channel);

#endif							/* PRESENCE_SCAN_H */
