/*-------------------------------------------------------------------------
 *
 * state.c
 *		Keeps short-lived state of rooms in shared memory.
 *
 * Locking.  All functions use the lock of state_entry.c.  A value is set or
 * removed while holding it once.  Reading a room and taking the changes to be
 * announced are done in pieces, and the lock is released in between.  An entry
 * that changes after the worker has taken it is announced in the next round.
 *
 * Scans for expired entries, and for those of a dropped database, read cells
 * without the lock and recheck under the lock before they change anything.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/hash.h"
#include "base/name.h"
#include "miscadmin.h"
#include "shared/database.h"
#include "state/state.h"
#include "state/state_entry.h"

/* Maximum number of entries or rooms visited while holding the lock. */
#define HOLD_LIMIT 16

/*
 * Minimum time between two scans for expired entries: this many microseconds,
 * and this many times the duration of the last scan.
 */
#define SCAN_PAUSE (20 * 1000)
#define SCAN_SHARE 20

#define ROUND_BUFFER (2 * PRESENCE_STATE_MAX_COPY)

/* The worker's next scan is not before this. */
static PresenceTime next_scan;

/* Whether this process has ever scanned all entries. */
static bool scanned;

/* Reading of the entries of a room, in pieces. */
typedef struct Reading
{
	PresenceName room;
	const char *prefix;			/* of the keys to be read */
	int			prefix_length;
	uint32		last;			/* the entry visited last */
	uint64		serial;			/* its serial number; 0: none yet */
	uint64		until;			/* serial number of the last one to visit */
	char	   *buffer;
} Reading;

/* Make the name of a key, with a prefix, in a room of this database. */
void
presence_state_name(PresenceStateName *name, const char *room,
					int room_length, const char *prefix,
					const char *key, int key_length)
{
	int			prefix_length = strlen(prefix);

	if (room_length > PRESENCE_MAX_NAME_BYTES ||
		prefix_length + key_length > PRESENCE_MAX_KEY_BYTES)
		elog(ERROR, "name of a state is too long: %d bytes in a room of %d",
			 prefix_length + key_length, room_length);
	name->room = presence_name_make(room, room_length);
	name->key_length = prefix_length + key_length;
	memcpy(name->key, prefix, prefix_length);
	memcpy(name->key + prefix_length, key, key_length);
	name->hash = presence_hash_within(name->room.hash, name->key,
									  name->key_length);
}

/*
 * Set a key to a value, JSON text of 1 to PRESENCE_MAX_STATE_BYTES bytes,
 * which expires after "ttl" microseconds.
 */
void
presence_state_set(const PresenceStateName *name, const char *value,
				   int length, PresenceTime ttl)
{
	PresenceStateDatabase *database;
	bool		done;

	if (length < 1 || length > PRESENCE_MAX_STATE_BYTES)
		elog(ERROR, "state has %d bytes", length);
	presence_state_entry_lock(LW_EXCLUSIVE);
	database = presence_state_entry_my_database();
	done = database &&
		presence_state_entry_reserve(database, presence_state_mem_for(name->room.length) +
									 presence_state_mem_for(name->key_length + length));
	if (done)
		presence_state_entry_set(database, name, value, length, presence_state_entry_now() + ttl);
	presence_state_entry_unlock();
	if (!done)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("presence keeps short-lived state of no more than %d databases",
						PRESENCE_MAX_DATABASES),
				 errhint("Keep the state of fewer databases on one server.")));
}

/*
 * Find an entry that is not a tombstone, but may have expired; 0: none.  The
 * caller holds the lock.
 */
static uint32
find_entry(const PresenceStateName *name)
{
	uint32		room = presence_state_entry_find_room(&name->room);
	uint32		index = room == 0 ? 0 : presence_state_entry_find(room, name);

	if (index == 0 || (presence_state_mem_node(index)->flags & PRESENCE_NODE_TOMBSTONE))
		return 0;
	return index;
}

