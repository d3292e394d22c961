/*-------------------------------------------------------------------------
 *
 * delivery.c
 *		Announces changes from the queue to listeners.
 *
 * A delivery is one transaction.  It takes a snapshot, waits until every
 * transaction that the snapshot shows as ended has queued its hints
 * (backend.c), reads what is new in the queue into its backlog (backlog.c),
 * and announces, in order, the hints whose transactions the snapshot shows.
 *
 * The announced hints are dropped from the queue only once the NOTIFY has
 * committed; then the number of the last event has been published (replay.c).
 * Nothing in between can fail, so nothing is lost, and nothing gets two
 * numbers.  The transaction
 * writes no rows except to user_last_seen, for users who went offline, and
 * never waits for a WAL flush or for a standby.
 *
 * The roster can be rebuilt from the tables, and the backlog from the queue.
 * So both are discarded when the queue was discarded.
 *
 * A delivery has a cost of its own, whatever it announces.  So after each one
 * the worker pauses, the longer the more CPU time it took, so that it and the
 * listeners that it wakes never use more than a part of the machine.
 *
 * The counts of a large room may be due without anything in the queue
 * (announce_mode.c).  While they are, that is noted in shared memory: if the
 * worker ends, the next one has all rooms read again instead.
 *
 * Short-lived state has no queue and no rows.  Its changes are taken from
 * shared memory (state.c), and announced in a transaction of their own.
 *
 * Roster and backlog are local to the worker.  Event numbers are atomics that
 * only the worker writes.  The queue has its own lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/guc.h"
#include "events/announce.h"
#include "events/backlog.h"
#include "events/notify.h"
#include "events/roster.h"
#include "miscadmin.h"
#include "shared/backend.h"
#include "shared/database.h"
#include "shared/liveness.h"
#include "shared/queue.h"
#include "shared/slot.h"
#include "state/state.h"
#include "state/state_notify.h"
#include "tables/extension.h"
#include "tables/store.h"
#include "tables/store_people.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/delivery.h"
#include "worker/enforce.h"
#include "worker/worker_xact.h"

/* Bytes of hints announced in one transaction. */
#define BATCH (256 * 1024)

/*
 * CPU time of a delivery for which the worker pauses WORK_PAUSE times as long.
 * The commit signals all listeners, and each of them uses many times what
 * signaling it takes, so it counts COMMIT_PAUSE times instead.
 */
#define WORK_PAUSE 3
#define COMMIT_PAUSE 20

/* Longest wait for hints of transactions that have ended; microseconds. */
#define LATE_LIMIT (1000 * 1000)

/* Least time between log messages of the same failure; microseconds. */
#define LOG_INTERVAL (60 * USECS_PER_SEC)

/* Usage of the notify queue above which deliveries wait for listeners. */
#define MAX_UNREAD 0.5

static const PresenceWorkerTable announced_tables[] = {
	{"presences", AccessShareLock},
	{"people", AccessShareLock},
	{"user_last_seen", RowExclusiveLock},
	{"rooms", AccessShareLock},
	{NULL}
};

static struct
{
	PresenceRoster *roster;
	PresenceBacklog *backlog;	/* read from the queue, not announced yet */
	PresenceQueuePosition position; /* up to which the queue was read */
	PresenceTime next;			/* earliest time of the next delivery */
	PresenceTime next_state;	/* same, of short-lived state */
	PresenceTime next_log;		/* same, of a log message of a failure */
	int			max_age;		/* settings in the last round; 0: none yet */
	int			announce_max;	/* same; -1: none yet */
	bool		losses;			/* the next hints may not be the last of their
								 * presences: others were lost or late */
}			delivery;

/* State of one delivery. */
typedef struct Delivery
{
	PresenceStamp stamp;		/* event numbers assigned so far */
	PresenceQueueState queue;	/* as of before it was read */
	int			nhints;			/* number announced, of the backlog */
	Size		bytes;			/* their size in the queue */
	List	   *covered;		/* pending hints that are covered, by their
								 * place in the queue */
} Delivery;

/* Create roster and backlog. */
void
presence_delivery_init(void)
{
	delivery.roster = presence_roster_create(TopMemoryContext);
	delivery.backlog = presence_backlog_create(TopMemoryContext);
	delivery.announce_max = -1;
}

/*
 * Discard the roster and what was read from the queue, and read the queue from
 * the beginning.
 */
