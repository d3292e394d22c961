/*-------------------------------------------------------------------------
 *
 * registry.c
 *		Remembers the newest sign of life of each channel.
 *
 * The life of an entry:
 *
 *	begin -> (pinned, unsure) -> end(commit) -> alive -> end(rows gone) -> free
 *	                          -> end(abort)  -> free, if it is known to have no rows
 *	alive -> mark -> release(free) -> free
 *	                 -> release       -> as before
 *
 * "pins" counts transactions under way that add the channel; an entry with
 * pins is never freed.  "rows" counts the committed rows of the channel where
 * that is known: every commit adds its difference, so the count does not
 * depend on the order in which commits come here, and may be negative between
 * two.  Where it is not known (the entry was made after its rows), a removal
 * leaves the entry unsure, and the next heartbeat or the worker looks at the
 * table.  Who only removes holds no pin, and between its commit and its count
 * the entry may be freed and made anew, without the rows that went: so it notes
 * the entry before it commits, and does not count on another one.
 *
 * A channel that may not have an entry is answered FULL, and rows take over.
 *
 * A mark holds for one life: who marked a channel that was revived, and
 * marked again by somebody else, finds another last sign of life there.
 *
 * Locking.  Each function takes the lock of one partition (registry_mem.c):
 *
 *	- a heartbeat takes it shared and stores the time atomically;
 *	- whoever adds, removes or re-marks an entry takes it exclusively.
 *
 * So a worker that holds the lock exclusively and finds an entry silent knows
 * that no heartbeat is under way.  No process holds two partitions at a time,
 * and nothing under a lock allocates, waits or fails.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/name.h"
#include "miscadmin.h"
#include "shared/registry.h"
#include "shared/registry_mem.h"

/* Whether every channel of a database that has rows has an entry. */
bool
presence_registry_is_complete(PresenceDatabase *database)
{
	return database && pg_atomic_read_u32(&database->loaded) == PRESENCE_LOAD_COMPLETE;
}

/* An entry as others may remember it. */
static PresenceEntryRef
ref_of(const RegistryEntry *entry)
{
	PresenceEntryRef ref = {presence_registry_mem_index(entry), entry->generation};

	return ref;
}

/* Whether an entry is the one that is remembered. */
static bool
is_meant(const RegistryEntry *entry, PresenceEntryRef ref)
{
	return (entry->flags & ENTRY_USED) && presence_registry_mem_index(entry) == ref.index &&
		entry->generation == ref.generation;
}

/* No longer trust an entry's rows. */
static void
invalidate_entry(RegistryEntry *entry)
{
	entry->rows = ROWS_UNKNOWN;
	entry->flags &= ~ENTRY_VERIFIED;
	if (entry->pins > 0)
		entry->flags |= ENTRY_INVALID;
}

/* What an entry tells of its channel. */
static PresenceEntryStatus
entry_status(RegistryEntry *entry, PresenceTime cutoff)
{
	if (entry == NULL)
		return PRESENCE_ENTRY_ABSENT;
	if ((entry->flags & ENTRY_EXPIRING) ||
		(PresenceTime) pg_atomic_read_u64(&entry->seen) < cutoff)
		return PRESENCE_ENTRY_EXPIRED;
	return (entry->flags & ENTRY_VERIFIED) ?
		PRESENCE_ENTRY_ALIVE : PRESENCE_ENTRY_UNVERIFIED;
}

/*
 * A heartbeat: stores the time unless the channel is absent or dead, and tells
 * what it is.  Signs of life before "cutoff" count as none.
 */
PresenceEntryStatus
presence_registry_touch(const PresenceName *name, PresenceTime now,
						PresenceTime cutoff)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry;
	PresenceEntryStatus status;

	LWLockAcquire(lock, LW_SHARED);
	entry = presence_registry_mem_find(name);
	status = entry_status(entry, cutoff);
	if (status == PRESENCE_ENTRY_ALIVE || status == PRESENCE_ENTRY_UNVERIFIED)
		pg_atomic_write_u64(&entry->seen, (uint64) now);
	LWLockRelease(lock);
	return status;
}

