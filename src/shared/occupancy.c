/*-------------------------------------------------------------------------
 *
 * occupancy.c
 *		Counts how many places of each room with max_members are taken.
 *
 * A room has an entry once somebody enters it who has to ask for a place.  The
 * entry holds the number of its committed members, and of the places that
 * transactions have reserved for presences they are adding (places.c).  The
 * sum never exceeds max_members because of those who ask, so the limit is
 * exact, and nobody waits for anybody: who finds the sum at the limit is
 * refused at once.
 *
 *	reserve   an add takes places before it writes rows
 *	return    a rollback, also to a savepoint, gives them back
 *	settle    a commit replaces what it reserved by what it changed; so a
 *	          leave frees its place, and rows that ask nobody (written by
 *	          exempt roles, or replication) are counted, too
 *
 * Every commit calls settle for every room in which its presences changed,
 * after the changes are visible and before its transaction id is withdrawn
 * (backend.c).  It changes a few numbers, so it can neither fail nor wait.
 *
 * Counting.  A new entry is UNKNOWN.  Whoever needs it counts the members.  He
 * holds the heavyweight lock of the room (admission.c), so only one does so:
 *
 *	open      makes the entry, and reads "settled", the number of commits that
 *	          have settled there
 *	...       take a snapshot, wait until every transaction that it shows as
 *	          ended has settled
 *	begin     if nobody has settled since, the entry becomes COUNTING, with 0
 *	          members: what settles from now on is not in the snapshot
 *	...       count the rows that the snapshot shows
 *	finish    add them; the entry becomes KNOWN
 *
 * If begin fails, start over.  TRUNCATE, and what else changes rows in a way
 * that cannot be counted, makes entries UNKNOWN at any time.  While a
 * transaction counts rows under the heavyweight lock instead, which it then
 * keeps to its end, the entry stays UNKNOWN (suspend), so the two ways never
 * mix.  Reservations are valid in every state.
 *
 * Members may have expired without having been removed yet.  A request may say
 * how many it found.  Some of these may have left meanwhile, and must not be
 * deducted twice, so it also says how many members had left before it looked.
 *
 * The table has a fixed size: as many partitions as locks, of WAYS entries
 * each.  An entry without reservations may be dropped for a new one; the room
 * is then counted again.  A database drops only its own entries, and the last
 * eighth of a partition is reserved for databases that hold few (share.h).  A
 * room that gets no entry, or has a longer name than MAX_NAME, is counted
 * under the heavyweight lock.
 *
 * Locking.  Each partition has an LWLock, held for a few instructions, never
 * two at a time.  It protects all fields.  "used" is atomic: who reads 0 after
 * his commit became visible need not settle, because whoever makes an entry
 * later takes his snapshot after that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/share.h"
#include "base/shmem.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "shared/occupancy.h"
#include "storage/lwlock.h"

/* Entries of a partition. */
#define WAYS 64

/* Longest name, in bytes, that has an entry. */
#define MAX_NAME 255

typedef enum EntryState
{
	UNKNOWN,
	COUNTING,
	KNOWN
} EntryState;

/* A room. */
typedef struct Entry
{
	Oid			database;		/* InvalidOid: unused */
	EntryState	state;
	int64		members;		/* committed; valid if KNOWN */
	int64		reserved;		/* by transactions that are running */
	uint64		settled;		/* number of commits that changed it */
	uint64		left;			/* number of members who have left, plus a
								 * multiple of 2^32 that no other entry had */
	uint64		last_use;		/* see Partition.uses */
	PresenceTime look_at;		/* when expired members may be looked for */
	int			length;
	char		name[MAX_NAME];
} Entry;

typedef struct Partition
{
	uint64		uses;			/* number of times that entries were used */
	uint64		made;			/* number of entries ever made */
	uint32		hashes[WAYS];	/* of the names */
	Entry		entries[WAYS];
} Partition;

typedef struct Occupancy
{
	pg_atomic_uint32 used;		/* entries in use */
	Partition	partitions[PRESENCE_OCCUPANCY_LOCKS];
} Occupancy;

static Occupancy *occupancy;
static LWLockPadded *locks;

/* Bytes of shared memory that the entries need. */
Size
presence_occupancy_shmem_size(void)
{
	return sizeof(Occupancy);
}