static void
begin_queue(PresenceDatabase *database)
{
	presence_roster_clear(delivery.roster);
	presence_backlog_clear(delivery.backlog);
	presence_queue_begin(database, &delivery.position);
}

/* This process has become the worker: begin with the queue as it is. */
void
presence_delivery_begin(void)
{
	PresenceDatabase *database = presence_my_database();

	begin_queue(database);
	delivery.losses = true;		/* of what the last worker knew */
	if (pg_atomic_exchange_u32(&database->owes_counts, false))
		presence_queue_set_resync_pending(database);
}

/* Publish whether counts are due. */
static void
note_owed(PresenceDatabase *database)
{
	pg_atomic_write_u32(&database->owes_counts, presence_roster_owes(delivery.roster));
}

/*
 * Open or close the queue as presence.notify demands.
 *
 * "auto": the worker announces, so the queue is open.
 *
 * "transaction": the queue is closed once it is empty.  Events that
 * transactions send from then on may overtake the last ones sent here, and a
 * hint may have missed the queue, so a resync is set pending.
 *
 * "off": the queue is closed, and its contents are discarded.
 *
 * Counts are announced only while the queue is open.
 */
void
presence_delivery_follow_mode(PresenceTime now)
{
	PresenceDatabase *database = presence_my_database();
	bool		open;

	if (database == NULL)
		return;
	open = presence_queue_is_open(database);
	if (presence_notify == PRESENCE_NOTIFY_AUTO && !open)
	{
		presence_roster_clear(delivery.roster);
		presence_queue_open(database);
	}
	else if (presence_notify == PRESENCE_NOTIFY_OFF && open)
		(void) presence_queue_close(database, true);
	else if (presence_notify == PRESENCE_NOTIFY_TRANSACTION && open &&
			 presence_queue_close(database, false))
	{
		presence_roster_clear(delivery.roster);
		presence_queue_set_resync_pending(database);
	}
	if (presence_roster_owes(delivery.roster) && !presence_queue_is_open(database))
	{
		presence_roster_forget_owed(delivery.roster);
		note_owed(database);
	}
}

/*
 * Set a resync pending if presence.announce_max was changed: rooms that are not
 * on the roster may have been announced by the old one.
 */
void
presence_delivery_notice_announce(PresenceTime now)
{
	PresenceDatabase *database = presence_my_database();

	if (database && delivery.announce_max >= 0 &&
		delivery.announce_max != presence_announce_max)
		presence_queue_set_resync_pending(database);
	delivery.announce_max = presence_announce_max;
}

/*
 * Set a resync pending if the start of grace or max_age was raised.  Then
 * channels that had expired, but were not removed yet, are alive again.  A
 * client that read a room before did not see them, and no event will announce
 * them, so all rooms have to be read again.
 */
void
presence_delivery_notice_revival(PresenceTime now)
{
	PresenceDatabase *database = presence_my_database();

	if (database == NULL)
		return;
	if (presence_liveness_grace_start_rose(database) ||
		(delivery.max_age != 0 && presence_max_age > delivery.max_age))
		presence_queue_set_resync_pending(database);
	delivery.max_age = presence_max_age;
}

/* The event numbers, as published last. */
static PresenceStamp
current_stamp(PresenceDatabase *database)
{
	PresenceStamp stamp;

	stamp.numbered = true;
	stamp.epoch = presence_database_epoch();
	for (int i = 0; i < PRESENCE_NSTREAMS; i++)
		stamp.seq[i] = pg_atomic_read_u64(&database->seq[i]);
	return stamp;
}

/* Order hints by ticket, those of one transaction as they were made. */
static int
compare_tickets(const void *a, const void *b)
{
	const PresenceWaiting *left = *(PresenceWaiting *const *) a;
	const PresenceWaiting *right = *(PresenceWaiting *const *) b;

	if (left->hint->ticket != right->hint->ticket)
		return left->hint->ticket > right->hint->ticket ? 1 : -1;
	return (left->number > right->number) - (left->number < right->number);
}

/*
 * Read what is new in the queue into the backlog; returns the state of the
 * queue before that.
 */
