/*-------------------------------------------------------------------------
 *
 * ephemeral.c
 *		Keeps short-lived values of rooms in shared memory.
 *
 * Memory of fixed size, presence.state_memory, cut into cells.  A node, which
 * is a room or an entry of a room, begins in one cell and goes on in others
 * where its bytes (a room's name; an entry's key, then its value) are longer.
 * All nodes are in one hash table and compared whole: rooms by database and
 * name, entries by room and key.
 *
 * Links join nodes to rings, which have no ends, only a first node:
 *
 *	peers	the dirty rooms of a database, first come first;
 *			the entries of a room, the dirty ones in front
 *	age		live entries, tombs, vacant rooms; each the oldest first
 *
 * An entry is dirty when listeners have not been told of its newest value, a
 * room when one of its entries is.  A removed, expired or evicted entry stays
 * as a tomb, without a value, until listeners have been told.  A room without
 * entries stays, vacant, until it may be announced again, so that coming and
 * going does not outrun presence.state_interval.
 *
 *	set -> live, dirty -> (told) -> live -> (removed) -> tomb, dirty -> (told) -> free
 *
 * Live entries and their rooms may fill all but a part of the memory; past
 * that the least recently updated entry of all is evicted.  The rest belongs
 * to tombs and vacant rooms.  When it is used up the oldest tomb goes untold,
 * and its database is marked "lost": listeners are to read again.
 *
 * Locking.  One LWLock guards everything.  It is held for a few memcpys, by
 * readers shared, and in pieces where much is to be done: nothing under it
 * allocates, waits or fails.  Two exceptions: the scans for expired entries
 * and for those of a dropped database look at cells without the lock, and
 * once more with it before they act; and the worker reads the times of its
 * next duty, which whoever lowers them follows with a wake-up.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "database.h"
#include "ephemeral.h"
#include "guc.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#define CELL_SIZE 192
#define MORE_BYTES (CELL_SIZE - 2 * (int) sizeof(uint32))
#define HEAD_BYTES (CELL_SIZE - (int) offsetof(StateNode, data))

/* The part of the cells that is kept for tombs and vacant rooms: one in ... */
#define SPARE_SHARE 8

/* Entries or rooms looked at under one hold of the lock. */
#define HOLD_LIMIT 16

/*
 * Scans for expired entries are at least this far apart, and so many times as
 * far as the last one took; microseconds.
 */
#define SCAN_PAUSE (20 * 1000)
#define SCAN_SHARE 20

#define NEVER PG_INT64_MAX

/* Flags of a node. */
#define NODE_ROOM		0x01	/* else an entry */
#define NODE_DIRTY		0x02	/* listeners are to be told */
#define NODE_TOMB		0x04	/* an entry that is gone */
#define NODE_VACANT		0x08	/* a room without entries */

typedef enum Ring
{
	RING_AGE,
	RING_PEERS,
	NRINGS
} Ring;

/* Neighbours in a ring. */
typedef struct Links
{
	uint32		prev;
	uint32		next;
} Links;

typedef struct StateNode
{
	uint32		more;			/* next cell of its bytes, or free cell; 0: none */
	Oid			database;		/* InvalidOid: free, or the middle of a node */
	uint32		hash;
	uint32		chain;			/* next in its bucket; 0: none */
	uint32		room;			/* of an entry */
	uint32		entries;		/* of a room: the first */
	uint32		count;			/* of a room: its entries */
	uint16		key_length;		/* or that of a room's name */
	uint16		value_length;
	uint16		cells;			/* how many it takes */
	uint16		record;			/* of a room: index of its database's record */
	uint32		flags;
	PresenceTime updated;		/* or when a room was last announced */
	PresenceTime expires;		/* or when a vacant room may go */
	uint64		bytes;			/* of a room: what copies of all entries take */
	Links		links[NRINGS];
	char		data[FLEXIBLE_ARRAY_MEMBER];
} StateNode;

/* A cell where the bytes of a node go on. */
typedef struct StateMore
{
	uint32		more;
	Oid			database;		/* InvalidOid */
	char		data[FLEXIBLE_ARRAY_MEMBER];
} StateMore;

/* What is known of one database. */
typedef struct StateDatabase
{
	Oid			oid;			/* InvalidOid: record is free */
	uint32		rooms;
	uint32		dirty;			/* first dirty room; 0: none */
	uint32		ndirty;
	bool		lost;			/* changes were forgotten untold */
	bool		in_flight;		/* a worker is telling what it took */
	uint64		entries;		/* live */
	uint64		bytes;			/* of live keys and values */
	uint64		evictions;
	pg_atomic_uint64 next_due;	/* no room is to be announced before */
	pg_atomic_uint64 next_expiry;	/* nothing expires before */
} StateDatabase;

