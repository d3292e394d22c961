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

extern PGDLLEXPORT void presence_worker_main(Datum database);

#endif							/* PRESENCE_WORKER_H */
