/*-------------------------------------------------------------------------
 *
 * registry_entry.c
 *		What an entry of the registry says of its channel.
 *
 * A channel lives until its deadline.  That is its last sign of life plus
 * max_age, or plus its own time to live ("ttl").  Times before the start of
 * grace do not count: a channel last heard before has the longer of both from
 * there.  A held channel ("holder") has no deadline, so if its rows are neither
 * counted nor verified the worker looks whether it has any, and forgets it
 * otherwise.
 *
 * A goodbye, and the end of the session that held the channel, are times to
 * live that say for which reason the channel leaves if nothing is heard of it
 * until then; any sign of life takes the reason back.
 *
 * A heartbeat that changes nothing but the time of the last sign of life needs
 * the lock of the partition in shared mode; everything else needs it
 * exclusively.  The functions here allocate nothing and raise no errors.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "shared/registry_entry.h"
#include "shared/registry_mem.h"

#define ENTRY_REASONS (ENTRY_GOODBYE | ENTRY_DISCONNECTED)

/* The last sign of life in an entry. */
static PresenceTime
last_sign(const RegistryEntry *entry)
{
	return (PresenceTime) pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &entry->seen));
}

/* When the channel was last seen: now, if it is held. */
PresenceTime
presence_registry_entry_seen(const RegistryEntry *entry)
{
	return entry->holder != 0 ? presence_clock_now() : last_sign(entry);
}

/* When a channel expires; it lives to the end of that microsecond. */
PresenceTime
presence_registry_entry_deadline(const RegistryEntry *entry, const PresenceCutoff *cutoff)
{
	PresenceTime seen = last_sign(entry);
	PresenceTime life = (PresenceTime) entry->ttl * 1000;

	if (entry->holder != 0)
		return PRESENCE_NO_DEADLINE;
	if (entry->ttl == 0)
		return Max(seen, cutoff->grace_start) + cutoff->age;
	return seen < cutoff->grace_start ? cutoff->grace_start + Max(life, cutoff->age) :
		seen + life;
}

/* Whether a channel lives. */
bool
presence_registry_entry_is_live(const RegistryEntry *entry, const PresenceCutoff *cutoff)
{
	if (cutoff->now == 0 || entry->holder != 0)
		return true;
	return cutoff->by_age ? !presence_clock_is_before(last_sign(entry), cutoff->time) :
		presence_registry_entry_deadline(entry, cutoff) >= cutoff->now;
}

/* The status of a channel, given its entry or NULL. */
PresenceEntryStatus
presence_registry_entry_status(const RegistryEntry *entry, const PresenceCutoff *cutoff)
{
	if (entry == NULL)
		return PRESENCE_ENTRY_ABSENT;
	if ((entry->flags & ENTRY_EXPIRING) || !presence_registry_entry_is_live(entry, cutoff))
		return PRESENCE_ENTRY_EXPIRED;
	return (entry->flags & ENTRY_VERIFIED) ?
		PRESENCE_ENTRY_ALIVE : PRESENCE_ENTRY_UNVERIFIED;
}

/* Why the channel leaves when its deadline has come. */
PresenceReason
presence_registry_entry_reason(const RegistryEntry *entry)
{
	if (entry->flags & ENTRY_GOODBYE)
		return PRESENCE_REASON_LEAVE;
	return (entry->flags & ENTRY_DISCONNECTED) ?
		PRESENCE_REASON_DISCONNECTED : PRESENCE_REASON_EXPIRED;
}

/*
 * Whether somebody has to look for the rows of a channel: it is held, so that
 * its deadline never comes, but maybe has no rows any more.
 */
bool
presence_registry_entry_is_doubtful(const RegistryEntry *entry)
{
	return entry->holder != 0 && entry->pins == 0 && entry->rows == ROWS_UNKNOWN &&
		!(entry->flags & ENTRY_VERIFIED);
}

/* When the worker has to look at a channel. */
PresenceTime
presence_registry_entry_due(const RegistryEntry *entry, const PresenceCutoff *cutoff)
{
	return presence_registry_entry_is_doubtful(entry) ? cutoff->now :
		presence_registry_entry_deadline(entry, cutoff);
}

/* Whether any sign of life takes something back. */
bool
presence_registry_entry_is_leaving(const RegistryEntry *entry)
{
	return (entry->flags & ENTRY_REASONS) != 0;
}

/*
 * Whether a channel owes its life to the start of grace, for longer than its
 * own time to live gives it.
 */
static bool
has_grace(const RegistryEntry *entry, const PresenceCutoff *cutoff)
{
	return entry->ttl != 0 && last_sign(entry) < cutoff->grace_start;
}

