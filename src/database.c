/*-------------------------------------------------------------------------
 *
 * database.c
 *		Keeps what the processes of one database share.
 *
 * Each database in which presence is used has a slot here: its worker, its
 * numbers, its counters.  One LWLock, the control lock, guards the directory of
 * slots and the fields that say so in database.h; it is held for a few
 * instructions.  The other fields are atomic.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "database.h"
#include "miscadmin.h"
#include "shmem.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

typedef struct PresenceDatabases
{
	uint64		epoch;			/* fixed at creation */
	Latch	   *launcher;		/* lock; NULL: none runs */
	PresenceDatabase slots[PRESENCE_MAX_DATABASES];
} PresenceDatabases;

static PresenceDatabases *databases;
static LWLock *control_lock;
static PresenceDatabase *my_database;

/* Bytes of shared memory that the slots need. */
Size
presence_database_shmem_size(void)
{
	return sizeof(PresenceDatabases);
}

/* Empty a slot and give it to a database. */
static void
init_slot(PresenceDatabase *slot, Oid oid)
{
	slot->oid = oid;
	slot->worker_state = PRESENCE_WORKER_NONE;
	slot->worker_pid = 0;
	slot->worker_latch = NULL;
	slot->wanted = false;
	slot->holds = 0;
	slot->doubtful = false;
	slot->failures = 0;
	slot->retry_at = 0;
	pg_atomic_init_u64(&slot->floor, 0);
	pg_atomic_init_u64(&slot->floor_told, 0);
	pg_atomic_init_u64(&slot->due, 0);
	pg_atomic_init_u64(&slot->wall_offset, (uint64) presence_clock_wall_offset());
	pg_atomic_init_u32(&slot->loaded, PRESENCE_LOAD_PARTIAL);
	pg_atomic_init_u32(&slot->last_seen_rows, 1);
	pg_atomic_init_u64(&slot->tickets, 0);
	pg_atomic_init_u64(&slot->rules, 1);
	for (int i = 0; i < PRESENCE_NVOICES; i++)
		pg_atomic_init_u64(&slot->seq[i], 0);
	for (int i = 0; i < PRESENCE_NCOUNTERS; i++)
		pg_atomic_init_u64(&slot->counters[i], 0);
	pg_atomic_write_u64(&slot->counters[PRESENCE_STATS_RESET],
						(uint64) GetCurrentTimestamp());
}

/* Attach to the slots, creating them when new. */
void
presence_database_shmem_init(void *area, bool found)
{
	databases = area;
	control_lock = &GetNamedLWLockTranche("presence_control")->lock;
	if (found)
		return;
	if (!pg_strong_random(&databases->epoch, sizeof(databases->epoch)))
		databases->epoch = (uint64) GetCurrentTimestamp();
	databases->launcher = NULL;
	for (int i = 0; i < PRESENCE_MAX_DATABASES; i++)
		init_slot(&databases->slots[i], InvalidOid);
}

/* The lock that guards the slots' directory and workers. */
LWLock *
presence_database_lock(void)
{
	return control_lock;
}

/* Number that marks this run of the server in events. */
uint64
presence_database_epoch(void)
{
	return databases->epoch;
}

/* The slot of a database, or NULL. */
PresenceDatabase *
presence_database_find(Oid oid)
{
	for (int i = 0; i < PRESENCE_MAX_DATABASES; i++)
		if (databases->slots[i].oid == oid)
			return &databases->slots[i];
	return NULL;
}

/* The same, taking a free one; NULL when all are taken.  The lock is held. */
static PresenceDatabase *
find_or_take(Oid oid)
{
	PresenceDatabase *slot = presence_database_find(oid);

	if (slot == NULL)
	{
		slot = presence_database_find(InvalidOid);
		if (slot)
			init_slot(slot, oid);
	}
	return slot;
}

/* The slot of a database, taking a free one; NULL when all are taken. */
PresenceDatabase *
presence_database_get(Oid oid)
{
	PresenceDatabase *slot = presence_database_find(oid);

	if (slot)
		return slot;
	LWLockAcquire(control_lock, LW_EXCLUSIVE);
	slot = find_or_take(oid);
	LWLockRelease(control_lock);
	return slot;
}

