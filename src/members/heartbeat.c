/*-------------------------------------------------------------------------
 *
 * heartbeat.c
 *		Stores heartbeats: in the registry, or in rows if it has no entry.
 *
 * The fast path answers nearly all heartbeats from the registry alone, with a
 * partition lock in shared mode.  The slow path reads the table, which needs
 * SPI, and makes the registry entry match it, unless the channel has been
 * changed concurrently.  No lock of the registry is held while it reads.
 *
 * Goodbyes and holds are signs of life as well, and known to the registry alone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/name.h"
#include "base/shmem.h"
#include "members/heartbeat.h"
#include "members/pins.h"
#include "members/xact.h"
#include "miscadmin.h"
#include "shared/database.h"
#include "shared/liveness.h"
#include "tables/permission.h"
#include "tables/store_channels.h"
#include "utils/timestamp.h"

/*
 * Heartbeats were written into rows, the oldest of which was last seen at a
 * time.  Others see them once they are committed, which may be after they have
 * seen the channel as expired; then the commit leaves a resync pending (xact.c).
 */
static void
note_late_touch(TimestampTz oldest)
{
	presence_xact_note_late_touch(Max(presence_clock_from_timestamp(oldest),
									  presence_liveness_grace_start()) +
								  presence_liveness_max_age() +
								  presence_liveness_row_slack());
}

/*
 * Write a heartbeat into the rows of a channel that were last seen since a
 * time, but not within the slack; how many.
 */
uint64
presence_heartbeat_write(Datum channel, TimestampTz wall, TimestampTz since)
{
	TimestampTz oldest;
	uint64		count = presence_store_touch(channel, wall, since,
											 wall - presence_liveness_row_slack(),
											 &oldest);

	if (count > 0)
		note_late_touch(oldest);
	return count;
}

/* The same for channels (text[]), whenever they were last seen. */
void
presence_heartbeat_write_many(Datum channels, TimestampTz wall)
{
	TimestampTz oldest;

	if (presence_store_touch_many(channels, wall, wall - presence_liveness_row_slack(),
								  &oldest) > 0)
		note_late_touch(oldest);
}

/* Store a heartbeat in the registry. */
static PresenceEntryStatus
touch_entry(text *channel, uint32 ttl)
{
	PresenceCutoff cutoff = presence_liveness_cutoff();
	PresenceName name = presence_name_of_text(channel);

	return presence_registry_touch(&name, ttl, &cutoff);
}

/*
 * Store a heartbeat if the registry alone can; ALIVE means that it was stored,
 * with a time to live as presence_registry_touch() has it.  ABSENT without
 * shared memory, or if the running transaction has changed presences, because
 * the registry does not have its changes.  Does not need SPI.
 */
PresenceEntryStatus
presence_heartbeat_touch_fastpath(text *channel, uint32 ttl)
{
	if (!presence_shmem_ready() || presence_xact_is_active())
		return PRESENCE_ENTRY_ABSENT;
	return touch_entry(channel, ttl);
}

/* Store a heartbeat in the rows of a channel; false if it has none. */
static bool
touch_rows(text *channel, const PresenceCutoff *cutoff)
{
	Datum		datum = PointerGetDatum(channel);
	TimestampTz wall = presence_clock_wall();
	TimestampTz since = presence_liveness_row_cutoff(cutoff);

	if (presence_heartbeat_write(datum, wall, since) > 0)
		return true;
	return presence_store_has_channel(datum, since);
}

/*
 * Whether the running transaction sees exactly what is committed: not if it
 * has changed presences itself, nor if it keeps its first snapshot.
 */
static bool
sees_committed(void)
{
	return !presence_xact_is_active() && !IsolationUsesXactSnapshot();
}

/*
 * Check whether a channel has rows, and update its registry entry if what the
 * transaction sees is reliable.  Repeats when the channel was changed
 * meanwhile.
 */
static bool
verify_entry(text *channel, uint32 ttl, const PresenceCutoff *cutoff)
{
	PresenceName name = presence_name_of_text(channel);
	PresenceEntryStatus status = presence_registry_look(&name, cutoff).status;
	TimestampTz since = status == PRESENCE_ENTRY_ABSENT ?
		presence_liveness_row_cutoff(cutoff) : DT_NOBEGIN;

	if (status == PRESENCE_ENTRY_EXPIRED)
		return false;
	for (;;)
	{
		uint32		changes;

		status = presence_registry_load(&name, cutoff->now, cutoff, &changes);
		if (status == PRESENCE_ENTRY_EXPIRED)
			return false;
		if (status == PRESENCE_ENTRY_NO_SPACE)
			return touch_rows(channel, cutoff);
		if (!presence_store_has_channel(PointerGetDatum(channel), since))
		{
			if (sees_committed())
				presence_registry_forget(&name, changes);
			return false;
		}
		if (!sees_committed() || presence_registry_confirm(&name, changes))
			return touch_entry(channel, ttl) != PRESENCE_ENTRY_EXPIRED;
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Store a heartbeat that the fast path could not: read the table, and update
 * the registry.  Returns false if the channel is not present.
 */
bool
presence_heartbeat_touch_slowpath(text *channel, uint32 ttl)
{
	PresenceCutoff cutoff = presence_liveness_checked_cutoff(PRESENCE_OWN_AGE);

	return presence_shmem_ready() ? verify_entry(channel, ttl, &cutoff) :
		touch_rows(channel, &cutoff);
}

/*
 * A heartbeat that the caller may send, with a time to live as
 * presence_registry_touch() has it; false if the channel is not present.  SPI
 * is connected, as it may have to access the table.
 */
bool
presence_heartbeat_touch(text *channel, uint32 ttl)
{
	if (!presence_permission_may_touch(channel))
		return false;
	return presence_heartbeat_touch_fastpath(channel, ttl) == PRESENCE_ENTRY_ALIVE ||
		presence_heartbeat_touch_slowpath(channel, ttl);
}

/*
 * A goodbye of a channel whose rows the transaction has seen: unless it gives a
 * sign of life before, it leaves after a grace in milliseconds.  Returns its
 * status before; NO_SPACE if the registry cannot have it.
 */
PresenceEntryStatus
presence_heartbeat_say_goodbye(text *channel, uint32 grace)
{
	PresenceCutoff cutoff = presence_liveness_cutoff();
	PresenceName name = presence_name_of_text(channel);
	PresenceEntryStatus status;
	uint32		changes;

	(void) presence_pins_expire(&name);
	status = presence_registry_load(&name, cutoff.now, &cutoff, &changes);
	return status == PRESENCE_ENTRY_NO_SPACE ? status :
		presence_registry_say_goodbye(&name, grace, &cutoff);
}

/*
 * The entry of a channel that is present, made if there is none; index 0 if the
 * registry cannot have it.
 */
PresenceEntryRef
presence_heartbeat_entry(text *channel)
{
	PresenceCutoff cutoff = presence_liveness_cutoff();
	PresenceName name = presence_name_of_text(channel);
	PresenceEntryRef ref = presence_registry_look(&name, &cutoff).ref;
	uint32		changes;

	if (ref.index != 0)
		return ref;
	(void) presence_registry_load(&name, cutoff.now, &cutoff, &changes);
	return presence_registry_look(&name, &cutoff).ref;
}
