/*-------------------------------------------------------------------------
 *
 * liveness.c
 *		Decides from row, registry and floor who is alive.
 *
 * A channel's newest sign of life is what the registry says; where that has
 * no entry it is the row's last_seen.  Neither counts as older than the floor.
 * A channel is dead when that lies more than max_age back.
 *
 * The floor is the time before which silence proves nothing.  For all databases
 * it is the creation of the shared memory, or the end of recovery.  For one of
 * them it rises, too, when
 *
 *	- its worker is heard of much later than it promised: the server, or the
 *	  worker, was stopped.  Looked at when the worker makes its next promise, and
 *	  before anybody else pronounces a channel dead.
 *	- the wall clock has jumped, which the ages of rows are told by.
 *
 * Where the library is not preloaded the floor is read off the start times of
 * the server's own processes, which a crash or a promotion starts anew.
 *
 * Heartbeats that find the registry full write to rows, but only once in a
 * quarter of max_age; so with shared memory a row without an entry is given
 * that quarter on top, and nobody dies who beat in time.
 *
 * All that is shared here is atomic: no locks.
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

/* What concerns all databases alike. */
typedef struct PresenceGrace
{
	pg_atomic_uint32 recovering;	/* until somebody sees recovery ended */
	pg_atomic_uint64 floor;		/* PresenceTime */
} PresenceGrace;

static PresenceGrace *grace;

/* Bytes of shared memory that the floor of all databases needs. */
Size
presence_liveness_shmem_size(void)
{
	return sizeof(PresenceGrace);
}

/* Attach to the floor of all databases; when new, it is now. */
void
presence_liveness_shmem_init(void *area, bool found)
{
	grace = area;
	if (found)
		return;
	pg_atomic_init_u32(&grace->recovering, 1);
	pg_atomic_init_u64(&grace->floor, (uint64) presence_clock_now());
}

/* Let all presences live on for a full max_age once recovery has ended. */
void
presence_liveness_end_recovery(void)
{
	uint32		expected = 1;

	if (pg_atomic_read_u32(&grace->recovering) == 0)
		return;
	pg_atomic_write_u64(&grace->floor, (uint64) presence_clock_now());
	pg_atomic_compare_exchange_u32(&grace->recovering, &expected, 0);
}

/*
 * The floor without shared memory: the newest start of the processes that
 * the postmaster starts again after a crash or a promotion.
 */
static PresenceTime
guess_grace_start(void)
{
	static PresenceTime floor = 0;
	TimestampTz newest = PgStartTime;
	int			nbackends;

	if (floor != 0)
		return floor;
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
	floor = presence_clock_from_timestamp(newest);
	return floor;
}

/* Time before which silence proves nothing, for this process's database. */
PresenceTime
presence_liveness_grace_start(void)
{
	PresenceDatabase *database;
	PresenceTime floor;

	if (RecoveryInProgress())
		return presence_clock_now();
	if (!presence_shmem_ready())
		return guess_grace_start();
	if (unlikely(pg_atomic_read_u32(&grace->recovering)))
		presence_liveness_end_recovery();
	floor = (PresenceTime) pg_atomic_read_u64(&grace->floor);
	database = presence_my_database();
	if (database == NULL)
		return floor;
	return Max(floor, (PresenceTime) pg_atomic_read_u64(&database->floor));
}

/* Give every presence of a database a full max_age from now on. */
static void
raise_grace_start(PresenceDatabase *database)
{
	pg_atomic_write_u64(&database->floor, (uint64) presence_clock_now());
}

/* Whether the floor of a database has risen since this was last asked. */
bool
presence_liveness_grace_start_rose(PresenceDatabase *database)
{
	uint64		floor = pg_atomic_read_u64(&database->floor);
	bool		rose = floor != pg_atomic_read_u64(&database->grace_start_announced);

	pg_atomic_write_u64(&database->grace_start_announced, floor);
	return rose;
}

/* How late a worker may wake before that counts as a stall; microseconds. */
PresenceTime
presence_liveness_stall_limit(void)
{
	PresenceTime limit = (PresenceTime) presence_max_age * 1000 / 8;

	return Min(Max(limit, 500 * 1000), 1000 * 1000);
}

/* Whether the worker is overdue: the server was stopped, or it is. */
static bool
is_stalled(PresenceDatabase *database)
{
	PresenceTime due;

	if (database->worker_state != PRESENCE_WORKER_RUNNING)
		return false;
	due = (PresenceTime) pg_atomic_read_u64(&database->next_wakeup);
	return due != 0 &&
		presence_clock_machine() > due + presence_liveness_stall_limit();
}

/* Where the worker is overdue the server stood still, so nobody died. */
void
presence_liveness_check_stall(PresenceDatabase *database)
{
	if (database && is_stalled(database))
		raise_grace_start(database);
}

/*
 * The worker will be heard of again within a while.  May be called by a signal
 * handler.
 */
void
presence_liveness_arm_watchdog(PresenceDatabase *database, PresenceTime within)
{
	presence_liveness_check_stall(database);
	pg_atomic_write_u64(&database->next_wakeup,
						(uint64) (presence_clock_machine() + within));
}

/* Nobody knows when the worker will be heard of. */
void
presence_liveness_disarm_watchdog(PresenceDatabase *database)
{
	pg_atomic_write_u64(&database->next_wakeup, 0);
}

/*
 * Notice a jump of the wall clock: ages of rows, told by the wall clock, mean
 * nothing across it, so every presence gets a full max_age.
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

/*
 * The time before which a last sign of life means death at an age: 0, before
 * all times, where the floor forbids to conclude that.
 */
PresenceTime
presence_liveness_cutoff(PresenceTime now, PresenceTime age)
{
	PresenceTime cutoff = now - age;

	return presence_liveness_grace_start() >= cutoff ? 0 : cutoff;
}

/* How much older a row without an entry may be than a heartbeat. */
PresenceTime
presence_liveness_row_slack(void)
{
	return presence_shmem_ready() ? presence_liveness_max_age() / 4 : 0;
}

/* What the registry says of a channel; 0: nothing. */
static PresenceTime
registry_seen(const char *channel, int length)
{
	PresenceName name;
	PresenceTime seen;

	if (!presence_shmem_ready() || RecoveryInProgress())
		return 0;
	name = presence_name_make(channel, length);
	seen = presence_registry_look(&name, 0).seen;
	return seen;
}

/*
 * The newest sign of life of the channel of a row; on a standby, which hears
 * none, what the row says.
 */
PresenceTime
presence_liveness_seen(const char *channel, int length,
					   TimestampTz row_last_seen)
{
	PresenceTime seen = registry_seen(channel, length);

	if (seen == 0)
		seen = presence_clock_from_timestamp(row_last_seen);
	return RecoveryInProgress() ? seen : Max(seen, presence_liveness_grace_start());
}

/* Whether the channel of a row gave a sign of life since "cutoff". */
bool
presence_liveness_is_live(const char *channel, int length,
						  TimestampTz row_last_seen, PresenceTime cutoff)
{
	PresenceTime seen;

	if (cutoff == 0)
		return true;
	seen = registry_seen(channel, length);
	if (seen != 0)
		return seen >= cutoff;
	presence_liveness_check_wall_clock();
	cutoff = presence_liveness_cutoff(cutoff, presence_liveness_row_slack());
	return presence_clock_from_timestamp(row_last_seen) >= cutoff;
}
