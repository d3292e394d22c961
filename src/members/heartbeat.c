/*-------------------------------------------------------------------------
 *
 * heartbeat.c
 *		Stores heartbeats: in the registry, or in rows where it has no entry.
 *
 * The registry answers nearly all of them alone, with a partition's lock shared.
 * One that it cannot answer looks at the table, which needs SPI, and repairs the
 * registry by what it sees, unless somebody has changed the channel meanwhile.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/name.h"
#include "base/shmem.h"
#include "members/heartbeat.h"
#include "members/xact.h"
#include "miscadmin.h"
#include "shared/database.h"
#include "shared/liveness.h"
#include "tables/store_channels.h"
#include "utils/timestamp.h"

/*
 * Write a sign of life into the rows of a channel that have had none since a
 * time; how many.  Others see it once it is committed, which may be after they
 * have seen the channel dead.
 */
uint64
presence_heartbeat_write(Datum channel, TimestampTz wall, TimestampTz since)
{
	PresenceTime slack = presence_liveness_row_slack();
	TimestampTz oldest;
	uint64		count = presence_store_touch(channel, wall, since, wall - slack, &oldest);

	if (count > 0)
		presence_xact_note_late_touch(Max(presence_clock_from_timestamp(oldest),
										presence_liveness_grace_start()) +
									presence_liveness_max_age() + slack);
	return count;
}

/* A heartbeat in the registry. */
static PresenceEntryStatus
touch_entry(text *channel)
{
	PresenceTime now = presence_clock_now();
	PresenceName name = presence_name_of_text(channel);

	return presence_registry_touch(&name, now,
								   presence_liveness_cutoff(now, presence_liveness_max_age()));
}

/*
 * A heartbeat, as far as the registry can answer it alone: ALIVE means that
 * it was stored.  The registry knows nothing of what the running transaction
 * has added or removed.  Needs no SPI.
 */
PresenceEntryStatus
presence_heartbeat_touch_fastpath(text *channel)
{
	if (!presence_shmem_ready() || presence_xact_is_active())
		return PRESENCE_ENTRY_ABSENT;
	return touch_entry(channel);
}

/* A heartbeat that lives in the rows of its channel. */
static bool
touch_rows(text *channel, PresenceTime cutoff)
{
	Datum		datum = PointerGetDatum(channel);
	TimestampTz wall = presence_clock_wall();
	TimestampTz since = presence_liveness_row_cutoff(cutoff);

	if (presence_heartbeat_write(datum, wall, since) > 0)
		return true;
	return presence_store_has_channel(datum, since);
}

/*
 * Whether what the running transaction sees is what is committed: not once it
 * has dealt with presences itself, nor with a snapshot of the past.
 */
static bool
sees_committed(void)
{
	return !presence_xact_is_active() && !IsolationUsesXactSnapshot();
}

/*
 * Look whether a channel has rows, and make its entry say so, if what is seen
 * can be trusted for that.
 */
static bool
verify_entry(text *channel, PresenceTime cutoff)
{
	PresenceName name = presence_name_of_text(channel);
	PresenceTime now = presence_clock_now();
	PresenceEntryStatus status = presence_registry_look(&name, cutoff).status;
	bool		absent = status == PRESENCE_ENTRY_ABSENT;

	if (status == PRESENCE_ENTRY_EXPIRED)
		return false;
	for (;;)
	{
		uint32		changes;

		status = presence_registry_load(&name, now, cutoff, &changes);
		if (status == PRESENCE_ENTRY_EXPIRED)
			return false;
		if (status == PRESENCE_ENTRY_NO_SPACE)
			return touch_rows(channel, cutoff);
		if (!presence_store_has_channel(PointerGetDatum(channel),
										absent ? presence_liveness_row_cutoff(cutoff) : DT_NOBEGIN))
		{
			if (sees_committed())
				presence_registry_forget(&name, changes);
			return false;
		}
		if (!sees_committed())
			return touch_entry(channel) != PRESENCE_ENTRY_EXPIRED;
		if (presence_registry_confirm(&name, now, changes))
			return true;
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * A heartbeat that the registry could not answer alone: look at the table,
 * and repair the registry.  false: the channel is not present.
 */
bool
presence_heartbeat_touch_slowpath(text *channel)
{
	PresenceTime cutoff = presence_liveness_checked_cutoff(presence_liveness_max_age());

	return presence_shmem_ready() ? verify_entry(channel, cutoff) :
		touch_rows(channel, cutoff);
}