typedef struct StateStore
{
	uint32		ncells;			/* fixed */
	uint32		nbuckets;		/* power of two; fixed */
	uint32		free;			/* first free cell; 0: none */
	uint32		taken;			/* cells 1 to taken have been used */
	uint32		nfree;			/* free cells, those never used included */
	uint32		nspare;			/* cells of tombs and vacant rooms */
	uint32		live;			/* oldest of each */
	uint32		tombs;
	uint32		vacant;
	StateDatabase databases[PRESENCE_MAX_DATABASES];
	uint32		heads[FLEXIBLE_ARRAY_MEMBER];
} StateStore;

/* One entry in a buffer of copies. */
typedef struct StateCopy
{
	PresenceTime updated;
	PresenceTime expires;
	uint16		key_length;
	uint16		value_length;
	bool		gone;
	char		data[FLEXIBLE_ARRAY_MEMBER];
} StateCopy;

#define COPY_SIZE(bytes) MAXALIGN(offsetof(StateCopy, data) + (bytes))
#define MAX_COPY COPY_SIZE(PRESENCE_MAX_KEY_BYTES + PRESENCE_MAX_STATE_BYTES)
#define ROUND_BUFFER (2 * MAX_COPY)

static StateStore *store;
static char *cells;				/* the first is never used */
static LWLock *store_lock;

/* When the lock was asked for, and whom to wake once it is released. */
static PresenceTime store_now;
static Oid	to_wake[4];
static int	nto_wake;

/* The worker's next scan; not before. */
static PresenceTime next_scan;

/* How many cells presence.state_memory makes, with their share of buckets. */
static uint32
count_cells(void)
{
	return (Size) presence_state_memory * 1024 / (CELL_SIZE + 2 * sizeof(uint32));
}

/* Bytes before the cells. */
static Size
header_size(void)
{
	return CACHELINEALIGN(add_size(offsetof(StateStore, heads),
								   mul_size(pg_nextpower2_32(count_cells()),
											sizeof(uint32))));
}

/* Bytes of shared memory that the store needs. */
Size
presence_ephemeral_shmem_size(void)
{
	return add_size(header_size(), mul_size(count_cells() + 1, CELL_SIZE));
}

/* Make a record that of a database. */
static void
init_record(StateDatabase *database, Oid oid)
{
	database->oid = oid;
	database->rooms = 0;
	database->dirty = 0;
	database->ndirty = 0;
	database->lost = false;
	database->in_flight = false;
	database->entries = 0;
	database->bytes = 0;
	database->evictions = 0;
	pg_atomic_init_u64(&database->next_due, NEVER);
	pg_atomic_init_u64(&database->next_expiry, NEVER);
}

/* Attach to the store, emptying it when new. */
void
presence_ephemeral_shmem_init(void *area, bool found)
{
	store = area;
	cells = (char *) area + header_size();
	store_lock = &GetNamedLWLockTranche("presence_state")->lock;
	if (found)
		return;
	memset(area, 0, presence_ephemeral_shmem_size());
	store->ncells = store->nfree = count_cells();
	store->nbuckets = pg_nextpower2_32(store->ncells);
	for (int i = 0; i < PRESENCE_MAX_DATABASES; i++)
		init_record(&store->databases[i], InvalidOid);
}

/* Take the lock for one operation. */
static void
lock_store(LWLockMode mode)
{
	store_now = presence_clock_now();
	nto_wake = 0;
	LWLockAcquire(store_lock, mode);
}

/* Have a worker for a database, and have it look. */
static void
wake_worker(Oid oid)
{
	PresenceDatabase *database = oid == MyDatabaseId ?
		presence_database_mine() : presence_database_find(oid);

	if (database == NULL)
		return;
	presence_database_want_worker(database);
	presence_database_wake_worker(database);
}

/* Release the lock, and wake who has something to do now. */
static void
unlock_store(void)
{
	LWLockRelease(store_lock);
	while (nto_wake > 0)
		wake_worker(to_wake[--nto_wake]);
}

/* The worker of a database has to know before it wakes by itself. */
static void
note_wake(Oid oid)
{
	for (int i = 0; i < nto_wake; i++)
		if (to_wake[i] == oid)
			return;
	if (nto_wake < lengthof(to_wake))
		to_wake[nto_wake++] = oid;
}

/* The record of a database, or NULL. */
static StateDatabase *
find_record(Oid oid)
{
	static StateDatabase *last = NULL;

	if (last && last->oid == oid)
		return last;
	for (int i = 0; i < PRESENCE_MAX_DATABASES; i++)
		if (store->databases[i].oid == oid)
			return last = &store->databases[i];
	return NULL;
}

/* The record of this database; NULL when all are in use by others. */
static StateDatabase *
get_record(void)
{
	StateDatabase *database = find_record(MyDatabaseId);

	if (database)
		return database;
	for (int i = 0; i < PRESENCE_MAX_DATABASES && database == NULL; i++)
		if (store->databases[i].oid == InvalidOid)
			database = &store->databases[i];
	for (int i = 0; i < PRESENCE_MAX_DATABASES && database == NULL; i++)
		if (store->databases[i].rooms == 0)
			database = &store->databases[i];
	if (database)
		init_record(database, MyDatabaseId);
	return database;
}

