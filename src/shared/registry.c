/*-------------------------------------------------------------------------
 *
 * registry.c
 *		Keeps the newest sign of life of each channel.
 *
 * States of an entry:
 *
 *	begin -> pinned, unverified -> end(commit)    -> alive
 *	                            -> end(abort)     -> free, if it has no rows
 *	alive -> end(rows gone)                       -> free
 *	alive -> mark_expiring      -> unmark(free)   -> free
 *	                            -> unmark         -> as before
 *	alive -> invalidate         -> unverified
 *
 * "pins" counts the running transactions that add the channel; an entry with
 * pins is never freed.  "rows" counts the committed rows of the channel, where
 * that is known.  Every commit adds its difference, so the count does not
 * depend on the order in which commits arrive here, and it may be negative
 * temporarily.  If the count is not known, because the entry was made after
 * the rows, a removal leaves the entry unverified; the next heartbeat or the
 * worker then looks at the table.  A transaction that only removes rows holds
 * no pin, so the entry may be freed and another one made, without the removed
 * rows, between its commit and its count.  Therefore it notes the entry before
 * it commits, and invalidates any other entry that it finds afterwards.  A
 * pinned entry stays where it is, so the transaction that holds the pin finds
 * it by its reference.
 *
 * A channel that cannot have an entry is answered NO_SPACE; its heartbeats
 * then go to its rows.
 *
 * A process may clear only its own expire mark.  The channel may have been
 * revived and marked again by another process since; the last sign of life,
 * which the mark remembers, is different then.
 *
 * Locking.  Each function takes the lock of one partition (registry_mem.c):
 *
 *	- shared for a heartbeat, which stores the time atomically;
 *	- exclusive to add or remove an entry, or to change its flags or counts.
 *
 * So a process that holds the lock exclusively and finds that an entry has
 * expired knows that no heartbeat for it is in progress.  No process holds two
 * partition locks at a time, and nothing under a lock allocates memory, waits
 * or raises an error.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/name.h"
#include "miscadmin.h"
#include "shared/registry.h"
#include "shared/registry_mem.h"

/* Whether every channel with rows in a database has an entry. */
bool
presence_registry_is_complete(PresenceDatabase *database)
{
	return database && pg_atomic_read_u32(&database->loaded) == PRESENCE_LOAD_COMPLETE;
}

/* Make a reference to an entry. */
static PresenceEntryRef
ref_of(const RegistryEntry *entry)
{
	PresenceEntryRef ref = {presence_registry_mem_index(entry), entry->generation};

	return ref;
}

/* Whether a reference still refers to this entry. */
static bool
is_meant(const RegistryEntry *entry, PresenceEntryRef ref)
{
	return (entry->flags & ENTRY_USED) && presence_registry_mem_index(entry) == ref.index &&
		entry->generation == ref.generation;
}

/* Forget what is known about the rows of an entry's channel. */
static void
invalidate_entry(RegistryEntry *entry)
{
	entry->rows = ROWS_UNKNOWN;
	entry->flags &= ~ENTRY_VERIFIED;
	if (entry->pins > 0)
		entry->flags |= ENTRY_INVALID;
}

/* The status of a channel, given its entry or NULL. */
static PresenceEntryStatus
entry_status(RegistryEntry *entry, PresenceTime cutoff)
{
	if (entry == NULL)
		return PRESENCE_ENTRY_ABSENT;
	if ((entry->flags & ENTRY_EXPIRING) ||
		presence_clock_is_before((PresenceTime) pg_atomic_read_u64(&entry->seen), cutoff))
		return PRESENCE_ENTRY_EXPIRED;
	return (entry->flags & ENTRY_VERIFIED) ?
		PRESENCE_ENTRY_ALIVE : PRESENCE_ENTRY_UNVERIFIED;
}

/*
 * Record a heartbeat, unless the channel is absent or expired.  Returns its
 * status.  Signs of life before "cutoff" do not count.
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

/* Look a channel up. */
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
		view.ref = ref_of(entry);
		view.status = entry_status(entry, cutoff);
		view.seen = (PresenceTime) pg_atomic_read_u64(&entry->seen);
		view.revived = (entry->flags & ENTRY_REVIVED) != 0;
	}
	LWLockRelease(lock);
	return view;
}

/* Record a heartbeat of a channel that the transaction has pinned. */
PresenceEntryStatus
presence_registry_touch_pinned(const PresenceName *name, PresenceEntryRef ref,
							   PresenceTime now, PresenceTime cutoff)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry = presence_registry_mem_entry(ref.index);
	PresenceEntryStatus status;

	LWLockAcquire(lock, LW_SHARED);
	Assert(is_meant(entry, ref) && entry->hash == name->hash);
	status = entry_status(entry, cutoff);
	if (status == PRESENCE_ENTRY_ALIVE || status == PRESENCE_ENTRY_UNVERIFIED)
		pg_atomic_write_u64(&entry->seen, (uint64) now);
	LWLockRelease(lock);
	return status;
}

