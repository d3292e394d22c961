/*-------------------------------------------------------------------------
 *
 * state_entry.c
 *		Implements the life cycle of rooms and their short-lived entries.
 *
 * Rooms are identified by database and name, entries by room and key, both
 * compared in full.  Their nodes (state_mem.c) form rings:
 *
 *	peers	the dirty rooms of a database, the dirty entries of a room; each in
 *			the order in which they became dirty
 *	members	the entries of a room, by serial number
 *	age		live entries, tombstones, vacant rooms of a database; each with the
 *			oldest first
 *
 * An entry is dirty while its newest value has not been announced; a room is
 * dirty while one of its entries is.  A removed, expired or evicted entry
 * stays as a tombstone, without a value, until that has been announced.  A
 * room without entries stays, vacant, until it may be announced again;
 * otherwise removing and adding entries could circumvent
 * presence.state_interval.
 *
 *	set -> live, dirty -> (announced) -> live
 *		-> (removed) -> tombstone, dirty -> (announced) -> free
 *
 * Live entries and their rooms may use all but a part of the memory.  Beyond
 * that, the least recently updated entry of the database that holds the most
 * memory is evicted, so no database can take memory from one that holds less.
 * The rest is for tombstones and vacant rooms.  When it is used up, the
 * database that has the most of them loses a vacant room or else its oldest
 * tombstone.  If that was not announced, the database is marked "lost", and
 * its listeners have to read again.
 *
 * Locking.  One LWLock protects everything, including the cells.  It is held
 * for a few memcpys, in shared mode by readers; nothing under it allocates
 * memory, waits or fails.  Loops over the entries of a room, or over all
 * nodes, release it between pieces.  Workers that must act earlier than they
 * expect are woken after it is released.  The times of their next actions are
 * atomic, so that they can be read without it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/guc.h"
#include "base/name.h"
#include "miscadmin.h"
#include "shared/database.h"
#include "state/state_entry.h"

/* One in so many cells is reserved for tombstones and vacant rooms. */
#define SPARE_SHARE 8

typedef struct StateStore
{
	uint32		nspare;			/* cells of tombstones and vacant rooms */
	int			nrecords;		/* records that have ever been used */
	uint64		serial;			/* of the entry made last */
	PresenceStateDatabase databases[PRESENCE_MAX_DATABASES];
} StateStore;

static StateStore *store;
static LWLock *store_lock;

/*
 * When the lock was requested, and the databases whose workers must be woken
 * once it is released.
 */
static PresenceTime store_now;
static Oid	to_wake[PRESENCE_MAX_DATABASES];
static int	nto_wake;

/* Bytes of shared memory that the store needs, besides its cells. */
Size
presence_state_entry_shmem_size(void)
{
	return sizeof(StateStore);
}

/* Initialize a record for a database. */
void
presence_state_entry_init_database(PresenceStateDatabase *database, Oid oid)
{
	database->oid = oid;
	database->rooms = 0;
	database->held = database->spare = 0;
	database->live = database->tombstones = database->vacant = 0;
	database->dirty = 0;
	database->ndirty = 0;
	database->lost = false;
	database->in_flight = false;
	database->entries = 0;
	database->bytes = 0;
	database->evictions = 0;
	pg_atomic_init_u64(&database->next_due, PRESENCE_STATE_NEVER);
	pg_atomic_init_u64(&database->next_expiry, PRESENCE_STATE_NEVER);
}

/* Attach to the store, initializing it when new. */
void
presence_state_entry_shmem_init(void *area, bool found)
{
	store = area;
	store_lock = &GetNamedLWLockTranche("presence_state")->lock;
	if (found)
		return;
	store->nspare = 0;
	store->nrecords = 0;
	store->serial = 0;
	for (int i = 0; i < PRESENCE_MAX_DATABASES; i++)
		presence_state_entry_init_database(&store->databases[i], InvalidOid);
}

/* Take the lock for one operation. */
void
presence_state_entry_lock(LWLockMode mode)
{
	store_now = presence_clock_now();
	nto_wake = 0;
	LWLockAcquire(store_lock, mode);
}

/* The time of the operation. */
PresenceTime
presence_state_entry_now(void)
{
	return store_now;
}

/* The caller is the worker, or has no work for it: wake no worker. */
void
presence_state_entry_wake_nobody(void)
{
	nto_wake = 0;
}

