/*-------------------------------------------------------------------------
 *
 * registry.c
 *		Remembers the newest sign of life of each channel in shared memory.
 *
 * A hash table of fixed size: an array of bucket heads, and an array of cells
 * chained from them.  A cell holds one channel; a name longer than the cell
 * spills into further cells.  Names are compared whole and belong to a
 * database, so two channels never share an entry.
 *
 * Locking.  Bucket b, its chain and all that hangs on it belong to partition
 * b mod PRESENCE_REGISTRY_LOCKS, guarded by one LWLock each:
 *
 *	- a heartbeat takes it shared and stores the time atomically;
 *	- whoever adds, removes or re-marks an entry takes it exclusively.
 *
 * So a worker that holds the lock exclusively and finds an entry silent knows
 * that no heartbeat is under way.  The free list has a spinlock of its own,
 * taken last.  No process holds two partitions at a time, and nothing under
 * a lock allocates, waits or fails.
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
 * Databases share the cells: the last ones are kept for those that hold few
 * (share.h).  A name that may not have an entry is answered FULL.
 *
 * Only names of 1 to PRESENCE_MAX_NAME_BYTES bytes are kept.  Rows may have
 * others, for instance where triggers were disabled; the registry never learns
 * of them, says FULL, too, and rows take over.
 *
 * A verdict holds for one life: who condemned a channel that was revived, and
 * condemned again by somebody else, finds another last sign of life there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "database.h"
#include "guc.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "registry.h"
#include "share.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"

#define CELL_NAME_SIZE 68
#define ROWS_UNKNOWN PG_INT32_MIN

/*
 * Counts of cells held by databases, told apart by their oids modulo this.  So
 * a count needs no beginning and no end, whatever becomes of the database; two
 * whose oids are that far apart share one.
 */
#define OWNERS 4096

/* Flags of a cell. */
#define CELL_USED		0x01	/* heads an entry; else free or a spill */
#define CELL_VERIFIED	0x02	/* its rows are known to be committed */
#define CELL_DYING		0x04	/* somebody is removing its rows */
#define CELL_REVIVED	0x08	/* came back to life in a running transaction */
#define CELL_DOUBTED	0x10	/* what the pins' transactions added may be gone */

typedef struct PresenceCell
{
	pg_atomic_uint64 seen;		/* PresenceTime; store: shared lock is enough */
	uint32		next;			/* in the chain or free list; 0 ends it */
	uint32		spill;			/* next cell of the name; 0: none */
	uint32		hash;
	Oid			database;
	uint32		generation;		/* counts the owners of this cell */
	uint32		pins;			/* transactions that are adding the channel */
	int32		rows;			/* committed rows as counted, or ROWS_UNKNOWN */
	uint32		changes;		/* transactions that changed the channel */
	uint16		length;			/* of the name, in bytes */
	uint8		flags;
	char		name[CELL_NAME_SIZE];
} PresenceCell;

StaticAssertDecl(sizeof(PresenceCell) <= 112,
				 "a channel must not cost more than 128 bytes with its bucket");

typedef struct PresenceRegistry
{
	uint32		nbuckets;		/* power of two; fixed */
	uint32		ncells;			/* fixed */
	slock_t		mutex;			/* guards the next four */
	uint32		free;			/* first free cell; 0: none */
	uint32		taken;			/* cells 1 to taken have been used */
	uint32		used;			/* cells of entries, spills included */
	uint32		held[OWNERS];	/* the same, of each database */
	bool		warned;			/* told the log that it is full */
	uint32		heads[FLEXIBLE_ARRAY_MEMBER];
} PresenceRegistry;

static PresenceRegistry *registry;
static PresenceCell *cells;		/* cells[0] is never used */
static LWLockPadded *partition_locks;

/* How many buckets serve presence.max_channels. */
static uint32
count_buckets(void)
{
	return Max(pg_nextpower2_32(presence_max_channels),
			   PRESENCE_REGISTRY_LOCKS);
}

/* How many cells there are: presence.max_channels, and those that are kept. */
static uint32
count_cells(void)
{
	return presence_share_total(presence_max_channels);
}

/* Bytes before the cells. */
static Size
header_size(void)
{
	return MAXALIGN(add_size(offsetof(PresenceRegistry, heads),
							 mul_size(count_buckets(), sizeof(uint32))));
}

