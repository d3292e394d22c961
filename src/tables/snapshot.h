/*-------------------------------------------------------------------------
 *
 * snapshot.h
 *		A whole room as one JSON object.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_SNAPSHOT_H
#define PRESENCE_SNAPSHOT_H

#include "postgres.h"

#include "utils/jsonb.h"

extern Jsonb *presence_snapshot_read(Datum name, int limit, const char *epoch,
									 int64 seq, bool has_seq);

#endif							/* PRESENCE_SNAPSHOT_H */
