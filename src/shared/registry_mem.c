/*-------------------------------------------------------------------------
 *
 * registry_mem.c
 *		Stores the entries of the registry in shared memory.
 *
 * This is a hash table of fixed size: an array of bucket heads and an array of
 * cells.  An entry stands for one channel.  It begins in one cell, which is
 * chained from its bucket; if its name does not fit there, the rest of the
 * name is in further cells, linked by "spill".  Names are compared in full,
 * together with the database, so two channels never share an entry.
 *
 * All databases share the cells; the last ones are reserved for databases that
 * hold few (share.h).
 *
 * Only names of 1 to PRESENCE_MAX_NAME_BYTES bytes can have an entry.  Rows
 * may have other names, for instance if they were written with triggers
 * disabled; such channels never get an entry.
 *
 * Locking.  Bucket b, its chain and the entries in it belong to partition b
 * mod PRESENCE_REGISTRY_LOCKS.  Each partition has an LWLock, which the caller
 * holds.  The free list and the counts of cells are protected by a spinlock,
 * taken last.  A scan reads cells without a lock and rechecks under the lock
 * before it changes anything.  "warned" is only ever set; reading it late does
 * no harm.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/guc.h"
#include "base/name.h"
#include "base/share.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "shared/registry_mem.h"
#include "storage/shmem.h"
#include "storage/spin.h"

/*
 * The number of counters of cells held per database, indexed by the database's
 * oid modulo this.  That way a counter need not be created or dropped together
 * with its database.  Databases whose oids collide share a counter.
 */
#define OWNERS 4096

typedef struct PresenceRegistry
{
	uint32		nbuckets;		/* power of two; fixed */
	uint32		ncells;			/* fixed */
	slock_t		mutex;			/* protects the next four fields */
	uint32		free;			/* first free entry; 0: none */
	uint32		taken;			/* cells 1 to taken have been used */
	uint32		used;			/* cells in use */
	uint32		held[OWNERS];	/* the same, per database */
	bool		warned;			/* logged that the registry is full */
	uint32		heads[FLEXIBLE_ARRAY_MEMBER];
} PresenceRegistry;

static PresenceRegistry *registry;
static RegistryEntry *cells;	/* cells[0] is never used */
static LWLockPadded *partition_locks;

/* Number of buckets for presence.max_channels. */
static uint32
count_buckets(void)
{
	return Max(pg_nextpower2_32(presence_max_channels),
			   PRESENCE_REGISTRY_LOCKS);
}

/* Number of cells: presence.max_channels plus the reserve. */
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
					mul_size((Size) count_cells() + 1, sizeof(RegistryEntry)));
}