/*
 * Store a sign of life that changes nothing else, and brings the deadline no
 * closer, which a shared lock allows; false if it would.
 */
bool
presence_registry_entry_beat(RegistryEntry *entry, uint32 ttl, const PresenceCutoff *cutoff)
{
	if (presence_registry_entry_is_leaving(entry) || has_grace(entry, cutoff) ||
		(ttl != PRESENCE_SAME_TTL && ttl != entry->ttl))
		return false;
	pg_atomic_write_u64(&entry->seen, (uint64) cutoff->now);
	return true;
}

/*
 * A sign of life, now, that sets the time to live; 0: max_age.  "flag" is
 * ENTRY_GOODBYE, ENTRY_DISCONNECTED or 0.  Returns whether the channel expires
 * earlier than before.
 */
bool
presence_registry_entry_live_for(RegistryEntry *entry, uint32 ttl, uint8 flag,
								 const PresenceCutoff *cutoff)
{
	PresenceTime before = presence_registry_entry_deadline(entry, cutoff);

	entry->ttl = ttl;
	entry->flags = (entry->flags & ~ENTRY_REASONS) | flag;
	pg_atomic_write_u64(&entry->seen, (uint64) cutoff->now);
	return presence_registry_entry_deadline(entry, cutoff) < before;
}

/*
 * A sign of life, now, that brings the deadline no closer, and takes a goodbye
 * back.
 */
void
presence_registry_entry_extend(RegistryEntry *entry, const PresenceCutoff *cutoff)
{
	bool		shortens = presence_registry_entry_is_leaving(entry) || has_grace(entry, cutoff);
	uint32		ttl = entry->ttl;

	if (shortens && (PresenceTime) ttl * 1000 < cutoff->age)
		ttl = 0;
	(void) presence_registry_entry_live_for(entry, ttl, 0, cutoff);
}

/*
 * A goodbye: the channel leaves after a grace in milliseconds, but not later
 * than it would have expired.
 */
void
presence_registry_entry_say_goodbye(RegistryEntry *entry, uint32 grace,
									const PresenceCutoff *cutoff)
{
	PresenceTime rest = presence_registry_entry_deadline(entry, cutoff) - cutoff->now;

	entry->holder = 0;
	grace = Max(Min((PresenceTime) grace, rest / 1000), 1);
	(void) presence_registry_entry_live_for(entry, grace, ENTRY_GOODBYE, cutoff);
}

/* Forget what is known about the rows of an entry's channel. */
void
presence_registry_entry_invalidate(RegistryEntry *entry)
{
	entry->rows = ROWS_UNKNOWN;
	entry->flags &= ~ENTRY_VERIFIED;
	if (entry->pins > 0)
		entry->flags |= ENTRY_INVALID;
}

/*
 * Count the committed rows that an entry's channel gained or lost.  If they
 * are not counted, a removal may concern rows whose commit has not arrived
 * here yet.
 */
static void
count_rows(RegistryEntry *entry, int change)
{
	if (entry->rows != ROWS_UNKNOWN)
	{
		entry->rows += change;
		entry->flags = entry->rows > 0 ? entry->flags | ENTRY_VERIFIED :
			entry->flags & ~ENTRY_VERIFIED;
	}
	else if (change < 0)
		presence_registry_entry_invalidate(entry);
	else if (change > 0 && !(entry->flags & ENTRY_INVALID))
		entry->flags |= ENTRY_VERIFIED;
}

/*
 * A revival was rolled back: the channel has expired, as it had before.  Without
 * a time to live it would live to the end of a grace that has not ended yet.
 */
static void
undo_revival(RegistryEntry *entry)
{
	entry->ttl = 1;
	entry->holder = 0;
	pg_atomic_write_u64(&entry->seen, (uint64) (last_sign(entry) - 2000));
}

/*
 * Apply the outcome of a transaction to an entry; whether the worker has to look
 * at it.
 */
bool
presence_registry_entry_settle(RegistryEntry *entry, const PresenceEntryDelta *delta,
							   bool committed)
{
	bool		joined = committed && delta->joined;

	/* No other transaction holds a pin, either. */
	bool		undone = (entry->flags & ENTRY_REVIVED) && !joined && entry->pins == 0;

	if (undone)
		undo_revival(entry);
	if (committed && delta->changed)
		count_rows(entry, delta->change);
	if (entry->pins == 0 || joined)
		entry->flags &= ~ENTRY_REVIVED;
	if (entry->pins == 0)
		entry->flags &= ~ENTRY_INVALID;
	return undone || presence_registry_entry_is_doubtful(entry);
}