/* Let a time of the worker's next duty be no later than this one. */
static void
lower(StateDatabase *database, pg_atomic_uint64 *next, PresenceTime time)
{
	if (time >= (PresenceTime) pg_atomic_read_u64(next))
		return;
	pg_atomic_write_u64(next, (uint64) time);
	note_wake(database->oid);
}

/* The node that begins in a cell. */
static StateNode *
get_node(uint32 cell)
{
	return (StateNode *) (cells + (Size) cell * CELL_SIZE);
}

/* The record of a room's database. */
static StateDatabase *
record_of(const StateNode *room)
{
	return &store->databases[room->record];
}

/* Put a node in front of the first one: at the end of its ring. */
static void
ring_append(uint32 *first, Ring ring, uint32 node)
{
	Links	   *links = &get_node(node)->links[ring];
	Links	   *next;

	if (*first == 0)
	{
		links->prev = links->next = *first = node;
		return;
	}
	next = &get_node(*first)->links[ring];
	links->next = *first;
	links->prev = next->prev;
	get_node(next->prev)->links[ring].next = node;
	next->prev = node;
}

/* Put a node at the beginning of a ring. */
static void
ring_prepend(uint32 *first, Ring ring, uint32 node)
{
	ring_append(first, ring, node);
	*first = node;
}

/* Take a node out of its ring. */
static void
ring_remove(uint32 *first, Ring ring, uint32 node)
{
	Links	   *links = &get_node(node)->links[ring];

	if (links->next == node)
	{
		*first = 0;
		return;
	}
	get_node(links->prev)->links[ring].next = links->next;
	get_node(links->next)->links[ring].prev = links->prev;
	if (*first == node)
		*first = links->next;
}

/* Make the second node of a ring the first. */
static void
ring_rotate(uint32 *first, Ring ring)
{
	*first = get_node(*first)->links[ring].next;
}

/* How many cells a node with so many bytes takes. */
static uint32
cells_for(int bytes)
{
	return bytes <= HEAD_BYTES ? 1 :
		1 + (bytes - HEAD_BYTES + MORE_BYTES - 1) / MORE_BYTES;
}

/* Take a cell; the caller has reserved it. */
static uint32
take_cell(void)
{
	uint32		cell = store->free;

	Assert(store->nfree > 0);
	store->nfree--;
	if (cell != 0)
		store->free = get_node(cell)->more;
	else
		cell = ++store->taken;
	get_node(cell)->more = 0;
	get_node(cell)->database = InvalidOid;
	return cell;
}

/* Give cells back, linked by "more". */
static void
give_cells(uint32 first)
{
	while (first != 0)
	{
		StateNode  *cell = get_node(first);
		uint32		more = cell->more;

		cell->database = InvalidOid;
		cell->more = store->free;
		store->free = first;
		store->nfree++;
		first = more;
	}
}

/* Give a node as many cells as so many bytes need; the first ones remain. */
static void
resize(StateNode *node, int bytes)
{
	uint32	   *link = &node->more;
	uint32		surplus;

	node->cells = cells_for(bytes);
	for (int i = 1; i < node->cells; i++)
	{
		if (*link == 0)
			*link = take_cell();
		link = &get_node(*link)->more;
	}
	surplus = *link;
	*link = 0;
	give_cells(surplus);
}

/* A run of bytes of a node that lie in one cell. */
typedef struct Run
{
	char	   *data;
	int			length;
	uint32		more;			/* the cell after it */
} Run;

/* The run that begins so many bytes into a node. */
static Run
first_run(StateNode *node, int offset)
{
	Run			run = {node->data, HEAD_BYTES, node->more};

	while (offset >= run.length && run.more != 0)
	{
		StateMore  *more = (StateMore *) get_node(run.more);

		offset -= run.length;
		run.data = more->data;
		run.length = MORE_BYTES;
		run.more = more->more;
	}
	run.data += offset;
	run.length -= offset;
	return run;
}

/* The run after a run. */
static Run
next_run(Run run)
{
	StateMore  *more = (StateMore *) get_node(run.more);

	run.data = more->data;
	run.length = MORE_BYTES;
	run.more = more->more;
	return run;
}

/* Write bytes into a node. */
static void
write_bytes(StateNode *node, int offset, const char *source, int length)
{
	for (Run run = first_run(node, offset);; run = next_run(run))
	{
		int			part = Min(length, run.length);

		memcpy(run.data, source, part);
		source += part;
		length -= part;
		if (length == 0)
			return;
	}
}

