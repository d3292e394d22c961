/*-------------------------------------------------------------------------
 *
 * registry_mem.c
 *		Keeps the entries of the registry in shared memory.
 *
 * A hash table of fixed size: an array of bucket heads, and an array of entries
 * chained from them.  A entry holds one channel; a name longer than the entry
 * spills into further entries.  Names are compared whole and belong to a
 * database, so two channels never share an entry.
 *
 * Databases share the entries: the last ones are kept for those that hold few
 * (share.h).
 *
 * Only names of 1 to PRESENCE_MAX_NAME_BYTES bytes are kept.  Rows may have
 * others, for instance where triggers were disabled; they never get an entry.
 *
 * Locking.  Bucket b, its chain and all that hangs on it belong to partition
 * b mod PRESENCE_REGISTRY_LOCKS, guarded by one LWLock each, which the caller
 * holds.  The free list, and the counts of entries, have a spinlock of their own,
 * taken last.  A walk over all entries looks at entries without a lock, and once
 * more with it before anything is done.  "warned" is only ever set, and may be
 * read too late.
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
 * Counts of entries held by databases, told apart by their oids modulo this.  So
 * a count needs no beginning and no end, whatever becomes of the database; two
 * whose oids are that far apart share one.
 */
#define OWNERS 4096

typedef struct PresenceRegistry
{
	uint32		nbuckets;		/* power of two; fixed */
	uint32		nentries;			/* fixed */
	slock_t		mutex;			/* guards the next four */
	uint32		free;			/* first free entry; 0: none */
	uint32		taken;			/* entries 1 to taken have been used */
	uint32		used;			/* entries of entries, spills included */
	uint32		held[OWNERS];	/* the same, of each database */
	bool		warned;			/* told the log that it is full */
	uint32		heads[FLEXIBLE_ARRAY_MEMBER];
} PresenceRegistry;

static PresenceRegistry *registry;
static RegistryEntry *entries;		/* entries[0] is never used */
static LWLockPadded *partition_locks;

/* How many buckets serve presence.max_channels. */
static uint32
count_buckets(void)
{
	return Max(pg_nextpower2_32(presence_max_channels),
			   PRESENCE_REGISTRY_LOCKS);
}

/* How many entries there are: presence.max_channels, and those that are kept. */
static uint32
count_entries(void)
{
	return presence_share_total(presence_max_channels);
}

/* Bytes before the entries. */
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
					mul_size((Size) count_entries() + 1, sizeof(RegistryEntry)));
}

/* Attach to the registry, emptying it when new. */
void
presence_registry_mem_shmem_init(void *area, bool found)
{
	registry = area;
	entries = (RegistryEntry *) ((char *) area + header_size());
	partition_locks = GetNamedLWLockTranche("presence_registry");
	if (found)
		return;
	registry->nbuckets = count_buckets();
	registry->nentries = count_entries();
	SpinLockInit(&registry->mutex);
	registry->free = 0;
	registry->taken = 0;
	registry->used = 0;
	memset(registry->held, 0, sizeof(registry->held));
	registry->warned = false;
	memset(registry->heads, 0, registry->nbuckets * sizeof(uint32));
	memset(entries, 0, ((Size) registry->nentries + 1) * sizeof(RegistryEntry));
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

/* Whether a entry's entry has a name; the lengths are known to agree. */
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
		entry = &entries[entry->spill];
	}
}

/* Whether a name may have an entry: entries and buffers are made for those. */
static bool
is_keepable(const PresenceName *name)
{
	return name->length > 0 && name->length <= PRESENCE_MAX_NAME_BYTES;
}

/* Find an entry; the caller holds its partition's lock. */
RegistryEntry *
presence_registry_mem_find(const PresenceName *name)
{
	for (uint32 i = *bucket_head(name->hash); i != 0; i = entries[i].next)
	{
		RegistryEntry *entry = &entries[i];

		if (entry->hash == name->hash && entry->length == name->length &&
			entry->database == MyDatabaseId && same_name(entry, name))
			return entry;
	}
	return NULL;
}

