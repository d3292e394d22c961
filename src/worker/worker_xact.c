/*-------------------------------------------------------------------------
 *
 * worker_xact.c
 *		Begins and ends the worker's transactions.
 *
 * Each transaction runs as the owner of the extension.  It first takes ACCESS
 * SHARE on the extension and checks that it still exists.  So the worker waits
 * for a DROP EXTENSION, and exits if that commits.
 *
 * The worker never waits for a table lock, because any role that may write to
 * a table may lock it for an unlimited time.  So each step first takes the
 * locks that its statements will need, conditionally and before its snapshot.
 * If one is not available, the step is retried later, and the other steps
 * proceed.
 *
 * A transaction begun here is ended by presence_worker_xact_end(), or, where
 * the caller has to act directly after the commit, by its two parts,
 * presence_worker_xact_commit() and presence_worker_xact_cleanup().
 *
 * An error is caught in the worker's main loop, and ends the worker.  A step
 * that may fail because of users' triggers, constraints or locks registers an
 * error handler instead.  It is called once the transaction is rolled back, so
 * that what cannot be done does not delay the rest.
 *
 * A step allocates in a scratch context, which is reset before each step.
 *
 * All state is local to the worker, so no shared memory locks are needed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "catalog/pg_extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "shared/queue.h"
#include "shared/registry.h"
#include "shared/slot.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "tables/extension.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "worker/worker_xact.h"

/*
 * How long the worker waits for a lock.  Transactions that enter rooms queue
 * behind it for as long; milliseconds.
 */
#define LOCK_TIMEOUT "20"

static struct
{
	MemoryContext scratch;
	Oid			extension;		/* as of the last transaction */
	PresenceWorkerErrorHandler on_error;	/* of the current step; NULL: an
											 * error ends the worker */
	bool		wrote;			/* the last commit had a transaction ID */
}			work;

/*
 * Override settings that must not come from the database or the owner.  These
 * values also become the ones that ResetAllOptions() restores.  A user's
 * trigger may change any setting for the session, so the options are reset
 * after every transaction that has written.
 */
static void
pin_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"lock_timeout", "0"},
		{"statement_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"synchronous_commit", "local"},
		{"row_security", "on"},
		{"enable_seqscan", "on"},
		{"plan_cache_mode", "auto"},
		{"jit", "off"},
#ifdef PRESENCE_HAS_TRANSACTION_TIMEOUT
		{"transaction_timeout", "0"},
#endif
	};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/* Set up this process, which is connected to its database. */
void
presence_worker_xact_init(void)
{
	pin_settings();
	work.scratch = AllocSetContextCreate(TopMemoryContext, "presence worker scratch",
										 ALLOCSET_DEFAULT_SIZES);
}

/* OID of the extension, as of the last transaction. */
Oid
presence_worker_xact_extension(void)
{
	return work.extension;
}

/* Reset the scratch context and switch to it. */
void
presence_worker_xact_clear_scratch(void)
{
	MemoryContextSwitchTo(work.scratch);
	MemoryContextReset(work.scratch);
}

/* Whether there is an extension again, in a transaction of its own. */
static bool
extension_is_back(void)
{
	bool		exists;

	StartTransactionCommand();
	exists = presence_extension_exists();
	CommitTransactionCommand();
	return exists;
}

/*
 * The extension was dropped: discard its shared state and exit.  If the
 * extension is created again, listeners get a resync.
 *
 * Another transaction may have created it again already, and added presences
 * whose hints and registry entries are discarded here.  Such a transaction has
 * committed by then, so look for the extension once more after discarding.  If
 * it is back, request another worker, which begins from the rows, and a
 * resync, so that listeners read them.  Look again after leaving: up to then a
 * transaction that commits finds a worker and requests none.
 */
static void
exit_without_extension(void)
{
	PresenceDatabase *database = presence_my_database();
	bool		needed;

	AbortCurrentTransaction();
	if (database == NULL)
		proc_exit(0);
	presence_slot_forget(database, MyDatabaseId);
	needed = extension_is_back();
	if (needed || OidIsValid(work.extension))
		presence_queue_set_resync_pending(database);
	disable_all_timeouts(false);	/* the record may soon be another's */
	presence_slot_leave(database);
	if (needed || extension_is_back())
		presence_database_want_worker(database);
	proc_exit(0);
}

/*
 * The extension was dropped and created again, or may have been while no
 * worker ran.  Nothing in shared memory can be relied on, and listeners have
 * to read all rooms again.
 */
static void
adopt_extension(PresenceDatabase *database)
{
	presence_registry_invalidate();
	presence_queue_discard_all(database);
}

/*
 * Lock the extension, and check whether it is still the same one; returns its
 * owner.  The one of the last transaction is locked first: mostly that is it.
 */