/* Remove a key; whether it had a value. */
bool
presence_state_remove(const PresenceStateName *name)
{
	uint32		index;
	bool		removed = false;

	presence_state_entry_lock(LW_EXCLUSIVE);
	index = find_entry(name);
	if (index != 0)
	{
		removed = presence_state_mem_node(index)->expires > presence_state_entry_now();
		presence_state_entry_make_tombstone(index);
	}
	presence_state_entry_unlock();
	return removed;
}

/* Prefixes of the keys that show a user in a room. */
static const char *const user_prefixes[] = {
	PRESENCE_CURSOR_PREFIX, PRESENCE_TYPING_PREFIX
};

/*
 * Make the name of the key that shows a user in a room, with one of the
 * prefixes.  Returns false if no key can have it, because it is too long.
 */
static bool
name_user(PresenceStateName *name, const char *room, const char *prefix,
		  const char *user)
{
	size_t		room_length = strlen(room);
	size_t		user_length = strlen(user);

	if (room_length > PRESENCE_MAX_NAME_BYTES || user_length > PRESENCE_MAX_NAME_BYTES)
		return false;
	presence_state_name(name, room, room_length, prefix, user, user_length);
	return true;
}

/* Whether any state shows a user in a room. */
bool
presence_state_shows_user(const char *room, const char *user)
{
	bool		shows = false;

	for (int i = 0; i < lengthof(user_prefixes); i++)
	{
		PresenceStateName name;

		if (!name_user(&name, room, user_prefixes[i], user))
			return false;
		presence_state_entry_lock(LW_SHARED);
		shows |= find_entry(&name) != 0;
		presence_state_entry_unlock();
	}
	return shows;
}

/*
 * A user's last connection has left a room: remove the state that shows the
 * user there.  State set after the leave belongs to another connection.
 */
void
presence_state_user_left(const char *room, const char *user, PresenceTime when)
{
	for (int i = 0; i < lengthof(user_prefixes); i++)
	{
		PresenceStateName name;
		uint32		index;

		if (!name_user(&name, room, user_prefixes[i], user))
			return;
		presence_state_entry_lock(LW_EXCLUSIVE);
		index = find_entry(&name);
		if (index != 0 && presence_state_mem_node(index)->updated <= when)
			presence_state_entry_make_tombstone(index);
		presence_state_entry_unlock();
	}
}

/* Turn a buffer of copies into a list of PresenceState. */
static List *
unpack(const char *buffer, Size size)
{
	List	   *states = NIL;

	for (Size done = 0; done < size;)
	{
		const PresenceStateCopy *copy = (const PresenceStateCopy *) (buffer + done);
		PresenceState *state = palloc(sizeof(PresenceState));

		state->key = pnstrdup(copy->data, copy->key_length);
		state->value = copy->gone ? NULL :
			pnstrdup(copy->data + copy->key_length, copy->value_length);
		state->updated = copy->updated;
		state->expires = copy->expires;
		states = lappend(states, state);
		done += PRESENCE_STATE_COPY_SIZE(copy->key_length + copy->value_length);
	}
	return states;
}

/* The entry after another one in its room; 0: none. */
static uint32
next_entry(const PresenceNode *room, uint32 index)
{
	uint32		next = presence_state_mem_node(index)->links[PRESENCE_RING_MEMBERS].next;

	return next == room->entries ? 0 : next;
}

/*
 * The entry to continue reading at; 0: none.  If the last entry visited is
 * gone, its serial number says where to continue.
 */
static uint32
go_on(const Reading *reading, uint32 room)
{
	PresenceNode *last = presence_state_mem_node(reading->last);
	uint32		index = presence_state_mem_node(room)->entries;

	if (reading->serial == 0)
		return index;
	if (last->database == MyDatabaseId && !(last->flags & PRESENCE_NODE_ROOM) &&
		last->room == room && last->serial == reading->serial)
		return next_entry(presence_state_mem_node(room), reading->last);
	while (index != 0 && presence_state_mem_node(index)->serial <= reading->serial)
		index = next_entry(presence_state_mem_node(room), index);
	return index;
}

/* Whether an entry is to be read. */
static bool
is_wanted(const Reading *reading, PresenceNode *entry)
{
	return !(entry->flags & PRESENCE_NODE_TOMBSTONE) &&
		entry->expires > presence_state_entry_now() &&
		entry->key_length >= reading->prefix_length &&
		presence_state_mem_match(entry, 0, reading->prefix, reading->prefix_length);
}