/* Read bytes of a node. */
static void
read_bytes(StateNode *node, int offset, char *target, int length)
{
	for (Run run = first_run(node, offset);; run = next_run(run))
	{
		int			part = Min(length, run.length);

		memcpy(target, run.data, part);
		target += part;
		length -= part;
		if (length == 0)
			return;
	}
}

/* Whether a node has these bytes, which are no more than it has. */
static bool
has_bytes(StateNode *node, int offset, const char *bytes, int length)
{
	for (Run run = first_run(node, offset);; run = next_run(run))
	{
		int			part = Min(length, run.length);

		if (memcmp(run.data, bytes, part) != 0)
			return false;
		bytes += part;
		length -= part;
		if (length == 0)
			return true;
	}
}

/* The chain that a hash falls into. */
static uint32 *
bucket_head(uint32 hash)
{
	return &store->heads[hash & (store->nbuckets - 1)];
}

/* Find a room of this database; 0: none. */
static uint32
find_room(const char *name, int length, uint32 hash)
{
	for (uint32 i = *bucket_head(hash); i != 0; i = get_node(i)->chain)
	{
		StateNode  *node = get_node(i);

		if (node->hash == hash && (node->flags & NODE_ROOM) &&
			node->database == MyDatabaseId && node->key_length == length &&
			has_bytes(node, 0, name, length))
			return i;
	}
	return 0;
}

/* Find an entry of a room; 0: none. */
static uint32
find_entry(uint32 room, const PresenceStateName *name)
{
	for (uint32 i = *bucket_head(name->hash); i != 0; i = get_node(i)->chain)
	{
		StateNode  *node = get_node(i);

		if (node->hash == name->hash && !(node->flags & NODE_ROOM) &&
			node->room == room && node->key_length == name->key_length &&
			has_bytes(node, 0, name->key, name->key_length))
			return i;
	}
	return 0;
}

/* Make a node, in no ring yet. */
static uint32
make_node(uint32 hash, uint32 flags, const char *key, int length)
{
	uint32		index = take_cell();
	StateNode  *node = get_node(index);
	uint32	   *head = bucket_head(hash);

	memset(node, 0, offsetof(StateNode, data));
	resize(node, length);
	write_bytes(node, 0, key, length);
	node->hash = hash;
	node->flags = flags;
	node->key_length = length;
	node->chain = *head;
	*head = index;
	node->database = MyDatabaseId;
	return index;
}

/* Free a node, in no ring any more. */
static void
free_node(uint32 index)
{
	uint32	   *link = bucket_head(get_node(index)->hash);

	while (*link != index)
		link = &get_node(*link)->chain;
	*link = get_node(index)->chain;
	give_cells(index);
}

/* Make a room. */
static uint32
make_room(StateDatabase *database, const PresenceStateName *name)
{
	uint32		index = make_node(name->room_hash, NODE_ROOM, name->room,
								  name->room_length);

	get_node(index)->record = database - store->databases;
	database->rooms++;
	return index;
}

/* Whether changes are announced at all. */
static bool
announces(void)
{
	return presence_notify != PRESENCE_NOTIFY_OFF;
}

/* presence.state_interval in microseconds. */
static PresenceTime
interval(void)
{
	return (PresenceTime) presence_state_interval * 1000;
}

/* Free a room without entries, in no ring any more. */
static void
free_room(uint32 index)
{
	Assert(get_node(index)->count == 0);
	record_of(get_node(index))->rooms--;
	free_node(index);
}

/* vacant -> free */
static void
drop_vacant(uint32 index)
{
	store->nspare -= get_node(index)->cells;
	ring_remove(&store->vacant, RING_AGE, index);
	free_room(index);
}

/* vacant -> in use */
static void
move_in(uint32 index)
{
	StateNode  *room = get_node(index);

	store->nspare -= room->cells;
	ring_remove(&store->vacant, RING_AGE, index);
	room->flags &= ~NODE_VACANT;
}

/* A room has nothing to tell any more. */
static void
clean_room(uint32 index)
{
	StateNode  *room = get_node(index);
	StateDatabase *database = record_of(room);

	room->flags &= ~NODE_DIRTY;
	ring_remove(&database->dirty, RING_PEERS, index);
	database->ndirty--;
}

/* The last entry of a room has gone: in use -> vacant or free. */
static void
move_out(uint32 index)
{
	StateNode  *room = get_node(index);

	if (room->flags & NODE_DIRTY)
		clean_room(index);
	room->expires = room->updated + interval();
	if (room->updated == 0 || room->expires <= store_now)
	{
		free_room(index);
		return;
	}
	room->flags |= NODE_VACANT;
	store->nspare += room->cells;
	ring_append(&store->vacant, RING_AGE, index);
	lower(record_of(room), &record_of(room)->next_expiry, room->expires);
}

