/*-------------------------------------------------------------------------
 *
 * expiry.h
 *		When channels expire.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_EXPIRY_H
#define PRESENCE_EXPIRY_H

#include "postgres.h"

#include "base/clock.h"
#include "datatype/timestamp.h"
#include "utils/array.h"

typedef struct PresenceExpiry PresenceExpiry;

extern PresenceExpiry *presence_expiry_create(MemoryContext context);
extern PresenceTime presence_expiry_next(PresenceExpiry *expiry);
extern void presence_expiry_follow(PresenceExpiry *expiry);
extern void presence_expiry_rescan(PresenceExpiry *expiry);
extern uint64 presence_expiry_channels(const PresenceExpiry *expiry);

extern bool presence_expiry_is_busy(const PresenceExpiry *expiry);
extern bool presence_expiry_offer(PresenceExpiry *expiry, const char *channel,
								  int length, TimestampTz seen);
extern ArrayType *presence_expiry_take(PresenceExpiry *expiry, PresenceTime now,
									   PresenceTime *lag);
extern void presence_expiry_settle(PresenceExpiry *expiry, PresenceTime now,
								   ArrayType *remaining);
extern const char *presence_expiry_fail(PresenceExpiry *expiry,
										PresenceTime now, bool transient,
										PresenceTime *pause);

#endif							/* PRESENCE_EXPIRY_H */