/*
 * Copy the next readable entries, as many as may be visited while holding the
 * lock; "size" is set to the number of bytes.  Returns whether there are more.
 */
static bool
read_piece(Reading *reading, Size *size)
{
	uint32		room;
	uint32		index;
	int			count = 0;

	*size = 0;
	room = presence_state_entry_find_room(&reading->room);
	if (room == 0)
		return false;
	for (index = go_on(reading, room); index != 0;
		 index = next_entry(presence_state_mem_node(room), index))
	{
		PresenceNode *entry = presence_state_mem_node(index);

		if (entry->serial > reading->until)
			return false;
		if (count++ == HOLD_LIMIT || *size + PRESENCE_STATE_MAX_COPY > ROUND_BUFFER)
			return true;
		if (is_wanted(reading, entry))
			*size += presence_state_entry_copy(entry, reading->buffer + *size);
		reading->last = index;
		reading->serial = entry->serial;
	}
	return false;
}

/* Compare states by key. */
static int
compare_states(const ListCell *a, const ListCell *b)
{
	return strcmp(((PresenceState *) lfirst(a))->key,
				  ((PresenceState *) lfirst(b))->key);
}

/*
 * Return the states of a room whose keys begin with a prefix, ordered by key,
 * as a list of PresenceState in the current memory context.  They may change
 * while they are read.  Entries made meanwhile are left out, so that no key
 * occurs twice and the reading ends.
 */
List *
presence_state_read(const char *room, int room_length, const char *prefix,
					int prefix_length)
{
	Reading		reading = {presence_name_make(room, room_length)};
	List	   *states = NIL;
	bool		more;

	reading.prefix = prefix;
	reading.prefix_length = prefix_length;
	reading.buffer = palloc(ROUND_BUFFER);
	do
	{
		Size		size;

		CHECK_FOR_INTERRUPTS();
		presence_state_entry_lock(LW_SHARED);
		if (reading.until == 0)
			reading.until = presence_state_entry_serial();
		more = read_piece(&reading, &size);
		presence_state_entry_unlock();
		states = list_concat(states, unpack(reading.buffer, size));
	} while (more);
	list_sort(states, compare_states);
	pfree(reading.buffer);
	return states;
}

/* A database, or its extension, was dropped: remove its states. */
void
presence_state_clear(Oid oid)
{
	PresenceStateDatabase *database;

	for (uint32 i = 1; i <= presence_state_mem_taken(); i++)
	{
		PresenceNode *node = presence_state_mem_node(i);

		if (node->database != oid)
			continue;
		presence_state_entry_lock(LW_EXCLUSIVE);
		if (node->database == oid && !(node->flags & PRESENCE_NODE_ROOM))
			(void) presence_state_entry_drop(i);
		presence_state_entry_wake_nobody();
		presence_state_entry_unlock();
	}
	for (uint32 i = 1; i <= presence_state_mem_taken(); i++)
	{
		PresenceNode *node = presence_state_mem_node(i);

		if (node->database != oid)
			continue;
		presence_state_entry_lock(LW_EXCLUSIVE);
		if (node->database == oid && (node->flags & PRESENCE_NODE_VACANT))
			presence_state_entry_drop_room(i);
		presence_state_entry_unlock();
	}
	presence_state_entry_lock(LW_EXCLUSIVE);
	database = presence_state_entry_database(oid);
	if (database && database->rooms == 0)
		presence_state_entry_init_database(database, InvalidOid);
	presence_state_entry_unlock();
}

/*
 * When the next room of this database is to be announced: at once if an
 * earlier worker exited while announcing.
 */
PresenceTime
presence_state_next_due(void)
{
	PresenceStateDatabase *database = presence_state_entry_database(MyDatabaseId);

	if (database == NULL)
		return PRESENCE_STATE_NEVER;
	return database->in_flight ? 0 :
		(PresenceTime) pg_atomic_read_u64(&database->next_due);
}