/* Bytes of shared memory that the registry needs. */
Size
presence_registry_shmem_size(void)
{
	return add_size(header_size(),
					mul_size((Size) count_cells() + 1, sizeof(PresenceCell)));
}

/* Attach to the registry, emptying it when new. */
void
presence_registry_shmem_init(void *area, bool found)
{
	registry = area;
	cells = (PresenceCell *) ((char *) area + header_size());
	partition_locks = GetNamedLWLockTranche("presence_registry");
	if (found)
		return;
	registry->nbuckets = count_buckets();
	registry->ncells = count_cells();
	SpinLockInit(&registry->mutex);
	registry->free = 0;
	registry->taken = 0;
	registry->used = 0;
	memset(registry->held, 0, sizeof(registry->held));
	registry->warned = false;
	memset(registry->heads, 0, registry->nbuckets * sizeof(uint32));
	memset(cells, 0, ((Size) registry->ncells + 1) * sizeof(PresenceCell));
}

/* The lock of the partition that a hash falls into. */
static LWLock *
partition_lock(uint32 hash)
{
	return &partition_locks[hash % PRESENCE_REGISTRY_LOCKS].lock;
}

/* The head of the chain that a hash falls into. */
static uint32 *
bucket_head(uint32 hash)
{
	return &registry->heads[hash & (registry->nbuckets - 1)];
}

/* Whether a cell's entry has a name; the lengths are known to agree. */
static bool
same_name(const PresenceCell *cell, const PresenceName *name)
{
	const char *data = name->data;
	int			rest = name->length;

	for (;;)
	{
		int			part = Min(rest, CELL_NAME_SIZE);

		if (memcmp(cell->name, data, part) != 0)
			return false;
		rest -= part;
		if (rest == 0)
			return true;
		data += part;
		cell = &cells[cell->spill];
	}
}

/* Whether a name may have an entry: cells and buffers are made for those. */
static bool
is_keepable(const PresenceName *name)
{
	return name->length > 0 && name->length <= PRESENCE_MAX_NAME_BYTES;
}

/* Find an entry; the caller holds its partition's lock. */
static PresenceCell *
find_cell(const PresenceName *name)
{
	for (uint32 i = *bucket_head(name->hash); i != 0; i = cells[i].next)
	{
		PresenceCell *cell = &cells[i];

		if (cell->hash == name->hash && cell->length == name->length &&
			cell->database == MyDatabaseId && same_name(cell, name))
			return cell;
	}
	return NULL;
}

/* How many cells a database holds. */
static uint32 *
held_by(Oid database)
{
	return &registry->held[database % OWNERS];
}

/* Put a chain of cells of a database, linked by "spill", on the free list. */
static void
free_cells(uint32 first, Oid database)
{
	SpinLockAcquire(&registry->mutex);
	while (first != 0)
	{
		uint32		spill = cells[first].spill;

		cells[first].next = registry->free;
		registry->free = first;
		registry->used--;
		(*held_by(database))--;
		first = spill;
	}
	SpinLockRelease(&registry->mutex);
}

/* Take one of the unused cells.  The caller holds the spinlock. */
static uint32
take_cell(void)
{
	uint32		index = registry->free;

	if (index != 0)
		registry->free = cells[index].next;
	else
		index = ++registry->taken;
	registry->used++;
	(*held_by(MyDatabaseId))++;
	return index;
}

/*
 * Take cells for a name of this process's database, linked by "spill"; 0 when
 * it may not have so many.
 */
static uint32
allocate_cells(int length)
{
	uint32		wanted = (length + CELL_NAME_SIZE - 1) / CELL_NAME_SIZE;
	uint32		first = 0;

	SpinLockAcquire(&registry->mutex);
	if (presence_share_allows(registry->ncells, registry->ncells - registry->used,
							  *held_by(MyDatabaseId), wanted))
		for (uint32 i = 0; i < wanted; i++)
		{
			uint32		index = take_cell();

			cells[index].spill = first;
			first = index;
		}
	SpinLockRelease(&registry->mutex);
	return first;
}

/* Write a name into the cells of an entry. */
static void
write_name(PresenceCell *cell, const PresenceName *name)
{
	const char *data = name->data;
	int			rest = name->length;

	for (;;)
	{
		int			part = Min(rest, CELL_NAME_SIZE);

		memcpy(cell->name, data, part);
		rest -= part;
		if (rest == 0)
			return;
		data += part;
		cell = &cells[cell->spill];
	}
}

