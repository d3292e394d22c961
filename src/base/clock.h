/*-------------------------------------------------------------------------
 *
 * clock.h
 *		Monotonic time, and its conversion from and to wall time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_CLOCK_H
#define PRESENCE_CLOCK_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "port/atomics.h"

/* Microseconds on the machine's monotonic clock; 0 is never a valid time. */
typedef int64 PresenceTime;

/* What tests have done to the clocks, for all processes. */
typedef struct PresenceClock
{
	pg_atomic_uint64 offset;	/* microseconds, added to both clocks */
	pg_atomic_uint64 wall_offset;	/* the same, to the wall clock only */
	pg_atomic_uint32 ignores_stalls;	/* 1: see
										 * presence_test_ignore_stalls() */
} PresenceClock;

/*
 * Whether a sign of life is older than a cutoff; 0 is before all times.  Those
 * from before the machine started are negative.
 */
static inline bool
presence_clock_is_before(PresenceTime seen, PresenceTime cutoff)
{
	return cutoff != 0 && seen < cutoff;
}

extern Size presence_clock_shmem_size(void);
extern void presence_clock_shmem_init(void *area, bool found);

extern PresenceTime presence_clock_machine(void);
extern PresenceTime presence_clock_now(void);
extern int64 presence_clock_cpu(void);
extern TimestampTz presence_clock_wall(void);
extern TimestampTz presence_clock_to_timestamp(PresenceTime time);
extern PresenceTime presence_clock_from_timestamp(TimestampTz timestamp);
extern int64 presence_clock_wall_offset(void);
extern bool presence_clock_ignores_stalls(void);

#endif							/* PRESENCE_CLOCK_H */