/*
 * When to scan for expired entries of this database.  A new worker scans at
 * once, because an earlier one may have exited during a scan.
 */
PresenceTime
presence_state_next_expiry(void)
{
	PresenceStateDatabase *database = presence_state_entry_database(MyDatabaseId);

	if (database == NULL)
		return PRESENCE_STATE_NEVER;
	return !scanned ? 0 :
		Max((PresenceTime) pg_atomic_read_u64(&database->next_expiry), next_scan);
}

/* A node seemed to have expired: recheck, then free it or make a tombstone. */
static void
expire_node(uint32 index, PresenceTime now)
{
	PresenceNode *node = presence_state_mem_node(index);

	presence_state_entry_lock(LW_EXCLUSIVE);
	if (node->database == MyDatabaseId && node->expires <= now)
	{
		if (node->flags & PRESENCE_NODE_VACANT)
			presence_state_entry_drop_room(index);
		else if (!(node->flags & (PRESENCE_NODE_ROOM | PRESENCE_NODE_TOMBSTONE)))
			presence_state_entry_make_tombstone(index);
	}
	presence_state_entry_unlock();
}

/* Scan all nodes of this database; returns when the next one expires. */
static PresenceTime
scan_nodes(PresenceTime now)
{
	uint32		taken = presence_state_mem_taken();
	PresenceTime next = PRESENCE_STATE_NEVER;

	for (uint32 i = 1; i <= taken; i++)
	{
		PresenceNode *node = presence_state_mem_node(i);
		uint32		flags = node->flags;
		PresenceTime expires = node->expires;

		CHECK_FOR_INTERRUPTS();
		if (node->database != MyDatabaseId || (flags & PRESENCE_NODE_TOMBSTONE) ||
			(flags & (PRESENCE_NODE_ROOM | PRESENCE_NODE_VACANT)) == PRESENCE_NODE_ROOM)
			continue;
		if (expires <= now)
			expire_node(i, now);
		else
			next = Min(next, expires);
	}
	return next;
}

/*
 * Scan for expired entries, if that is due.  A process that sets a value
 * during the scan lowers the time of the next one if the value expires
 * earlier.
 */
void
presence_state_expire(PresenceTime now)
{
	PresenceStateDatabase *database = presence_state_entry_database(MyDatabaseId);
	PresenceTime start = presence_clock_machine();
	PresenceTime next;

	if (now < presence_state_next_expiry())
		return;
	presence_state_entry_lock(LW_EXCLUSIVE);
	pg_atomic_write_u64(&database->next_expiry, PRESENCE_STATE_NEVER);
	presence_state_entry_unlock();
	next = scan_nodes(now);
	presence_state_entry_lock(LW_EXCLUSIVE);
	presence_state_entry_lower(database, &database->next_expiry, next);
	presence_state_entry_wake_nobody();
	presence_state_entry_unlock();
	scanned = true;
	next_scan = now + Max(SCAN_PAUSE,
						  SCAN_SHARE * (presence_clock_machine() - start));
}

/*
 * Begin to take the changes to be announced.  If an earlier worker exited
 * before it announced what it had taken, those changes count as lost.
 */
PresenceStateRound *
presence_state_begin_round(PresenceTime now)
{
	PresenceStateRound *round = palloc0(sizeof(PresenceStateRound));
	PresenceStateDatabase *database;

	round->buffer = palloc(ROUND_BUFFER);
	round->room = palloc(PRESENCE_MAX_NAME_BYTES + 1);
	round->now = now;
	presence_state_entry_lock(LW_EXCLUSIVE);
	database = presence_state_entry_database(MyDatabaseId);
	if (database)
	{
		round->rooms = database->ndirty;
		round->lost = database->lost || database->in_flight;
		database->lost = false;
		database->in_flight = true;
		pg_atomic_write_u64(&database->next_due, PRESENCE_STATE_NEVER);
	}
	presence_state_entry_unlock();
	return round;
}

/* The first dirty room is not due yet: make it the last one. */
static void
postpone(uint32 index)
{
	PresenceStateDatabase *database = presence_state_entry_database(MyDatabaseId);

	presence_state_entry_lower(database, &database->next_due,
							   presence_state_mem_node(index)->updated + presence_state_entry_interval());
	presence_state_mem_ring_rotate(&database->dirty, PRESENCE_RING_PEERS);
}