/* Listeners are to be told of an entry. */
static void
mark_dirty(uint32 index)
{
	StateNode  *entry = get_node(index);
	StateNode  *room = get_node(entry->room);
	StateDatabase *database = record_of(room);

	if (!announces())
		return;
	if (!(entry->flags & NODE_DIRTY))
	{
		entry->flags |= NODE_DIRTY;
		ring_remove(&room->entries, RING_PEERS, index);
		ring_prepend(&room->entries, RING_PEERS, index);
	}
	if (!(room->flags & NODE_DIRTY))
	{
		room->flags |= NODE_DIRTY;
		ring_append(&database->dirty, RING_PEERS, entry->room);
		database->ndirty++;
		lower(database, &database->next_due,
			  Max(store_now, room->updated + interval()));
	}
}

/* Count a live entry in ("sign" 1) or out (-1). */
static void
count_entry(const StateNode *entry, int sign)
{
	StateNode  *room = get_node(entry->room);
	int			bytes = entry->key_length + entry->value_length;

	room->bytes += sign * (int64) COPY_SIZE(bytes);
	record_of(room)->entries += sign;
	record_of(room)->bytes += sign * (int64) bytes;
}

/* live or tomb -> free; whether its room remains. */
static bool
drop_entry(uint32 index)
{
	StateNode  *entry = get_node(index);
	uint32		room = entry->room;
	StateDatabase *database = record_of(get_node(room));

	if (entry->flags & NODE_TOMB)
	{
		store->nspare -= entry->cells;
		ring_remove(&store->tombs, RING_AGE, index);
		if (entry->flags & NODE_DIRTY)
		{
			database->lost = true;
			lower(database, &database->next_due, store_now);
		}
	}
	else
	{
		count_entry(entry, -1);
		ring_remove(&store->live, RING_AGE, index);
	}
	ring_remove(&get_node(room)->entries, RING_PEERS, index);
	free_node(index);
	if (--get_node(room)->count > 0)
		return true;
	move_out(room);
	return false;
}

/* live -> tomb, or free where nobody is told. */
static void
bury(uint32 index)
{
	StateNode  *entry = get_node(index);

	Assert(!(entry->flags & NODE_TOMB));
	if (!announces())
	{
		(void) drop_entry(index);
		return;
	}
	count_entry(entry, -1);
	ring_remove(&store->live, RING_AGE, index);
	entry->value_length = 0;
	resize(entry, entry->key_length);
	entry->flags |= NODE_TOMB;
	store->nspare += entry->cells;
	ring_append(&store->tombs, RING_AGE, index);
	mark_dirty(index);
}

/* A live entry gives way to others. */
static void
evict(uint32 index)
{
	record_of(get_node(get_node(index)->room))->evictions++;
	bury(index);
}

/*
 * Have so many cells free.  Whatever entry the caller has found before may be
 * gone then.
 */
static bool
reserve(uint32 wanted)
{
	uint32		limit = store->ncells - store->ncells / SPARE_SHARE;

	while (store->live != 0 &&
		   store->ncells - store->nfree - store->nspare + wanted > limit)
		evict(store->live);
	while (store->nfree < wanted)
	{
		if (store->vacant != 0)
			drop_vacant(store->vacant);
		else if (store->tombs != 0)
			(void) drop_entry(store->tombs);
		else if (store->live != 0)
			evict(store->live);
		else
			return false;
	}
	return true;
}

/* The room of a name, made where there is none. */
static uint32
enter_room(StateDatabase *database, const PresenceStateName *name)
{
	uint32		room = find_room(name->room, name->room_length, name->room_hash);

	if (room == 0)
		return make_room(database, name);
	if (get_node(room)->flags & NODE_VACANT)
		move_in(room);
	return room;
}

/* Make an entry, in no ring by age yet. */
static uint32
make_entry(uint32 room, const PresenceStateName *name)
{
	uint32		index = make_node(name->hash, 0, name->key, name->key_length);

	get_node(index)->room = room;
	get_node(room)->count++;
	ring_append(&get_node(room)->entries, RING_PEERS, index);
	return index;
}

/* Take an entry that gets a new value out of its ring by age. */
static void
lift_entry(uint32 index)
{
	StateNode  *entry = get_node(index);

	if (entry->flags & NODE_TOMB)
	{
		entry->flags &= ~NODE_TOMB;
		store->nspare -= entry->cells;
		ring_remove(&store->tombs, RING_AGE, index);
		return;
	}
	count_entry(entry, -1);
	ring_remove(&store->live, RING_AGE, index);
}

/* Whether an entry can be read and has this value. */
static bool
shows(uint32 index, const char *value, int length)
{
	StateNode  *entry = get_node(index);

	return !(entry->flags & NODE_TOMB) && entry->expires > store_now &&
		entry->value_length == length &&
		has_bytes(entry, entry->key_length, value, length);
}