/* Tell the log once that a name has no entry because there is none for it. */
static void
warn_full(const PresenceName *name)
{
	if (registry->warned || !is_keepable(name))
		return;
	registry->warned = true;
	ereport(LOG,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("presence keeps no heartbeats of further channels in memory"),
			 errdetail("Database %u holds %u of all %u entries and may take no more; further channels keep their heartbeats in their rows, which is slower.",
					   MyDatabaseId, *held_by(MyDatabaseId), registry->ncells),
			 errhint("Raise presence.max_channels and restart the server.")));
}

/*
 * Add an entry; NULL when full, or when the name cannot have one.  The caller
 * holds its lock exclusively.
 */
static PresenceCell *
insert_cell(const PresenceName *name, PresenceTime seen, int rows)
{
	uint32	   *head = bucket_head(name->hash);
	uint32		index = is_keepable(name) ? allocate_cells(name->length) : 0;
	PresenceCell *cell = &cells[index];

	if (index == 0)
		return NULL;
	pg_atomic_write_u64(&cell->seen, (uint64) seen);
	cell->hash = name->hash;
	cell->length = name->length;
	cell->database = MyDatabaseId;
	cell->generation++;
	cell->pins = 0;
	cell->changes++;
	cell->rows = rows;
	write_name(cell, name);
	cell->flags = CELL_USED;
	cell->next = *head;
	*head = index;
	return cell;
}

/* Remove an entry.  The caller holds its lock exclusively. */
static void
delete_cell(PresenceCell *cell)
{
	uint32		index = cell - cells;
	uint32	   *link = bucket_head(cell->hash);
	Oid			database = cell->database;

	Assert(cell->pins == 0);
	while (*link != index)
		link = &cells[*link].next;
	*link = cell->next;
	cell->flags = 0;
	cell->database = InvalidOid;
	free_cells(index, database);
}

/* An entry as others may remember it. */
static PresenceEntryRef
ref_of(const PresenceCell *cell)
{
	PresenceEntryRef ref = {cell - cells, cell->generation};

	return ref;
}

/* Whether an entry is the one that is remembered. */
static bool
is_meant(const PresenceCell *cell, PresenceEntryRef ref)
{
	return (cell->flags & CELL_USED) && cell - cells == ref.index &&
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
	LWLock	   *lock = partition_lock(name->hash);
	PresenceCell *cell;
	PresenceLife life;

	LWLockAcquire(lock, LW_SHARED);
	cell = find_cell(name);
	life = judge_cell(cell, cutoff);
	if (life == PRESENCE_LIFE_ALIVE || life == PRESENCE_LIFE_UNSURE)
		pg_atomic_write_u64(&cell->seen, (uint64) now);
	LWLockRelease(lock);
	return life;
}

/* What is known of a channel, and its newest sign of life (0: none). */
PresenceLife
presence_registry_look(const PresenceName *name, PresenceTime cutoff,
					   PresenceTime *seen)
{
	LWLock	   *lock = partition_lock(name->hash);
	PresenceCell *cell;
	PresenceLife life;

	LWLockAcquire(lock, LW_SHARED);
	cell = find_cell(name);
	life = judge_cell(cell, cutoff);
	*seen = cell ? (PresenceTime) pg_atomic_read_u64(&cell->seen) : 0;
	LWLockRelease(lock);
	return life;
}

