/*-------------------------------------------------------------------------
 *
 * liveness.h
 *		Who counts as alive.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_LIVENESS_H
#define PRESENCE_LIVENESS_H

#include "postgres.h"

#include "clock.h"
#include "registry.h"

extern PresenceTime presence_liveness_max_age(void);
extern PresenceTime presence_liveness_cutoff(PresenceTime now,
											 PresenceTime age);
extern PresenceTime presence_liveness_row_slack(void);
extern void presence_liveness_check_wall_clock(void);
extern PresenceTime presence_liveness_seen(const char *channel, int length,
										   TimestampTz row_last_seen);
extern bool presence_liveness_is_live(const char *channel, int length,
									  TimestampTz row_last_seen,
									  PresenceTime cutoff);

#endif							/* PRESENCE_LIVENESS_H */
