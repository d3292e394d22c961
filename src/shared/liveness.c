/*-------------------------------------------------------------------------
 *
 * liveness.c
 *		Decides whether a channel is live.
 *
 * A channel's newest sign of life is the one in its registry entry or, if it
 * has none, last_seen of its row.  Neither counts as older than the start of
 * the grace period.  A channel has expired when its newest sign of life is
 * older than max_age or, where its entry says so, its own time to live.
 *
 * Time before the grace period does not count toward max_age, because
 * heartbeats may not have been received then.  For all databases grace starts
 * when shared memory is created and when recovery ends.  For one database it
 * starts anew when
 *
 *	- its worker wakes up much later than scheduled, so the server or the
 *	  worker was stopped.  This is checked whenever the worker sets its next
 *	  wakeup time, and by others before they treat a channel as expired.
 *	- the wall clock has jumped, because the ages of rows depend on it.
 *
 * If the library is not preloaded, the start of grace is derived from the
 * start times of the server's own processes, which are restarted after a
 * crash and at promotion.
 *
 * A heartbeat that finds the registry full is written to the row, but at most
 * once per max_age / 4.  So, with shared memory, a row without an entry gets
 * that much longer before it expires.
 *
 * All shared fields are atomic, so there are no locks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/name.h"
#include "base/shmem.h"
#include "miscadmin.h"
#include "shared/liveness.h"
#include "utils/timestamp.h"

/* The start of grace for all databases. */
typedef struct PresenceGrace
{
	pg_atomic_uint32 recovering;	/* 1 until a process notices that recovery
									 * has ended */
	pg_atomic_uint64 start;		/* PresenceTime */
} PresenceGrace;

static PresenceGrace *grace;

/* Bytes of shared memory that the start of grace needs. */
Size
presence_liveness_shmem_size(void)
{
	return sizeof(PresenceGrace);
}

/* Attach to the start of grace; when new, it is now. */
void
presence_liveness_shmem_init(void *area, bool found)
{
	grace = area;
	if (found)
		return;
	pg_atomic_init_u32(&grace->recovering, 1);
	pg_atomic_init_u64(&grace->start, (uint64) presence_clock_now());
}

/* Recovery has ended: start grace for all databases, once. */
void
presence_liveness_end_recovery(void)
{
	uint32		expected = 1;

	if (pg_atomic_read_u32(&grace->recovering) == 0)
		return;
	pg_atomic_write_u64(&grace->start, (uint64) presence_clock_now());
	pg_atomic_compare_exchange_u32(&grace->recovering, &expected, 0);
}

/*
 * The start of grace without shared memory: the newest start time of the
 * processes that the postmaster restarts after a crash or at promotion.
 */
static PresenceTime
guess_grace_start(void)
{
	static PresenceTime start = 0;
	TimestampTz newest = PgStartTime;
	int			nbackends;

	if (start != 0)
		return start;
	nbackends = pgstat_fetch_stat_numbackends();
	for (int i = 1; i <= nbackends; i++)
	{
		PgBackendStatus *status = presence_compat_backend_status(i);

		if (status->st_backendType == B_BG_WRITER ||
			status->st_backendType == B_CHECKPOINTER ||
			status->st_backendType == B_WAL_WRITER ||
			status->st_backendType == B_AUTOVAC_LAUNCHER)
			newest = Max(newest, status->st_proc_start_timestamp);
	}
	start = presence_clock_from_timestamp(newest);
	return start;
}

/* The start of grace for this process's database. */
PresenceTime
presence_liveness_grace_start(void)
{
	PresenceDatabase *database;
	PresenceTime start;

	if (RecoveryInProgress())
		return presence_clock_now();
	if (!presence_shmem_ready())
		return guess_grace_start();
	if (unlikely(pg_atomic_read_u32(&grace->recovering)))
		presence_liveness_end_recovery();
	start = (PresenceTime) pg_atomic_read_u64(&grace->start);
	database = presence_my_database();
	if (database == NULL)
		return start;
	return Max(start, (PresenceTime) pg_atomic_read_u64(&database->grace_start));
}

/* Start grace for a database: all its presences get a full max_age. */
static void
raise_grace_start(PresenceDatabase *database)
{
	pg_atomic_write_u64(&database->grace_start, (uint64) presence_clock_now());
}

/* Whether grace has started anew for a database since the last call. */
bool
presence_liveness_grace_start_rose(PresenceDatabase *database)
{
	uint64		start = pg_atomic_read_u64(&database->grace_start);
	bool		rose = start != pg_atomic_read_u64(&database->grace_start_announced);

	pg_atomic_write_u64(&database->grace_start_announced, start);
	return rose;
}

/* How late a worker may wake before that counts as a stall; microseconds. */
PresenceTime
presence_liveness_stall_limit(void)
{
	PresenceTime limit = (PresenceTime) presence_max_age * 1000 / 8;

	return Min(Max(limit, 500 * 1000), 1000 * 1000);
}

/* Whether the worker is overdue, so that it or the server was stopped. */
static bool
is_stalled(PresenceDatabase *database)
{
	PresenceTime due;

	if (database->worker_state != PRESENCE_WORKER_RUNNING ||
		presence_clock_ignores_stalls())
		return false;
	due = (PresenceTime) pg_atomic_read_u64(&database->next_wakeup);
	return due != 0 &&
		presence_clock_machine() > due + presence_liveness_stall_limit();
}

/* If the worker is overdue, heartbeats may have been missed: start grace. */
void
presence_liveness_check_stall(PresenceDatabase *database)
{
	if (database && is_stalled(database))
		raise_grace_start(database);
}

/*
 * The worker will wake up within so many microseconds.  May be called from a
 * signal handler.
 */
