/*-------------------------------------------------------------------------
 *
 * liveness.c
 *		Decides from row, registry and floor who is alive.
 *
 * A channel's newest sign of life is what the registry says; where that has
 * no entry it is the row's last_seen.  Neither counts as older than the floor
 * (database.c).  A channel is dead when that lies more than max_age back.
 *
 * Heartbeats that find the registry full write to rows, but only once in a
 * quarter of max_age; so with shared memory a row without an entry is given
 * that quarter on top, and nobody dies who beat in time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "database.h"
#include "guc.h"
#include "liveness.h"
#include "shmem.h"

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

	return presence_database_floor() >= cutoff ? 0 : cutoff;
}

/* How much older a row without an entry may be than a heartbeat. */
PresenceTime
presence_liveness_row_slack(void)
{
	return presence_shmem_ready() ? presence_liveness_max_age() / 4 : 0;
}

/*
 * Notice a jump of the wall clock: ages of rows, told by the wall clock, mean
 * nothing across it, so every presence gets a full max_age.
 */
void
presence_liveness_check_wall_clock(void)
{
	PresenceDatabase *database = presence_database_mine();
	int64		offset = presence_clock_wall_offset();
	int64		known;

	if (database == NULL)
		return;
	known = (int64) pg_atomic_read_u64(&database->wall_offset);
	if (offset > known + USECS_PER_SEC || offset < known - USECS_PER_SEC)
		presence_database_raise_floor(database, presence_clock_now());
	pg_atomic_write_u64(&database->wall_offset, (uint64) offset);
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
	return RecoveryInProgress() ? seen : Max(seen, presence_database_floor());
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
