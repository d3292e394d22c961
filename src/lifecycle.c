/*-------------------------------------------------------------------------
 *
 * lifecycle.c
 *		Gets workers out of the way of statements on whole databases.
 *
 * DROP DATABASE, ALTER DATABASE RENAME and SET TABLESPACE, and CREATE
 * DATABASE for its template, fail while anybody is connected.  Before such a
 * statement runs, the worker of the database is asked to leave: "hold_pid" in
 * its slot names the process that holds it off, and the launcher starts none
 * until that is cleared, or the process is gone.
 *
 *	statement                   commits                    fails
 *	DROP DATABASE               slot, entries, queue go    worker comes back
 *	RENAME, SET TABLESPACE      worker comes back          worker comes back
 *	CREATE DATABASE ... TEMPLATE  worker of the template comes back either way
 *
 * DROP EXTENSION, in whatever way, has the worker look for the extension.  It
 * waits for the lock that the statement holds, and leaves if that commits.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "database.h"
#include "ephemeral.h"
#include "lifecycle.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "queue.h"
#include "registry.h"
#include "shmem.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "tcop/utility.h"

/* How long to wait for a worker to leave; microseconds. */
#define LEAVE_TIMEOUT (10 * 1000 * 1000)

static ProcessUtility_hook_type prev_process_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

/* The database that this process holds its worker off; for its exit. */
static PresenceDatabase *held = NULL;

/* The template that CREATE DATABASE copies. */
static const char *
template_of(CreatedbStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, "template") == 0 && option->arg)
			return defGetString(option);
	}
	return "template1";
}

/* Whether ALTER DATABASE sets the tablespace. */
static bool
sets_tablespace(AlterDatabaseStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->options)
		if (strcmp(lfirst_node(DefElem, lc)->defname, "tablespace") == 0)
		return true;
	return false;
}

/* The database that a statement needs for itself; NULL: none. */
static const char *
needed_database(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_DropdbStmt:
			return castNode(DropdbStmt, stmt)->dbname;
		case T_CreatedbStmt:
			return template_of(castNode(CreatedbStmt, stmt));
		case T_RenameStmt:
			return castNode(RenameStmt, stmt)->renameType == OBJECT_DATABASE ?
				castNode(RenameStmt, stmt)->subname : NULL;
		case T_AlterDatabaseStmt:
			return sets_tablespace(castNode(AlterDatabaseStmt, stmt)) ?
				castNode(AlterDatabaseStmt, stmt)->dbname : NULL;
		default:
			return NULL;
	}
}

/* Keep the worker away from now on, and ask the one that runs to leave. */
static void
hold_off(PresenceDatabase *database)
{
	LWLockAcquire(presence_database_lock(), LW_EXCLUSIVE);
	database->hold_pid = MyProcPid;
	LWLockRelease(presence_database_lock());
	held = database;
	presence_database_wake_worker(database);
}

/* Let a worker come back if there is something to do for it. */
static void
let_back(void)
{
	PresenceDatabase *database = held;

	if (database == NULL)
		return;
	held = NULL;
	LWLockAcquire(presence_database_lock(), LW_EXCLUSIVE);
	if (database->hold_pid == MyProcPid)
		database->hold_pid = 0;
	LWLockRelease(presence_database_lock());
	presence_database_wake_launcher();
}

/* The same, when the process ends in between. */
static void
let_back_at_exit(int code, Datum arg)
{
	let_back();
}

/* Wait until no worker is connected; whoever does not leave is told below. */
static void
wait_until_gone(PresenceDatabase *database)
{
	PresenceTime start = presence_clock_now();

	while (database->worker_state != PRESENCE_WORKER_NONE &&
		   presence_clock_now() - start < LEAVE_TIMEOUT)
	{
		CHECK_FOR_INTERRUPTS();
		pg_usleep(1000);
	}
}

/* Drop what belongs to a database that has been dropped. */
static void
forget(PresenceDatabase *database, Oid oid)
{
	presence_queue_reset(database);
	presence_registry_clear(oid);
	presence_ephemeral_clear(oid);
	presence_database_forget(oid);
}

/* Run a statement while a database has no worker. */
static void
process_alone(PresenceDatabase *database, PlannedStmt *pstmt, const char *query,
			  bool read_only_tree, ProcessUtilityContext context,
			  ParamListInfo params, QueryEnvironment *env, DestReceiver *dest,
			  QueryCompletion *qc)
{
	static bool registered = false;
	bool		drops = IsA(pstmt->utilityStmt, DropdbStmt);
	Oid			oid = database->oid;

	if (!registered)
		before_shmem_exit(let_back_at_exit, (Datum) 0);
	registered = true;

	PG_TRY();
	{
		hold_off(database);
		wait_until_gone(database);
		if (prev_process_utility)
			prev_process_utility(pstmt, query, read_only_tree, context, params,
								 env, dest, qc);
		else
			standard_ProcessUtility(pstmt, query, read_only_tree, context,
									params, env, dest, qc);
	}
	PG_FINALLY();
	{
		let_back();
	}
	PG_END_TRY();
	if (drops)
		forget(database, oid);
}

/* Look at every utility statement. */
static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	const char *name = needed_database(pstmt->utilityStmt);
	Oid			oid = name && presence_shmem_ready() && IsTransactionState() ?
		get_database_oid(name, true) : InvalidOid;
	PresenceDatabase *database = OidIsValid(oid) ? presence_database_find(oid) : NULL;

	if (database && held == NULL)
		process_alone(database, pstmt, query, read_only_tree, context, params,
					  env, dest, qc);
	else if (prev_process_utility)
		prev_process_utility(pstmt, query, read_only_tree, context, params,
							 env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params,
								env, dest, qc);
}

/* Look at what is being dropped. */
static void
object_access(ObjectAccessType access, Oid class, Oid object, int column,
			  void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class, object, column, arg);
	if (access != OAT_DROP || class != ExtensionRelationId ||
		get_extension_oid("presence", true) != object)
		return;
	if (presence_database_mine())
	{
		presence_database_mine()->doubtful = true;
		presence_database_wake_worker(presence_database_mine());
	}
}

/* Hook into utility statements and drops; once, at preload. */
void
presence_lifecycle_install(void)
{
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