/* What is known of a channel. */
PresenceEntryView
presence_registry_look(const PresenceName *name, PresenceTime cutoff)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	PresenceEntryView view = {PRESENCE_ENTRY_ABSENT};
	RegistryEntry *entry;

	LWLockAcquire(lock, LW_SHARED);
	entry = presence_registry_mem_find(name);
	if (entry)
	{
		view.status = entry_status(entry, cutoff);
		view.seen = (PresenceTime) pg_atomic_read_u64(&entry->seen);
		view.revived = (entry->flags & ENTRY_REVIVED) != 0;
	}
	LWLockRelease(lock);
	return view;
}

/*
 * A transaction adds a channel whose old rows, if it was dead, are dealt with:
 * "pin", wanted at the first add, keeps its entry, made where there is none,
 * until presence_registry_end().  Tells what the channel was: ABSENT, and its
 * entry is new, DEAD, and it is revived, or FULL, and there is no entry.  One
 * that lives gets no sign of life: the add may still be refused.
 */
PresenceEntryStatus
presence_registry_begin(const PresenceName *name, PresenceTime now,
						PresenceTime cutoff, bool pin)
{
	PresenceDatabase *database = presence_my_database();
	bool		exact = presence_registry_is_complete(database);
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry;
	PresenceEntryStatus status;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = presence_registry_mem_find(name);
	status = entry_status(entry, cutoff);
	if (entry == NULL)
		entry = presence_registry_mem_insert(name, now, exact ? 0 : ROWS_UNKNOWN);
	if (entry == NULL)
		status = PRESENCE_ENTRY_NO_SPACE;
	else
	{
		if (status == PRESENCE_ENTRY_EXPIRED)
		{
			entry->flags = (entry->flags & ~ENTRY_EXPIRING) | ENTRY_REVIVED;
			pg_atomic_write_u64(&entry->seen, (uint64) now);
		}
		entry->pins += pin;
	}
	LWLockRelease(lock);

	if (status == PRESENCE_ENTRY_NO_SPACE)
	{
		if (database)
			pg_atomic_write_u32(&database->loaded, PRESENCE_LOAD_PARTIAL);
		presence_registry_mem_warn_full(name);
	}
	return status;
}

/*
 * The rows of an entry's channel have changed by so many.  Where they are not
 * counted a removal may be of rows whose own commit has yet to come here.
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
		invalidate_entry(entry);
	else if (change > 0 && !(entry->flags & ENTRY_INVALID))
		entry->flags |= ENTRY_VERIFIED;
}

/* Apply the outcome of a transaction to an entry. */
static void
settle_cell(RegistryEntry *entry, const PresenceEntryDelta *delta, bool committed)
{
	bool		joined = committed && delta->joined;

	/* Nothing came of the revival, and nobody else gave life to the entry. */
	if ((entry->flags & ENTRY_REVIVED) && !joined && entry->pins == 0)
		pg_atomic_write_u64(&entry->seen, 1);
	if (committed && delta->changed)
		count_rows(entry, delta->change);
	if (entry->pins == 0 || joined)
		entry->flags &= ~ENTRY_REVIVED;
	if (entry->pins == 0)
		entry->flags &= ~ENTRY_INVALID;
}

/* Which entry a channel has; index 0: none. */
PresenceEntryRef
presence_registry_find(const PresenceName *name)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	PresenceEntryRef ref = {0, 0};
	RegistryEntry *entry;

	LWLockAcquire(lock, LW_SHARED);
	entry = presence_registry_mem_find(name);
	if (entry)
		ref = ref_of(entry);
	LWLockRelease(lock);
	return ref;
}

/*
 * A transaction that pinned or changed a channel has ended: takes its pin away,
 * counts by how many the channel's committed rows changed, if they changed at
 * all, and frees the entry when none is left.  Called while committing, so it
 * cannot fail.
 */
