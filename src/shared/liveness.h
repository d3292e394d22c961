/*-------------------------------------------------------------------------
 *
 * liveness.h
 *		Which channels are live.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_LIVENESS_H
#define PRESENCE_LIVENESS_H

#include "postgres.h"

#include "base/clock.h"
#include "shared/database.h"
#include "shared/registry.h"

/* Instead of an age: that of each channel, max_age or its time to live. */
#define PRESENCE_OWN_AGE (-1)

extern Size presence_liveness_shmem_size(void);
extern void presence_liveness_shmem_init(void *area, bool found);

extern PresenceTime presence_liveness_grace_start(void);
extern bool presence_liveness_grace_start_rose(PresenceDatabase *database);
extern void presence_liveness_end_recovery(void);
extern PresenceTime presence_liveness_stall_limit(void);
extern void presence_liveness_check_stall(PresenceDatabase *database);
extern void presence_liveness_check_wall_clock(void);
extern void presence_liveness_arm_watchdog(PresenceDatabase *database,
										   PresenceTime within);
extern void presence_liveness_disarm_watchdog(PresenceDatabase *database);

extern PresenceTime presence_liveness_max_age(void);
extern PresenceCutoff presence_liveness_cutoff(void);
extern PresenceCutoff presence_liveness_cutoff_of_age(int64 age);
extern PresenceCutoff presence_liveness_checked_cutoff(int64 age);
extern PresenceTime presence_liveness_row_slack(void);
extern TimestampTz presence_liveness_row_cutoff(const PresenceCutoff *cutoff);
extern PresenceTime presence_liveness_seen(const char *channel, int length,
										   TimestampTz row_last_seen);
extern PresenceTime presence_liveness_newest(PresenceTime seen,
											 TimestampTz row_last_seen);
extern bool presence_liveness_is_live(const char *channel, int length,
									  TimestampTz row_last_seen,
									  const PresenceCutoff *cutoff);
extern bool presence_liveness_seen_since(const char *channel, int length,
										 TimestampTz row_last_seen,
										 const PresenceCutoff *cutoff,
										 PresenceTime *seen);

#endif							/* PRESENCE_LIVENESS_H */
