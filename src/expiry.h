/*-------------------------------------------------------------------------
 *
 * expiry.h
 *		When channels die.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_EXPIRY_H
#define PRESENCE_EXPIRY_H

#include "postgres.h"

#include "clock.h"
#include "utils/array.h"

typedef struct PresenceExpiry PresenceExpiry;

extern PresenceExpiry *presence_expiry_create(MemoryContext context);
extern PresenceTime presence_expiry_next(PresenceExpiry *expiry);
extern ArrayType *presence_expiry_take(PresenceExpiry *expiry, PresenceTime now,
									   int limit, PresenceTime *lag);
extern void presence_expiry_settle(PresenceExpiry *expiry, PresenceTime when);
extern void presence_expiry_rescan(PresenceExpiry *expiry);
extern uint64 presence_expiry_channels(const PresenceExpiry *expiry);

#endif							/* PRESENCE_EXPIRY_H */