/*
 * Copy dirty entries of the first dirty room, as many as may be visited while
 * holding the lock.  Returns the number of bytes.
 */
static Size
take_entries(uint32 index, PresenceStateRound *round)
{
	PresenceNode *room = presence_state_mem_node(index);
	Size		size = 0;
	int			count = 0;

	presence_state_mem_read(room, 0, round->room, room->key_length);
	round->room[room->key_length] = '\0';
	if (room->updated != round->now)
		round->entries = room->ndirty;
	room->updated = round->now;
	for (; round->entries > 0 && room->dirty != 0; round->entries--)
	{
		uint32		first = room->dirty;
		PresenceNode *entry = presence_state_mem_node(first);

		if (count++ == HOLD_LIMIT || size + PRESENCE_STATE_MAX_COPY > ROUND_BUFFER)
			return size;
		size += presence_state_entry_copy(entry, round->buffer + size);
		presence_state_entry_clean(first);
		if ((entry->flags & PRESENCE_NODE_TOMBSTONE) && !presence_state_entry_drop(first))
		{
			round->rooms--;
			return size;
		}
	}
	if (room->dirty == 0)
		presence_state_entry_clean_room(index);
	else
		postpone(index);
	round->rooms--;
	return size;
}

/* Whether a room may be announced in the round that began at "now". */
static bool
is_due(const PresenceNode *room, PresenceTime now)
{
	return room->updated + presence_state_entry_interval() <= now || room->updated == now;
}

/*
 * Take the next changes to be announced, all of one room: "states" is set to a
 * list of PresenceState, which may be empty.  Returns false if there are no
 * more.
 */
bool
presence_state_take(PresenceStateRound *round, List **states)
{
	PresenceStateDatabase *database;
	Size		size = 0;

	CHECK_FOR_INTERRUPTS();
	if (round->rooms == 0)
		return false;
	presence_state_entry_lock(LW_EXCLUSIVE);
	database = presence_state_entry_database(MyDatabaseId);
	for (int i = 0; i < HOLD_LIMIT && size == 0 && round->rooms > 0; i++)
	{
		uint32		index = database ? database->dirty : 0;

		if (index == 0)
			round->rooms = 0;
		else if (is_due(presence_state_mem_node(index), round->now))
			size = take_entries(index, round);
		else
		{
			postpone(index);
			round->rooms--;
		}
	}
	presence_state_entry_wake_nobody();
	presence_state_entry_unlock();
	*states = unpack(round->buffer, size);
	return true;
}

/* The changes taken in a round have been announced. */
void
presence_state_end_round(void)
{
	PresenceStateDatabase *database;

	presence_state_entry_lock(LW_EXCLUSIVE);
	database = presence_state_entry_database(MyDatabaseId);
	if (database)
		database->in_flight = false;
	presence_state_entry_unlock();
}

/* Whether a database has neither states nor changes to announce. */
bool
presence_state_is_empty(Oid oid)
{
	PresenceStateDatabase *database = presence_state_entry_database(oid);

	return database == NULL || (database->entries == 0 &&
								database->ndirty == 0 && !database->lost);
}

/* Memory usage of the states of a database. */
PresenceStateUsage
presence_state_usage(Oid oid)
{
	PresenceStateUsage usage = {0};
	PresenceStateDatabase *database;

	presence_state_entry_lock(LW_SHARED);
	database = presence_state_entry_database(oid);
	if (database)
	{
		usage.entries = database->entries;
		usage.bytes = database->bytes;
		usage.evictions = database->evictions;
	}
	presence_state_entry_unlock();
	return usage;
}

/* Set the count of evictions to zero. */
void
presence_state_reset_evictions(Oid oid)
{
	PresenceStateDatabase *database;

	presence_state_entry_lock(LW_EXCLUSIVE);
	database = presence_state_entry_database(oid);
	if (database)
		database->evictions = 0;
	presence_state_entry_unlock();
}
