/*-------------------------------------------------------------------------
 *
 * registry.c
 *		Remembers the newest sign of life of each channel.
 *
 * The life of an entry:
 *
 *	begin -> (pinned, unsure) -> end(commit) -> alive -> end(rows gone) -> free
 *	                          -> end(abort)  -> free, if it is known to have no rows
 *	alive -> condemn -> release(bury) -> free
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
 * A verdict holds for one life: who condemned a channel that was revived, and
 * condemned again by somebody else, finds another last sign of life there.
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

#include "miscadmin.h"
#include "name.h"
#include "registry.h"
#include "registry_mem.h"

/* Whether every channel of a database that has rows has an entry. */
bool
presence_registry_is_complete(PresenceDatabase *database)
{
	return database && pg_atomic_read_u32(&database->loaded) == PRESENCE_LOAD_COMPLETE;
}

/* An entry as others may remember it. */
static PresenceEntryRef
ref_of(const PresenceCell *cell)
{
	PresenceEntryRef ref = {presence_registry_mem_index(cell), cell->generation};

	return ref;
}

/* Whether an entry is the one that is remembered. */
static bool
is_meant(const PresenceCell *cell, PresenceEntryRef ref)
{
	return (cell->flags & CELL_USED) && presence_registry_mem_index(cell) == ref.index &&
		cell->generation == ref.generation;
}

/* No longer trust an entry's rows. */
static void
doubt_cell(PresenceCell *cell)
{
	cell->rows = ROWS_UNKNOWN;
	cell->flags &= ~CELL_VERIFIED;
	if (cell->pins > 0)
		cell->flags |= CELL_DOUBTED;
}

/* What an entry tells of its channel. */
static PresenceLife
judge_cell(PresenceCell *cell, PresenceTime cutoff)
{
	if (cell == NULL)
		return PRESENCE_LIFE_ABSENT;
	if ((cell->flags & CELL_DYING) ||
		(PresenceTime) pg_atomic_read_u64(&cell->seen) < cutoff)
		return PRESENCE_LIFE_DEAD;
	return (cell->flags & CELL_VERIFIED) ?
		PRESENCE_LIFE_ALIVE : PRESENCE_LIFE_UNSURE;
}

/*
 * A heartbeat: stores the time unless the channel is absent or dead, and tells
 * what it is.  Signs of life before "cutoff" count as none.
 */
PresenceLife
presence_registry_touch(const PresenceName *name, PresenceTime now,
						PresenceTime cutoff)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	PresenceCell *cell;
	PresenceLife life;

	LWLockAcquire(lock, LW_SHARED);
	cell = presence_registry_mem_find(name);
	life = judge_cell(cell, cutoff);
	if (life == PRESENCE_LIFE_ALIVE || life == PRESENCE_LIFE_UNSURE)
		pg_atomic_write_u64(&cell->seen, (uint64) now);
	LWLockRelease(lock);
	return life;
}