/* Wake the worker of a database, or request one. */
static void
wake_worker(Oid oid)
{
	PresenceDatabase *database = oid == MyDatabaseId ?
		presence_my_database() : presence_database_find(oid);

	if (database == NULL)
		return;
	if (database->worker_state == PRESENCE_WORKER_NONE && !database->wanted)
		(void) presence_database_want_look(oid);
	presence_database_wake_worker(database);
}

/* Release the lock and wake the workers that must act now. */
void
presence_state_entry_unlock(void)
{
	LWLockRelease(store_lock);
	while (nto_wake > 0)
		wake_worker(to_wake[--nto_wake]);
}

/* The worker of a database must be woken when the lock is released. */
static void
note_wake(Oid oid)
{
	for (int i = 0; i < nto_wake; i++)
		if (to_wake[i] == oid)
			return;
	Assert(nto_wake < lengthof(to_wake));
	to_wake[nto_wake++] = oid;
}

/* Find the record of a database, or NULL. */
PresenceStateDatabase *
presence_state_entry_database(Oid oid)
{
	static PresenceStateDatabase *last = NULL;

	if (last && last->oid == oid)
		return last;
	for (int i = 0; i < PRESENCE_MAX_DATABASES; i++)
		if (store->databases[i].oid == oid)
			return last = &store->databases[i];
	return NULL;
}

/* Find or make the record of this database; NULL if all are in use. */
PresenceStateDatabase *
presence_state_entry_my_database(void)
{
	PresenceStateDatabase *database = presence_state_entry_database(MyDatabaseId);

	if (database)
		return database;
	for (int i = 0; i < PRESENCE_MAX_DATABASES && database == NULL; i++)
		if (store->databases[i].oid == InvalidOid)
			database = &store->databases[i];
	for (int i = 0; i < PRESENCE_MAX_DATABASES && database == NULL; i++)
		if (store->databases[i].rooms == 0)
			database = &store->databases[i];
	if (database == NULL)
		return NULL;
	presence_state_entry_init_database(database, MyDatabaseId);
	store->nrecords = Max(store->nrecords, database - store->databases + 1);
	return database;
}

/* Lower a time of the worker's next action to this one, if it is later. */
void
presence_state_entry_lower(PresenceStateDatabase *database, pg_atomic_uint64 *next,
						   PresenceTime time)
{
	if (time >= (PresenceTime) pg_atomic_read_u64(next))
		return;
	pg_atomic_write_u64(next, (uint64) time);
	note_wake(database->oid);
}

/* The record of a room's database. */
static PresenceStateDatabase *
record_of(const PresenceNode *room)
{
	return &store->databases[room->record];
}

/* Count a tombstone or vacant room in ("sign" 1) or out (-1). */
static void
count_spare(PresenceStateDatabase *database, const PresenceNode *node, int sign)
{
	database->spare += sign * node->cells;
	store->nspare += sign * node->cells;
}

/* Find a room of this database by name; 0: none. */
uint32
presence_state_entry_find_room(const PresenceName *name)
{
	for (uint32 i = presence_state_mem_first(name->hash); i != 0;
		 i = presence_state_mem_node(i)->chain)
	{
		PresenceNode *node = presence_state_mem_node(i);

		if (node->hash == name->hash && (node->flags & PRESENCE_NODE_ROOM) &&
			node->database == MyDatabaseId && node->key_length == name->length &&
			presence_state_mem_match(node, 0, name->data, name->length))
			return i;
	}
	return 0;
}

/* Find an entry of a room by key; 0: none. */
uint32
presence_state_entry_find(uint32 room, const PresenceStateName *name)
{
	for (uint32 i = presence_state_mem_first(name->hash); i != 0;
		 i = presence_state_mem_node(i)->chain)
	{
		PresenceNode *node = presence_state_mem_node(i);

		if (node->hash == name->hash && !(node->flags & PRESENCE_NODE_ROOM) &&
			node->room == room && node->key_length == name->key_length &&
			presence_state_mem_match(node, 0, name->key, name->key_length))
			return i;
	}
	return 0;
}

/* Make a room. */
static uint32
make_room(PresenceStateDatabase *database, const PresenceName *name)
{
	uint32		index = presence_state_mem_make(name->hash, name->data, name->length);
	PresenceNode *room = presence_state_mem_node(index);

	room->flags = PRESENCE_NODE_ROOM;
	room->key_length = name->length;
	room->record = database - store->databases;
	database->rooms++;
	database->held += room->cells;
	return index;
}

