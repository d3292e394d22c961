/*-------------------------------------------------------------------------
 *
 * clock.c
 *		Reads the clocks.
 *
 * Signs of life are times of the monotonic clock, which neither an
 * administrator nor a time server can set.  Rows and payloads contain wall
 * time; times are converted when they are read or written.
 *
 * Tests advance the clocks through two offsets in shared memory, so that they
 * need not wait for expiry, and may have stalls of the machine ignored, which
 * would give the silent another max_age of grace.  All of these are zero in
 * production: nothing in the extension's SQL changes them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "base/clock.h"
#include "fmgr.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(presence_test_advance_clock);
PG_FUNCTION_INFO_V1(presence_test_jump_wall_clock);
PG_FUNCTION_INFO_V1(presence_test_ignore_stalls);

/* What stands for them without shared memory. */
static PresenceClock local_clock;
static PresenceClock *clock_state = &local_clock;

/* Bytes of shared memory that the clock needs. */
Size
presence_clock_shmem_size(void)
{
	return sizeof(PresenceClock);
}

/* Attach to the clock's shared memory, initializing it when new. */
void
presence_clock_shmem_init(void *area, bool found)
{
	clock_state = area;
	if (found)
		return;
	pg_atomic_init_u64(&clock_state->offset, 0);
	pg_atomic_init_u64(&clock_state->wall_offset, 0);
	pg_atomic_init_u32(&clock_state->ignores_stalls, 0);
}

/* Return the machine's monotonic time, which tests cannot advance. */
PresenceTime
presence_clock_machine(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (PresenceTime) ts.tv_sec * USECS_PER_SEC + ts.tv_nsec / 1000;
}

/* Return the monotonic time. */
PresenceTime
presence_clock_now(void)
{
	return presence_clock_machine() +
		(PresenceTime) pg_atomic_read_u64(&clock_state->offset);
}

/* Return the CPU time that this process has used; microseconds. */
int64
presence_clock_cpu(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (int64) ts.tv_sec * USECS_PER_SEC + ts.tv_nsec / 1000;
}

/* Return the wall time. */
TimestampTz
presence_clock_wall(void)
{
	return GetCurrentTimestamp() +
		(int64) pg_atomic_read_u64(&clock_state->offset) +
		(int64) pg_atomic_read_u64(&clock_state->wall_offset);
}

/* Convert a monotonic time to wall time, by the current wall clock. */
TimestampTz
presence_clock_to_timestamp(PresenceTime time)
{
	return presence_clock_wall() - (presence_clock_now() - time);
}

/*
 * Convert wall time to a monotonic time.  A time in the future counts as now,
 * -infinity as the oldest possible timestamp.
 */
PresenceTime
presence_clock_from_timestamp(TimestampTz timestamp)
{
	int64		age = presence_clock_wall() - Max(timestamp, MIN_TIMESTAMP);

	return presence_clock_now() - Max(age, 0);
}

/* Wall time minus monotonic time: constant until the wall clock is set. */
int64
presence_clock_wall_offset(void)
{
	return presence_clock_wall() - presence_clock_now();
}

/* Whether a test wants no stall of the machine to be noticed. */
bool
presence_clock_ignores_stalls(void)
{
	return pg_atomic_read_u32(&clock_state->ignores_stalls) != 0;
}

/*
 * presence_test_advance_clock(microseconds bigint) returns void
 *
 * Advance all clocks of the extension, as if the server had been running for
 * that time without heartbeats; it does not count as a stall.  For tests,
 * which declare it.
 */
Datum
presence_test_advance_clock(PG_FUNCTION_ARGS)
{
	pg_atomic_fetch_add_u64(&clock_state->offset, PG_GETARG_INT64(0));
	PG_RETURN_VOID();
}

/*
 * presence_test_jump_wall_clock(microseconds bigint) returns void
 *
 * Make the wall clock jump, as if an administrator had set it.  For tests,
 * which declare it.
 */
Datum
presence_test_jump_wall_clock(PG_FUNCTION_ARGS)
{
	pg_atomic_fetch_add_u64(&clock_state->wall_offset, PG_GETARG_INT64(0));
	PG_RETURN_VOID();
}

/*
 * presence_test_ignore_stalls(ignore boolean) returns void
 *
 * Have no stall noticed, so that a machine that is slow for a second does not
 * start grace, until called with false.  For tests, which declare it.
 */
Datum
presence_test_ignore_stalls(PG_FUNCTION_ARGS)
{
	pg_atomic_write_u32(&clock_state->ignores_stalls, PG_GETARG_BOOL(0));
	PG_RETURN_VOID();
}
