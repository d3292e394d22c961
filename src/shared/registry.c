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
 *	- exclusive to add or remove an entry, or to change anything else of it.
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
#include "shared/registry_entry.h"
#include "shared/registry_mem.h"

/* Whether every channel with rows in a database has an entry. */
bool
presence_registry_is_complete(PresenceDatabase *database)
{
	return database && pg_atomic_read_u32(&database->loaded) == PRESENCE_LOAD_COMPLETE;
}

/* Have the worker look at a channel, if it has to before it would. */
static void
note_moved(PresenceEntryRef ref, bool moved)
{
	if (moved)
		presence_database_note_moved(presence_my_database(), ref);
}

/* Whether a channel of this status can be kept alive. */
static bool
is_living(PresenceEntryStatus status)
{
	return status == PRESENCE_ENTRY_ALIVE || status == PRESENCE_ENTRY_UNVERIFIED;
}

/* The same as presence_registry_touch(), where more than a time changes. */
static PresenceEntryStatus
touch_and_change(const PresenceName *name, uint32 ttl, const PresenceCutoff *cutoff)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry;
	PresenceEntryStatus status;
	PresenceEntryRef ref = {0, 0};
	bool		earlier = false;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = presence_registry_mem_find(name);
	status = presence_registry_entry_status(entry, cutoff);
	if (is_living(status))
	{
		ref = presence_registry_mem_ref(entry);
		if (ttl == PRESENCE_SAME_TTL)
			presence_registry_entry_extend(entry, cutoff);
		else
			earlier = presence_registry_entry_live_for(entry, ttl, 0, cutoff);
	}
	LWLockRelease(lock);
	note_moved(ref, earlier);
	return status;
}

/*
 * Record a heartbeat, unless the channel is absent or expired, and its time to
 * live from now, in milliseconds; 0: max_age, PRESENCE_SAME_TTL: as it was.
 * Returns its status.
 */
PresenceEntryStatus
presence_registry_touch(const PresenceName *name, uint32 ttl, const PresenceCutoff *cutoff)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry;
	PresenceEntryStatus status;
	bool		stored = true;

	LWLockAcquire(lock, LW_SHARED);
	entry = presence_registry_mem_find(name);
	status = presence_registry_entry_status(entry, cutoff);
	if (is_living(status))
		stored = presence_registry_entry_beat(entry, ttl, cutoff);
	LWLockRelease(lock);
	return stored ? status : touch_and_change(name, ttl, cutoff);
}

/* What an entry, NULL if there is none, says. */
static PresenceEntryView
view_of(const RegistryEntry *entry, const PresenceCutoff *cutoff)
{
	PresenceEntryView view = {PRESENCE_ENTRY_ABSENT};

	if (entry == NULL)
		return view;
	view.ref = presence_registry_mem_ref(entry);
	view.status = presence_registry_entry_status(entry, cutoff);
	view.seen = presence_registry_entry_seen(entry);
	view.due = presence_registry_entry_due(entry, cutoff);
	view.doubtful = presence_registry_entry_is_doubtful(entry);
	view.changes = entry->changes;
	view.live = presence_registry_entry_is_live(entry, cutoff);
	view.revived = (entry->flags & ENTRY_REVIVED) != 0;
	view.reason = presence_registry_entry_reason(entry);
	return view;
}

/* Look a channel up. */
PresenceEntryView
presence_registry_look(const PresenceName *name, const PresenceCutoff *cutoff)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	PresenceEntryView view;

	LWLockAcquire(lock, LW_SHARED);
	view = view_of(presence_registry_mem_find(name), cutoff);
	LWLockRelease(lock);
	return view;
}

/*
 * Record a sign of life of a channel that the transaction has pinned, which
 * brings its deadline no closer.
 */
