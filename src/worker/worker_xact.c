/*-------------------------------------------------------------------------
 *
 * worker_xact.c
 *		Begins and ends the transactions in which the worker works.
 *
 * Each is run as the owner of the extension, and first takes a share lock on the
 * extension and looks whether it still exists.  So a DROP EXTENSION is waited
 * for, and a committed one ends the worker.
 *
 * The worker waits for no table.  Whoever may write to one may lock it, for as
 * long as he likes.  So each step first takes, if it can, the locks that its
 * statements take again, before its snapshot; if not, it is put off, and the
 * other steps go on.
 *
 * A transaction that is begun here is ended by presence_worker_xact_end(), or,
 * where something is to be done in between, by presence_worker_xact_commit() and
 * presence_worker_xact_rest(), which make it up.
 *
 * An error comes up to the worker's main loop, and ends the worker.  Not so where
 * users' triggers, constraints and locks may make a step fail.  Such a step names
 * who rescues it: he deals with the error once the transaction is rolled back, so
 * that what cannot be done costs the others nothing.
 *
 * Memory: what a step allocates lies in a scratch context, reset with each.
 *
 * What is kept here is the worker's own memory: no locks of shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
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

/* How long those who enter may wait behind the worker for others; ms. */
#define LOCK_TIMEOUT "20"

static struct
{
	MemoryContext scratch;
	Oid			extension;		/* as the last transaction found it */
	PresenceWorkerRescue rescue;	/* of the step under way; NULL: an error ends
									 * the worker */
	bool		wrote;			/* so did the transaction that was committed */
} work;

/*
 * Settings that must not depend on the database's or the owner's.  They become
 * what ResetAllOptions() goes back to: a user's trigger may change any setting
 * for the session, so that is done after every transaction that has written.
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

/* Make this process fit to work; it is connected. */
void
presence_worker_xact_init(void)
{
	pin_settings();
	work.scratch = AllocSetContextCreate(TopMemoryContext, "presence worker scratch",
										 ALLOCSET_DEFAULT_SIZES);
}

/* The extension, as the last transaction found it. */
Oid
presence_worker_xact_extension(void)
{
	return work.extension;
}

/* Work in the scratch context from here on, which is emptied. */
void
presence_worker_xact_clear_scratch(void)
{
	MemoryContextSwitchTo(work.scratch);
	MemoryContextReset(work.scratch);
}

/*
 * The extension is gone, and with it all that was to be told.  Should it come
 * back, listeners are to forget whom they know.
 *
 * Somebody may have created it again and added presences just before they were
 * swept away with the rest.  Whoever did so has committed by then, and is seen
 * by a second look: another worker is to begin with the rows, and listeners are
 * to read them.
 */
static void
leave_for_good(void)
{
	PresenceDatabase *database = presence_my_database();
	bool		needed;

	AbortCurrentTransaction();
	if (database == NULL)
		proc_exit(0);
	presence_slot_forget(database, MyDatabaseId);
	StartTransactionCommand();
	needed = OidIsValid(get_extension_oid("presence", true));
	CommitTransactionCommand();
	if (needed || OidIsValid(work.extension))
		presence_queue_set_resync_pending(database);
	presence_slot_leave(database);
	if (needed)
		presence_database_want_worker(database);
	proc_exit(0);
}

/*
 * The extension was dropped and created again, or may have been while no worker
 * ran: nothing remembered is sure, and listeners have to read all rooms again.
 */
static void
adopt_extension(PresenceDatabase *database)
{
	presence_registry_invalidate(MyDatabaseId);
	presence_queue_discard_all(database);
}

/* Lock the extension and see whether it is the one that was there before. */
static void
look_up_extension(void)
{
	PresenceDatabase *database = presence_my_database();
	Oid			extension = get_extension_oid("presence", true);

	if (OidIsValid(extension))
	{
		LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
		extension = get_extension_oid("presence", true);
	}
	if (!OidIsValid(extension))
		leave_for_good();
	if (database && (OidIsValid(work.extension) ? extension != work.extension :
					 database->recheck_extension))
		adopt_extension(database);
	work.extension = extension;
}