/*
 * Note an add in an entry, NULL if the channel has none, whose status is given;
 * returns that status, or NO_SPACE.  The caller holds the lock exclusively.
 */
static PresenceEntryStatus
note_add(RegistryEntry *entry, PresenceEntryStatus status,
		 const PresenceName *name, PresenceTime now, bool pin, PresenceEntryRef *ref)
{
	bool		exact = presence_registry_is_complete(presence_my_database());

	if (entry == NULL)
		entry = presence_registry_mem_insert(name, now, exact ? 0 : ROWS_UNKNOWN);
	if (entry == NULL)
		return PRESENCE_ENTRY_NO_SPACE;
	if (status == PRESENCE_ENTRY_EXPIRED)
	{
		entry->flags = (entry->flags & ~ENTRY_EXPIRING) | ENTRY_REVIVED;
		pg_atomic_write_u64(&entry->seen, (uint64) now);
	}
	entry->pins += pin;
	*ref = ref_of(entry);
	return status;
}

/* A channel got no entry: the registry has not all channels any more. */
static void
note_full(const PresenceName *name)
{
	PresenceDatabase *database = presence_my_database();

	if (database)
		pg_atomic_write_u32(&database->loaded, PRESENCE_LOAD_PARTIAL);
	presence_registry_mem_warn_full(name);
}

/*
 * Note that a transaction adds a channel.  The entry is made if there is none;
 * an expired one is revived, after the caller has removed its old rows.
 * "pin", set at the transaction's first add, keeps the entry until
 * presence_registry_end(); "ref" is set to it, unless there is none.
 *
 * Returns the status before: ABSENT if the entry is new, EXPIRED if it was
 * revived, NO_SPACE if there is none.  A live entry gets no new sign of life,
 * because the add may still be refused.
 */
PresenceEntryStatus
presence_registry_begin(const PresenceName *name, PresenceTime now,
						PresenceTime cutoff, bool pin, PresenceEntryRef *ref)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry;
	PresenceEntryStatus status;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = presence_registry_mem_find(name);
	status = note_add(entry, entry_status(entry, cutoff), name, now, pin, ref);
	LWLockRelease(lock);
	if (status == PRESENCE_ENTRY_NO_SPACE)
		note_full(name);
	return status;
}

/*
 * The same, with a pin, for a channel whose old rows have not been looked for.
 * If it may have any, because it has expired or another transaction is
 * reviving it, nothing is done, and EXPIRED returned.  "rowless" says that a
 * channel without an entry has none.
 */
PresenceEntryStatus
presence_registry_enter(const PresenceName *name, PresenceTime now,
						PresenceTime cutoff, bool rowless, PresenceEntryRef *ref)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry;
	PresenceEntryStatus status;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = presence_registry_mem_find(name);
	status = entry_status(entry, cutoff);
	if (entry ? (entry->flags & ENTRY_REVIVED) != 0 : !rowless)
		status = PRESENCE_ENTRY_EXPIRED;
	if (status != PRESENCE_ENTRY_EXPIRED)
		status = note_add(entry, status, name, now, true, ref);
	LWLockRelease(lock);
	if (status == PRESENCE_ENTRY_NO_SPACE)
		note_full(name);
	return status;
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
		invalidate_entry(entry);
	else if (change > 0 && !(entry->flags & ENTRY_INVALID))
		entry->flags |= ENTRY_VERIFIED;
}

/* Apply the outcome of a transaction to an entry. */
static void
settle_entry(RegistryEntry *entry, const PresenceEntryDelta *delta, bool committed)
{
	bool		joined = committed && delta->joined;

	/* The revival was rolled back, and no other transaction holds a pin. */
	if ((entry->flags & ENTRY_REVIVED) && !joined && entry->pins == 0)
		pg_atomic_write_u64(&entry->seen, 1);
	if (committed && delta->changed)
		count_rows(entry, delta->change);
	if (entry->pins == 0 || joined)
		entry->flags &= ~ENTRY_REVIVED;
	if (entry->pins == 0)
		entry->flags &= ~ENTRY_INVALID;
}

/*
 * Find the entry of a channel, which is probably the one that a reference was
 * made to.  The caller holds the lock of the channel's partition.
 */
static RegistryEntry *
find_probable(const PresenceName *name, PresenceEntryRef ref)
{
	RegistryEntry *entry = presence_registry_mem_entry(ref.index);

	if (ref.index != 0 && is_meant(entry, ref))
		return entry;
	return presence_registry_mem_find(name);
}

