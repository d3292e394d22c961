/*-------------------------------------------------------------------------
 *
 * slot.c
 *		Controls which worker a database has, and when the next may start.
 *
 * Each database has one slot, in its record, for one worker:
 *
 *	          start                    claim
 *	NONE ──────────────► STARTING ──────────────► RUNNING
 *	  ▲                      │                       │
 *	  ├── abandon, reject ───┘                       │
 *	  └── leave, fail ───────────────────────────────┘
 *
 *	start      the launcher requests a worker, if one is wanted, workers are
 *	           not blocked and the back-off delay is over
 *	claim      the worker has started; also from NONE, if it was abandoned
 *	reject     the worker has started, but workers are blocked by now: it is
 *	           still wanted, and this is no failure
 *	abandon    no worker started: it is still wanted, after a delay; the queue
 *	           is closed, so transactions announce their changes themselves
 *	leave      the worker exits normally: not wanted, failures set to 0
 *	fail       the worker exits by an error: wanted again, after a delay
 *
 * The delay doubles with each failure, up to a limit.  Besides the state there
 * are requests of other processes:
 *
 *	wanted     a worker is to be started.  Set by any process that finds none
 *	           running (presence_database_want_worker(), which is in database.c
 *	           so that modules below this one can call it), cleared by the
 *	           worker that claims the slot
 *	holds      number of statements that need exclusive use of the database:
 *	           the worker leaves, and none is started
 *	recheck_extension
 *	           the extension may be being dropped: the worker has to check
 *
 * Locking.  Everything here is changed under the control lock, which only
 * this module and the directory of databases (database.c) use: a record may
 * be freed only while its slot is NONE and no worker is wanted or blocked.
 * It is held for a few instructions.  Two fields need no lock:
 * "recheck_extension", and "failures" when the RUNNING worker sets it to
 * zero.
 *
 * Without shared memory there are no slots.  A user lock, held for the
 * session, takes their place; a worker is not restarted then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/shmem.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "shared/liveness.h"
#include "shared/queue.h"
#include "shared/registry.h"
#include "shared/slot.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "storage/lwlock.h"

/* Delay before the next attempt, doubled per failure; microseconds. */
#define FIRST_DELAY (100 * 1000)
#define MAX_DOUBLINGS 8

/* Take the control lock. */
static void
lock_slots(void)
{
	LWLockAcquire(presence_database_lock(), LW_EXCLUSIVE);
}

/* Release it. */
static void
unlock_slots(void)
{
	LWLockRelease(presence_database_lock());
}

/* Want a worker again, after a delay.  The caller holds the lock. */
static void
back_off(PresenceDatabase *database)
{
	database->wanted = true;
	database->failures++;
	database->retry_at = presence_clock_now() +
		((PresenceTime) FIRST_DELAY << Min(database->failures, MAX_DOUBLINGS));
}

/* NONE -> STARTING, if that is due: the caller must start a worker then. */
bool
presence_slot_start(PresenceDatabase *database)
{
	bool		due;

	lock_slots();
	due = OidIsValid(database->oid) && database->wanted &&
		database->worker_state == PRESENCE_WORKER_NONE &&
		database->holds == 0 && presence_clock_now() >= database->retry_at;
	if (due)
		database->worker_state = PRESENCE_WORKER_STARTING;
	unlock_slots();
	return due;
}

/* STARTING -> NONE: no worker started, unless one did a moment ago. */
void
presence_slot_abandon(PresenceDatabase *database)
{
	lock_slots();
	if (database->worker_state == PRESENCE_WORKER_STARTING)
	{
		Assert(database->worker_pid == 0);
		database->worker_state = PRESENCE_WORKER_NONE;
		back_off(database);
	}
	unlock_slots();
	(void) presence_queue_close(database, true);
}

/* No worker is to be started after all. */
void
presence_slot_unwant(PresenceDatabase *database)
{
	lock_slots();
	database->wanted = false;
	unlock_slots();
}

/* Empty the slot of this process.  The caller holds the lock. */
static void
vacate(PresenceDatabase *database)
{
	Assert(database->worker_state == PRESENCE_WORKER_RUNNING);
	Assert(database->worker_pid == MyProcPid);
	database->worker_state = PRESENCE_WORKER_NONE;
	database->worker_pid = 0;
	database->worker_latch = NULL;
	presence_liveness_disarm_watchdog(database);
}

/*
 * RUNNING -> NONE, normal exit.  The caller checks afterwards whether another
 * worker is needed: a transaction that commits at this moment requests one if
 * it finds none, and otherwise its hints are queued already.
 */
void
presence_slot_leave(PresenceDatabase *database)
{
	lock_slots();
	vacate(database);
	database->wanted = false;
	database->failures = 0;
	database->retry_at = 0;
	unlock_slots();
	presence_database_wake_launcher();
}