/* Whether changes are announced at all. */
static bool
announces(void)
{
	return presence_notify != PRESENCE_NOTIFY_OFF;
}

/* The serial number of the entry made last. */
uint64
presence_state_entry_serial(void)
{
	return store->serial;
}

/* presence.state_interval in microseconds. */
PresenceTime
presence_state_entry_interval(void)
{
	return (PresenceTime) presence_state_interval * 1000;
}

/* Free a room that has no entries and is in no ring. */
static void
free_room(uint32 index)
{
	Assert(presence_state_mem_node(index)->count == 0);
	record_of(presence_state_mem_node(index))->rooms--;
	presence_state_mem_free(index);
}

/* vacant -> free */
void
presence_state_entry_drop_room(uint32 index)
{
	PresenceNode *room = presence_state_mem_node(index);
	PresenceStateDatabase *database = record_of(room);

	count_spare(database, room, -1);
	presence_state_mem_ring_remove(&database->vacant, PRESENCE_RING_AGE, index);
	free_room(index);
}

/* vacant -> in use */
static void
reuse_room(uint32 index)
{
	PresenceNode *room = presence_state_mem_node(index);
	PresenceStateDatabase *database = record_of(room);

	count_spare(database, room, -1);
	database->held += room->cells;
	presence_state_mem_ring_remove(&database->vacant, PRESENCE_RING_AGE, index);
	room->flags &= ~PRESENCE_NODE_VACANT;
}

/* A room has no more changes to announce. */
void
presence_state_entry_clean_room(uint32 index)
{
	PresenceNode *room = presence_state_mem_node(index);
	PresenceStateDatabase *database = record_of(room);

	room->flags &= ~PRESENCE_NODE_DIRTY;
	presence_state_mem_ring_remove(&database->dirty, PRESENCE_RING_PEERS, index);
	database->ndirty--;
}

/* The last entry of a room was removed: in use -> vacant or free. */
static void
release_room(uint32 index)
{
	PresenceNode *room = presence_state_mem_node(index);
	PresenceStateDatabase *database = record_of(room);

	if (room->flags & PRESENCE_NODE_DIRTY)
		presence_state_entry_clean_room(index);
	database->held -= room->cells;
	room->expires = room->updated + presence_state_entry_interval();
	if (room->updated == 0 || room->expires <= store_now)
	{
		free_room(index);
		return;
	}
	room->flags |= PRESENCE_NODE_VACANT;
	count_spare(database, room, 1);
	presence_state_mem_ring_append(&database->vacant, PRESENCE_RING_AGE, index);
	presence_state_entry_lower(database, &database->next_expiry, room->expires);
}

/* dirty -> clean, when the caller announces the change. */
void
presence_state_entry_clean(uint32 index)
{
	PresenceNode *entry = presence_state_mem_node(index);
	PresenceNode *room = presence_state_mem_node(entry->room);

	presence_state_mem_ring_remove(&room->dirty, PRESENCE_RING_PEERS, index);
	room->ndirty--;
	entry->flags &= ~PRESENCE_NODE_DIRTY;
}

/* clean -> dirty: a change of an entry must be announced. */
static void
mark_dirty(uint32 index)
{
	PresenceNode *entry = presence_state_mem_node(index);
	PresenceNode *room = presence_state_mem_node(entry->room);
	PresenceStateDatabase *database = record_of(room);

	if (!announces())
		return;
	if (!(entry->flags & PRESENCE_NODE_DIRTY))
	{
		entry->flags |= PRESENCE_NODE_DIRTY;
		presence_state_mem_ring_append(&room->dirty, PRESENCE_RING_PEERS, index);
		room->ndirty++;
	}
	if (!(room->flags & PRESENCE_NODE_DIRTY))
	{
		room->flags |= PRESENCE_NODE_DIRTY;
		presence_state_mem_ring_append(&database->dirty, PRESENCE_RING_PEERS,
									   entry->room);
		database->ndirty++;
		presence_state_entry_lower(database, &database->next_due,
								   Max(store_now, room->updated + presence_state_entry_interval()));
	}
}

/* The record of an entry's database. */
static PresenceStateDatabase *
record_of_entry(const PresenceNode *entry)
{
	return record_of(presence_state_mem_node(entry->room));
}