void
presence_registry_end(const PresenceName *name, const PresenceEntryDelta *delta,
					  bool committed)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = presence_registry_mem_find(name);
	if (entry)
	{
		if (delta->pinned)
			entry->pins--;
		else if (committed && !is_meant(entry, delta->ref))
			invalidate_entry(entry);
		entry->changes++;
		settle_cell(entry, delta, committed);
		if (entry->pins == 0 && !(entry->flags & ENTRY_VERIFIED) && entry->rows == 0)
			presence_registry_mem_delete(entry);
	}
	LWLockRelease(lock);
}

/*
 * Make sure that a channel, whose rows the caller has seen or will look for,
 * has an entry; a new one is unsure.  Tells what is known of the channel
 * afterwards, FULL when there is no room, and how often it changed so far.
 */
PresenceEntryStatus
presence_registry_load(const PresenceName *name, PresenceTime seen,
					   PresenceTime cutoff, uint32 *changes)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry;
	PresenceEntryStatus status;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = presence_registry_mem_find(name);
	if (entry == NULL)
		entry = presence_registry_mem_insert(name, seen, ROWS_UNKNOWN);
	status = entry ? entry_status(entry, cutoff) : PRESENCE_ENTRY_NO_SPACE;
	*changes = entry ? entry->changes : 0;
	LWLockRelease(lock);
	if (status == PRESENCE_ENTRY_NO_SPACE)
		presence_registry_mem_warn_full(name);
	return status;
}

/*
 * The table shows rows of a channel: its entry is sure from now on and has a
 * new sign of life, unless a transaction changed the channel since "changes"
 * was read: then what the table showed may be gone.  Whether it is sure.
 */
bool
presence_registry_confirm(const PresenceName *name, PresenceTime seen,
						  uint32 changes)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry;
	bool		confirmed;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = presence_registry_mem_find(name);
	confirmed = entry && entry->changes == changes && !(entry->flags & ENTRY_EXPIRING);
	if (confirmed)
	{
		entry->flags |= ENTRY_VERIFIED;
		pg_atomic_write_u64(&entry->seen, (uint64) seen);
	}
	LWLockRelease(lock);
	return confirmed;
}

/*
 * The table shows no rows of a channel: drop its entry, unless somebody adds
 * the channel or a transaction changed it since "changes" was read.
 */
void
presence_registry_forget(const PresenceName *name, uint32 changes)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = presence_registry_mem_find(name);
	if (entry && entry->pins == 0 && entry->changes == changes &&
		!(entry->flags & (ENTRY_VERIFIED | ENTRY_EXPIRING)))
		presence_registry_mem_delete(entry);
	LWLockRelease(lock);
}

/*
 * Lock the partition of a entry that may be changing owners; NULL (and no
 * lock) when its owner is not the one meant.
 */
static RegistryEntry *
lock_entry(PresenceEntryRef ref, LWLockMode mode)
{
	RegistryEntry *entry = presence_registry_mem_entry(ref.index);
	uint32		hash = entry->hash;

	LWLockAcquire(presence_registry_mem_partition(hash), mode);
	if (is_meant(entry, ref) && entry->hash == hash)
		return entry;
	LWLockRelease(presence_registry_mem_partition(hash));
	return NULL;
}

/* Visit the entries of this database, without locks: what is seen may age. */
void
presence_registry_scan(PresenceScanFunc visit, void *arg)
{
	uint32		index = 0;
	RegistryEntry *entry;

	while ((entry = presence_registry_mem_next(MyDatabaseId, &index)))
		visit(arg, ref_of(entry),
			  (PresenceTime) pg_atomic_read_u64(&entry->seen));
}

/*
 * The name of an entry of this database, palloc'd, and its sign of status; NULL
 * when gone.
 */
char *
presence_registry_read(PresenceEntryRef ref, PresenceTime *seen)
{
	char		name[PRESENCE_MAX_NAME_BYTES];
	RegistryEntry *entry = lock_entry(ref, LW_SHARED);
	int			length = 0;

	if (entry == NULL)
		return NULL;
	/* Who came to the reference without a lock may hold a stranger's. */
	if (entry->database == MyDatabaseId)
	{
		length = entry->length;
		*seen = (PresenceTime) pg_atomic_read_u64(&entry->seen);
		presence_registry_mem_read_name(entry, name);
	}
	LWLockRelease(presence_registry_mem_partition(entry->hash));
	return length > 0 ? pnstrdup(name, length) : NULL;
}

