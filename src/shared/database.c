/*-------------------------------------------------------------------------
 *
 * database.c
 *		Keeps a record of each database in which presence is used.
 *
 * The record holds what the processes of the database share: sequence numbers,
 * counters, and fields of higher modules, which database.h names.  This module
 * provides what all of these modules need: finding the record, counting, and
 * requesting a worker.
 *
 * One LWLock, the control lock, protects the directory of records and the
 * worker slots in them (slot.c).  A record may be freed only while its slot is
 * empty and no worker is wanted, so the two cannot have separate locks.  It is
 * held for a few instructions.  A spinlock in each record protects its list of
 * moved deadlines.  The other fields are atomic.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "base/shmem.h"
#include "miscadmin.h"
#include "shared/database.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

typedef struct PresenceDatabases
{
	uint64		epoch;			/* fixed at creation */
	Latch	   *launcher;		/* control lock; NULL: not running */
	PresenceDatabase records[PRESENCE_MAX_DATABASES];
} PresenceDatabases;

static PresenceDatabases *databases;
static LWLock *control_lock;
static PresenceDatabase *my_database;

/* Bytes of shared memory that the records need. */
Size
presence_database_shmem_size(void)
{
	return sizeof(PresenceDatabases);
}

/* Initialize a record for a database. */
static void
init_record(PresenceDatabase *record, Oid oid)
{
	record->oid = oid;
	record->worker_state = PRESENCE_WORKER_NONE;
	record->worker_pid = 0;
	record->worker_latch = NULL;
	record->wanted = false;
	record->holds = 0;
	record->recheck_extension = false;
	record->failures = 0;
	record->retry_at = 0;
	pg_atomic_init_u64(&record->grace_start, 0);
	pg_atomic_init_u64(&record->grace_start_announced, 0);
	pg_atomic_init_u64(&record->next_wakeup, 0);
	pg_atomic_init_u64(&record->wall_offset, (uint64) presence_clock_wall_offset());
	record->moved_all = false;
	record->nmoved = 0;
	pg_atomic_init_u32(&record->loaded, PRESENCE_LOAD_PARTIAL);
	pg_atomic_init_u32(&record->last_seen_rows, 1);
	pg_atomic_init_u64(&record->tickets, 0);
	pg_atomic_init_u64(&record->rules, 1);
	pg_atomic_init_u32(&record->owes_counts, 0);
	pg_atomic_init_u32(&record->delivering, InvalidTransactionId);
	for (int i = 0; i < PRESENCE_NSTREAMS; i++)
	{
		pg_atomic_init_u64(&record->seq[i], 0);
		pg_atomic_init_u64(&record->given[i], 0);
		pg_atomic_init_u64(&record->resumable[i], 0);
	}
	for (int i = 0; i < PRESENCE_NCOUNTERS; i++)
		pg_atomic_init_u64(&record->counters[i], 0);
	pg_atomic_write_u64(&record->counters[PRESENCE_STATS_RESET],
						(uint64) GetCurrentTimestamp());
}

/* Attach to the records, initializing them when new. */
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
	{
		SpinLockInit(&databases->records[i].moved_lock);
		init_record(&databases->records[i], InvalidOid);
	}
}

/* The control lock, for slot.c. */
LWLock *
presence_database_lock(void)
{
	return control_lock;
}

/* A number, carried by events, that identifies this run of the server. */
uint64
presence_database_epoch(void)
{
	return databases->epoch;
}

/*
 * Whether anything was announced since the record was taken.  Then it must not
 * be freed: numbers would repeat within the epoch.
 */
bool
presence_database_has_announced(PresenceDatabase *database)
{
	for (int i = 0; i < PRESENCE_NSTREAMS; i++)
		if (pg_atomic_read_u64(&database->seq[i]) != 0 ||
			pg_atomic_read_u64(&database->resumable[i]) != 0)
			return true;
	return false;
}

/* Find the record of a database, or NULL. */
PresenceDatabase *
presence_database_find(Oid oid)
{
	for (int i = 0; i < PRESENCE_MAX_DATABASES; i++)
		if (databases->records[i].oid == oid)
			return &databases->records[i];
	return NULL;
}

/* The same, taking a free record if there is none.  The lock is held. */
static PresenceDatabase *
find_or_take(Oid oid)
{
	PresenceDatabase *record = presence_database_find(oid);

	if (record == NULL)
	{
		record = presence_database_find(InvalidOid);
		if (record)
			init_record(record, oid);
	}
	return record;
}

/* Find or make the record of a database; NULL if all are in use. */
PresenceDatabase *
presence_database_get(Oid oid)
{
	PresenceDatabase *record = presence_database_find(oid);

	if (record)
		return record;
	LWLockAcquire(control_lock, LW_EXCLUSIVE);
	record = find_or_take(oid);
	LWLockRelease(control_lock);
	return record;
}

