/*-------------------------------------------------------------------------
 *
 * worker_xact.h
 *		The worker's transactions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_WORKER_XACT_H
#define PRESENCE_WORKER_XACT_H

#include "postgres.h"

#include "base/guc.h"
#include "storage/lockdefs.h"

/* Delay before a retry after a lock was not available; microseconds. */
#define PRESENCE_WORKER_RETRY_DELAY (50 * 1000)

/* A table that a step uses, and the strongest lock that it needs. */
typedef struct PresenceWorkerTable
{
	const char *name;			/* NULL ends a list */
	LOCKMODE	mode;
	const int  *setting;		/* used only if it is not 0; NULL: always */
} PresenceWorkerTable;

/* Who removes presences writes their visits, if they are kept. */
#define PRESENCE_WORKER_VISITS {"visits", RowExclusiveLock, &presence_keep_visits}

/* Handles an error of a step, once its transaction is rolled back. */
typedef void (*PresenceWorkerErrorHandler) (const ErrorData *error);

extern void presence_worker_xact_init(void);

extern void presence_worker_xact_begin(const char *what);
extern bool presence_worker_xact_begin_on(const char *what,
										  const PresenceWorkerTable *tables,
										  PresenceWorkerErrorHandler rescue);
extern void presence_worker_xact_limit_lock_waits(void);
extern void presence_worker_xact_commit(void);
extern void presence_worker_xact_cleanup(void);
extern void presence_worker_xact_end(void);
extern void presence_worker_xact_recover(void);

extern void presence_worker_xact_clear_scratch(void);
extern bool presence_worker_xact_is_transient(const ErrorData *error);
extern Oid	presence_worker_xact_extension(void);

#endif							/* PRESENCE_WORKER_XACT_H */