/* What is known of a channel. */
PresenceEntryView
presence_registry_look(const PresenceName *name, PresenceTime cutoff)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	PresenceEntryView view = {PRESENCE_LIFE_ABSENT};
	PresenceCell *cell;

	LWLockAcquire(lock, LW_SHARED);
	cell = presence_registry_mem_find(name);
	if (cell)
	{
		view.life = judge_cell(cell, cutoff);
		view.seen = (PresenceTime) pg_atomic_read_u64(&cell->seen);
		view.revived = (cell->flags & CELL_REVIVED) != 0;
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
PresenceLife
presence_registry_begin(const PresenceName *name, PresenceTime now,
						PresenceTime cutoff, bool pin)
{
	PresenceDatabase *database = presence_database_mine();
	bool		exact = presence_registry_is_complete(database);
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	PresenceCell *cell;
	PresenceLife life;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	cell = presence_registry_mem_find(name);
	life = judge_cell(cell, cutoff);
	if (cell == NULL)
		cell = presence_registry_mem_insert(name, now, exact ? 0 : ROWS_UNKNOWN);
	if (cell == NULL)
		life = PRESENCE_LIFE_FULL;
	else
	{
		if (life == PRESENCE_LIFE_DEAD)
		{
			cell->flags = (cell->flags & ~CELL_DYING) | CELL_REVIVED;
			pg_atomic_write_u64(&cell->seen, (uint64) now);
		}
		cell->pins += pin;
	}
	LWLockRelease(lock);

	if (life == PRESENCE_LIFE_FULL)
	{
		if (database)
			pg_atomic_write_u32(&database->loaded, PRESENCE_LOAD_PARTIAL);
		presence_registry_mem_warn_full(name);
	}
	return life;
}

/*
 * The rows of an entry's channel have changed by so many.  Where they are not
 * counted a removal may be of rows whose own commit has yet to come here.
 */
static void
count_rows(PresenceCell *cell, int change)
{
	if (cell->rows != ROWS_UNKNOWN)
	{
		cell->rows += change;
		cell->flags = cell->rows > 0 ? cell->flags | CELL_VERIFIED :
			cell->flags & ~CELL_VERIFIED;
	}
	else if (change < 0)
		doubt_cell(cell);
	else if (change > 0 && !(cell->flags & CELL_DOUBTED))
		cell->flags |= CELL_VERIFIED;
}

/* Apply the outcome of a transaction to an entry. */
static void
settle_cell(PresenceCell *cell, const PresenceDeed *deed, bool committed)
{
	bool		joined = committed && deed->joined;

	/* Nothing came of the revival, and nobody else gave life to the entry. */
	if ((cell->flags & CELL_REVIVED) && !joined && cell->pins == 0)
		pg_atomic_write_u64(&cell->seen, 1);
	if (committed && deed->changed)
		count_rows(cell, deed->change);
	if (cell->pins == 0 || joined)
		cell->flags &= ~CELL_REVIVED;
	if (cell->pins == 0)
		cell->flags &= ~CELL_DOUBTED;
}

/* Which entry a channel has; index 0: none. */
PresenceEntryRef
presence_registry_find(const PresenceName *name)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	PresenceEntryRef ref = {0, 0};
	PresenceCell *cell;

	LWLockAcquire(lock, LW_SHARED);
	cell = presence_registry_mem_find(name);
	if (cell)
		ref = ref_of(cell);
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
presence_registry_end(const PresenceName *name, const PresenceDeed *deed,
					  bool committed)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	PresenceCell *cell;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	cell = presence_registry_mem_find(name);
	if (cell)
	{
		if (deed->pinned)
			cell->pins--;
		else if (committed && !is_meant(cell, deed->ref))
			doubt_cell(cell);
		cell->changes++;
		settle_cell(cell, deed, committed);
		if (cell->pins == 0 && !(cell->flags & CELL_VERIFIED) && cell->rows == 0)
			presence_registry_mem_delete(cell);
	}
	LWLockRelease(lock);
}

/*
 * Make sure that a channel, whose rows the caller has seen or will look for,
 * has an entry; a new one is unsure.  Tells what is known of the channel
 * afterwards, FULL when there is no room, and how often it changed so far.
 */
PresenceLife
presence_registry_load(const PresenceName *name, PresenceTime seen,
					   PresenceTime cutoff, uint32 *changes)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	PresenceCell *cell;
	PresenceLife life;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	cell = presence_registry_mem_find(name);
	if (cell == NULL)
		cell = presence_registry_mem_insert(name, seen, ROWS_UNKNOWN);
	life = cell ? judge_cell(cell, cutoff) : PRESENCE_LIFE_FULL;
	*changes = cell ? cell->changes : 0;
	LWLockRelease(lock);
	if (life == PRESENCE_LIFE_FULL)
		presence_registry_mem_warn_full(name);
	return life;
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
	PresenceCell *cell;
	bool		confirmed;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	cell = presence_registry_mem_find(name);
	confirmed = cell && cell->changes == changes && !(cell->flags & CELL_DYING);
	if (confirmed)
	{
		cell->flags |= CELL_VERIFIED;
		pg_atomic_write_u64(&cell->seen, (uint64) seen);
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
	PresenceCell *cell;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	cell = presence_registry_mem_find(name);
	if (cell && cell->pins == 0 && cell->changes == changes &&
		!(cell->flags & (CELL_VERIFIED | CELL_DYING)))
		presence_registry_mem_delete(cell);
	LWLockRelease(lock);
}

/*
 * Lock the partition of a cell that may be changing owners; NULL (and no
 * lock) when its owner is not the one meant.
 */
static PresenceCell *
lock_cell(PresenceEntryRef ref, LWLockMode mode)
{
	PresenceCell *cell = presence_registry_mem_cell(ref.index);
	uint32		hash = cell->hash;

	LWLockAcquire(presence_registry_mem_partition(hash), mode);
	if (is_meant(cell, ref) && cell->hash == hash)
		return cell;
	LWLockRelease(presence_registry_mem_partition(hash));
	return NULL;
}