/* Count a live entry in ("sign" 1) or out (-1). */
static void
count_entry(const PresenceNode *entry, int sign)
{
	PresenceStateDatabase *database = record_of_entry(entry);
	int			bytes = entry->key_length + entry->value_length;

	database->entries += sign;
	database->held += sign * entry->cells;
	database->bytes += sign * (int64) bytes;
}

/* live or tombstone -> free; returns whether its room remains in use. */
bool
presence_state_entry_drop(uint32 index)
{
	PresenceNode *entry = presence_state_mem_node(index);
	uint32		room = entry->room;
	PresenceStateDatabase *database = record_of(presence_state_mem_node(room));

	if (entry->flags & PRESENCE_NODE_TOMBSTONE)
	{
		count_spare(database, entry, -1);
		presence_state_mem_ring_remove(&database->tombstones, PRESENCE_RING_AGE, index);
		if (entry->flags & PRESENCE_NODE_DIRTY)
		{
			database->lost = true;
			presence_state_entry_lower(database, &database->next_due, store_now);
		}
	}
	else
	{
		count_entry(entry, -1);
		presence_state_mem_ring_remove(&database->live, PRESENCE_RING_AGE, index);
	}
	if (entry->flags & PRESENCE_NODE_DIRTY)
		presence_state_entry_clean(index);
	presence_state_mem_ring_remove(&presence_state_mem_node(room)->entries,
								   PRESENCE_RING_MEMBERS, index);
	presence_state_mem_free(index);
	if (--presence_state_mem_node(room)->count > 0)
		return true;
	release_room(room);
	return false;
}

/* live -> tombstone, or free if changes are not announced. */
void
presence_state_entry_make_tombstone(uint32 index)
{
	PresenceNode *entry = presence_state_mem_node(index);
	PresenceStateDatabase *database = record_of_entry(entry);

	Assert(!(entry->flags & PRESENCE_NODE_TOMBSTONE));
	if (!announces())
	{
		(void) presence_state_entry_drop(index);
		return;
	}
	count_entry(entry, -1);
	presence_state_mem_ring_remove(&database->live, PRESENCE_RING_AGE, index);
	entry->value_length = 0;
	presence_state_mem_resize(entry, entry->key_length);
	entry->flags |= PRESENCE_NODE_TOMBSTONE;
	count_spare(database, entry, 1);
	presence_state_mem_ring_append(&database->tombstones, PRESENCE_RING_AGE, index);
	mark_dirty(index);
}

/* Evict the oldest live entry of a database. */
static void
evict(PresenceStateDatabase *database)
{
	database->evictions++;
	presence_state_entry_make_tombstone(database->live);
}

/* Number of cells of live entries and their rooms. */
static uint32
count_held(void)
{
	return presence_state_mem_count() - presence_state_mem_unused() - store->nspare;
}

/*
 * The database with live entries that holds the most cells, this one if
 * several do; NULL: none has live entries.
 */
static PresenceStateDatabase *
most_held(PresenceStateDatabase *database)
{
	PresenceStateDatabase *most = database->live != 0 ? database : NULL;

	for (int i = 0; i < store->nrecords; i++)
		if (store->databases[i].live != 0 &&
			(most == NULL || store->databases[i].held > most->held))
			most = &store->databases[i];
	return most;
}

/* The database with the most cells of tombstones and vacant rooms, or NULL. */
static PresenceStateDatabase *
most_spare(void)
{
	PresenceStateDatabase *most = NULL;

	for (int i = 0; i < store->nrecords; i++)
		if (store->databases[i].spare > (most ? most->spare : 0))
			most = &store->databases[i];
	return most;
}

/* Evict live entries so that a database may take more cells within a limit. */
static void
evict_entries(PresenceStateDatabase *database, uint32 wanted, uint32 limit)
{
	while (count_held() + wanted > limit)
	{
		PresenceStateDatabase *victim = most_held(database);

		if (victim == NULL)
			return;
		evict(victim);
	}
}

/* Free a vacant room or tombstone of the database with the most, if any. */
static bool
drop_spare(void)
{
	PresenceStateDatabase *victim = most_spare();

	if (victim == NULL)
		return false;
	if (victim->vacant != 0)
		presence_state_entry_drop_room(victim->vacant);
	else
		(void) presence_state_entry_drop(victim->tombstones);
	return true;
}

