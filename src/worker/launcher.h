/*-------------------------------------------------------------------------
 *
 * launcher.h
 *		Starts the workers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_LAUNCHER_H
#define PRESENCE_LAUNCHER_H

#include "postgres.h"

extern PGDLLEXPORT void presence_launcher_main(Datum arg);

extern void presence_launcher_register(void);
extern bool presence_launcher_start_worker(void);

#endif							/* PRESENCE_LAUNCHER_H */
