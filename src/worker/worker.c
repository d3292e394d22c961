/*-------------------------------------------------------------------------
 *
 * worker.c
 *		Runs the worker of one database.
 *
 * The worker's round: deliver what is in the queue, remove the dead, remove
 * empty rooms now and then, and sleep until there is something to do: until
 * the next deadline at the latest, or until a committing transaction sets its
 * latch.  While it sleeps it holds neither snapshot nor transaction.  What each
 * step does stands in the module that it belongs to; each works in short
 * transactions of its own (worker_xact.c), and remembers for itself what it
 * needs from one round to the next.
 *
 * An error ends the worker, unless a step has named who deals with it; the
 * launcher starts another one, which finds the queue as it was.  What the worker
 * remembers, it can build again: the roster from the tables, the deadlines from
 * the registry.
 *
 * While it is at work a timer lets others hear of it, so that they can tell a
 * server that stood still from one that is busy (liveness.c).
 *
 * Without shared memory there is no queue and no registry; the worker then
 * only removes what the rows call dead.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

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
#include "shared/state.h"
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

/* A worker at work that is not heard of for so long was stopped; microseconds. */
#define STEP_LIMIT (2 * 1000 * 1000)

/* How often it lets hear of itself meanwhile; milliseconds. */
#define TICK_INTERVAL 250

static struct
{
	PresenceDatabase *database; /* NULL without shared memory */
	PresenceTime idle_since;	/* 0: not idle */
	TimeoutId	tick;			/* calls arm_step_watchdog() while at work */
} worker;

/* Promise to be heard of again within a while. */
static void
arm_watchdog(PresenceTime within)
{
	if (worker.database)
		presence_liveness_arm_watchdog(worker.database, within);
}

/*
 * The same while at work.  The timer calls this, too, in the middle of whatever
 * takes long or waits for a lock: that is no sign of a server that stood still.
 */
static void
arm_step_watchdog(void)
{
	arm_watchdog(STEP_LIMIT);
}

/* Let hear of the worker for as long as it is at work. */
static void
start_ticking(void)
{
	enable_timeout_every(worker.tick,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), TICK_INTERVAL),
						 TICK_INTERVAL);
}

/* Read the settings again if they have changed. */
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

/* Somebody is dropping the extension: wait for the outcome. */
static void
look_for_extension(PresenceTime now)
{
	if (worker.database == NULL || !presence_slot_extension_rechecked(worker.database))
		return;
	presence_worker_xact_begin("looking for the extension");
	presence_worker_xact_end();
}

/*
 * End the worker by its own will.  Where something is left to do, or has come
 * meanwhile, another one is to follow.
 */
static void
leave(void)
{
	presence_slot_leave(worker.database);
	if (!presence_slot_is_empty(worker.database))
		presence_database_want_worker(worker.database);
	proc_exit(0);
}

/* Whether nothing is there that may need the worker. */
static bool
is_idle(void)
{
	return !presence_sweep_has_channels() &&
		presence_registry_is_complete(worker.database) &&
		presence_queue_is_empty(worker.database) &&
		presence_state_is_empty(MyDatabaseId);
}

/* How long that may last; microseconds, 0: for ever. */
static PresenceTime
idle_timeout(void)
{
	return (PresenceTime) Max(presence_worker_idle_timeout, 0) * USECS_PER_SEC;
}

/* Leave when nothing has happened for long, or when somebody asks for it. */
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
 * Do a part of a round, in memory of its own, and promise that the next one
 * will not take long either.
 */
static void
take_step(void (*step) (PresenceTime now))
{
	presence_worker_xact_clear_scratch();
	step(presence_clock_now());
	arm_step_watchdog();
}

/* Do all that is due. */
static void
do_round(void)
{
	take_step(reload_if_asked);
	take_step(look_for_extension);
	take_step(presence_delivery_follow_mode);
	take_step(presence_delivery_notice_revival);
	take_step(presence_delivery_deliver);
	take_step(presence_sweep_search);
	take_step(presence_sweep_expire);
	take_step(presence_enforce_apply);
	take_step(presence_sweep_audit);
	take_step(presence_chores_do);
	take_step(presence_delivery_send_state);
	take_step(leave_if_idle);
}

/* When to wake at the latest. */
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

/* Sleep until there is something to do. */
static void
sleep_until(PresenceTime wake, uint32 wait_event)
{
	PresenceTime now = presence_clock_now();
	long		timeout = wake <= now ? 0 : (wake - now + 999) / 1000;

	disable_timeout(worker.tick, false);
	arm_watchdog(timeout > 0 ? wake - now : STEP_LIMIT);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 timeout, wait_event);
	ResetLatch(MyLatch);
	arm_step_watchdog();
	start_ticking();
	presence_liveness_check_wall_clock();
	CHECK_FOR_INTERRUPTS();
}

/* Do what is due, for ever. */
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

/* Make this the only worker of the database, or end. */
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

	presence_worker_xact_init();
	presence_delivery_init();
	presence_sweep_init();
	become_the_worker();
	worker.tick = RegisterTimeout(USER_TIMEOUT, arm_step_watchdog);
	start_ticking();
	run(presence_compat_wait_event("PresenceWorkerMain"));
}
