/*-------------------------------------------------------------------------
 *
 * database.h
 *		What the processes of one database share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_DATABASE_H
#define PRESENCE_DATABASE_H

#include "postgres.h"

#include "base/clock.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#define PRESENCE_MAX_DATABASES 512

/* Moved deadlines that a database notes for its worker. */
#define PRESENCE_MAX_MOVED 128

typedef enum PresenceCounter
{
	PRESENCE_ADDS,
	PRESENCE_TOUCHES,
	PRESENCE_LEAVES,
	PRESENCE_EXPIRATIONS,
	PRESENCE_EVENTS,
	PRESENCE_BULK_EVENTS,
	PRESENCE_RESYNCS,
	PRESENCE_FALLBACKS,
	PRESENCE_LAST_EXPIRY_LAG,	/* microseconds; set, not counted */
	PRESENCE_LAST_DRAIN,		/* TimestampTz; set, not counted */
	PRESENCE_STATS_RESET,		/* TimestampTz; set, not counted */
	PRESENCE_NCOUNTERS
} PresenceCounter;

/* The NOTIFY channels; the events of each are numbered separately. */
typedef enum PresenceNotifyStream
{
	PRESENCE_STREAM_CHANGED,
	PRESENCE_STREAM_STATUS,
	PRESENCE_STREAM_BROADCAST,
	PRESENCE_NSTREAMS
} PresenceNotifyStream;

typedef enum PresenceWorkerState
{
	PRESENCE_WORKER_NONE,
	PRESENCE_WORKER_STARTING,	/* the launcher has requested it */
	PRESENCE_WORKER_RUNNING
} PresenceWorkerState;

/* Whether every channel with rows has an entry in the registry. */
typedef enum PresenceLoad
{
	PRESENCE_LOAD_PARTIAL,		/* some channels may have none */
	PRESENCE_LOAD_COMPLETE,
	PRESENCE_LOAD_RUNNING		/* the worker is loading the missing ones */
} PresenceLoad;

/* Reference to an entry of the registry: its first cell, and which use of it. */
typedef struct PresenceEntryRef
{
	uint32		index;			/* 0: no entry */
	uint32		generation;
} PresenceEntryRef;

/*
 * Fields marked "lock" are protected by the control lock of database.c.  They
 * may be read without it where a slightly stale value does no harm.
 */
typedef struct PresenceDatabase
{
	Oid			oid;			/* lock; InvalidOid: the record is free */

	/* The worker's slot; lock.  Set by slot.c; "wanted" by database.c, too. */
	PresenceWorkerState worker_state;
	int			worker_pid;
	Latch	   *worker_latch;	/* in a PGPROC, so it never dangles */
	bool		wanted;			/* a worker is to be started */
	int			holds;			/* statements that block the worker */
	bool		recheck_extension;	/* it may be being dropped; no lock */
	int			failures;		/* failures of the worker in a row */
	PresenceTime retry_at;		/* do not start a worker before */

	/* Grace period; set by liveness.c. */
	pg_atomic_uint64 grace_start;	/* PresenceTime; max_age counts from it */
	pg_atomic_uint64 grace_start_announced; /* the last one that made
											 * listeners read again */
	pg_atomic_uint64 next_wakeup;	/* when the worker is to wake up, by the
									 * machine's clock; 0: unknown */
	pg_atomic_uint64 wall_offset;	/* as last seen */

	/* Channels that expire earlier than the worker may know; by "moved_lock". */
	slock_t		moved_lock;
	bool		moved_all;		/* more than there is space for */
	int			nmoved;
	PresenceEntryRef moved[PRESENCE_MAX_MOVED];

	pg_atomic_uint32 loaded;	/* PresenceLoad; raised by the worker, lowered
								 * by a process that finds no space */
	pg_atomic_uint32 last_seen_rows;	/* a user may have more than one */
	pg_atomic_uint64 tickets;	/* last one drawn by a transaction with
								 * changes to announce */
	pg_atomic_uint64 rules;		/* incremented when a ban or the deletion of a
								 * room has committed; starts at 1 */
	pg_atomic_uint32 owes_counts;	/* set by the worker: rooms changed whose
									 * counts are not announced yet */
	pg_atomic_uint64 seq[PRESENCE_NSTREAMS];	/* of the last events sent */

	/* Resuming; set by replay.c. */
	pg_atomic_uint32 delivering;	/* xid of the delivery that commits, until
									 * its numbers are published */
	pg_atomic_uint64 given[PRESENCE_NSTREAMS];	/* last numbers, those of that
												 * delivery included */
	pg_atomic_uint64 resumable[PRESENCE_NSTREAMS];	/* listeners who have seen
													 * less cannot resume */

	pg_atomic_uint64 counters[PRESENCE_NCOUNTERS];
} PresenceDatabase;

extern Size presence_database_shmem_size(void);
extern void presence_database_shmem_init(void *area, bool found);

extern PresenceDatabase *presence_database_find(Oid oid);
extern PresenceDatabase *presence_database_get(Oid oid);
extern PresenceDatabase *presence_my_database(void);
extern PresenceDatabase *presence_database_at(int index);
extern int	presence_database_index(const PresenceDatabase *database);
extern void presence_database_forget(Oid oid);
extern void presence_database_release(PresenceDatabase *database);
extern uint64 presence_database_epoch(void);
extern bool presence_database_has_announced(PresenceDatabase *database);

extern void presence_database_add(PresenceDatabase *database,
								  PresenceCounter counter, uint64 count);
extern void presence_database_set(PresenceDatabase *database,
								  PresenceCounter counter, uint64 value);
extern uint64 presence_database_count(PresenceDatabase *database,
									  PresenceCounter counter);
extern void presence_database_reset_counters(PresenceDatabase *database);

extern void presence_database_set_launcher(Latch *latch);
extern void presence_database_wake_launcher(void);
extern void presence_database_wake_worker(PresenceDatabase *database);
extern void presence_database_note_moved(PresenceDatabase *database, PresenceEntryRef ref);
extern void presence_database_note_all_moved(PresenceDatabase *database);
extern int	presence_database_take_moved(PresenceDatabase *database,
										 PresenceEntryRef *refs, bool *all);
extern void presence_database_want_worker(PresenceDatabase *database);
extern bool presence_database_want_look(Oid oid);

/* For slot.c only. */
extern LWLock *presence_database_lock(void);

#endif							/* PRESENCE_DATABASE_H */