/* The record of this database; NULL without shared memory or a free record. */
PresenceDatabase *
presence_my_database(void)
{
	if (!presence_shmem_ready())
		return NULL;
	if (my_database == NULL || my_database->oid != MyDatabaseId)
		my_database = presence_database_get(MyDatabaseId);
	return my_database;
}

/* The record with an index; its oid says whether it is in use. */
PresenceDatabase *
presence_database_at(int index)
{
	return &databases->records[index];
}

/* The index of a record. */
int
presence_database_index(const PresenceDatabase *database)
{
	return database - databases->records;
}

/* Free the record of a dropped database, unless it has a worker. */
void
presence_database_forget(Oid oid)
{
	PresenceDatabase *record;

	LWLockAcquire(control_lock, LW_EXCLUSIVE);
	record = presence_database_find(oid);
	if (record && record->worker_state == PRESENCE_WORKER_NONE)
		init_record(record, InvalidOid);
	LWLockRelease(control_lock);
}

/* Free a record, unless its worker is running, wanted or blocked. */
void
presence_database_release(PresenceDatabase *database)
{
	LWLockAcquire(control_lock, LW_EXCLUSIVE);
	if (!database->wanted && database->holds == 0 &&
		database->worker_state == PRESENCE_WORKER_NONE)
		init_record(database, InvalidOid);
	LWLockRelease(control_lock);
}

/* Add to a counter; nothing is counted for a database without a record. */
void
presence_database_add(PresenceDatabase *database, PresenceCounter counter,
					  uint64 count)
{
	if (database)
		pg_atomic_fetch_add_u64(&database->counters[counter], count);
}

/* Set a value that is not a count. */
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

/* Set the launcher's latch; NULL when it exits. */
void
presence_database_set_launcher(Latch *latch)
{
	LWLockAcquire(control_lock, LW_EXCLUSIVE);
	databases->launcher = latch;
	LWLockRelease(control_lock);
}

/* Wake the launcher, if it is running. */
void
presence_database_wake_launcher(void)
{
	Latch	   *latch = databases->launcher;

	if (latch)
		SetLatch(latch);
}

/* Wake the worker of a database, if it is running. */
void
presence_database_wake_worker(PresenceDatabase *database)
{
	Latch	   *latch = database->worker_latch;

	if (latch)
		SetLatch(latch);
}

/*
 * A channel expires earlier than before: have the worker look at its entry.  If
 * too many have not been looked at, it looks at all.
 */
void
presence_database_note_moved(PresenceDatabase *database, PresenceEntryRef ref)
{
	if (database == NULL)
		return;
	SpinLockAcquire(&database->moved_lock);
	if (database->nmoved < PRESENCE_MAX_MOVED)
		database->moved[database->nmoved++] = ref;
	else
		database->moved_all = true;
	SpinLockRelease(&database->moved_lock);
	presence_database_wake_worker(database);
}

/* All channels may expire earlier than before. */
void
presence_database_note_all_moved(PresenceDatabase *database)
{
	if (database == NULL)
		return;
	SpinLockAcquire(&database->moved_lock);
	database->moved_all = true;
	SpinLockRelease(&database->moved_lock);
	presence_database_wake_worker(database);
}

/*
 * Take the entries that were noted; returns how many.  "refs" has space for
 * PRESENCE_MAX_MOVED.  "all" says that there were more.
 */
int
presence_database_take_moved(PresenceDatabase *database, PresenceEntryRef *refs, bool *all)
{
	int			count;

	SpinLockAcquire(&database->moved_lock);
	count = database->nmoved;
	memcpy(refs, database->moved, count * sizeof(PresenceEntryRef));
	*all = database->moved_all;
	database->nmoved = 0;
	database->moved_all = false;
	SpinLockRelease(&database->moved_lock);
	return count;
}

/*
 * Request a worker for a database that may have no record yet.  Returns false
 * if all records are in use.  May be called while a transaction commits, too.
 */
bool
presence_database_want_look(Oid oid)
{
	PresenceDatabase *record;

	LWLockAcquire(control_lock, LW_EXCLUSIVE);
	record = find_or_take(oid);
	if (record && record->worker_state == PRESENCE_WORKER_NONE)
		record->wanted = true;
	LWLockRelease(control_lock);
	presence_database_wake_launcher();
	return record != NULL;
}

/*
 * Request a worker for this process's database, unless it has one.  The
 * launcher may have freed the record since the caller looked it up, if nothing
 * had happened in the database until then; so look it up again.
 */
void
presence_database_want_worker(PresenceDatabase *database)
{
	if (database && (database->oid != MyDatabaseId ||
					 (database->worker_state == PRESENCE_WORKER_NONE && !database->wanted)))
		(void) presence_database_want_look(MyDatabaseId);
}
