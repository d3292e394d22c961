/*-------------------------------------------------------------------------
 *
 * worker_xact.h
 *		The transactions of the worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_WORKER_XACT_H
#define PRESENCE_WORKER_XACT_H

#include "postgres.h"

#include "storage/lockdefs.h"

/* When to try again what others stood in the way of; microseconds. */
#define PRESENCE_WORKER_RETRY_DELAY (50 * 1000)

/* A table that a step works on, and the strongest lock that it takes. */
typedef struct PresenceWorkerTable
{
	const char *name;			/* NULL ends a list */
	LOCKMODE	mode;
} PresenceWorkerTable;

/* Deals with an error of what the worker was trying. */
typedef void (*PresenceWorkerRescue) (const ErrorData *error);

extern void presence_worker_xact_init(void);

extern void presence_worker_xact_begin(const char *what);
extern bool presence_worker_xact_begin_on(const char *what,
										  const PresenceWorkerTable *tables,
										  PresenceWorkerRescue rescue);
extern void presence_worker_xact_limit_lock_waits(void);
extern void presence_worker_xact_commit(void);
extern void presence_worker_xact_rest(void);
extern void presence_worker_xact_end(void);
extern void presence_worker_xact_recover(void);

extern void presence_worker_xact_clear_scratch(void);
extern bool presence_worker_xact_is_passing(const ErrorData *error);
extern Oid	presence_worker_xact_extension(void);

#endif							/* PRESENCE_WORKER_XACT_H */