/*
 * A transaction that pinned or changed a channel has ended: release its pin,
 * count the rows it added and removed, and free the entry if the channel has
 * no rows left.  Called while committing, so it must not fail.
 */
void
presence_registry_end(const PresenceName *name, const PresenceEntryDelta *delta,
					  bool committed)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = find_probable(name, delta->ref);
	if (entry)
	{
		Assert(!delta->pinned || is_meant(entry, delta->ref));
		if (delta->pinned)
			entry->pins--;
		else if (committed && !is_meant(entry, delta->ref))
			invalidate_entry(entry);
		entry->changes++;
		settle_entry(entry, delta, committed);
		if (entry->pins == 0 && !(entry->flags & ENTRY_VERIFIED) && entry->rows == 0)
			presence_registry_mem_delete(entry);
	}
	LWLockRelease(lock);
}

/*
 * Make sure that a channel has an entry; a new one is unverified.  The caller
 * has seen the channel's rows or is about to look for them.  Returns its
 * status, NO_SPACE if there is no entry, and sets "changes" for
 * presence_registry_confirm() and presence_registry_forget().
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
 * The caller has seen committed rows of a channel: mark its entry verified and
 * store a sign of life.  Not done, and false, if a transaction changed the
 * channel since "changes" was read, because the rows may be gone then.
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
 * The caller has seen that a channel has no rows: remove its entry, unless a
 * transaction is adding the channel, or changed it since "changes" was read.
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
 * Lock the partition of the entry that a reference refers to.  Returns NULL,
 * with no lock held, if that entry is gone.
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

/* Visit the entries of this database without locks: they may change. */
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
 * Return the name of an entry of this database, palloc'd, and its newest sign
 * of life; NULL if the entry is gone.
 */
char *
presence_registry_read(PresenceEntryRef ref, PresenceTime *seen)
{
	char		name[PRESENCE_MAX_NAME_BYTES];
	RegistryEntry *entry = lock_entry(ref, LW_SHARED);
	int			length = 0;

	if (entry == NULL)
		return NULL;
	/* A reference made without a lock may be to another database's entry. */
	if (entry->database == MyDatabaseId)
	{
		length = entry->length;
		*seen = (PresenceTime) pg_atomic_read_u64(&entry->seen);
		presence_registry_mem_read_name(entry, name);
	}
	LWLockRelease(presence_registry_mem_partition(entry->hash));
	return length > 0 ? pnstrdup(name, length) : NULL;
}

/* Call a function for every entry of a database, locked exclusively. */
static void
walk_entries(Oid database, void (*change) (RegistryEntry *entry))
{
	uint32		index = 0;
	RegistryEntry *entry;

	while ((entry = presence_registry_mem_next(database, &index)))
	{
		LWLock	   *lock;

		entry = lock_entry(ref_of(entry), LW_EXCLUSIVE);
		if (entry == NULL)
			continue;
		lock = presence_registry_mem_partition(entry->hash);
		/* The cell may have been reused before the lock was taken. */
		if (entry->database == database)
			change(entry);
		LWLockRelease(lock);
	}
}

/* Remove an entry, or invalidate it if it is pinned. */
static void
clear_entry(RegistryEntry *entry)
{
	invalidate_entry(entry);
	if (entry->pins == 0)
		presence_registry_mem_delete(entry);
}

/* Any row of a database may have changed: have all entries verified again. */
void
presence_registry_invalidate(Oid database)
{
	walk_entries(database, invalidate_entry);
}

/* A database, or its extension, was dropped: remove its entries. */
void
presence_registry_clear(Oid database)
{
	walk_entries(database, clear_entry);
}

/*
 * Mark a channel as expiring, if its last sign of life is before "cutoff" and
 * no other transaction is adding it, that is, if all pins are the caller's.
 * Until unmarked, its heartbeats are answered EXPIRED.  "counted" says whether
 * its rows are counted, so that their removal frees the entry.
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
	if (entry && entry->pins == own_pins && !(entry->flags & ENTRY_EXPIRING) &&
		presence_clock_is_before(seen, cutoff))
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

/* Whether an entry has this expire mark, and not that of another process. */
static bool
has_mark(RegistryEntry *entry, const PresenceExpireMark *mark)
{
	return (entry->flags & ENTRY_EXPIRING) &&
		(PresenceTime) pg_atomic_read_u64(&entry->seen) == mark->seen;
}

/* Whether a mark still stands: no transaction has added the channel since. */
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
 * The removal of a marked channel has ended: free its entry if its rows are
 * gone ("free"), else clear the mark.  Must not fail.
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

/* Number of channels of a database that have an entry. */
uint64
presence_registry_count(Oid database)
{
	uint32		index = 0;
	uint64		count = 0;

	while (presence_registry_mem_next(database, &index))
		count++;
	return count;
}
