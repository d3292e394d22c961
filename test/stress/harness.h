/*-------------------------------------------------------------------------
 *
 * harness.h
 *		Declarations shared by the threads of the harness.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CONVERGE_HARNESS_H
#define CONVERGE_HARNESS_H

#include <libpq-fe.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define Min(a, b) ((a) < (b) ? (a) : (b))
#define Max(a, b) ((a) > (b) ? (a) : (b))

/* A source of random numbers; each thread has one. */
typedef uint64_t Random;

/*
 * Seconds within which everything must come to rest; long, so that a slow
 * machine does not fail.
 */
#define PATIENCE 120

typedef struct Options
{
	const char *conninfo;
	const char *name;			/* of the run, for its messages */
	const char *chaos;			/* "none" or one of chaos.c */
	double		seconds;
	int			writers;
	int			listeners;
	int			max_age_ms;		/* the server's setting */
	uint64_t	seed;
	bool		hold;			/* wait for a debugger at a divergence */
} Options;

extern Options options;

/* The threads obey these. */
extern atomic_bool paused;		/* writers and chaos pause */
extern atomic_bool finished;	/* all threads exit */
extern atomic_int resting;		/* how many are paused */

extern double now_seconds(void);
extern void nap(double seconds);
extern uint64_t random_next(Random *random);
extern int	random_below(Random *random, int limit);
extern void fail(const char *format,...) __attribute__((format(printf, 1, 2)));
extern int	failures(void);
extern void rest_while_paused(void);
extern bool chaos_is(const char *kind);

extern PGconn *connect_patiently(const char *name);
extern bool connection_may_break(void);

/* fate.c */
extern bool is_breakage(const PGresult *result);
extern bool is_fate(const PGresult *result);

/* writer.c */
extern void *writer_main(void *argument);
extern long long writer_operations(void);
extern double writer_longest(void);
extern int	writer_any_pid(Random *random);
extern bool writer_is_silent(int channel);

/* listener.c */
typedef struct Listener Listener;

extern Listener *listener_start(int number);
extern void listener_join(Listener *listener);
extern bool listener_has_seen(Listener *listener, int mark);
extern int	listener_compare(Listener *listener, const void *truth, bool tell);
extern void listener_set_exact(Listener *listener);
extern void listener_report(Listener *listener);
extern void listener_count(Listener *listener, long long *events, long long *resyncs);

extern Listener *listeners[];

/* quiet.c */
extern void quiet_beat(void);
extern bool quiet_converge(bool empty);
extern int	quiet_points(void);
extern void quiet_show_sessions(void);
extern void quiet_end(void);

/* holder.c */
extern bool holder_is_wanted(void);
extern void *holder_main(void *argument);
extern int	holder_rounds(void);

/* chaos.c */
extern void *chaos_main(void *argument);
extern long long chaos_acts(void);

#endif							/* CONVERGE_HARNESS_H */