void
presence_liveness_arm_watchdog(PresenceDatabase *database, PresenceTime within)
{
	presence_liveness_check_stall(database);
	pg_atomic_write_u64(&database->next_wakeup,
						(uint64) (presence_clock_machine() + within));
}

/* The next wakeup of the worker is unknown from now on. */
void
presence_liveness_disarm_watchdog(PresenceDatabase *database)
{
	pg_atomic_write_u64(&database->next_wakeup, 0);
}

/*
 * Start grace if the wall clock has jumped, because ages of rows, which depend
 * on it, mean nothing then.
 */
void
presence_liveness_check_wall_clock(void)
{
	PresenceDatabase *database = presence_my_database();
	int64		offset = presence_clock_wall_offset();
	int64		known;

	if (database == NULL)
		return;
	known = (int64) pg_atomic_read_u64(&database->wall_offset);
	if (offset > known + USECS_PER_SEC || offset < known - USECS_PER_SEC)
		raise_grace_start(database);
	pg_atomic_write_u64(&database->wall_offset, (uint64) offset);
}

/* presence.max_age in microseconds. */
PresenceTime
presence_liveness_max_age(void)
{
	return (PresenceTime) presence_max_age * 1000;
}

/* The cutoff for an age at a time. */
static PresenceCutoff
cutoff_at(PresenceTime now, PresenceTime age)
{
	PresenceCutoff cutoff = {.now = now,.age = age};

	cutoff.grace_start = presence_liveness_grace_start();
	cutoff.time = cutoff.grace_start >= now - age ? 0 : now - age;
	return cutoff;
}

/* The present cutoff: channels that it finds not live have expired. */
PresenceCutoff
presence_liveness_cutoff(void)
{
	return cutoff_at(presence_clock_now(), presence_liveness_max_age());
}

/* The present cutoff for another age, whatever the times to live are. */
PresenceCutoff
presence_liveness_cutoff_of_age(int64 age)
{
	PresenceCutoff cutoff;

	if (age == PRESENCE_OWN_AGE)
		return presence_liveness_cutoff();
	cutoff = cutoff_at(presence_clock_now(), age);
	cutoff.by_age = true;
	return cutoff;
}

/*
 * The same for a caller about to treat channels as expired, who must check
 * first that heartbeats were not missed.
 */
PresenceCutoff
presence_liveness_checked_cutoff(int64 age)
{
	presence_liveness_check_stall(presence_my_database());
	presence_liveness_check_wall_clock();
	return presence_liveness_cutoff_of_age(age);
}

/* How much older than a registry entry a row without one may be. */
PresenceTime
presence_liveness_row_slack(void)
{
	return presence_shmem_ready() ? presence_liveness_max_age() / 4 : 0;
}

/* A cutoff as last_seen of rows without an entry; -infinity if all count. */
TimestampTz
presence_liveness_row_cutoff(const PresenceCutoff *cutoff)
{
	if (cutoff->time == 0)
		return DT_NOBEGIN;
	return presence_clock_to_timestamp(cutoff->time - presence_liveness_row_slack());
}

/* What the registry says of a channel; ABSENT where it says nothing. */
static PresenceEntryView
look_up(const char *channel, int length, const PresenceCutoff *cutoff)
{
	PresenceEntryView nothing = {PRESENCE_ENTRY_ABSENT};
	PresenceName name;

	if (!presence_shmem_ready() || RecoveryInProgress())
		return nothing;
	name = presence_name_make(channel, length);
	return presence_registry_look(&name, cutoff);
}

/*
 * The newest sign of life of the channel of a row.  A standby receives no
 * heartbeats, so there it is last_seen of the row.
 */
PresenceTime
presence_liveness_seen(const char *channel, int length,
					   TimestampTz row_last_seen)
{
	PresenceCutoff none = {0};

	return presence_liveness_newest(look_up(channel, length, &none).seen, row_last_seen);
}

/* The same, given the one in the registry; 0: none. */
PresenceTime
presence_liveness_newest(PresenceTime seen, TimestampTz row_last_seen)
{
	if (seen == 0)
		seen = presence_clock_from_timestamp(row_last_seen);
	return RecoveryInProgress() ? seen : Max(seen, presence_liveness_grace_start());
}

/* Whether a channel lives, given what the registry says, and its row. */
static bool
is_live(const PresenceEntryView *view, TimestampTz row_last_seen,
		const PresenceCutoff *cutoff)
{
	PresenceCutoff rows;

	if (view->status != PRESENCE_ENTRY_ABSENT)
		return view->live;
	if (cutoff->time == 0)
		return true;
	presence_liveness_check_wall_clock();
	rows = cutoff_at(cutoff->time, presence_liveness_row_slack());
	return !presence_clock_is_before(presence_clock_from_timestamp(row_last_seen), rows.time);
}

/* Whether the channel of a row lives, by a cutoff; {0}: every channel does. */
bool
presence_liveness_is_live(const char *channel, int length,
						  TimestampTz row_last_seen, const PresenceCutoff *cutoff)
{
	PresenceEntryView view;

	if (cutoff->now == 0)
		return true;
	view = look_up(channel, length, cutoff);
	return is_live(&view, row_last_seen, cutoff);
}

/*
 * The same, and by the same look into the registry the newest sign of life, as
 * presence_liveness_seen() returns it, in "seen".
 */
bool
presence_liveness_seen_since(const char *channel, int length,
							 TimestampTz row_last_seen,
							 const PresenceCutoff *cutoff, PresenceTime *seen)
{
	PresenceEntryView view = look_up(channel, length, cutoff);

	*seen = presence_liveness_newest(view.seen, row_last_seen);
	return is_live(&view, row_last_seen, cutoff);
}