/* The slot of this process's database; NULL without shared memory or slot. */
PresenceDatabase *
presence_database_mine(void)
{
	if (!presence_shmem_ready())
		return NULL;
	if (my_database == NULL || my_database->oid != MyDatabaseId)
		my_database = presence_database_get(MyDatabaseId);
	return my_database;
}

/* The slot with an index; its oid says whether it is in use. */
PresenceDatabase *
presence_database_at(int index)
{
	return &databases->slots[index];
}

/* The index of a slot. */
int
presence_database_index(const PresenceDatabase *database)
{
	return database - databases->slots;
}

/* Free the slot of a database that is gone. */
void
presence_database_forget(Oid oid)
{
	PresenceDatabase *slot;

	LWLockAcquire(control_lock, LW_EXCLUSIVE);
	slot = presence_database_find(oid);
	if (slot && slot->worker_state == PRESENCE_WORKER_NONE)
		init_slot(slot, InvalidOid);
	LWLockRelease(control_lock);
}

/* Free a slot, unless somebody has come to want a worker there. */
void
presence_database_release(PresenceDatabase *database)
{
	LWLockAcquire(control_lock, LW_EXCLUSIVE);
	if (!database->wanted && database->holds == 0 &&
		database->worker_state == PRESENCE_WORKER_NONE)
		init_slot(database, InvalidOid);
	LWLockRelease(control_lock);
}

/* Count; a database without a slot is not counted. */
void
presence_database_add(PresenceDatabase *database, PresenceCounter counter,
					  uint64 count)
{
	if (database)
		pg_atomic_fetch_add_u64(&database->counters[counter], count);
}

/* Set a figure that is not a count. */
void
presence_database_set(PresenceDatabase *database, PresenceCounter counter,
					  uint64 value)
{
	if (database)
		pg_atomic_write_u64(&database->counters[counter], value);
}

/* Read a counter. */
uint64
presence_database_count(PresenceDatabase *database, PresenceCounter counter)
{
	return pg_atomic_read_u64(&database->counters[counter]);
}

/* Set every counter to zero. */
void
presence_database_reset_counters(PresenceDatabase *database)
{
	for (int i = 0; i < PRESENCE_NCOUNTERS; i++)
		presence_database_set(database, i, 0);
	presence_database_set(database, PRESENCE_STATS_RESET,
						  (uint64) GetCurrentTimestamp());
}

/* Say where the launcher is to be woken; NULL when it ends. */
void
presence_database_set_launcher(Latch *latch)
{
	LWLockAcquire(control_lock, LW_EXCLUSIVE);
	databases->launcher = latch;
	LWLockRelease(control_lock);
}

/* Wake the launcher, where one runs. */
void
presence_database_wake_launcher(void)
{
	Latch	   *latch = databases->launcher;

	if (latch)
		SetLatch(latch);
}

/* Wake the worker of a database, where one runs. */
void
presence_database_wake_worker(PresenceDatabase *database)
{
	Latch	   *latch = database->worker_latch;

	if (latch)
		SetLatch(latch);
}

/*
 * Ask for a worker where none runs.  Neither allocates nor fails, so that it
 * may be called while a transaction commits.
 */
void
presence_database_want_worker(PresenceDatabase *database)
{
	if (database == NULL ||
		database->worker_state != PRESENCE_WORKER_NONE || database->wanted)
		return;
	LWLockAcquire(control_lock, LW_EXCLUSIVE);
	if (database->worker_state == PRESENCE_WORKER_NONE)
		database->wanted = true;
	LWLockRelease(control_lock);
	presence_database_wake_launcher();
}

/*
 * Have a worker look into a database of which nothing may be known yet; false:
 * all slots are taken.  May be called while a transaction commits, too.
 */
bool
presence_database_want_look(Oid oid)
{
	PresenceDatabase *slot;

	LWLockAcquire(control_lock, LW_EXCLUSIVE);
	slot = find_or_take(oid);
	if (slot && slot->worker_state == PRESENCE_WORKER_NONE)
		slot->wanted = true;
	LWLockRelease(control_lock);
	presence_database_wake_launcher();
	return slot != NULL;
}
