/*-------------------------------------------------------------------------
 *
 * worker.c
 *		Runs the worker of one database.
 *
 * In each round the worker announces what is in the queue, removes expired
 * channels, and, from time to time, removes empty rooms.  Then it sleeps until
 * the next deadline, or until a committing transaction sets its latch.  It
 * holds neither a snapshot nor a transaction while it sleeps.  Each step is
 * implemented in its own module, works in short transactions of its own
 * (worker_xact.c), and keeps its own state between rounds.
 *
 * An error ends the worker, unless the step has registered an error handler.
 * The launcher starts another worker, which finds the queue as it was.  All
 * local state can be rebuilt: the roster from the tables, the deadlines from
 * the registry.
 *
 * While the worker is busy, a timer re-arms its watchdog, so that a busy
 * server is not mistaken for one that was stopped (liveness.c).
 *
 * Without shared memory there is no queue and no registry.  Then the worker
 * only removes channels that are expired by their rows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "base/compat.h"
#include "base/guc.h"
#include "base/shmem.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "shared/database.h"
#include "shared/liveness.h"
#include "shared/queue.h"
#include "shared/registry.h"
#include "shared/slot.h"
#include "state/state.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "worker/chores.h"
#include "worker/delivery.h"
#include "worker/enforce.h"
#include "worker/sweep.h"
#include "worker/worker.h"
#include "worker/worker_xact.h"

/* Watchdog limit while the worker is busy; microseconds. */
#define STEP_LIMIT (2 * 1000 * 1000)

/* How often the watchdog is re-armed meanwhile; milliseconds. */
#define TICK_INTERVAL 250

/* Bytes of freed memory that the worker keeps. */
#define KEPT_MEMORY (8 * 1024 * 1024)

/* Longest sleep from which nothing wakes the worker; microseconds. */
#define DEAF_LIMIT (10 * 1000)

static struct
{
	PresenceDatabase *database; /* NULL without shared memory */
	PresenceTime idle_since;	/* 0: not idle */
	TimeoutId	tick;			/* calls arm_step_watchdog() while busy */
}			worker;

/* Arm the watchdog: it will be re-armed within this time. */
static void
arm_watchdog(PresenceTime within)
{
	if (worker.database)
		presence_liveness_arm_watchdog(worker.database, within);
}

/*
 * The same while busy.  The timer also calls this in the middle of anything
 * that takes long or waits for a lock, which is not a stall of the server.
 */
static void
arm_step_watchdog(void)
{
	arm_watchdog(STEP_LIMIT);
}

/* Start the timer that re-arms the watchdog while the worker is busy. */
static void
start_ticking(void)
{
	enable_timeout_every(worker.tick,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), TICK_INTERVAL),
						 TICK_INTERVAL);
}

/* Reload the configuration if requested. */
static void
reload_if_asked(PresenceTime now)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	presence_chores_reload();
	presence_sweep_reload();
}

/* The extension is being dropped: wait for the outcome, and exit if it was. */
static void
look_for_extension(PresenceTime now)
{
	if (worker.database == NULL || !presence_slot_extension_rechecked(worker.database))
		return;
	presence_worker_xact_begin("looking for the extension");
	presence_worker_xact_end();
}

/*
 * Exit voluntarily.  If there is something to do in shared memory, perhaps
 * because of a concurrent commit, request another worker.
 */
static void
leave(void)
{
	disable_timeout(worker.tick, false);	/* the record may soon be
											 * another's */
	presence_slot_leave(worker.database);
	if (!presence_slot_is_empty(worker.database) ||
		!presence_state_is_empty(MyDatabaseId))
		presence_database_want_worker(worker.database);
	proc_exit(0);
}

/* Whether nothing needs the worker. */
static bool
is_idle(void)
{
	return !presence_sweep_has_channels() &&
		presence_registry_is_complete(worker.database) &&
		presence_queue_is_empty(worker.database) &&
		!presence_delivery_owes() &&
		presence_state_is_empty(MyDatabaseId);
}

/* How long the worker may stay idle; microseconds, 0: no limit. */
static PresenceTime
idle_timeout(void)
{
	return (PresenceTime) Max(presence_worker_idle_timeout, 0) * USECS_PER_SEC;
}

/* Exit if idle for too long, or if blocked (utility_hook.c). */
static void
leave_if_idle(PresenceTime now)
{
	if (worker.database == NULL)
		return;
	if (worker.database->holds > 0)
		leave();
	if (!is_idle())
		worker.idle_since = 0;
	else if (worker.idle_since == 0)
		worker.idle_since = now;
	if (worker.idle_since != 0 && idle_timeout() > 0 &&
		now >= worker.idle_since + idle_timeout() &&
		presence_queue_close(worker.database, false))
		leave();
}

