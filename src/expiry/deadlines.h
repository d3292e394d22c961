/*-------------------------------------------------------------------------
 *
 * deadlines.h
 *		Which entries of the registry expire next.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_DEADLINES_H
#define PRESENCE_DEADLINES_H

#include "postgres.h"

#include "base/clock.h"
#include "shared/database.h"
#include "shared/registry.h"

typedef struct PresenceDeadlines PresenceDeadlines;

extern PresenceDeadlines *presence_deadlines_create(MemoryContext context);
extern void presence_deadlines_follow(PresenceDeadlines *deadlines,
									  PresenceDatabase *database);
extern void presence_deadlines_rescan(PresenceDeadlines *deadlines);
extern PresenceTime presence_deadlines_next(PresenceDeadlines *deadlines);
extern uint64 presence_deadlines_channels(const PresenceDeadlines *deadlines);
extern char *presence_deadlines_take(PresenceDeadlines *deadlines, PresenceTime now,
									 const PresenceCutoff *cutoff,
									 PresenceEntryView *view, PresenceTime *due);

#endif							/* PRESENCE_DEADLINES_H */