/*
 * Begin a transaction as the owner of the extension, in the scratch context;
 * the caller takes a snapshot.  A worker whose extension is gone leaves.
 *
 * The session's user is the bootstrap superuser, so the owner's triggers must
 * not get back to it: with SECURITY_LOCAL_USERID_CHANGE neither SET ROLE nor
 * SET SESSION AUTHORIZATION is possible.  It holds through the commit, where
 * deferred triggers fire, and an abort takes it back.
 */
static void
begin_transaction(const char *what)
{
	SetCurrentStatementStartTimestamp();
	SetUserIdAndSecContext(GetSessionUserId(), 0);
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, what);
	look_up_extension();
	SetUserIdAndSecContext(presence_extension_owner(),
						   SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	MemoryContextSwitchTo(work.scratch);
}

/* Begin work on no table that others may have locked. */
void
presence_worker_xact_begin(const char *what)
{
	begin_transaction(what);
	PushActiveSnapshot(GetTransactionSnapshot());
}

/* Take the locks of a step; false: somebody is in the way of one. */
static bool
lock_tables(const PresenceWorkerTable *tables)
{
	for (; tables->name; tables++)
		if (!ConditionalLockRelationOid(presence_extension_table(tables->name), tables->mode))
			return false;
	return true;
}

/*
 * A commit leaves the memory context of the whole session behind; whatever comes
 * next is of this round and belongs to its scratch, which is kept.
 */
static void
commit_transaction(void)
{
	work.wrote = TransactionIdIsValid(GetTopTransactionIdIfAny());
	CommitTransactionCommand();
	MemoryContextSwitchTo(work.scratch);
	work.rescue = NULL;
}

/*
 * Begin work on tables that others may have locked; false: some have, and
 * nothing has begun.  An error is dealt with by "rescue", if that is given.
 *
 * The locks come before the snapshot.  TRUNCATE empties a table for older
 * snapshots, too: one taken before the lock could show a delivery rooms empty of
 * which the hint that says so is still to come.
 */
bool
presence_worker_xact_begin_on(const char *what, const PresenceWorkerTable *tables,
							  PresenceWorkerRescue rescue)
{
	work.rescue = rescue;
	begin_transaction(what);
	if (!lock_tables(tables))
	{
		commit_transaction();
		presence_worker_xact_rest();
		return false;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	return true;
}

/*
 * Let the transaction wait for others, who may have locked what it changes or be
 * making the same, for a moment only.
 */
void
presence_worker_xact_limit_lock_waits(void)
{
	(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

/*
 * Commit.  After the commit itself nothing here can fail, so that a delivery may
 * count on what follows.
 */
void
presence_worker_xact_commit(void)
{
	PopActiveSnapshot();
	commit_transaction();
}

/* The work is over, and its memory with it. */
void
presence_worker_xact_rest(void)
{
	if (work.wrote)
		ResetAllOptions();
	work.wrote = false;
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextReset(work.scratch);
}

/* Commit, and rest. */
void
presence_worker_xact_end(void)
{
	presence_worker_xact_commit();
	presence_worker_xact_rest();
}

/* Whether an error was the work of others, so that the same may do later. */
bool
presence_worker_xact_is_passing(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
		ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_TRANSACTION_ROLLBACK;
}

/*
 * An error has come up to the main loop.  Where somebody can deal with it the
 * transaction is rolled back, and the next round may begin; otherwise it ends the
 * worker.  All timeouts of the process are disabled.
 */
void
presence_worker_xact_recover(void)
{
	PresenceWorkerRescue rescue = work.rescue;
	ErrorData  *error;

	error_context_stack = NULL;
	HOLD_INTERRUPTS();
	work.rescue = NULL;
	work.wrote = false;			/* what was set is taken back with the rest */
	if (rescue == NULL)
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
	rescue(error);
	presence_worker_xact_rest();
	RESUME_INTERRUPTS();
}