/* RUNNING -> NONE, by an error: the process exits without having left. */
static void
fail(int code, Datum arg)
{
	PresenceDatabase *database = (PresenceDatabase *) DatumGetPointer(arg);

	if (database->worker_pid != MyProcPid)
		return;
	lock_slots();
	vacate(database);
	back_off(database);
	unlock_slots();
	presence_database_wake_launcher();
}

/* NONE or STARTING -> RUNNING.  The caller holds the lock. */
static void
occupy(PresenceDatabase *database)
{
	Assert(database->worker_state != PRESENCE_WORKER_RUNNING);
	database->worker_state = PRESENCE_WORKER_RUNNING;
	database->worker_pid = MyProcPid;
	database->worker_latch = MyLatch;
	database->wanted = false;
	presence_liveness_disarm_watchdog(database);	/* of a worker that failed */
}

/* STARTING -> NONE: blocked, but still wanted.  The caller holds the lock. */
static void
reject(PresenceDatabase *database)
{
	Assert(database->worker_state == PRESENCE_WORKER_STARTING);
	Assert(database->holds > 0);
	database->worker_state = PRESENCE_WORKER_NONE;
	database->wanted = true;
}

/* Make this process the worker; false if there is one, or it is blocked. */
bool
presence_slot_claim(PresenceDatabase *database)
{
	bool		claimed;

	lock_slots();
	claimed = database->worker_pid == 0 && database->holds == 0;
	if (claimed)
		occupy(database);
	else if (database->worker_state == PRESENCE_WORKER_STARTING)
		reject(database);
	unlock_slots();
	if (claimed)
		before_shmem_exit(fail, PointerGetDatum(database));
	return claimed;
}

/* The worker has done a round of work: forget earlier failures. */
void
presence_slot_note_success(PresenceDatabase *database)
{
	Assert(database->worker_pid == MyProcPid);
	database->failures = 0;
}

/*
 * Block workers of a database and make the running one leave.  Returns the
 * oid of the database, for presence_slot_unblock_worker().
 */
Oid
presence_slot_block_worker(PresenceDatabase *database)
{
	Oid			oid;

	lock_slots();
	database->holds++;
	oid = database->oid;
	unlock_slots();
	presence_database_wake_worker(database);
	return oid;
}

/* Unblock workers, unless the record has passed to another database. */
void
presence_slot_unblock_worker(PresenceDatabase *database, Oid oid)
{
	lock_slots();
	if (database->oid == oid)
	{
		Assert(database->holds > 0);
		database->holds--;
	}
	unlock_slots();
	presence_database_wake_launcher();
}

/* A session is dropping the extension: have the worker check. */
void
presence_slot_recheck_extension(PresenceDatabase *database)
{
	database->recheck_extension = true;
	presence_database_wake_worker(database);
}

/* Return and clear the request to check for the extension. */
bool
presence_slot_extension_rechecked(PresenceDatabase *database)
{
	if (!database->recheck_extension)
		return false;			/* without a write that could undo a request */
	database->recheck_extension = false;
	return true;
}

/* Whether queue and registry hold nothing of a database. */
bool
presence_slot_is_empty(PresenceDatabase *database)
{
	return presence_queue_is_empty(database) &&
		presence_registry_count(database->oid) == 0;
}

/*
 * The database or its extension was dropped: free all of its shared memory
 * and, unless it has a worker, its record.  Another process may have done so
 * before.
 */
void
presence_slot_forget(PresenceDatabase *database, Oid oid)
{
	if (database->oid != oid)
		return;
	pg_atomic_write_u32(&database->loaded, PRESENCE_LOAD_PARTIAL);
	presence_queue_reset(database);
	presence_shmem_clear(oid);
	presence_database_forget(oid);
}

/*
 * The lock that the only worker of a database holds for its session if there
 * is no shared memory.  It is a user lock because only those are released
 * when an idle process is terminated.
 */
static LOCKTAG
lock_of_worker(Oid extension)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, extension, 1);
	tag.locktag_lockmethodid = USER_LOCKMETHOD;
	return tag;
}

/* Whether a worker holds it; processes that test do not conflict. */
static bool
is_locked_out(const LOCKTAG *tag)
{
	if (LockAcquire(tag, ShareLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(tag, ShareLock, true);
	return false;
}

/*
 * Make this process the worker of a database without shared memory; false if
 * there is one.  Retries while other processes only test the lock.
 */
bool
presence_slot_claim_alone(Oid extension)
{
	LOCKTAG		tag = lock_of_worker(extension);

	while (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
	{
		if (is_locked_out(&tag))
			return false;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(1000);
	}
	return true;
}

/* Whether a worker is running in this database, without shared memory. */
bool
presence_slot_is_claimed_alone(void)
{
	LOCKTAG		tag = lock_of_worker(get_extension_oid("presence", false));

	return is_locked_out(&tag);
}
