/*-------------------------------------------------------------------------
 *
 * compat.h
 *		Hides the differences between PostgreSQL 15, 16, 17 and 18.
 *
 * This is the only file that uses PG_VERSION_NUM.  Every shim says why it is
 * needed.  Remove it when the last version that needs it is no longer
 * supported.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_COMPAT_H
#define PRESENCE_COMPAT_H

#include "postgres.h"

#include "access/tableam.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/wait_event.h"

/* 16 moved the macros for varlena headers out of postgres.h. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "presence supports PostgreSQL 15, 16, 17 and 18"
#endif

/* 17 has MyProcNumber; before, the index of a PGPROC is one of its fields. */
#if PG_VERSION_NUM >= 170000
#define presence_compat_proc_index()	((int) MyProcNumber)
#else
#define presence_compat_proc_index()	(MyProc->pgprocno)
#endif

/* 16 renamed the function that returns an entry of pg_stat_activity. */
static inline PgBackendStatus *
presence_compat_backend_status(int index)
{
#if PG_VERSION_NUM >= 160000
	return &pgstat_get_local_beentry_by_index(index)->backendStatus;
#else
	return &pgstat_fetch_stat_local_beentry(index)->backendStatus;
#endif
}

/* 16 replaced the ownership checks per object type with one function. */
static inline bool
presence_compat_owns_database(Oid database)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, GetUserId());
#else
	return pg_database_ownercheck(database, GetUserId());
#endif
}

/* Minor releases of 2023 introduced the mark of a half-dropped database. */
#ifndef DATCONNLIMIT_INVALID_DB
#define DATCONNLIMIT_INVALID_DB -2
#endif

/* 17 takes the relation with the identity column instead of its oid. */
#if PG_VERSION_NUM >= 170000
#define presence_compat_identity_sequence(relation, column) \
	getIdentitySequence(relation, column, false)
#else
#define presence_compat_identity_sequence(relation, column) \
	getIdentitySequence(RelationGetRelid(relation), column, false)
#endif

/* 17 renamed the check whether a plan was made for the current search_path. */
#if PG_VERSION_NUM >= 170000
#define presence_compat_search_path_matches(path) \
	SearchPathMatchesCurrentEnvironment(path)
#else
#define presence_compat_search_path_matches(path) \
	OverrideSearchPathMatchesCurrent(path)
#endif

/* 17 lets extensions define wait events. */
static inline uint32
presence_compat_wait_event(const char *name)
{
#if PG_VERSION_NUM >= 170000
	return WaitEventExtensionNew(name);
#else
	(void) name;
	return PG_WAIT_EXTENSION;
#endif
}

/* 16 lets an update insert into the summarizing indexes only: "which". */
#if PG_VERSION_NUM >= 160000
#define presence_compat_insert_index_tuples(info, slot, estate) \
	ExecInsertIndexTuples(info, slot, estate, false, false, NULL, NIL, false)
#define presence_compat_update_index_tuples(info, slot, estate, which) \
	((which) == TU_None ? NIL : \
	 ExecInsertIndexTuples(info, slot, estate, true, false, NULL, NIL, (which) == TU_Summarizing))
typedef TU_UpdateIndexes PresenceCompatIndexes;
#else
#define presence_compat_insert_index_tuples(info, slot, estate) \
	ExecInsertIndexTuples(info, slot, estate, false, false, NULL, NIL)
#define presence_compat_update_index_tuples(info, slot, estate, which) \
	((which) ? ExecInsertIndexTuples(info, slot, estate, true, false, NULL, NIL) : NIL)
typedef bool PresenceCompatIndexes;
#endif

/* 18 lets an index scan count what it does. */
#if PG_VERSION_NUM >= 180000
#define presence_compat_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define presence_compat_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif

/* 18 lets a module publish its name and version. */
#if PG_VERSION_NUM >= 180000
#define PRESENCE_MODULE_MAGIC(module, release) \
	PG_MODULE_MAGIC_EXT(.name = module, .version = release)
#else
#define PRESENCE_MODULE_MAGIC(module, release) PG_MODULE_MAGIC
#endif

/* 17 has transaction_timeout, which a worker must set. */
#if PG_VERSION_NUM >= 170000
#define PRESENCE_HAS_TRANSACTION_TIMEOUT 1
#endif

#endif							/* PRESENCE_COMPAT_H */
