/*-------------------------------------------------------------------------
 *
 * registry_mem.c
 *		Keeps the entries of the registry in shared memory.
 *
 * A hash table of fixed size: an array of bucket heads, and an array of cells
 * chained from them.  A cell holds one channel; a name longer than the cell
 * spills into further cells.  Names are compared whole and belong to a
 * database, so two channels never share an entry.
 *
 * Databases share the cells: the last ones are kept for those that hold few
 * (share.h).
 *
 * Only names of 1 to PRESENCE_MAX_NAME_BYTES bytes are kept.  Rows may have
 * others, for instance where triggers were disabled; they never get an entry.
 *
 * Locking.  Bucket b, its chain and all that hangs on it belong to partition
 * b mod PRESENCE_REGISTRY_LOCKS, guarded by one LWLock each, which the caller
 * holds.  The free list, and the counts of cells, have a spinlock of their own,
 * taken last.  A walk over all entries looks at cells without a lock, and once
 * more with it before anything is done.  "warned" is only ever set, and may be
 * read too late.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "guc.h"
#include "miscadmin.h"
#include "name.h"
#include "port/pg_bitutils.h"
#include "registry_mem.h"
#include "share.h"
#include "storage/shmem.h"
#include "storage/spin.h"

/*
 * Counts of cells held by databases, told apart by their oids modulo this.  So
 * a count needs no beginning and no end, whatever becomes of the database; two
 * whose oids are that far apart share one.
 */
#define OWNERS 4096

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
presence_registry_mem_shmem_size(void)
{
	return add_size(header_size(),
					mul_size((Size) count_cells() + 1, sizeof(PresenceCell)));
}

/* Attach to the registry, emptying it when new. */
void
presence_registry_mem_shmem_init(void *area, bool found)
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
LWLock *
presence_registry_mem_partition(uint32 hash)
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
PresenceCell *
presence_registry_mem_find(const PresenceName *name)
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
void
presence_registry_mem_warn_full(const PresenceName *name)
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
PresenceCell *
presence_registry_mem_insert(const PresenceName *name, PresenceTime seen, int rows)
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
void
presence_registry_mem_delete(PresenceCell *cell)
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

/* The cell of a number. */
PresenceCell *
presence_registry_mem_cell(uint32 index)
{
	return &cells[index];
}

/* The number of a cell. */
uint32
presence_registry_mem_index(const PresenceCell *cell)
{
	return cell - cells;
}

/*
 * The first entry of a database after cell "index", which becomes its number;
 * NULL: there are no more.  Takes no lock, so it may have another owner by now.
 */
PresenceCell *
presence_registry_mem_next(Oid database, uint32 *index)
{
	uint32		taken = registry->taken;

	while (*index < taken)
	{
		PresenceCell *cell = &cells[++*index];

		if (cell->database == database && (cell->flags & CELL_USED))
			return cell;
	}
	return NULL;
}

/* Copy the name of an entry out of its cells. */
void
presence_registry_mem_read_name(const PresenceCell *cell, char *target)
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