PresenceEntryStatus
presence_registry_touch_pinned(const PresenceName *name, PresenceEntryRef ref,
							   const PresenceCutoff *cutoff)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry = presence_registry_mem_entry(ref.index);
	PresenceEntryStatus status;
	bool		stored = true;

	LWLockAcquire(lock, LW_SHARED);
	Assert(presence_registry_mem_is_meant(entry, ref) && entry->hash == name->hash);
	status = presence_registry_entry_status(entry, cutoff);
	if (is_living(status))
		stored = presence_registry_entry_beat(entry, PRESENCE_SAME_TTL, cutoff);
	LWLockRelease(lock);
	return stored ? status : touch_and_change(name, PRESENCE_SAME_TTL, cutoff);
}

/*
 * A goodbye: unless it gives a sign of life before, the channel leaves after a
 * grace in milliseconds.  Ends its hold.  Returns its status before.
 */
PresenceEntryStatus
presence_registry_say_goodbye(const PresenceName *name, uint32 grace,
							  const PresenceCutoff *cutoff)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry;
	PresenceEntryStatus status;
	PresenceEntryRef ref = {0, 0};

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = presence_registry_mem_find(name);
	status = presence_registry_entry_status(entry, cutoff);
	if (is_living(status))
	{
		presence_registry_entry_say_goodbye(entry, grace, cutoff);
		ref = presence_registry_mem_ref(entry);
	}
	LWLockRelease(lock);
	note_moved(ref, is_living(status));
	return status;
}

/*
 * Have a process hold the channel of an entry, whoever held it: it lives until
 * it is released.  Returns its status, ABSENT if that entry is gone.
 */
PresenceEntryStatus
presence_registry_hold(PresenceEntryRef ref, uint32 holder, const PresenceCutoff *cutoff)
{
	RegistryEntry *entry = presence_registry_mem_lock(ref, LW_EXCLUSIVE);
	PresenceEntryStatus status;
	bool		doubtful = false;

	if (entry == NULL)
		return PRESENCE_ENTRY_ABSENT;
	status = presence_registry_entry_status(entry, cutoff);
	if (is_living(status))
	{
		(void) presence_registry_entry_live_for(entry, 0, 0, cutoff);
		entry->holder = holder;
		doubtful = presence_registry_entry_is_doubtful(entry);
	}
	presence_registry_mem_unlock(entry);
	note_moved(ref, doubtful);
	return status;
}

/*
 * Whether a pinned channel has said goodbye, or lost its holder.  It may do so
 * just now: no lock is taken.
 */
bool
presence_registry_is_leaving(PresenceEntryRef ref)
{
	return presence_registry_entry_is_leaving(presence_registry_mem_entry(ref.index));
}

/*
 * End the hold of a process, if it still has it: the channel lives for "ttl"
 * milliseconds from now, 0: max_age.
 */
static bool
end_hold(PresenceEntryRef ref, uint32 holder, uint32 ttl, uint8 flag,
		 const PresenceCutoff *cutoff)
{
	RegistryEntry *entry = presence_registry_mem_lock(ref, LW_EXCLUSIVE);
	bool		held;

	if (entry == NULL)
		return false;
	held = entry->holder == holder;
	if (held)
	{
		(void) presence_registry_entry_live_for(entry, ttl, flag, cutoff);
		entry->holder = 0;
	}
	presence_registry_mem_unlock(entry);
	note_moved(ref, held);
	return held;
}

/* A process releases a channel; false if it does not hold it. */
bool
presence_registry_release(PresenceEntryRef ref, uint32 holder, const PresenceCutoff *cutoff)
{
	return end_hold(ref, holder, 0, 0, cutoff);
}

/*
 * The session of a process has ended: what it holds leaves after a grace in
 * milliseconds.  Must not fail.
 */
bool
presence_registry_disconnect(PresenceEntryRef ref, uint32 holder, uint32 grace,
							 const PresenceCutoff *cutoff)
{
	return end_hold(ref, holder, Max(grace, 1), ENTRY_DISCONNECTED, cutoff);
}

/*
 * Note an add in an entry, NULL if the channel has none, whose status is given;
 * returns that status, or NO_SPACE.  The caller holds the lock exclusively.
 */