static Oid
look_up_extension(void)
{
	PresenceDatabase *database = presence_my_database();
	Oid			extension = work.extension;
	Oid			locked;
	Oid			owner;

	do
	{
		if (OidIsValid(extension))
			LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
		locked = extension;
		if (!presence_extension_find(&extension, &owner))
			exit_without_extension();
	} while (extension != locked);
	if (database && (OidIsValid(work.extension) ? extension != work.extension :
					 database->recheck_extension))
		adopt_extension(database);
	work.extension = extension;
	return owner;
}

/*
 * Begin a transaction as the owner of the extension, in the scratch context.
 * The caller takes the snapshot.  Exits if the extension was dropped.
 *
 * The session user is the bootstrap superuser, so triggers must not be able to
 * switch back to it.  presence_extension_become_owner() sets
 * SECURITY_LOCAL_USERID_CHANGE, which forbids SET ROLE and SET SESSION
 * AUTHORIZATION.  The identity is kept through the commit, where deferred
 * triggers fire; the next transaction, or an abort, resets it.
 */
static void
begin_transaction(const char *what)
{
	SetCurrentStatementStartTimestamp();
	SetUserIdAndSecContext(GetSessionUserId(), 0);
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, what);
	(void) presence_extension_become(look_up_extension());
	MemoryContextSwitchTo(work.scratch);
}

/* Begin a transaction that needs no table locks. */
void
presence_worker_xact_begin(const char *what)
{
	begin_transaction(what);
	PushActiveSnapshot(GetTransactionSnapshot());
}

/* Take the locks of a step; false if one is not available at once. */
static bool
lock_tables(const PresenceWorkerTable *tables)
{
	int			wait = 0;

	for (; tables->name; tables++)
		if ((tables->setting == NULL || *tables->setting != 0) &&
			!presence_extension_try_lock(tables->name, tables->mode, &wait))
			return false;
	return true;
}

/*
 * A commit switches to TopMemoryContext.  Go back to the scratch context,
 * which what follows in this round belongs to.
 */
static void
commit_transaction(void)
{
	work.wrote = TransactionIdIsValid(GetTopTransactionIdIfAny());
	CommitTransactionCommand();
	MemoryContextSwitchTo(work.scratch);
	work.on_error = NULL;
}

/*
 * Begin a transaction that locks tables.  If a lock is not available at once,
 * no transaction is left open, and the result is false.  If "on_error" is not
 * NULL, it handles any error of the transaction.
 *
 * The locks come before the snapshot, because TRUNCATE empties a table for
 * older snapshots, too.  With a snapshot taken before the lock, a delivery
 * could see rooms as empty before the hint of the TRUNCATE is in the queue.
 */
bool
presence_worker_xact_begin_on(const char *what, const PresenceWorkerTable *tables,
							  PresenceWorkerErrorHandler on_error)
{
	work.on_error = on_error;
	begin_transaction(what);
	if (!lock_tables(tables))
	{
		commit_transaction();
		presence_worker_xact_cleanup();
		return false;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	return true;
}

/*
 * Limit how long the transaction waits for locks: others may have locked what
 * it changes, or may be inserting the same keys.
 */
void
presence_worker_xact_limit_lock_waits(void)
{
	(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

/*
 * Commit.  Nothing here can fail after the commit itself; a delivery relies on
 * that for what it does next.
 */
void
presence_worker_xact_commit(void)
{
	PopActiveSnapshot();
	commit_transaction();
}

/* Clean up after a transaction; resets the scratch context. */
void
presence_worker_xact_cleanup(void)
{
	if (work.wrote)
		ResetAllOptions();
	work.wrote = false;
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextReset(work.scratch);
}

/* Commit, and clean up. */
void
presence_worker_xact_end(void)
{
	presence_worker_xact_commit();
	presence_worker_xact_cleanup();
}

/* Whether an error was caused by concurrent activity, so a retry may succeed. */
bool
presence_worker_xact_is_transient(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
		ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_TRANSACTION_ROLLBACK;
}

/*
 * Recover from an error in the main loop.  If the step has registered an error
 * handler, roll back and call it; otherwise exit.  All timeouts of the process
 * are disabled.
 */
void
presence_worker_xact_recover(void)
{
	PresenceWorkerErrorHandler on_error = work.on_error;
	ErrorData  *error;

	error_context_stack = NULL;
	HOLD_INTERRUPTS();
	work.on_error = NULL;
	work.wrote = false;			/* an abort restores settings by itself */
	if (on_error == NULL)
	{
		EmitErrorReport();
		proc_exit(1);
	}
	disable_all_timeouts(false);
	QueryCancelPending = false;
	MemoryContextSwitchTo(work.scratch);
	error = CopyErrorData();
	FlushErrorState();
	AbortCurrentTransaction();
	MemoryContextSwitchTo(work.scratch);
	on_error(error);
	presence_worker_xact_cleanup();
	RESUME_INTERRUPTS();
}
