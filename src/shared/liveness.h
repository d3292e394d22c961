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
extern PresenceTime presence_liveness_cutoff(PresenceTime now,
											 PresenceTime age);
extern PresenceTime presence_liveness_checked_cutoff(PresenceTime age);
extern PresenceTime presence_liveness_row_slack(void);
extern TimestampTz presence_liveness_row_cutoff(PresenceTime cutoff);
extern PresenceTime presence_liveness_seen(const char *channel, int length,
										   TimestampTz row_last_seen);
extern PresenceTime presence_liveness_newest(PresenceTime seen,
											 TimestampTz row_last_seen);
extern bool presence_liveness_is_live(const char *channel, int length,
									  TimestampTz row_last_seen,
									  PresenceTime cutoff);
extern bool presence_liveness_seen_since(const char *channel, int length,
										 TimestampTz row_last_seen,
										 PresenceTime cutoff, PresenceTime *seen);

#endif							/* PRESENCE_LIVENESS_H */
