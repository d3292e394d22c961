/*-------------------------------------------------------------------------
 *
 * worker.h
 *		The worker of one database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_WORKER_H
#define PRESENCE_WORKER_H

#include "postgres.h"

#include "postmaster/bgworker.h"

extern PGDLLEXPORT void presence_worker_main(Datum database);

extern bool presence_worker_runs_alone(void);
extern void presence_worker_describe(BackgroundWorker *worker, Oid database);

#endif							/* PRESENCE_WORKER_H */