/* Give an entry a value; the cells it needs are reserved. */
static void
store_value(StateDatabase *database, const PresenceStateName *name,
			const char *value, int length, PresenceTime expires)
{
	uint32		room = enter_room(database, name);
	uint32		index = find_entry(room, name);
	bool		changed = index == 0 || !shows(index, value, length);
	StateNode  *entry;

	if (index != 0)
		lift_entry(index);
	else
		index = make_entry(room, name);
	entry = get_node(index);
	if (changed)
	{
		resize(entry, entry->key_length + length);
		write_bytes(entry, entry->key_length, value, length);
		entry->value_length = length;
	}
	entry->updated = store_now;
	entry->expires = expires;
	count_entry(entry, 1);
	ring_append(&store->live, RING_AGE, index);
	lower(database, &database->next_expiry, expires);
	if (changed)
		mark_dirty(index);
}

/* Name a key, after a prefix, in a room of this process's database. */
void
presence_ephemeral_name(PresenceStateName *name, const char *room,
						int room_length, const char *prefix,
						const char *key, int key_length)
{
	int			prefix_length = strlen(prefix);

	Assert(prefix_length + key_length <= PRESENCE_MAX_KEY_BYTES);
	name->room = room;
	name->room_length = room_length;
	name->room_hash = presence_registry_name(room, room_length).hash;
	name->key_length = prefix_length + key_length;
	memcpy(name->key, prefix, prefix_length);
	memcpy(name->key + prefix_length, key, key_length);
	name->hash = hash_combine(name->room_hash,
							  hash_bytes((unsigned char *) name->key,
										 name->key_length));
}

/*
 * Set a key to a value, JSON text of 1 to PRESENCE_MAX_STATE_BYTES bytes, for
 * so many microseconds.
 */
void
presence_ephemeral_set(const PresenceStateName *name, const char *value,
					   int length, PresenceTime ttl)
{
	StateDatabase *database;
	bool		done;

	lock_store(LW_EXCLUSIVE);
	database = get_record();
	done = database && reserve(cells_for(name->room_length) +
							   cells_for(name->key_length + length));
	if (done)
		store_value(database, name, value, length, store_now + ttl);
	unlock_store();
	if (!done)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("presence keeps short-lived state of no more than %d databases",
						PRESENCE_MAX_DATABASES),
				 errhint("Keep the state of fewer databases on one server.")));
}

/* Remove a live entry; the caller holds the lock. */
static bool
remove_entry(const PresenceStateName *name)
{
	uint32		room = find_room(name->room, name->room_length, name->room_hash);
	uint32		index = room == 0 ? 0 : find_entry(room, name);
	bool		live;

	if (index == 0 || (get_node(index)->flags & NODE_TOMB))
		return false;
	live = get_node(index)->expires > store_now;
	bury(index);
	return live;
}

/* Remove a key; whether it had a value. */
bool
presence_ephemeral_remove(const PresenceStateName *name)
{
	bool		removed;

	lock_store(LW_EXCLUSIVE);
	removed = remove_entry(name);
	unlock_store();
	return removed;
}

/* A user's last connection has left a room: remove what showed it there. */
void
presence_ephemeral_user_left(const char *room, const char *user)
{
	PresenceStateName cursor;
	PresenceStateName typing;

	presence_ephemeral_name(&cursor, room, strlen(room), PRESENCE_CURSOR_PREFIX,
							user, strlen(user));
	presence_ephemeral_name(&typing, room, strlen(room), PRESENCE_TYPING_PREFIX,
							user, strlen(user));
	lock_store(LW_EXCLUSIVE);
	(void) remove_entry(&cursor);
	(void) remove_entry(&typing);
	unlock_store();
}

/* Copy an entry; how many bytes of the target it takes. */
static Size
copy_entry(StateNode *entry, char *target)
{
	StateCopy  *copy = (StateCopy *) target;
	int			bytes = entry->key_length + entry->value_length;

	copy->updated = entry->updated;
	copy->expires = entry->expires;
	copy->key_length = entry->key_length;
	copy->value_length = entry->value_length;
	copy->gone = (entry->flags & NODE_TOMB) != 0;
	read_bytes(entry, 0, copy->data, bytes);
	return COPY_SIZE(bytes);
}

/* Make a list of PresenceState of a buffer of copies. */
static List *
unpack(const char *buffer, Size size)
{
	List	   *states = NIL;

	for (Size done = 0; done < size;)
	{
		const StateCopy *copy = (const StateCopy *) (buffer + done);
		PresenceState *state = palloc(sizeof(PresenceState));

		state->key = pnstrdup(copy->data, copy->key_length);
		state->value = copy->gone ? NULL :
			pnstrdup(copy->data + copy->key_length, copy->value_length);
		state->updated = copy->updated;
		state->expires = copy->expires;
		states = lappend(states, state);
		done += COPY_SIZE(copy->key_length + copy->value_length);
	}
	return states;
}

