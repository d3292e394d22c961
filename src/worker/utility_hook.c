/*-------------------------------------------------------------------------
 *
 * utility_hook.c
 *		Stops the worker for statements that need a database for themselves.
 *
 * DROP DATABASE, ALTER DATABASE RENAME and SET TABLESPACE, and CREATE
 * DATABASE for its template, fail while other processes are connected.  While
 * such a statement runs, the worker of the database is blocked (slot.c): it is
 * asked to exit, and not started.  An exit callback unblocks it if the process
 * ends meanwhile.  A caller without the privileges for the statement does not
 * stop the worker.
 *
 *	statement                   commits                    fails
 *	DROP DATABASE               slot, entries, queue go    worker comes back
 *	RENAME, SET TABLESPACE      worker comes back          worker comes back
 *	CREATE DATABASE ... TEMPLATE  worker of the template comes back either way
 *
 * CREATE DATABASE copies the template's rows.  So after its commit a worker is
 * started once in the new database.
 *
 * Any drop of the extension makes the worker look for the extension.  It waits
 * for the lock that the statement holds, and exits if that commits.
 *
 * After DISCARD ALL the session's holds end (functions/holdfuncs.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/shmem.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "shared/database.h"
#include "shared/slot.h"
#include "storage/ipc.h"
#include "tables/extension.h"
#include "tcop/utility.h"
#include "utils/syscache.h"
#include "worker/utility_hook.h"

/* How long to wait for a worker to exit; microseconds. */
#define LEAVE_TIMEOUT (10 * 1000 * 1000)

static ProcessUtility_hook_type prev_process_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

/* The database whose worker this process blocks, for the exit callback. */
static PresenceDatabase *blocked = NULL;
static Oid	blocked_oid;

/* The database that this transaction has created. */
static Oid	created = InvalidOid;

/* What to call after DISCARD ALL, or NULL. */
static void (*on_discard) (void) = NULL;

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

/* Whether any role that may create databases may copy a database. */
static bool
is_template(Oid database)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool		answer;

	if (!HeapTupleIsValid(tuple))
		return false;
	answer = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return answer;
}

/*
 * Whether the caller may create databases.  PostgreSQL's own function is not
 * exported in all minor versions of 15.
 */
static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		answer;

	if (superuser())
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (!HeapTupleIsValid(tuple))
		return false;
	answer = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
	ReleaseSysCache(tuple);
	return answer;
}

/*
 * Whether the caller has the privileges for the statement; the same checks as
 * in PostgreSQL.
 */
static bool
may_run(Node *stmt, Oid database)
{
	if (IsA(stmt, CreatedbStmt))
		return may_create_databases() &&
			(is_template(database) || presence_compat_owns_database(database));
	if (IsA(stmt, RenameStmt) && !may_create_databases())
		return false;
	return presence_compat_owns_database(database);
}

/* Unblock the worker; it is started again if it is needed. */
static void
unblock_worker(void)
{
	PresenceDatabase *database = blocked;

	blocked = NULL;
	if (database)
		presence_slot_unblock_worker(database, blocked_oid);
}

/* The same at exit. */
static void
unblock_worker_at_exit(int code, Datum arg)
{
	unblock_worker();
}

/* Wait until the worker is gone; else PostgreSQL's own check raises an error. */
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

/* Run a statement while the worker of a database is blocked. */
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
		before_shmem_exit(unblock_worker_at_exit, (Datum) 0);
	registered = true;

	PG_TRY();
	{
		blocked_oid = presence_slot_block_worker(database);
		blocked = database;
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
		unblock_worker();
	}
	PG_END_TRY();
	if (drops)
		presence_slot_forget(database, oid);
}

/* Whether a statement is DISCARD ALL. */
static bool
discards_all(Node *stmt)
{
	return IsA(stmt, DiscardStmt) && castNode(DiscardStmt, stmt)->target == DISCARD_ALL;
}

/* Call a function whenever this session has run DISCARD ALL. */
void
presence_utility_hook_on_discard(void (*callback) (void))
{
	on_discard = callback;
}

/* ProcessUtility hook. */
static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	const char *name = needed_database(pstmt->utilityStmt);
	Oid			oid = name && presence_shmem_ready() && IsTransactionState() ?
		get_database_oid(name, true) : InvalidOid;
	PresenceDatabase *database = OidIsValid(oid) ? presence_database_find(oid) : NULL;

	if (database && blocked == NULL && may_run(pstmt->utilityStmt, oid))
		process_alone(database, pstmt, query, read_only_tree, context, params,
					  env, dest, qc);
	else if (prev_process_utility)
		prev_process_utility(pstmt, query, read_only_tree, context, params,
							 env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params,
								env, dest, qc);
	if (on_discard && discards_all(pstmt->utilityStmt))
		on_discard();
}

/* Transaction callback: after the commit, have a created database probed. */
static void
follow_transaction(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT && OidIsValid(created))
		(void) presence_database_want_look(created);
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		created = InvalidOid;
}

/* Object access hook: notes a new database, and a drop of the extension. */
static void
object_access(ObjectAccessType access, Oid class, Oid object, int column,
			  void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class, object, column, arg);
	if (access == OAT_POST_CREATE && class == DatabaseRelationId)
		created = object;
	if (access != OAT_DROP || class != ExtensionRelationId ||
		presence_extension_oid() != object)
		return;
	if (presence_my_database())
		presence_slot_recheck_extension(presence_my_database());
}

/* Install the hooks, once, at preload. */
void
presence_utility_hook_install(void)
{
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	RegisterXactCallback(follow_transaction, NULL);
}