static PresenceQueueState
read_queue(PresenceDatabase *database)
{
	PresenceQueuePosition *position = &delivery.position;
	char	   *buffer = palloc(PRESENCE_QUEUE_READ_SIZE);
	PresenceQueueState state;

	do
	{
		PresenceHint *queued;
		Size		size;

		state = presence_queue_look(database);
		if (state.cuts != position->cuts)
			begin_queue(database);
		do
		{
			CHECK_FOR_INTERRUPTS();
			size = presence_queue_read(database, position, buffer, &queued);
			if (size > 0)
				presence_backlog_append(delivery.backlog, buffer, size, queued);
		} while (size > 0 && position->read < state.appended);
	} while (position->read < state.appended);
	return state;
}

/* Clear the roster, and have listeners read all rooms again. */
static void
resync(PresenceStamp *stamp)
{
	presence_roster_clear(delivery.roster);
	presence_notify_resync(stamp);
}

/* Write when users were last seen.  Only triggers can defer an error. */
static void
write_last_seen(List *gone)
{
	presence_store_connect();
	presence_store_write_last_seen(gone);
	if (presence_extension_has_triggers("user_last_seen"))
		presence_store_check_constraints();
	presence_store_finish();
}

/* Log that this failed, at most once per interval. */
static void
log_last_seen_failure(const ErrorData *error)
{
	PresenceTime now = presence_clock_now();

	if (now < delivery.next_log)
		return;
	delivery.next_log = now + LOG_INTERVAL;
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("could not remember when users were last seen: %s", error->message),
			 errhint("Look at the triggers and constraints of presence.user_last_seen.")));
}

/*
 * Store when users who went offline were last seen, so that a listener that
 * reads on receipt of the event finds it.  This is done in the transaction
 * that sends the event, which commits asynchronously: a crash of the server
 * may lose it.  A user's trigger or constraint on that table may fail; then
 * this is rolled back alone, and the events are sent.
 */
