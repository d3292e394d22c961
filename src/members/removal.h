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

#include "base/hint.h"
#include "members/pins.h"
#include "nodes/pg_list.h"
#include "utils/array.h"

extern uint64 presence_removal_delete(List *rows, PresenceReason reason);
extern PresenceEntryStatus presence_removal_enter(text *channel, PresencePin *pin);
extern uint64 presence_removal_expire(ArrayType *channels, int64 age);
extern uint64 presence_removal_prune(int64 age);
extern void presence_removal_verify(ArrayType *channels);
extern void presence_removal_pull_back(void);

#endif							/* PRESENCE_REMOVAL_H */