static PresenceEntryStatus
note_add(RegistryEntry *entry, PresenceEntryStatus status, const PresenceName *name,
		 const PresenceCutoff *cutoff, bool pin, PresenceEntryRef *ref)
{
	bool		exact = presence_registry_is_complete(presence_my_database());

	if (entry == NULL)
		entry = presence_registry_mem_insert(name, cutoff->now, exact ? 0 : ROWS_UNKNOWN);
	if (entry == NULL)
		return PRESENCE_ENTRY_NO_SPACE;
	if (status == PRESENCE_ENTRY_EXPIRED)
	{
		entry->flags = (entry->flags & ~ENTRY_EXPIRING) | ENTRY_REVIVED;
		entry->holder = 0;
		(void) presence_registry_entry_live_for(entry, 0, 0, cutoff);
	}
	entry->pins += pin;
	*ref = presence_registry_mem_ref(entry);
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
presence_registry_begin(const PresenceName *name, const PresenceCutoff *cutoff, bool pin,
						PresenceEntryRef *ref)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry;
	PresenceEntryStatus status;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = presence_registry_mem_find(name);
	status = note_add(entry, presence_registry_entry_status(entry, cutoff), name, cutoff,
					  pin, ref);
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
presence_registry_enter(const PresenceName *name, const PresenceCutoff *cutoff,
						bool rowless, PresenceEntryRef *ref)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry;
	PresenceEntryStatus status;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = presence_registry_mem_find(name);
	status = presence_registry_entry_status(entry, cutoff);
	if (entry ? (entry->flags & ENTRY_REVIVED) != 0 : !rowless)
		status = PRESENCE_ENTRY_EXPIRED;
	if (status != PRESENCE_ENTRY_EXPIRED)
		status = note_add(entry, status, name, cutoff, true, ref);
	LWLockRelease(lock);
	if (status == PRESENCE_ENTRY_NO_SPACE)
		note_full(name);
	return status;
}

/*
 * Find the entry of a channel, which is probably the one that a reference was
 * made to.  The caller holds the lock of the channel's partition.
 */
static RegistryEntry *
find_probable(const PresenceName *name, PresenceEntryRef ref)
{
	RegistryEntry *entry = presence_registry_mem_entry(ref.index);

	if (ref.index != 0 && presence_registry_mem_is_meant(entry, ref))
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
	PresenceEntryRef ref = {0, 0};
	bool		look = false;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = find_probable(name, delta->ref);
	if (entry)
	{
		ref = presence_registry_mem_ref(entry);
		Assert(!delta->pinned || presence_registry_mem_is_meant(entry, delta->ref));
		if (delta->pinned)
			entry->pins--;
		else if (committed && !presence_registry_mem_is_meant(entry, delta->ref))
			presence_registry_entry_invalidate(entry);
		entry->changes++;
		look = presence_registry_entry_settle(entry, delta, committed);
		if (entry->pins == 0 && !(entry->flags & ENTRY_VERIFIED) && entry->rows == 0)
			presence_registry_mem_delete(entry);
	}
	LWLockRelease(lock);
	note_moved(ref, look);
}

/*
 * Make sure that a channel has an entry; a new one is unverified.  The caller
 * has seen the channel's rows or is about to look for them.  Returns its
 * status, NO_SPACE if there is no entry, and sets "changes" for
 * presence_registry_confirm() and presence_registry_forget().
 */
PresenceEntryStatus
presence_registry_load(const PresenceName *name, PresenceTime seen,
					   const PresenceCutoff *cutoff, uint32 *changes)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry;
	PresenceEntryStatus status;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = presence_registry_mem_find(name);
	if (entry == NULL)
		entry = presence_registry_mem_insert(name, seen, ROWS_UNKNOWN);
	status = entry ? presence_registry_entry_status(entry, cutoff) : PRESENCE_ENTRY_NO_SPACE;
	*changes = entry ? entry->changes : 0;
	LWLockRelease(lock);
	if (status == PRESENCE_ENTRY_NO_SPACE)
		presence_registry_mem_warn_full(name);
	return status;
}

/*
 * The caller has seen committed rows of a channel: mark its entry verified.
 * Not done, and false, if a transaction changed the channel since "changes" was
 * read, because the rows may be gone then.
 */