/* Copy what can be read of a room and begins with a prefix; its bytes. */
static Size
copy_room(StateNode *room, const char *prefix, int prefix_length, char *target)
{
	uint32		index = room->entries;
	Size		size = 0;

	do
	{
		StateNode  *entry = get_node(index);

		if (!(entry->flags & NODE_TOMB) && entry->expires > store_now &&
			entry->key_length >= prefix_length &&
			has_bytes(entry, 0, prefix, prefix_length))
			size += copy_entry(entry, target + size);
		index = entry->links[RING_PEERS].next;
	} while (index != room->entries);
	return size;
}

/* Order states by key. */
static int
compare_states(const ListCell *a, const ListCell *b)
{
	return strcmp(((PresenceState *) lfirst(a))->key,
				  ((PresenceState *) lfirst(b))->key);
}

/*
 * The states of a room whose keys begin with a prefix, in the order of their
 * keys: a list of PresenceState in the current memory context.
 */
List *
presence_ephemeral_read(const char *room, int room_length, const char *prefix,
						int prefix_length)
{
	uint32		hash = presence_registry_name(room, room_length).hash;
	char	   *buffer = NULL;
	uint64		space = 0;
	Size		size = 0;
	List	   *states;

	/* Memory is allocated without the lock: the room may grow meanwhile. */
	for (;;)
	{
		uint64		needed;
		uint32		index;

		lock_store(LW_SHARED);
		index = find_room(room, room_length, hash);
		needed = index == 0 ? 0 : get_node(index)->bytes;
		if (needed > 0 && needed <= space)
			size = copy_room(get_node(index), prefix, prefix_length, buffer);
		unlock_store();
		if (needed <= space)
			break;
		space = needed + needed / 4 + MAX_COPY;
		if (buffer)
			pfree(buffer);
		buffer = MemoryContextAllocHuge(CurrentMemoryContext, space);
	}
	states = unpack(buffer, size);
	list_sort(states, compare_states);
	if (buffer)
		pfree(buffer);
	return states;
}

/* A database, or its extension, is gone: drop its states. */
void
presence_ephemeral_clear(Oid oid)
{
	StateDatabase *database;

	for (uint32 i = 1; i <= store->taken; i++)
	{
		StateNode  *node = get_node(i);

		if (node->database != oid)
			continue;
		lock_store(LW_EXCLUSIVE);
		if (node->database == oid && !(node->flags & NODE_ROOM))
			(void) drop_entry(i);
		nto_wake = 0;			/* nobody is to be told */
		unlock_store();
	}
	for (uint32 i = 1; i <= store->taken; i++)
	{
		StateNode  *node = get_node(i);

		if (node->database != oid)
			continue;
		lock_store(LW_EXCLUSIVE);
		if (node->database == oid && (node->flags & NODE_VACANT))
			drop_vacant(i);
		unlock_store();
	}
	lock_store(LW_EXCLUSIVE);
	database = find_record(oid);
	if (database && database->rooms == 0)
		init_record(database, InvalidOid);
	unlock_store();
}

/*
 * When the next room of this database is to be announced; at once where an
 * earlier worker ended while it did.
 */
PresenceTime
presence_ephemeral_next_due(void)
{
	StateDatabase *database = find_record(MyDatabaseId);

	if (database == NULL)
		return NEVER;
	return database->in_flight ? 0 :
		(PresenceTime) pg_atomic_read_u64(&database->next_due);
}

/* When to look for expired entries of this database. */
PresenceTime
presence_ephemeral_next_expiry(void)
{
	StateDatabase *database = find_record(MyDatabaseId);
	PresenceTime expiry = database ?
		(PresenceTime) pg_atomic_read_u64(&database->next_expiry) : NEVER;

	return Max(expiry, next_scan);
}

/* A node that seemed to have expired: end it if it has. */
static void
expire_node(uint32 index, PresenceTime now)
{
	StateNode  *node = get_node(index);

	lock_store(LW_EXCLUSIVE);
	if (node->database == MyDatabaseId && node->expires <= now)
	{
		if (node->flags & NODE_VACANT)
			drop_vacant(index);
		else if (!(node->flags & (NODE_ROOM | NODE_TOMB)))
			bury(index);
	}
	unlock_store();
}

/* Look at all nodes of this database; when the next one expires. */
static PresenceTime
scan_nodes(PresenceTime now)
{
	uint32		taken = store->taken;
	PresenceTime next = NEVER;

	for (uint32 i = 1; i <= taken; i++)
	{
		StateNode  *node = get_node(i);
		uint32		flags = node->flags;
		PresenceTime expires = node->expires;

		if (node->database != MyDatabaseId || (flags & NODE_TOMB) ||
			(flags & (NODE_ROOM | NODE_VACANT)) == NODE_ROOM)
			continue;
		if (expires <= now)
			expire_node(i, now);
		else
			next = Min(next, expires);
	}
	return next;
}

/*
 * Bury what has expired, if it is time to look.  Whoever sets something that
 * expires earlier while the scan runs lowers the time of the next one.
 */