static void
store_last_seen(List *gone)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	(void) set_config_option("synchronous_commit", "off", PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		MemoryContextSwitchTo(context);
		write_last_seen(gone);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		log_last_seen_failure(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}

/* Announce the hints of this delivery. */
static void
announce_turn(Snapshot snapshot, Delivery *turn)
{
	PresenceWaiting **now;
	List	   *events;
	List	   *gone;

	presence_backlog_know(delivery.backlog, snapshot);
	if (presence_backlog_take_resyncs(delivery.backlog))
		resync(&turn->stamp);
	now = presence_backlog_take(delivery.backlog, BATCH, &turn->nhints, &turn->bytes);
	for (int i = 0; i < turn->nhints; i++)
		presence_enforce_note(now[i]->hint);
	qsort(now, turn->nhints, sizeof(PresenceWaiting *), compare_tickets);
	presence_store_connect();
	events = presence_announce(delivery.roster, delivery.backlog, now, turn->nhints,
							   snapshot, &gone);
	presence_notify_events(events, &turn->stamp);
	presence_store_finish();
	if (gone != NIL)
		store_last_seen(gone);
	turn->covered = presence_backlog_covered(delivery.backlog);
}

/*
 * Announce what the snapshot shows.  If hints were lost, or have not arrived
 * in time, announce a resync instead.
 */
static void
announce(PresenceDatabase *database, Snapshot snapshot, bool open, Delivery *turn)
{
	bool		complete = presence_backend_await(snapshot, LATE_LIMIT);

	turn->queue = read_queue(database);
	if (!complete || delivery.losses || turn->queue.resync)
		presence_backlog_note_loss(delivery.backlog);
	delivery.losses = !complete;
	if (complete && !turn->queue.resync)
	{
		announce_turn(snapshot, turn);
		if (!open)
			resync(&turn->stamp);
		return;
	}
	resync(&turn->stamp);
	presence_enforce_all();
}

/* After the commit of a delivery, update the queue.  Must not fail. */
static void
update_queue(PresenceDatabase *database, const Delivery *turn)
{
	if (turn->queue.resync)
		presence_queue_resynced(database, turn->queue.lost_count);
	presence_queue_cover(database, &delivery.position, turn->covered);
	presence_queue_consume(database, &delivery.position, turn->bytes);
	note_owed(database);
}

/* The pause after a delivery, given the CPU time when each part of it began. */
static int64
pause_after(int64 began, int64 committing)
{
	int64		pause = WORK_PAUSE * (committing - began) +
		COMMIT_PAUSE * (presence_clock_cpu() - committing);

	return Min(pause, (int64) presence_notify_interval * 1000);
}

/*
 * Deliver one batch from the queue; false if a lock is not available.
 * Interrupts are held off from the commit until the queue is updated.  "pause"
 * gets the time to wait before the next delivery.
 */
static bool
deliver(PresenceDatabase *database, int64 *pause)
{
	Delivery	turn = {.stamp = current_stamp(database)};
	bool		open = presence_queue_is_open(database);
	int64		began = presence_clock_cpu();
	int64		committing;

	if (!presence_worker_xact_begin_on("delivering events", announced_tables, NULL))
		return false;
	announce(database, GetActiveSnapshot(), open, &turn);

	committing = presence_clock_cpu();
	HOLD_INTERRUPTS();
	presence_worker_xact_commit();
	update_queue(database, &turn);
	RESUME_INTERRUPTS();
	*pause = pause_after(began, committing);

	presence_backlog_drop(delivery.backlog, turn.nhints);
	presence_database_set(database, PRESENCE_LAST_DRAIN,
						  (uint64) GetCurrentTimestamp());
	presence_slot_note_success(database);
	presence_worker_xact_cleanup();
	presence_roster_trim(delivery.roster, (Size) presence_roster_memory * 1024);
	return true;
}

/* Whether there are hints to deliver. */
static bool
has_news(PresenceDatabase *database)
{
	return presence_notify != PRESENCE_NOTIFY_OFF &&
		!presence_queue_is_empty(database);
}

/* When counts may be due. */
static PresenceTime
next_counts(PresenceDatabase *database, PresenceTime now)
{
	if (presence_notify != PRESENCE_NOTIFY_AUTO || !presence_queue_is_open(database))
		return PG_INT64_MAX;
	return presence_roster_next_owed(delivery.roster, now);
}

/* Whether counts are still to be announced. */
bool
presence_delivery_owes(void)
{
	return presence_roster_owes(delivery.roster);
}

/* Whether to wait until listeners have read more of the notify queue. */
static bool
listeners_are_behind(void)
{
	return presence_notify_queue_usage() > MAX_UNREAD;
}

/* Deliver if there are hints, or counts to announce, and a delivery is due. */
void
presence_delivery_deliver(PresenceTime now)
{
	PresenceDatabase *database = presence_my_database();
	int64		pause;

	if (database == NULL || now < delivery.next ||
		(!has_news(database) && now < next_counts(database, now)))
		return;
	if (listeners_are_behind() || !deliver(database, &pause))
		delivery.next = now + PRESENCE_WORKER_RETRY_DELAY;
	else if (presence_queue_bytes(database) > BATCH)
		delivery.next = 0;
	else
		delivery.next = presence_clock_now() + pause;
}

/* Discard the changes of short-lived state. */
static void
drop_state(PresenceTime now)
{
	PresenceStateRound *round = presence_state_begin_round(now);
	List	   *ignored;

	while (presence_state_take(round, &ignored))
		continue;
	presence_state_end_round();
}

/* Announce the changes of short-lived state. */
static void
send_state(PresenceTime now)
{
	presence_worker_xact_begin("announcing short-lived state");
	presence_state_notify_send(presence_state_begin_round(now));
	presence_worker_xact_end();
	presence_state_end_round();
}

/* Remove expired state, and announce changes of state if that is due. */
void
presence_delivery_send_state(PresenceTime now)
{
	if (presence_my_database() == NULL)
		return;
	presence_state_expire(now);
	if (now < presence_state_next_due() || now < delivery.next_state)
		return;
	if (listeners_are_behind())
	{
		delivery.next_state = now + PRESENCE_WORKER_RETRY_DELAY;
		return;
	}
	if (presence_notify == PRESENCE_NOTIFY_OFF)
		drop_state(now);
	else
		send_state(now);
	delivery.next_state = now + (PresenceTime) presence_notify_interval * 1000;
}

/* When the next delivery is due. */
PresenceTime
presence_delivery_next(PresenceTime now)
{
	PresenceDatabase *database = presence_my_database();
	PresenceTime next;

	if (database == NULL)
		return PG_INT64_MAX;
	next = Min(presence_state_next_expiry(),
			   Max(delivery.next_state, presence_state_next_due()));
	next = Min(next, Max(delivery.next, next_counts(database, now)));
	return has_news(database) ? Min(next, Max(delivery.next, now)) : next;
}

/* When the pause after the last delivery ends. */
PresenceTime
presence_delivery_pause_end(void)
{
	return delivery.next;
}
