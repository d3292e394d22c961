/*-------------------------------------------------------------------------
 *
 * slot.c
 *		Says which worker a database has, and when it may have another.
 *
 * Each database has one slot, in its record, for one worker:
 *
 *	          start                    claim
 *	NONE ──────────────► STARTING ──────────────► RUNNING
 *	  ▲                      │                       │
 *	  ├── abandon, turn away ┘                       │
 *	  └── leave, fail ───────────────────────────────┘
 *
 *	start      the launcher asks for a worker: one is wanted, nobody holds it
 *	           off, the pause is over
 *	claim      the worker has come; also from NONE, where it was abandoned before
 *	turn away  it has come, but is held off by now: still wanted, no failure
 *	abandon    none came: still wanted, after a pause; the queue is closed, so
 *	           transactions announce their changes themselves
 *	leave      it ends by its own will: not wanted, past failures are forgotten
 *	fail       it ends by an error: wanted again, after a pause
 *
 * A pause doubles with each failure, up to a limit.  Beside the state stand
 * what others ask for:
 *
 *	wanted     a worker is to be started.  Asked for by whoever finds none
 *	           (presence_database_want_worker(), in database.c, where modules
 *	           below this one can reach it); a worker that comes answers it
 *	holds      how many statements need the database for themselves: the worker
 *	           leaves, and none is started
 *	recheck_extension   the extension may go: the worker is to look for it
 *
 * Locking.  All that is changed here is changed under the control lock, which
 * this module shares with the directory of databases (database.c) alone: a
 * record may be freed only while its slot is NONE and nobody wants a worker or
 * holds one off.  It is held for a few instructions.  Two fields need no lock:
 * "recheck_extension", and "failures" while the worker that sets it to zero is RUNNING.
 *
 * Without shared memory there are no slots.  A user lock, held for the session,
 * stands for one; nobody starts a worker again there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "shared/liveness.h"
#include "shared/queue.h"
#include "shared/registry.h"
#include "shared/slot.h"
#include "shared/state.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "storage/lwlock.h"

/* Pause before a worker is tried again, which doubles; microseconds. */
#define FIRST_PAUSE (100 * 1000)
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

/* A worker is to be tried again, but not at once.  The lock is held. */
static void
back_off(PresenceDatabase *database)
{
	database->wanted = true;
	database->failures++;
	database->retry_at = presence_clock_now() +
		((PresenceTime) FIRST_PAUSE << Min(database->failures, MAX_DOUBLINGS));
}

/* NONE -> STARTING, if that is due; whoever called is to ask for a worker. */
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

/* STARTING -> NONE: no worker came, unless one did a moment ago. */
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

/* Empty the slot of this process.  The lock is held. */
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
 * RUNNING -> NONE, by the worker's own will.  Whether another one is needed the
 * caller asks afterwards: a transaction that commits at this moment wants a
 * worker only once it finds none; before, what it leaves to do is there already.
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

/* RUNNING -> NONE, by an error: the process ends without having left. */
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

/* NONE or STARTING -> RUNNING.  The lock is held. */
static void
occupy(PresenceDatabase *database)
{
	Assert(database->worker_state != PRESENCE_WORKER_RUNNING);
	database->worker_state = PRESENCE_WORKER_RUNNING;
	database->worker_pid = MyProcPid;
	database->worker_latch = MyLatch;
	database->wanted = false;
}

/* STARTING -> NONE: held off by now, and wanted after that.  The lock is held. */
static void
turn_away(PresenceDatabase *database)
{
	Assert(database->worker_state == PRESENCE_WORKER_STARTING);
	Assert(database->holds > 0);
	database->worker_state = PRESENCE_WORKER_NONE;
	database->wanted = true;
}

/* Make this process the worker; false: another one is, or it is held off. */
bool
presence_slot_claim(PresenceDatabase *database)
{
	bool		claimed;

	lock_slots();
	claimed = database->worker_pid == 0 && database->holds == 0;
	if (claimed)
		occupy(database);
	else if (database->worker_state == PRESENCE_WORKER_STARTING)
		turn_away(database);
	unlock_slots();
	if (claimed)
		before_shmem_exit(fail, PointerGetDatum(database));
	return claimed;
}

/* The worker has done what it is for: earlier failures do not count any more. */
void
presence_slot_note_success(PresenceDatabase *database)
{
	Assert(database->worker_pid == MyProcPid);
	database->failures = 0;
}

/*
 * Keep workers away from a database, and ask the one that runs to leave; which
 * database that was, for presence_slot_unblock_worker().
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

/* Let a worker come back, unless the database is gone, and its slot another's. */
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

/* Somebody is dropping the extension: have the worker look for it. */
void
presence_slot_recheck_extension(PresenceDatabase *database)
{
	database->recheck_extension = true;
	presence_database_wake_worker(database);
}

/* The worker is about to look; whether there is need. */
bool
presence_slot_extension_rechecked(PresenceDatabase *database)
{
	bool		recheck_extension = database->recheck_extension;

	database->recheck_extension = false;
	return recheck_extension;
}

/* Whether queue, registry and state hold nothing of a database. */
bool
presence_slot_is_empty(PresenceDatabase *database)
{
	return presence_queue_is_empty(database) &&
		presence_registry_count(database->oid) == 0 &&
		presence_state_is_empty(database->oid);
}

/*
 * Forget all that they hold, for the database or its extension is gone, and the
 * record as well, unless it has a worker.  Somebody else may have done so before.
 */
void
presence_slot_forget(PresenceDatabase *database, Oid oid)
{
	if (database->oid != oid)
		return;
	pg_atomic_write_u32(&database->loaded, PRESENCE_LOAD_PARTIAL);
	presence_queue_reset(database);
	presence_registry_clear(oid);
	presence_state_clear(oid);
	presence_database_forget(oid);
}

/*
 * The lock that the only worker of a database holds for its session where there
 * is no shared memory.  It is a user lock because those alone are released when
 * an idle process is terminated.
 */
static LOCKTAG
lock_of_worker(Oid extension)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, extension, 1);
	tag.locktag_lockmethodid = USER_LOCKMETHOD;
	return tag;
}

/* Whether a worker has it; those who ask do not see each other. */
static bool
is_locked_out(const LOCKTAG *tag)
{
	if (LockAcquire(tag, ShareLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(tag, ShareLock, true);
	return false;
}

/*
 * Make this process the worker of a database without shared memory, past those
 * who only ask; false: another one is.
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

/* Whether a worker runs in this database, without shared memory. */
bool
presence_slot_is_claimed_alone(void)
{
	LOCKTAG		tag = lock_of_worker(get_extension_oid("presence", false));

	return is_locked_out(&tag);
}