void
presence_ephemeral_expire(PresenceTime now)
{
	StateDatabase *database = find_record(MyDatabaseId);
	PresenceTime start = presence_clock_machine();
	PresenceTime next;

	if (now < presence_ephemeral_next_expiry())
		return;
	lock_store(LW_EXCLUSIVE);
	pg_atomic_write_u64(&database->next_expiry, NEVER);
	unlock_store();
	next = scan_nodes(now);
	lock_store(LW_EXCLUSIVE);
	lower(database, &database->next_expiry, next);
	nto_wake = 0;				/* the worker is awake */
	unlock_store();
	next_scan = now + Max(SCAN_PAUSE,
						  SCAN_SHARE * (presence_clock_machine() - start));
}

/*
 * Begin to take what is to be announced.  Where an earlier worker ended while
 * it told what it had taken, that counts as lost.
 */
PresenceStateRound *
presence_ephemeral_begin_round(PresenceTime now)
{
	PresenceStateRound *round = palloc0(sizeof(PresenceStateRound));
	StateDatabase *database;

	round->buffer = palloc(ROUND_BUFFER);
	round->room = palloc(PRESENCE_MAX_NAME_BYTES + 1);
	round->now = now;
	lock_store(LW_EXCLUSIVE);
	database = find_record(MyDatabaseId);
	if (database)
	{
		round->rooms = database->ndirty;
		round->lost = database->lost || database->in_flight;
		database->lost = false;
		database->in_flight = true;
		pg_atomic_write_u64(&database->next_due, NEVER);
	}
	unlock_store();
	return round;
}

/* Copy dirty entries of the first dirty room; how many bytes. */
static Size
take_entries(uint32 index, PresenceStateRound *round)
{
	StateNode  *room = get_node(index);
	Size		size = 0;
	int			count = 0;

	read_bytes(room, 0, round->room, room->key_length);
	round->room[room->key_length] = '\0';
	room->updated = round->now;
	while (get_node(room->entries)->flags & NODE_DIRTY)
	{
		uint32		first = room->entries;
		StateNode  *entry = get_node(first);

		if (count++ == HOLD_LIMIT || size + MAX_COPY > ROUND_BUFFER)
			return size;
		size += copy_entry(entry, round->buffer + size);
		entry->flags &= ~NODE_DIRTY;
		if (!(entry->flags & NODE_TOMB))
			ring_rotate(&room->entries, RING_PEERS);
		else if (!drop_entry(first))
		{
			round->rooms--;
			return size;
		}
	}
	clean_room(index);
	round->rooms--;
	return size;
}

/*
 * Take the next changes to be announced, all of one room: "states" gets a
 * list of PresenceState, which may be empty.  false: there are no more.
 */
bool
presence_ephemeral_take(PresenceStateRound *round, List **states)
{
	StateDatabase *database;
	Size		size = 0;

	if (round->rooms == 0)
		return false;
	lock_store(LW_EXCLUSIVE);
	database = find_record(MyDatabaseId);
	for (int i = 0; i < HOLD_LIMIT && size == 0 && round->rooms > 0; i++)
	{
		uint32		index = database ? database->dirty : 0;
		PresenceTime due;

		if (index == 0)
		{
			round->rooms = 0;
			break;
		}
		due = get_node(index)->updated + interval();
		if (due <= round->now || get_node(index)->updated == round->now)
			size = take_entries(index, round);
		else
		{
			lower(database, &database->next_due, due);
			ring_rotate(&database->dirty, RING_PEERS);
			round->rooms--;
		}
	}
	nto_wake = 0;				/* the worker is awake */
	unlock_store();
	*states = unpack(round->buffer, size);
	return true;
}

/* What was taken has been announced. */
void
presence_ephemeral_end_round(void)
{
	StateDatabase *database;

	lock_store(LW_EXCLUSIVE);
	database = find_record(MyDatabaseId);
	if (database)
		database->in_flight = false;
	unlock_store();
}

/* Whether a database has no states, nor changes to tell. */
bool
presence_ephemeral_is_empty(Oid oid)
{
	StateDatabase *database = find_record(oid);

	return database == NULL || (database->entries == 0 &&
								database->ndirty == 0 && !database->lost);
}

/* What the states of a database take. */
PresenceStateUsage
presence_ephemeral_usage(Oid oid)
{
	PresenceStateUsage usage = {0};
	StateDatabase *database;

	lock_store(LW_SHARED);
	database = find_record(oid);
	if (database)
	{
		usage.entries = database->entries;
		usage.bytes = database->bytes;
		usage.evictions = database->evictions;
	}
	unlock_store();
	return usage;
}

/* Count evictions from zero. */
void
presence_ephemeral_reset_evictions(Oid oid)
{
	StateDatabase *database;

	lock_store(LW_EXCLUSIVE);
	database = find_record(oid);
	if (database)
		database->evictions = 0;
	unlock_store();
}