bool
presence_registry_confirm(const PresenceName *name, uint32 changes)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry;
	bool		confirmed;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = presence_registry_mem_find(name);
	confirmed = entry && entry->changes == changes && !(entry->flags & ENTRY_EXPIRING);
	if (confirmed)
		entry->flags |= ENTRY_VERIFIED;
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

/* Visit the entries of this database without locks: they may change. */
void
presence_registry_scan(const PresenceCutoff *cutoff, PresenceScanFunc visit, void *arg)
{
	uint32		index = 0;
	RegistryEntry *entry;

	while ((entry = presence_registry_mem_next(MyDatabaseId, &index)))
		visit(arg, presence_registry_mem_ref(entry),
			  presence_registry_entry_due(entry, cutoff));
}

/*
 * Return the name of an entry of this database, palloc'd, and what it says;
 * NULL if the entry is gone.
 */
char *
presence_registry_read(PresenceEntryRef ref, const PresenceCutoff *cutoff,
					   PresenceEntryView *view)
{
	char		name[PRESENCE_MAX_NAME_BYTES];
	RegistryEntry *entry = presence_registry_mem_lock(ref, LW_SHARED);
	int			length = 0;

	if (entry == NULL)
		return NULL;
	/* A reference made without a lock may be to another database's entry. */
	if (entry->database == MyDatabaseId)
	{
		length = entry->length;
		*view = view_of(entry, cutoff);
		presence_registry_mem_read_name(entry, name);
	}
	presence_registry_mem_unlock(entry);
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

		entry = presence_registry_mem_lock(presence_registry_mem_ref(entry), LW_EXCLUSIVE);
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
	presence_registry_entry_invalidate(entry);
	if (entry->pins == 0)
		presence_registry_mem_delete(entry);
}

/* Any row of this database may have changed: have all entries verified again. */
void
presence_registry_invalidate(void)
{
	walk_entries(MyDatabaseId, presence_registry_entry_invalidate);
	presence_database_note_all_moved(presence_my_database());
}

/* A database, or its extension, was dropped: remove its entries. */
void
presence_registry_clear(Oid database)
{
	walk_entries(database, clear_entry);
}

/*
 * Mark a channel as expiring, if it does not live by "cutoff" and no other
 * transaction is adding it, that is, if all pins are the caller's.  Until
 * unmarked, its heartbeats are answered EXPIRED.  "counted" says whether its rows
 * are counted, so that their removal frees the entry.
 */
bool
presence_registry_mark_expiring(const PresenceName *name, uint32 own_pins,
								const PresenceCutoff *cutoff,
								PresenceExpireMark *mark, bool *counted)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	RegistryEntry *entry;
	bool		marked = false;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = presence_registry_mem_find(name);
	if (entry && entry->pins == own_pins && !(entry->flags & ENTRY_EXPIRING) &&
		!presence_registry_entry_is_live(entry, cutoff))
	{
		entry->flags |= ENTRY_EXPIRING;
		mark->ref = presence_registry_mem_ref(entry);
		mark->seen = presence_registry_entry_seen(entry);
		mark->reason = presence_registry_entry_reason(entry);
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
		presence_registry_entry_seen(entry) == mark->seen;
}

/* Whether a mark still stands: no transaction has added the channel since. */
bool
presence_registry_is_marked(const PresenceExpireMark *mark)
{
	RegistryEntry *entry = presence_registry_mem_lock(mark->ref, LW_SHARED);
	bool		marked;

	if (entry == NULL)
		return false;
	marked = has_mark(entry, mark);
	presence_registry_mem_unlock(entry);
	return marked;
}

/*
 * The removal of a marked channel has ended: free its entry if its rows are
 * gone ("free"), else clear the mark.  Must not fail.
 */
void
presence_registry_unmark(const PresenceExpireMark *mark, bool free)
{
	RegistryEntry *entry = presence_registry_mem_lock(mark->ref, LW_EXCLUSIVE);
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

/* Number of those that a session holds. */
uint64
presence_registry_count_held(Oid database)
{
	uint32		index = 0;
	uint64		count = 0;
	RegistryEntry *entry;

	while ((entry = presence_registry_mem_next(database, &index)))
		count += entry->holder != 0;
	return count;
}