/* Visit the entries of this database, without locks: what is seen may age. */
void
presence_registry_scan(PresenceScanFunc visit, void *arg)
{
	uint32		index = 0;
	PresenceCell *cell;

	while ((cell = presence_registry_mem_next(MyDatabaseId, &index)))
		visit(arg, ref_of(cell),
			  (PresenceTime) pg_atomic_read_u64(&cell->seen));
}

/*
 * The name of an entry of this database, palloc'd, and its sign of life; NULL
 * when gone.
 */
char *
presence_registry_read(PresenceEntryRef ref, PresenceTime *seen)
{
	char		name[PRESENCE_MAX_NAME_BYTES];
	PresenceCell *cell = lock_cell(ref, LW_SHARED);
	int			length = 0;

	if (cell == NULL)
		return NULL;
	/* Who came to the reference without a lock may hold a stranger's. */
	if (cell->database == MyDatabaseId)
	{
		length = cell->length;
		*seen = (PresenceTime) pg_atomic_read_u64(&cell->seen);
		presence_registry_mem_read_name(cell, name);
	}
	LWLockRelease(presence_registry_mem_partition(cell->hash));
	return length > 0 ? pnstrdup(name, length) : NULL;
}

/* Do something to every entry of a database, exclusively locked. */
static void
walk_cells(Oid database, void (*change) (PresenceCell *cell))
{
	uint32		index = 0;
	PresenceCell *cell;

	while ((cell = presence_registry_mem_next(database, &index)))
	{
		LWLock	   *lock;

		cell = lock_cell(ref_of(cell),
						 LW_EXCLUSIVE);
		if (cell == NULL)
			continue;
		lock = presence_registry_mem_partition(cell->hash);
		/* Since the look without the lock it may have got another owner. */
		if (cell->database == database)
			change(cell);
		LWLockRelease(lock);
	}
}

/* Drop an entry that nobody is using. */
static void
clear_cell(PresenceCell *cell)
{
	doubt_cell(cell);
	if (cell->pins == 0)
		presence_registry_mem_delete(cell);
}

/* All rows of a database may have changed: look before trusting again. */
void
presence_registry_doubt(Oid database)
{
	walk_cells(database, doubt_cell);
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
presence_registry_condemn(const PresenceName *name, uint32 own_pins,
						  PresenceTime cutoff, PresenceVerdict *verdict,
						  bool *counted)
{
	LWLock	   *lock = presence_registry_mem_partition(name->hash);
	PresenceCell *cell;
	PresenceTime seen;
	bool		condemned = false;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	cell = presence_registry_mem_find(name);
	seen = cell ? (PresenceTime) pg_atomic_read_u64(&cell->seen) : 0;
	if (cell && cell->pins == own_pins && !(cell->flags & CELL_DYING) && seen < cutoff)
	{
		cell->flags |= CELL_DYING;
		verdict->ref = ref_of(cell);
		verdict->seen = seen;
		*counted = cell->rows != ROWS_UNKNOWN;
		condemned = true;
	}
	LWLockRelease(lock);
	return condemned;
}

/* Whether an entry is dying by that verdict, and not by another one. */
static bool
dies_by(PresenceCell *cell, const PresenceVerdict *verdict)
{
	return (cell->flags & CELL_DYING) &&
		(PresenceTime) pg_atomic_read_u64(&cell->seen) == verdict->seen;
}

/* Whether a condemned channel still is: nobody has added it since. */
bool
presence_registry_condemned(const PresenceVerdict *verdict)
{
	PresenceCell *cell = lock_cell(verdict->ref, LW_SHARED);
	bool		condemned;

	if (cell == NULL)
		return false;
	condemned = dies_by(cell, verdict);
	LWLockRelease(presence_registry_mem_partition(cell->hash));
	return condemned;
}

/*
 * The removal of a condemned channel has ended: frees its entry when its rows
 * are gone ("bury"), else makes it what it was before.  Cannot fail.
 */
void
presence_registry_release(const PresenceVerdict *verdict, bool bury)
{
	PresenceCell *cell = lock_cell(verdict->ref, LW_EXCLUSIVE);
	LWLock	   *lock;

	if (cell == NULL)
		return;
	lock = presence_registry_mem_partition(cell->hash);
	if (dies_by(cell, verdict))
	{
		cell->flags &= ~CELL_DYING;
		if (bury && cell->pins == 0)
			presence_registry_mem_delete(cell);
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