/* Attach to the entries, initializing them when new. */
void
presence_occupancy_shmem_init(void *area, bool found)
{
	occupancy = area;
	locks = GetNamedLWLockTranche("presence_occupancy");
	if (found)
		return;
	memset(area, 0, sizeof(Occupancy));
	pg_atomic_init_u32(&occupancy->used, 0);
}

/* The partition of a room. */
static Partition *
partition_of(const PresenceName *room)
{
	return &occupancy->partitions[room->hash % PRESENCE_OCCUPANCY_LOCKS];
}

/* Lock the partition of a room. */
static void
lock(const PresenceName *room)
{
	LWLockAcquire(&locks[room->hash % PRESENCE_OCCUPANCY_LOCKS].lock, LW_EXCLUSIVE);
}

/* Unlock the partition of a room. */
static void
unlock(const PresenceName *room)
{
	LWLockRelease(&locks[room->hash % PRESENCE_OCCUPANCY_LOCKS].lock);
}

/* Find the entry of a room, or NULL; the lock is held. */
static Entry *
find(const PresenceName *room)
{
	Partition  *partition = partition_of(room);

	for (int i = 0; i < WAYS; i++)
	{
		Entry	   *entry = &partition->entries[i];

		if (partition->hashes[i] == room->hash &&
			entry->database == MyDatabaseId && entry->length == room->length &&
			memcmp(entry->name, room->data, room->length) == 0)
		{
			entry->last_use = ++partition->uses;
			return entry;
		}
	}
	return NULL;
}

/* Free an entry; the lock is held. */
static void
free_entry(Entry *entry)
{
	Assert(entry->reserved == 0);
	entry->database = InvalidOid;
	pg_atomic_fetch_sub_u32(&occupancy->used, 1);
}

/*
 * Choose an entry for a new room: an unused one or, if this process's database
 * may have no more, the one that it has used least recently; NULL if all have
 * reservations.
 */
static Entry *
choose(Partition *partition)
{
	Entry	   *oldest = NULL;
	Entry	   *unused = NULL;
	uint32		nunused = 0;
	uint32		held = 0;

	for (int i = 0; i < WAYS; i++)
	{
		Entry	   *entry = &partition->entries[i];

		if (!OidIsValid(entry->database))
		{
			unused = entry;
			nunused++;
		}
		if (entry->database != MyDatabaseId)
			continue;
		held++;
		if (entry->reserved == 0 &&
			(oldest == NULL || entry->last_use < oldest->last_use))
			oldest = entry;
	}
	if (presence_share_allows(WAYS, nunused, held, 1))
		return unused;
	if (oldest)
		free_entry(oldest);
	return oldest;
}

/* Make an entry for a room; NULL if there is no space.  The lock is held. */
static Entry *
make(const PresenceName *room)
{
	Partition  *partition = partition_of(room);
	Entry	   *entry = room->length <= MAX_NAME ? choose(partition) : NULL;

	if (entry == NULL)
		return NULL;
	memset(entry, 0, sizeof(Entry));
	entry->database = MyDatabaseId;
	entry->last_use = ++partition->uses;
	entry->left = ++partition->made << 32;
	entry->length = room->length;
	memcpy(entry->name, room->data, room->length);
	partition->hashes[entry - partition->entries] = room->hash;
	pg_atomic_fetch_add_u32(&occupancy->used, 1);
	return entry;
}

/* Expired members of a request who have not left meanwhile. */
static int64
still_expired(const Entry *entry, const PresenceOccupancyRequest *request)
{
	uint64		left = entry->left - request->since;

	return left < (uint64) request->expired ? request->expired - (int64) left : 0;
}

/* Reserve places in a room that is known; false if it is full. */
static bool
reserve(Entry *entry, PresenceOccupancyRequest *request)
{
	int64		others = entry->members + entry->reserved - request->held;

	Assert(entry->reserved >= request->held);
	if (others + request->needed - request->counted -
		still_expired(entry, request) > request->max_members)
	{
		request->left = entry->left;
		request->look_at = entry->look_at;
		request->contested = entry->reserved > request->held;
		return false;
	}
	entry->reserved += Max(request->needed - request->held, 0);
	return true;
}

/*
 * Reserve places in a room.  If they are granted, the transaction holds as many
 * as it needs, or as it held if that is more.
 */
