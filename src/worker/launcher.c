/*-------------------------------------------------------------------------
 *
 * launcher.c
 *		Starts a worker in each database that needs one.
 *
 * The launcher is a static background worker of a server that preloads the
 * library.  At first it starts a worker once in each database, because
 * presences may have survived a restart.  Later, a committing transaction that
 * finds no worker sets "wanted" in the slot of its database and wakes the
 * launcher.
 *
 * slot.c has the states of a worker, and decides when one may be started.  If
 * a worker could not be started because max_worker_processes is exhausted, or
 * exited before it claimed its slot, the launcher abandons it.  If workers
 * fail to start in a database that has never been used, the launcher stops
 * trying.  It also frees the slot of a database that turns out not to have the
 * extension.
 *
 * The launcher is connected to no database and holds no lock while it waits.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/shmem.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "shared/database.h"
#include "shared/liveness.h"
#include "shared/slot.h"
#include "state/state.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "worker/launcher.h"

/* Databases that are probed at the same time after the start. */
#define MAX_PROBES 2

/* How often the slots are checked for pauses that are over; milliseconds. */
#define CHECK_INTERVAL 1000

/*
 * How long a worker that an earlier launcher requested may take to claim its
 * slot; microseconds.
 */
#define ORPHAN_TIMEOUT (5 * 1000 * 1000)

/* Failed starts after which an unused database gets no more. */
#define MAX_PROBE_FAILURES 3

static BackgroundWorkerHandle *handles[PRESENCE_MAX_DATABASES];

/* Since when a slot has been STARTING without a handle; 0: it is not. */
static PresenceTime orphaned_since[PRESENCE_MAX_DATABASES];

/* OIDs of databases that are still to be probed. */
static List *probes = NIL;

/* Register the launcher, at preload. */
void
presence_launcher_register(void)
{
	BackgroundWorker launcher;

	memset(&launcher, 0, sizeof(launcher));
	launcher.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	launcher.bgw_start_time = BgWorkerStart_RecoveryFinished;
	launcher.bgw_restart_time = 1;
	strlcpy(launcher.bgw_library_name, "presence", BGW_MAXLEN);
	strlcpy(launcher.bgw_function_name, "presence_launcher_main", BGW_MAXLEN);
	strlcpy(launcher.bgw_name, "presence launcher", BGW_MAXLEN);
	strlcpy(launcher.bgw_type, "presence launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&launcher);
}

/* Collect the databases that accept connections. */
static void
list_databases(void)
{
	Relation	relation;
	TableScanDesc scan;
	HeapTuple	tuple;
	MemoryContext old;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(relation, 0, NULL);
	old = MemoryContextSwitchTo(TopMemoryContext);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		CHECK_FOR_INTERRUPTS();
		if (form->datallowconn && form->datconnlimit != DATCONNLIMIT_INVALID_DB)
			probes = lappend_oid(probes, form->oid);
	}
	MemoryContextSwitchTo(old);
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	CommitTransactionCommand();
}

/* Whether a database still exists. */
static bool
database_exists(Oid database)
{
	bool		exists;

	StartTransactionCommand();
	exists = SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(database));
	CommitTransactionCommand();
	return exists;
}

/* Fill in the registration of a database's worker. */
static void
describe_worker(BackgroundWorker *description, Oid database)
{
	memset(description, 0, sizeof(*description));
	description->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	description->bgw_start_time = BgWorkerStart_RecoveryFinished;
	description->bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(description->bgw_library_name, "presence", BGW_MAXLEN);
	strlcpy(description->bgw_function_name, "presence_worker_main", BGW_MAXLEN);
	snprintf(description->bgw_name, BGW_MAXLEN, "presence worker for database %u", database);
	strlcpy(description->bgw_type, "presence worker", BGW_MAXLEN);
	description->bgw_main_arg = ObjectIdGetDatum(database);
	description->bgw_notify_pid = MyProcPid;
}

/* Register a worker with the postmaster. */
static void
start_worker(PresenceDatabase *database)
{
	int			index = presence_database_index(database);
	BackgroundWorker description;
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	if (handles[index])
		pfree(handles[index]);	/* of one that has given its slot back */
	describe_worker(&description, database->oid);
	if (!RegisterDynamicBackgroundWorker(&description, &handles[index]))
	{
		handles[index] = NULL;
		if (database->failures == 0)
			ereport(LOG,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("could not start a presence worker for database %u",
							database->oid),
					 errdetail("All background worker slots are taken; transactions announce their changes themselves."),
					 errhint("Raise max_worker_processes.")));
		presence_slot_abandon(database);
	}
	MemoryContextSwitchTo(old);
}

/* Whether a database shows no activity since its slot was taken. */
static bool
is_unused(PresenceDatabase *database)
{
	return !presence_database_has_announced(database) &&
		presence_database_count(database, PRESENCE_ADDS) == 0 &&
		presence_slot_is_empty(database) &&
		presence_state_is_empty(database->oid);
}

