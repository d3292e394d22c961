/*-------------------------------------------------------------------------
 *
 * removal.h
 *		Remove presences: given rows, and those that have expired.
 *
 * All functions expect SPI to be connected.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_REMOVAL_H
#define PRESENCE_REMOVAL_H

#include "postgres.h"

#include "base/clock.h"
#include "base/hint.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/array.h"

extern uint64 presence_removal_delete(List *rows, PresenceReason reason);
extern void presence_removal_expire_previous(text *channel);
extern uint64 presence_removal_expire(ArrayType *channels, int64 age);
extern uint64 presence_removal_prune(int64 age);
extern void presence_removal_pull_back(void);

extern PresenceTime presence_removal_cutoff(PresenceTime age);
extern TimestampTz presence_removal_row_cutoff(PresenceTime cutoff);

#endif							/* PRESENCE_REMOVAL_H */