/* Whether a running transaction has brought a channel back to life. */
bool
presence_registry_is_reviving(const PresenceName *name)
{
	LWLock	   *lock = partition_lock(name->hash);
	PresenceCell *cell;
	bool		reviving;

	LWLockAcquire(lock, LW_SHARED);
	cell = find_cell(name);
	reviving = cell && (cell->flags & CELL_REVIVED);
	LWLockRelease(lock);
	return reviving;
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
	bool		exact = database && pg_atomic_read_u32(&database->loaded) == 1;
	LWLock	   *lock = partition_lock(name->hash);
	PresenceCell *cell;
	PresenceLife life;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	cell = find_cell(name);
	life = judge_cell(cell, cutoff);
	if (cell == NULL)
		cell = insert_cell(name, now, exact ? 0 : ROWS_UNKNOWN);
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
			pg_atomic_write_u32(&database->loaded, 0);
		warn_full(name);
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
	LWLock	   *lock = partition_lock(name->hash);
	PresenceEntryRef ref = {0, 0};
	PresenceCell *cell;

	LWLockAcquire(lock, LW_SHARED);
	cell = find_cell(name);
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
	LWLock	   *lock = partition_lock(name->hash);
	PresenceCell *cell;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	cell = find_cell(name);
	if (cell)
	{
		if (deed->pinned)
			cell->pins--;
		else if (committed && !is_meant(cell, deed->ref))
			doubt_cell(cell);
		cell->changes++;
		settle_cell(cell, deed, committed);
		if (cell->pins == 0 && !(cell->flags & CELL_VERIFIED) && cell->rows == 0)
			delete_cell(cell);
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
	LWLock	   *lock = partition_lock(name->hash);
	PresenceCell *cell;
	PresenceLife life;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	cell = find_cell(name);
	if (cell == NULL)
		cell = insert_cell(name, seen, ROWS_UNKNOWN);
	life = cell ? judge_cell(cell, cutoff) : PRESENCE_LIFE_FULL;
	*changes = cell ? cell->changes : 0;
	LWLockRelease(lock);
	if (life == PRESENCE_LIFE_FULL)
		warn_full(name);
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
	LWLock	   *lock = partition_lock(name->hash);
	PresenceCell *cell;
	bool		confirmed;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	cell = find_cell(name);
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
	LWLock	   *lock = partition_lock(name->hash);
	PresenceCell *cell;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	cell = find_cell(name);
	if (cell && cell->pins == 0 && cell->changes == changes &&
		!(cell->flags & (CELL_VERIFIED | CELL_DYING)))
		delete_cell(cell);
	LWLockRelease(lock);
}

/*
 * Lock the partition of a cell that may be changing owners; NULL (and no
 * lock) when its owner is not the one meant.
 */
static PresenceCell *
lock_cell(PresenceEntryRef ref, LWLockMode mode)
{
	PresenceCell *cell = &cells[ref.index];
	uint32		hash = cell->hash;

	LWLockAcquire(partition_lock(hash), mode);
	if (is_meant(cell, ref) && cell->hash == hash)
		return cell;
	LWLockRelease(partition_lock(hash));
	return NULL;
}

/* Visit the entries of this database, without locks: what is seen may age. */
void
presence_registry_scan(PresenceScanFunc visit, void *arg)
{
	uint32		taken = registry->taken;

	for (uint32 i = 1; i <= taken; i++)
	{
		PresenceCell *cell = &cells[i];

		if (cell->database != MyDatabaseId || !(cell->flags & CELL_USED))
			continue;
		visit(arg, ref_of(cell), (PresenceTime) pg_atomic_read_u64(&cell->seen));
	}
}

/* Copy the name of an entry out of its cells. */
static void
read_name(const PresenceCell *cell, char *target)
{
	int			rest = cell->length;

	for (;;)
	{
		int			part = Min(rest, CELL_NAME_SIZE);

		memcpy(target, cell->name, part);
		rest -= part;
		if (rest == 0)
			return;
		target += part;
		cell = &cells[cell->spill];
	}
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
		read_name(cell, name);
	}
	LWLockRelease(partition_lock(cell->hash));
	return length > 0 ? pnstrdup(name, length) : NULL;
}

/* Do something to every entry of a database, exclusively locked. */
static void
walk_cells(Oid database, void (*change) (PresenceCell *cell))
{
	uint32		taken = registry->taken;

	for (uint32 i = 1; i <= taken; i++)
	{
		PresenceCell *cell;
		LWLock	   *lock;

		if (cells[i].database != database || !(cells[i].flags & CELL_USED))
			continue;
		cell = lock_cell(ref_of(&cells[i]), LW_EXCLUSIVE);
		if (cell == NULL)
			continue;
		lock = partition_lock(cell->hash);
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
		delete_cell(cell);
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
	LWLock	   *lock = partition_lock(name->hash);
	PresenceCell *cell;
	PresenceTime seen;
	bool		condemned = false;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	cell = find_cell(name);
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
	LWLockRelease(partition_lock(cell->hash));
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
	lock = partition_lock(cell->hash);
	if (dies_by(cell, verdict))
	{
		cell->flags &= ~CELL_DYING;
		if (bury && cell->pins == 0)
			delete_cell(cell);
	}
	LWLockRelease(lock);
}

/* How many channels of a database have entries. */
uint64
presence_registry_count(Oid database)
{
	uint32		taken = registry->taken;
	uint64		count = 0;

	for (uint32 i = 1; i <= taken; i++)
		if (cells[i].database == database && (cells[i].flags & CELL_USED))
			count++;
	return count;
}
