/*-------------------------------------------------------------------------
 *
 * database.c
 *		Keeps what the processes of one database share.
 *
 * Each database in which presence is used has a slot here: its worker, its
 * floor, its counters.  One LWLock, the control lock, guards the directory of
 * slots and the fields that say so in database.h; it is held for a few
 * instructions.  The other fields are atomic.
 *
 * The floor is the time before which silence proves nothing: the server was
 * down, in recovery, or stopped.  A presence is never older than the floor.
 * Where the library is not preloaded, the floor is read off the start times
 * of the server's own processes, which a crash or a promotion starts anew.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "compat.h"
#include "database.h"
#include "guc.h"
#include "miscadmin.h"
#include "shmem.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"


typedef struct PresenceDatabases
{
	uint64		epoch;			/* fixed at creation */
	Latch	   *launcher;		/* lock; NULL: none runs */
	pg_atomic_uint32 recovering;	/* until somebody sees recovery ended */
	pg_atomic_uint64 floor;		/* of all databases; PresenceTime */
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
	pg_atomic_init_u32(&slot->loaded, 0);
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
	pg_atomic_init_u32(&databases->recovering, 1);
	pg_atomic_init_u64(&databases->floor, (uint64) presence_clock_now());
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

/* Let all presences live on for a full max_age once recovery has ended. */
void
presence_database_end_recovery(void)
{
	uint32		expected = 1;

	if (pg_atomic_read_u32(&databases->recovering) == 0)
		return;
	pg_atomic_write_u64(&databases->floor, (uint64) presence_clock_now());
	pg_atomic_compare_exchange_u32(&databases->recovering, &expected, 0);
}

/*
 * The floor without shared memory: the newest start of the processes that
 * the postmaster starts again after a crash or a promotion.
 */
static PresenceTime
guess_floor(void)
{
	static PresenceTime floor = 0;
	TimestampTz newest = PgStartTime;
	int			nbackends;

	if (floor != 0)
		return floor;
	nbackends = pgstat_fetch_stat_numbackends();
	for (int i = 1; i <= nbackends; i++)
	{
		PgBackendStatus *status = presence_compat_backend_status(i);

		if (status->st_backendType == B_BG_WRITER ||
			status->st_backendType == B_CHECKPOINTER ||
			status->st_backendType == B_WAL_WRITER ||
			status->st_backendType == B_AUTOVAC_LAUNCHER)
			newest = Max(newest, status->st_proc_start_timestamp);
	}
	floor = presence_clock_from_timestamp(newest);
	return floor;
}

/* Time before which silence proves nothing, for this process's database. */
PresenceTime
presence_database_floor(void)
{
	PresenceDatabase *database;
	PresenceTime floor;

	if (RecoveryInProgress())
		return presence_clock_now();
	if (!presence_shmem_ready())
		return guess_floor();
	if (unlikely(pg_atomic_read_u32(&databases->recovering)))
		presence_database_end_recovery();
	floor = (PresenceTime) pg_atomic_read_u64(&databases->floor);
	database = presence_database_mine();
	if (database == NULL)
		return floor;
	return Max(floor, (PresenceTime) pg_atomic_read_u64(&database->floor));
}

/* Give every presence of a database a full max_age from a moment on. */
void
presence_database_raise_floor(PresenceDatabase *database, PresenceTime time)
{
	pg_atomic_write_u64(&database->floor, (uint64) time);
}

/* How late a worker may wake before that counts as a stall; microseconds. */
PresenceTime
presence_database_stall_limit(void)
{
	PresenceTime limit = (PresenceTime) presence_max_age * 1000 / 8;

	return Min(Max(limit, 500 * 1000), 1000 * 1000);
}

/* Whether the worker is overdue: the server was stopped, or it is. */
bool
presence_database_stalled(PresenceDatabase *database)
{
	PresenceTime due;

	if (database == NULL || database->worker_state != PRESENCE_WORKER_RUNNING)
		return false;
	due = (PresenceTime) pg_atomic_read_u64(&database->due);
	return due != 0 &&
		presence_clock_machine() > due + presence_database_stall_limit();
}
