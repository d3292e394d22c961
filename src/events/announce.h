/*-------------------------------------------------------------------------
 *
 * announce.h
 *		Turn hints into events.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_ANNOUNCE_H
#define PRESENCE_ANNOUNCE_H

#include "postgres.h"

#include "base/hint.h"
#include "events/backlog.h"
#include "events/roster.h"
#include "nodes/pg_list.h"
#include "utils/snapshot.h"

extern List *presence_announce(PresenceRoster *roster, PresenceBacklog *backlog,
							   PresenceWaiting *const *now, int nhints,
							   Snapshot snapshot, List **gone);
extern List *presence_announce_alone(PresenceHint *const *hints, int nhints,
									 Snapshot snapshot);

#endif							/* PRESENCE_ANNOUNCE_H */