/* Do something to every entry of a database, exclusively locked. */
static void
walk_cells(Oid database, void (*change) (RegistryEntry *entry))
{
	uint32		index = 0;
	RegistryEntry *entry;

	while ((entry = presence_registry_mem_next(database, &index)))
	{
		LWLock	   *lock;

		entry = lock_entry(ref_of(entry),
						 LW_EXCLUSIVE);
		if (entry == NULL)
			continue;
		lock = presence_registry_mem_partition(entry->hash);
		/* Since the look without the lock it may have got another owner. */
		if (entry->database == database)
			change(entry);
		LWLockRelease(lock);
	}
}

/* Drop an entry that nobody is using. */
static void
clear_cell(RegistryEntry *entry)
{
	invalidate_entry(entry);
	if (entry->pins == 0)
		presence_registry_mem_delete(entry);
}

/* All rows of a database may have changed: look before trusting again. */
void
presence_registry_invalidate(Oid database)
{
	walk_cells(database, invalidate_entry);
}

/* A database, or its extension, is gone: drop its entries. */
void
presence_registry_clear(Oid database)
{
	walk_cells(database, clear_cell);
}

/*
 * Mark a channel dying if it was silent since before "cutoff" and nobody else
 * is adding it, whose pins would be more than the caller's own: from now on it
 * answers no heartbeat, until released.  "counted" tells whether its rows are
 * counted, so that their removal frees the entry.
 */
bool
presence_registry_mark_expiring(const PresenceName *name, uint32 own_pins,
						  PresenceTime cutoff, PresenceExpireMark *mark,
						  bool *counted)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry;
	PresenceTime seen;
	bool		marked = false;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = presence_registry_mem_find(name);
	seen = entry ? (PresenceTime) pg_atomic_read_u64(&entry->seen) : 0;
	if (entry && entry->pins == own_pins && !(entry->flags & ENTRY_EXPIRING) && seen < cutoff)
	{
		entry->flags |= ENTRY_EXPIRING;
		mark->ref = ref_of(entry);
		mark->seen = seen;
		*counted = entry->rows != ROWS_UNKNOWN;
		marked = true;
	}
	LWLockRelease(lock);
	return marked;
}

/* Whether an entry is dying by that mark, and not by another one. */
static bool
has_mark(RegistryEntry *entry, const PresenceExpireMark *mark)
{
	return (entry->flags & ENTRY_EXPIRING) &&
		(PresenceTime) pg_atomic_read_u64(&entry->seen) == mark->seen;
}

/* Whether a marked channel still is: nobody has added it since. */
bool
presence_registry_is_marked(const PresenceExpireMark *mark)
{
	RegistryEntry *entry = lock_entry(mark->ref, LW_SHARED);
	bool		marked;

	if (entry == NULL)
		return false;
	marked = has_mark(entry, mark);
	LWLockRelease(presence_registry_mem_partition(entry->hash));
	return marked;
}

/*
 * The removal of a marked channel has ended: frees its entry when its rows
 * are gone ("free"), else makes it what it was before.  Cannot fail.
 */
void
presence_registry_unmark(const PresenceExpireMark *mark, bool free)
{
	RegistryEntry *entry = lock_entry(mark->ref, LW_EXCLUSIVE);
	LWLock	   *lock;

	if (entry == NULL)
		return;
	lock = presence_registry_mem_partition(entry->hash);
	if (has_mark(entry, mark))
	{
		entry->flags &= ~ENTRY_EXPIRING;
		if (free && entry->pins == 0)
			presence_registry_mem_delete(entry);
	}
	LWLockRelease(lock);
}

/* How many channels of a database have entries. */
uint64
presence_registry_count(Oid database)
{
	uint32		index = 0;
	uint64		count = 0;

	while (presence_registry_mem_next(database, &index))
		count++;
	return count;
}