/*
 * The handles of workers that an earlier launcher requested are lost.  If such
 * a worker does not claim its slot in time, abandon it.
 */
static void
check_orphan(PresenceDatabase *database)
{
	PresenceTime *since = &orphaned_since[presence_database_index(database)];

	if (handles[presence_database_index(database)] != NULL ||
		database->worker_state != PRESENCE_WORKER_STARTING)
		*since = 0;
	else if (*since == 0)
		*since = presence_clock_now();
	else if (presence_clock_now() > *since + ORPHAN_TIMEOUT)
	{
		*since = 0;
		presence_slot_abandon(database);
	}
}

/* If a worker has ended, release its handle; abandon it if it was STARTING. */
static void
reap_worker(PresenceDatabase *database)
{
	int			index = presence_database_index(database);
	pid_t		pid;

	if (handles[index] == NULL ||
		GetBackgroundWorkerPid(handles[index], &pid) != BGWH_STOPPED)
		return;
	pfree(handles[index]);
	handles[index] = NULL;
	if (database->worker_state != PRESENCE_WORKER_STARTING)
		return;
	presence_slot_abandon(database);
	if (!database_exists(database->oid))
		presence_slot_forget(database, database->oid);
	else if (database->failures >= MAX_PROBE_FAILURES && is_unused(database))
		presence_slot_unwant(database); /* no worker can connect */
}

/* Whether a slot can be freed. */
static bool
is_disposable(PresenceDatabase *database)
{
	return OidIsValid(database->oid) && !database->wanted &&
		database->worker_state == PRESENCE_WORKER_NONE &&
		database->holds == 0 && is_unused(database);
}

/* Request workers for the next databases to probe, a few at a time. */
static void
probe_databases(void)
{
	int			starting = 0;

	for (int i = 0; i < PRESENCE_MAX_DATABASES; i++)
		if (presence_database_at(i)->worker_state == PRESENCE_WORKER_STARTING)
			starting++;
	while (probes != NIL && starting < MAX_PROBES)
	{
		if (!presence_database_want_look(linitial_oid(probes)))
			return;
		probes = list_delete_first(probes);
		starting++;
	}
}

/* Check every database: its worker may have ended, or have to be started. */
static void
check_databases(void)
{
	for (int i = 0; i < PRESENCE_MAX_DATABASES; i++)
	{
		PresenceDatabase *database = presence_database_at(i);

		if (!OidIsValid(database->oid))
			continue;
		reap_worker(database);
		check_orphan(database);
		if (presence_slot_start(database))
			start_worker(database);
	}
}

/* Free the slots of databases that were probed, and need no worker. */
static void
free_disposable_slots(void)
{
	for (int i = 0; i < PRESENCE_MAX_DATABASES; i++)
		if (handles[i] == NULL && is_disposable(presence_database_at(i)))
			presence_database_release(presence_database_at(i));
}

/* Unset the launcher's latch in shared memory, at exit. */
static void
stop_launcher(int code, Datum arg)
{
	presence_database_set_launcher(NULL);
}

/* Entry point of the launcher. */
void
presence_launcher_main(Datum arg)
{
	uint32		wait_event;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	wait_event = presence_compat_wait_event("PresenceLauncherMain");

	presence_liveness_end_recovery();
	before_shmem_exit(stop_launcher, (Datum) 0);
	presence_database_set_launcher(MyLatch);
	list_databases();
	for (;;)
	{
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		free_disposable_slots();
		probe_databases();
		check_databases();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 CHECK_INTERVAL, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Start a worker in this database without the launcher, and wait until it
 * runs; false if there is one already.
 */
static bool
start_alone(void)
{
	BackgroundWorker description;
	BackgroundWorkerHandle *handle;
	pid_t		pid;

	if (presence_slot_is_claimed_alone())
		return false;
	describe_worker(&description, MyDatabaseId);
	if (!RegisterDynamicBackgroundWorker(&description, &handle))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not start a presence worker"),
				 errdetail("All background worker slots are taken."),
				 errhint("Raise max_worker_processes.")));
	if (WaitForBackgroundWorkerStartup(handle, &pid) != BGWH_STARTED &&
		!presence_slot_is_claimed_alone())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("the presence worker did not start"),
				 errhint("See the server log for the reason.")));
	return true;
}

/*
 * Make sure that this database has a worker; returns whether one had to be
 * started.  With shared memory, the launcher starts it.
 */
bool
presence_launcher_start_worker(void)
{
	PresenceDatabase *database = presence_my_database();

	PreventCommandDuringRecovery("presence_start_worker()");
	if (database == NULL)
	{
		if (presence_shmem_ready())
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("presence serves no more than %d databases with workers",
							PRESENCE_MAX_DATABASES),
					 errhint("Call prune_presences() and prune_rooms() on a schedule in this database.")));
		return start_alone();
	}
	if (database->worker_state != PRESENCE_WORKER_NONE)
		return false;
	presence_database_want_worker(database);
	return true;
}