PresenceOccupancyAnswer
presence_occupancy_reserve(const PresenceName *room,
						   PresenceOccupancyRequest *request)
{
	PresenceOccupancyAnswer answer = PRESENCE_OCCUPANCY_UNKNOWN;
	Entry	   *entry;

	lock(room);
	entry = find(room);
	if (entry && entry->state == KNOWN)
		answer = reserve(entry, request) ? PRESENCE_OCCUPANCY_RESERVED :
			PRESENCE_OCCUPANCY_FULL;
	unlock(room);
	return answer;
}

/* Give reserved places back. */
void
presence_occupancy_return(const PresenceName *room, int64 places)
{
	Entry	   *entry;

	lock(room);
	entry = find(room);
	Assert(entry && entry->reserved >= places);
	if (entry)
		entry->reserved -= places;
	unlock(room);
}

/* Whether any room has an entry. */
bool
presence_occupancy_in_use(void)
{
	return presence_shmem_ready() && pg_atomic_read_u32(&occupancy->used) > 0;
}

/*
 * A transaction has committed: it added and removed members of a room, for
 * which it holds a number of reserved places.
 */
void
presence_occupancy_settle(const PresenceName *room, int64 joined, int64 left,
						  int64 reserved)
{
	Entry	   *entry;

	lock(room);
	entry = find(room);
	Assert(reserved == 0 || (entry && entry->reserved >= reserved));
	if (entry)
	{
		entry->members += joined - left;
		entry->reserved -= reserved;
		entry->left += left;
		entry->settled++;
	}
	unlock(room);
}

/* No expired members were found: look again at a later time. */
void
presence_occupancy_put_off(const PresenceName *room, PresenceTime until)
{
	Entry	   *entry;

	lock(room);
	entry = find(room);
	if (entry)
		entry->look_at = until;
	unlock(room);
}

/*
 * Find or make the entry of a room; false if there is no space.  "known" says
 * that the members have been counted, "settled" how many commits have settled.
 */
bool
presence_occupancy_open(const PresenceName *room, uint64 *settled, bool *known)
{
	Entry	   *entry;

	lock(room);
	entry = find(room);
	if (entry == NULL)
		entry = make(room);
	if (entry)
	{
		*settled = entry->settled;
		*known = entry->state == KNOWN;
	}
	unlock(room);
	return entry != NULL;
}

/*
 * Begin to count the members that a snapshot shows; false if a transaction has
 * settled since presence_occupancy_open(), or the entry was dropped.
 */
bool
presence_occupancy_begin(const PresenceName *room, uint64 settled)
{
	Entry	   *entry;
	bool		valid;

	lock(room);
	entry = find(room);
	valid = entry && entry->settled == settled;
	if (valid)
	{
		entry->members = 0;
		entry->state = COUNTING;
	}
	unlock(room);
	return valid;
}

/* The members were counted; false if that has become void meanwhile. */
bool
presence_occupancy_finish(const PresenceName *room, int64 members)
{
	Entry	   *entry;
	bool		valid;

	lock(room);
	entry = find(room);
	valid = entry && entry->state == COUNTING;
	if (valid)
	{
		entry->members += members;
		entry->state = KNOWN;
	}
	unlock(room);
	return valid;
}

/*
 * The caller counts rows instead, and keeps the room's heavyweight lock to its
 * end: whoever needs the number after that counts anew.  Returns how many
 * places are reserved.
 */
int64
presence_occupancy_suspend(const PresenceName *room)
{
	int64		reserved = 0;
	Entry	   *entry;

	lock(room);
	entry = find(room);
	if (entry)
	{
		entry->state = UNKNOWN;
		reserved = entry->reserved;
	}
	unlock(room);
	return reserved;
}

/*
 * Forget the members of all rooms of a database.  Reservations stay, since
 * their transactions are running.
 */
void
presence_occupancy_forget(Oid database)
{
	if (!presence_occupancy_in_use())
		return;
	for (int i = 0; i < PRESENCE_OCCUPANCY_LOCKS; i++)
	{
		LWLockAcquire(&locks[i].lock, LW_EXCLUSIVE);
		for (int j = 0; j < WAYS; j++)
		{
			Entry	   *entry = &occupancy->partitions[i].entries[j];

			if (entry->database != database)
				continue;
			entry->state = UNKNOWN;
			entry->settled++;
			if (entry->reserved == 0)
				free_entry(entry);
		}
		LWLockRelease(&locks[i].lock);
	}
}