/* How many entries a database holds. */
static uint32 *
held_by(Oid database)
{
	return &registry->held[database % OWNERS];
}

/* Put a chain of entries of a database, linked by "spill", on the free list. */
static void
free_cells(uint32 first, Oid database)
{
	SpinLockAcquire(&registry->mutex);
	while (first != 0)
	{
		uint32		spill = entries[first].spill;

		entries[first].next = registry->free;
		registry->free = first;
		registry->used--;
		(*held_by(database))--;
		first = spill;
	}
	SpinLockRelease(&registry->mutex);
}

/* Take one of the unused entries.  The caller holds the spinlock. */
static uint32
take_cell(void)
{
	uint32		index = registry->free;

	if (index != 0)
		registry->free = entries[index].next;
	else
		index = ++registry->taken;
	registry->used++;
	(*held_by(MyDatabaseId))++;
	return index;
}

/*
 * Take entries for a name of this process's database, linked by "spill"; 0 when
 * it may not have so many.
 */
static uint32
allocate_cells(int length)
{
	uint32		wanted = (length + ENTRY_NAME_SIZE - 1) / ENTRY_NAME_SIZE;
	uint32		first = 0;

	SpinLockAcquire(&registry->mutex);
	if (presence_share_allows(registry->nentries, registry->nentries - registry->used,
							  *held_by(MyDatabaseId), wanted))
		for (uint32 i = 0; i < wanted; i++)
		{
			uint32		index = take_cell();

			entries[index].spill = first;
			first = index;
		}
	SpinLockRelease(&registry->mutex);
	return first;
}

/* Write a name into the entries of an entry. */
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
		entry = &entries[entry->spill];
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
					   MyDatabaseId, *held_by(MyDatabaseId), registry->nentries),
			 errhint("Raise presence.max_channels and restart the server.")));
}

/*
 * Add an entry; NULL when full, or when the name cannot have one.  The caller
 * holds its lock exclusively.
 */
RegistryEntry *
presence_registry_mem_insert(const PresenceName *name, PresenceTime seen, int rows)
{
	uint32	   *head = bucket_head(name->hash);
	uint32		index = is_keepable(name) ? allocate_cells(name->length) : 0;
	RegistryEntry *entry = &entries[index];

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
	write_name(entry, name);
	entry->flags = ENTRY_USED;
	entry->next = *head;
	*head = index;
	return entry;
}

/* Remove an entry.  The caller holds its lock exclusively. */
void
presence_registry_mem_delete(RegistryEntry *entry)
{
	uint32		index = entry - entries;
	uint32	   *link = bucket_head(entry->hash);
	Oid			database = entry->database;

	Assert(entry->pins == 0);
	while (*link != index)
		link = &entries[*link].next;
	*link = entry->next;
	entry->flags = 0;
	entry->database = InvalidOid;
	free_cells(index, database);
}

/* The entry of a number. */
RegistryEntry *
presence_registry_mem_entry(uint32 index)
{
	return &entries[index];
}

/* The number of a entry. */
uint32
presence_registry_mem_index(const RegistryEntry *entry)
{
	return entry - entries;
}

/*
 * The first entry of a database after entry "index", which becomes its number;
 * NULL: there are no more.  Takes no lock, so it may have another owner by now.
 */
RegistryEntry *
presence_registry_mem_next(Oid database, uint32 *index)
{
	uint32		taken = registry->taken;

	while (*index < taken)
	{
		RegistryEntry *entry = &entries[++*index];

		if (entry->database == database && (entry->flags & ENTRY_USED))
			return entry;
	}
	return NULL;
}

/* Copy the name of an entry out of its entries. */
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
		entry = &entries[entry->spill];
	}
}