/*
 * Run a step of the round in an empty scratch context, and re-arm the watchdog
 * for the next one.
 */
static void
take_step(void (*step) (PresenceTime now))
{
	presence_worker_xact_clear_scratch();
	step(presence_clock_now());
	arm_step_watchdog();
}

/* Do everything that is due. */
static void
do_round(void)
{
	take_step(reload_if_asked);
	take_step(look_for_extension);
	take_step(presence_delivery_follow_mode);
	take_step(presence_delivery_notice_revival);
	take_step(presence_delivery_notice_announce);
	take_step(presence_delivery_deliver);
	take_step(presence_sweep_search);
	take_step(presence_sweep_expire);
	take_step(presence_enforce_apply);
	take_step(presence_sweep_audit);
	take_step(presence_chores_do);
	take_step(presence_delivery_send_state);
	take_step(leave_if_idle);
}

/* When to wake up at the latest. */
static PresenceTime
next_wake(PresenceTime now)
{
	PresenceTime wake = now + presence_liveness_max_age();

	wake = Min(wake, presence_delivery_next(now));
	wake = Min(wake, presence_sweep_next());
	wake = Min(wake, presence_enforce_next(now));
	wake = Min(wake, presence_chores_next());
	if (worker.database == NULL)
		return wake;
	if (presence_sweep_has_channels())
		return Min(wake, now + presence_liveness_stall_limit());
	return idle_timeout() > 0 ? Min(wake, now + idle_timeout()) : wake;
}

/* Sleep until a time or, with a latch, until that is set. */
static void
sleep_with(Latch *latch, PresenceTime until, uint32 wait_event)
{
	PresenceTime now = presence_clock_now();
	int			events = WL_TIMEOUT | WL_EXIT_ON_PM_DEATH | (latch ? WL_LATCH_SET : 0);

	if (until <= now)
		return;
	arm_watchdog(until - now);
	(void) WaitLatch(latch, events, (until - now + 999) / 1000, wait_event);
}

/*
 * Sleep until there is something to do.  While deliveries pause, a commit that
 * finds the queue empty need not wake the worker, nor signal it: so it sleeps
 * without the latch first.  Whatever else sets the latch waits for as long.
 */
static void
sleep_until(PresenceTime wake, uint32 wait_event)
{
	PresenceTime now = presence_clock_now();
	PresenceTime pause = Min(Min(wake, presence_delivery_pause_end()), now + DEAF_LIMIT);

	disable_timeout(worker.tick, false);
	sleep_with(NULL, pause, wait_event);
	if (pause > now)
		wake = next_wake(presence_clock_now());
	sleep_with(MyLatch, wake, wait_event);
	ResetLatch(MyLatch);
	arm_step_watchdog();
	start_ticking();
	presence_liveness_check_wall_clock();
	CHECK_FOR_INTERRUPTS();
}

/* Main loop. */
static void
run(uint32 wait_event)
{
	sigjmp_buf	handler;

	if (sigsetjmp(handler, 1) != 0)
	{
		presence_worker_xact_recover();
		start_ticking();
	}
	PG_exception_stack = &handler;
	for (;;)
	{
		do_round();
		sleep_until(next_wake(presence_clock_now()), wait_event);
	}
}

/*
 * Keep memory that was freed, up to a limit: each delivery needs as much again,
 * and getting it from the operating system anew costs a page fault a page.
 */
static void
keep_freed_memory(void)
{
#ifdef __GLIBC__
	(void) mallopt(M_MMAP_THRESHOLD, KEPT_MEMORY);
	(void) mallopt(M_TRIM_THRESHOLD, KEPT_MEMORY);
	(void) mallopt(M_TOP_PAD, KEPT_MEMORY / 16);
#endif
}

/* Make this the only worker of the database, or exit. */
static void
become_the_worker(void)
{
	if (presence_shmem_ready())
	{
		worker.database = presence_my_database();
		if (worker.database == NULL || !presence_slot_claim(worker.database))
			proc_exit(0);
		presence_delivery_begin();
		presence_enforce_all();
	}
	presence_worker_xact_begin("starting");
	if (worker.database == NULL &&
		!presence_slot_claim_alone(presence_worker_xact_extension()))
		proc_exit(0);
	presence_worker_xact_end();
}

/* Entry point of the worker of one database. */
void
presence_worker_main(Datum database)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(database), InvalidOid, 0);

	keep_freed_memory();
	presence_worker_xact_init();
	presence_delivery_init();
	presence_sweep_init();
	become_the_worker();
	worker.tick = RegisterTimeout(USER_TIMEOUT, arm_step_watchdog);
	start_ticking();
	run(presence_compat_wait_event("PresenceWorkerMain"));
}
