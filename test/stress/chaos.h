/*-------------------------------------------------------------------------
 *
 * chaos.h
 *		What the kinds of chaos share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CONVERGE_CHAOS_H
#define CONVERGE_CHAOS_H

#include "harness.h"

/* chaos.c */
extern bool chaos_run(PGconn *conn, const char *sql);
extern bool chaos_run_with(PGconn *conn, const char *sql, int n, const char *const *values);
extern int	chaos_ask_number(PGconn *conn, const char *sql);
extern void chaos_wait(double seconds);
extern double chaos_between(Random *random, double low, double high);

/* One act each.  chaos_server.c: */
extern void chaos_terminate_worker(PGconn *conn, Random *random);
extern void chaos_kill_somebody(PGconn *conn, Random *random);
extern void chaos_change_mode(PGconn *conn, Random *random);
extern void chaos_stop_reading(PGconn *conn, Random *random);
extern void chaos_freeze_somebody(PGconn *conn, Random *random);

/* chaos_sql.c: */
extern void chaos_burst(PGconn *conn, Random *random);
extern void chaos_hold_locks(PGconn *conn, Random *random);
extern void chaos_drop_extension(PGconn *conn, Random *random);

/* chaos_big.c: */
extern void chaos_crowd(PGconn *conn, Random *random);

#endif							/* CONVERGE_CHAOS_H */