/*
 * Make sure that so many cells are free, enough for one entry and its room.
 * This may evict any entry that the caller has looked up before.  Each evicted
 * entry frees at least one cell, or becomes a tombstone that frees one when
 * dropped, so there are at most two steps per cell.
 */
bool
presence_state_entry_reserve(PresenceStateDatabase *database, uint32 wanted)
{
	evict_entries(database, wanted,
				  presence_state_mem_count() - presence_state_mem_count() / SPARE_SHARE);
	while (presence_state_mem_unused() < wanted)
		if (!drop_spare())
			return false;
	return true;
}

/* Find or make the room with a name. */
static uint32
enter_room(PresenceStateDatabase *database, const PresenceName *name)
{
	uint32		room = presence_state_entry_find_room(name);

	if (room == 0)
		return make_room(database, name);
	if (presence_state_mem_node(room)->flags & PRESENCE_NODE_VACANT)
		reuse_room(room);
	return room;
}

/* Make an entry, which is in no ring by age yet. */
static uint32
make_entry(uint32 room, const PresenceStateName *name)
{
	uint32		index = presence_state_mem_make(name->hash, name->key, name->key_length);

	presence_state_mem_node(index)->room = room;
	presence_state_mem_node(index)->serial = ++store->serial;
	presence_state_mem_node(index)->key_length = name->key_length;
	presence_state_mem_node(room)->count++;
	presence_state_mem_ring_append(&presence_state_mem_node(room)->entries,
								   PRESENCE_RING_MEMBERS, index);
	return index;
}

/* Remove an entry that gets a new value from its ring by age. */
static void
unlink_entry(uint32 index)
{
	PresenceNode *entry = presence_state_mem_node(index);
	PresenceStateDatabase *database = record_of_entry(entry);

	if (entry->flags & PRESENCE_NODE_TOMBSTONE)
	{
		entry->flags &= ~PRESENCE_NODE_TOMBSTONE;
		count_spare(database, entry, -1);
		presence_state_mem_ring_remove(&database->tombstones, PRESENCE_RING_AGE, index);
		return;
	}
	count_entry(entry, -1);
	presence_state_mem_ring_remove(&database->live, PRESENCE_RING_AGE, index);
}

/* Whether an entry is live and has this value. */
static bool
has_value(uint32 index, const char *value, int length)
{
	PresenceNode *entry = presence_state_mem_node(index);

	return !(entry->flags & PRESENCE_NODE_TOMBSTONE) && entry->expires > store_now &&
		entry->value_length == length &&
		presence_state_mem_match(entry, entry->key_length, value, length);
}

/* Set an entry to a value; the caller has reserved the cells. */
void
presence_state_entry_set(PresenceStateDatabase *database, const PresenceStateName *name,
						 const char *value, int length, PresenceTime expires)
{
	uint32		room = enter_room(database, &name->room);
	uint32		index = presence_state_entry_find(room, name);
	bool		changed = index == 0 || !has_value(index, value, length);
	PresenceNode *entry;

	if (index != 0)
		unlink_entry(index);
	else
		index = make_entry(room, name);
	entry = presence_state_mem_node(index);
	if (changed)
	{
		presence_state_mem_resize(entry, entry->key_length + length);
		presence_state_mem_write(entry, entry->key_length, value, length);
		entry->value_length = length;
	}
	entry->updated = store_now;
	entry->expires = expires;
	count_entry(entry, 1);
	presence_state_mem_ring_append(&database->live, PRESENCE_RING_AGE, index);
	presence_state_entry_lower(database, &database->next_expiry, expires);
	if (changed)
		mark_dirty(index);
}

/* Copy an entry; returns the number of bytes written to the target. */
Size
presence_state_entry_copy(PresenceNode *entry, char *target)
{
	PresenceStateCopy *copy = (PresenceStateCopy *) target;
	int			bytes = entry->key_length + entry->value_length;

	copy->updated = entry->updated;
	copy->expires = entry->expires;
	copy->key_length = entry->key_length;
	copy->value_length = entry->value_length;
	copy->gone = (entry->flags & PRESENCE_NODE_TOMBSTONE) != 0;
	presence_state_mem_read(entry, 0, copy->data, bytes);
	return PRESENCE_STATE_COPY_SIZE(bytes);
}