/* Attach to the registry, emptying it when new. */
void
presence_registry_mem_shmem_init(void *area, bool found)
{
	registry = area;
	cells = (RegistryEntry *) ((char *) area + header_size());
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
	memset(cells, 0, ((Size) registry->ncells + 1) * sizeof(RegistryEntry));
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

/* Whether an entry has this name; the caller has compared the lengths. */
static bool
same_name(const RegistryEntry *entry, const PresenceName *name)
{
	const char *data = name->data;
	int			rest = name->length;

	for (;;)
	{
		int			part = Min(rest, ENTRY_NAME_SIZE);

		if (memcmp(entry->name, data, part) != 0)
			return false;
		rest -= part;
		if (rest == 0)
			return true;
		data += part;
		entry = &cells[entry->spill];
	}
}

/* Whether a name may have an entry: buffers are sized for such names. */
static bool
is_keepable(const PresenceName *name)
{
	return name->length > 0 && name->length <= PRESENCE_MAX_NAME_BYTES;
}

/* Find an entry; the caller holds its partition's lock. */
RegistryEntry *
presence_registry_mem_find(const PresenceName *name)
{
	for (uint32 i = *bucket_head(name->hash); i != 0; i = cells[i].next)
	{
		RegistryEntry *entry = &cells[i];

		if (entry->hash == name->hash && entry->length == name->length &&
			entry->database == MyDatabaseId && same_name(entry, name))
			return entry;
	}
	return NULL;
}

/* The counter of cells held by a database. */
static uint32 *
held_by(Oid database)
{
	return &registry->held[database % OWNERS];
}

/* Put the cells of an entry, linked by "spill", on the free list. */
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

/* Take an unused cell.  The caller holds the spinlock. */
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
 * Take cells for a name, linked by "spill".  Returns the first one, or 0 if
 * this process's database may not have that many.
 */
static uint32
allocate_cells(int length)
{
	uint32		wanted = (length + ENTRY_NAME_SIZE - 1) / ENTRY_NAME_SIZE;
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

/* Write a name into the cells of a new entry. */
static void
write_name(RegistryEntry *entry, const PresenceName *name)
{
	const char *data = name->data;
	int			rest = name->length;

	for (;;)
	{
		int			part = Min(rest, ENTRY_NAME_SIZE);

		memcpy(entry->name, data, part);
		rest -= part;
		if (rest == 0)
			return;
		data += part;
		entry = &cells[entry->spill];
	}
}

/* Log, once, that a name got no entry because there is no space. */
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
 * Insert an entry.  Returns NULL if there is no space, or if the name cannot
 * have one.  The caller holds the partition's lock exclusively.
 */
RegistryEntry *
presence_registry_mem_insert(const PresenceName *name, PresenceTime seen, int rows)
{
	uint32	   *head = bucket_head(name->hash);
	uint32		index = is_keepable(name) ? allocate_cells(name->length) : 0;
	RegistryEntry *entry = &cells[index];

	if (index == 0)
		return NULL;
	pg_atomic_write_u64(&entry->seen, (uint64) seen);
	entry->hash = name->hash;
	entry->length = name->length;
	entry->database = MyDatabaseId;
	entry->generation++;
	entry->pins = 0;
	entry->changes++;
	entry->rows = rows;
	entry->ttl = 0;
	entry->holder = 0;
	write_name(entry, name);
	entry->flags = ENTRY_USED;
	entry->next = *head;
	*head = index;
	return entry;
}

/* Remove an entry.  The caller holds the partition's lock exclusively. */
void
presence_registry_mem_delete(RegistryEntry *entry)
{
	uint32		index = entry - cells;
	uint32	   *link = bucket_head(entry->hash);
	Oid			database = entry->database;

	Assert(entry->pins == 0);
	while (*link != index)
		link = &cells[*link].next;
	*link = entry->next;
	entry->flags = 0;
	entry->database = InvalidOid;
	free_cells(index, database);
}

/* The entry that begins in a cell. */
RegistryEntry *
presence_registry_mem_entry(uint32 index)
{
	return &cells[index];
}

/* The number of an entry's first cell. */
uint32
presence_registry_mem_index(const RegistryEntry *entry)
{
	return entry - cells;
}

/* Make a reference to an entry. */
PresenceEntryRef
presence_registry_mem_ref(const RegistryEntry *entry)
{
	PresenceEntryRef ref = {presence_registry_mem_index(entry), entry->generation};

	return ref;
}

/* Whether a reference still refers to this entry. */
bool
presence_registry_mem_is_meant(const RegistryEntry *entry, PresenceEntryRef ref)
{
	return (entry->flags & ENTRY_USED) && presence_registry_mem_index(entry) == ref.index &&
		entry->generation == ref.generation;
}

/*
 * Lock the partition of the entry that a reference refers to.  Returns NULL,
 * with no lock held, if that entry is gone.
 */
RegistryEntry *
presence_registry_mem_lock(PresenceEntryRef ref, LWLockMode mode)
{
	RegistryEntry *entry = presence_registry_mem_entry(ref.index);
	uint32		hash = entry->hash;

	LWLockAcquire(presence_registry_mem_partition(hash), mode);
	if (presence_registry_mem_is_meant(entry, ref) && entry->hash == hash)
		return entry;
	LWLockRelease(presence_registry_mem_partition(hash));
	return NULL;
}

/* Unlock the partition of an entry, which is still there. */
void
presence_registry_mem_unlock(const RegistryEntry *entry)
{
	LWLockRelease(presence_registry_mem_partition(entry->hash));
}

/*
 * Return the next entry of a database after cell "index", and set "index" to
 * its first cell; NULL if there are no more.  Takes no lock, so the cell may
 * have been freed or reused by the time the caller looks at it.
 */
RegistryEntry *
presence_registry_mem_next(Oid database, uint32 *index)
{
	uint32		taken = registry->taken;

	while (*index < taken)
	{
		RegistryEntry *entry = &cells[++*index];

		if (entry->database == database && (entry->flags & ENTRY_USED))
			return entry;
	}
	return NULL;
}

/* Copy the name of an entry; "target" has space for all of it. */
void
presence_registry_mem_read_name(const RegistryEntry *entry, char *target)
{
	int			rest = entry->length;

	for (;;)
	{
		int			part = Min(rest, ENTRY_NAME_SIZE);

		memcpy(target, entry->name, part);
		rest -= part;
		if (rest == 0)
			return;
		target += part;
		entry = &cells[entry->spill];
	}
}
