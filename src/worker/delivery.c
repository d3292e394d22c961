/*-------------------------------------------------------------------------
 *
 * delivery.c
 *		Tells listeners what has changed.
 *
 * A transaction takes a snapshot, waits until every transaction that the snapshot
 * shows as ended has queued its hints (backend.c), reads what is new in the queue
 * into its backlog (backlog.c), and announces the hints that belong to the
 * snapshot, in order.
 *
 * What was announced is dropped from the queue, and the number of the last event
 * published, only once the NOTIFY has committed, with nothing between that could
 * fail: so nothing is lost, and nothing gets two numbers.  That transaction writes
 * no row but when users who went were last seen, and never waits for WAL to be
 * flushed or for a standby.
 *
 * What is remembered here can be built again: the roster from the tables, the
 * backlog from the queue.  So both are forgotten where the queue was cut.
 *
 * Short-lived state has no queue and no rows: what has changed of it is taken from
 * shared memory (state.c) and told in a transaction of its own.
 *
 * Roster and backlog are the worker's own memory.  Numbers are atomic, and only
 * the worker writes them; the queue locks itself.
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
#include "events/state_notify.h"
#include "miscadmin.h"
#include "shared/backend.h"
#include "shared/database.h"
#include "shared/liveness.h"
#include "shared/queue.h"
#include "shared/slot.h"
#include "shared/state.h"
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

/* How long to wait for hints of transactions that have ended; microseconds. */
#define LATE_LIMIT (1000 * 1000)

/* How often the same failure is logged at most; microseconds. */
#define COMPLAINT_INTERVAL (60 * USECS_PER_SEC)

/* Part of the notify queue that listeners may leave unread before we wait. */
#define MAX_UNREAD 0.5

static const PresenceWorkerTable announced_tables[] = {
	{"presences", AccessShareLock},
	{"people", AccessShareLock},
	{"user_last_seen", RowExclusiveLock},
	{NULL}
};

static struct
{
	PresenceRoster *roster;
	PresenceBacklog *backlog;	/* what was read of the queue and not told */
	PresenceQueuePosition position; /* behind that */
	PresenceTime next;			/* nothing is delivered before ... */
	PresenceTime next_state;	/* ... and no short-lived state */
	PresenceTime next_complaint;	/* no failure is logged again before */
	int			max_age;		/* setting in the last round */
} delivery;

/* What one delivery brings about. */
typedef struct Delivery
{
	PresenceStamp stamp;		/* numbers given so far */
	PresenceQueueState queue;	/* as it stood before it was read */
	int			nhints;			/* told, of the backlog */
	Size		bytes;			/* that these have in the queue */
	List	   *covered;		/* hints that wait, by where they lie there */
} Delivery;

/* Make what is remembered from one delivery to the next. */
void
presence_delivery_init(void)
{
	delivery.roster = presence_roster_create(TopMemoryContext);
	delivery.backlog = presence_backlog_create(TopMemoryContext);
}

/*
 * Forget what was read of the queue, and who was announced by it; the queue is
 * read from the beginning.
 */
static void
begin_queue(PresenceDatabase *database)
{
	presence_roster_clear(delivery.roster);
	presence_backlog_clear(delivery.backlog);
	presence_queue_begin(database, &delivery.position);
}

/* This process has become the worker, and begins with the queue as it is. */
void
presence_delivery_begin(void)
{
	begin_queue(presence_my_database());
}

/*
 * Open the queue while events are to be announced by the worker.
 *
 * For the transactions to take over, it is closed once it is empty.  What they
 * tell from then on may overtake what was told here last, or come with hints
 * that miss the queue, so a resync follows.  For nobody to announce anything,
 * what is in the queue is thrown away.
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
}

/*
 * Those who had died unremoved are alive again, because the floor or max_age
 * was raised.  Whoever read a room meanwhile did not see them, and no event
 * will tell of them: all rooms have to be read again.
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

/* Wait until all that the snapshot shows is in the queue; false: in vain. */
static bool
wait_for_hints(Snapshot snapshot)
{
	PresenceTime start = presence_clock_now();

	while (presence_backend_late(MyDatabaseId, snapshot))
	{
		PresenceTime waited = presence_clock_now() - start;

		if (waited > LATE_LIMIT)
			return false;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(waited < 200 ? 10 : 500);
	}
	return true;
}

/* Next number to give, as the last worker left it. */
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

/* Order hints by ticket, those of one transaction as it made them. */
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
 * Read into the backlog what came to the queue since the last turn; how the
 * queue stood before.
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

/* Forget who was announced and have listeners read all rooms again. */
static void
resync(PresenceStamp *stamp)
{
	presence_roster_clear(delivery.roster);
	presence_notify_resync(stamp);
}

/* Write down when users were last seen. */
static void
write_last_seen(List *gone)
{
	presence_store_connect();
	presence_store_merge_last_seen(gone);
	presence_store_check_constraints();
	presence_store_finish();
}

/* Log that this failed, now and then. */
static void
complain_of_last_seen(const ErrorData *error)
{
	PresenceTime now = presence_clock_now();

	if (now < delivery.next_complaint)
		return;
	delivery.next_complaint = now + COMPLAINT_INTERVAL;
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("could not remember when users were last seen: %s", error->message),
			 errhint("Look at the triggers and constraints of presence.user_last_seen.")));
}

/*
 * Remember when users who have gone offline were last seen, so that who hears of
 * it and reads finds that: in the transaction that tells it, which waits for no
 * disk; a crash of the server may take it back.  What somebody has put on that
 * table may fail: that is undone, and the events go out all the same.
 */
static void
remember_gone(List *gone)
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
		complain_of_last_seen(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}

/* Announce the hints of this turn. */
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
		remember_gone(gone);
	turn->covered = presence_backlog_covered(delivery.backlog);
}

/*
 * Announce what may be told by a snapshot, or, where it is not known what has
 * happened, that all rooms are to be read again.
 */
static void
announce(PresenceDatabase *database, Snapshot snapshot, bool open, Delivery *turn)
{
	bool		complete = wait_for_hints(snapshot);

	turn->queue = read_queue(database);
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

/* The delivery has committed: tell numbers and queue.  Nothing here may fail. */
static void
publish(PresenceDatabase *database, const Delivery *turn)
{
	for (int i = 0; i < PRESENCE_NSTREAMS; i++)
		pg_atomic_write_u64(&database->seq[i], turn->stamp.seq[i]);
	if (turn->queue.resync)
		presence_queue_resynced(database, turn->queue.lost_count);
	presence_queue_cover(database, &delivery.position, turn->covered);
	presence_queue_consume(database, &delivery.position, turn->bytes);
}

/*
 * Deliver what is in the queue, as much as one transaction should; false: that
 * cannot be now.  From the commit on nothing is interrupted until the queue
 * knows.
 */
static bool
deliver(PresenceDatabase *database)
{
	Delivery	turn = {.stamp = current_stamp(database)};
	bool		open = presence_queue_is_open(database);

	if (!presence_worker_xact_begin_on("delivering events", announced_tables, NULL))
		return false;
	announce(database, GetActiveSnapshot(), open, &turn);

	HOLD_INTERRUPTS();
	presence_worker_xact_commit();
	publish(database, &turn);
	RESUME_INTERRUPTS();

	presence_backlog_drop(delivery.backlog, turn.nhints);
	presence_database_set(database, PRESENCE_LAST_DRAIN,
						  (uint64) GetCurrentTimestamp());
	presence_slot_note_success(database);
	presence_worker_xact_cleanup();
	presence_roster_trim(delivery.roster, (Size) presence_roster_memory * 1024);
	return true;
}

/* Whether there is something to deliver. */
static bool
has_news(PresenceDatabase *database)
{
	return presence_notify != PRESENCE_NOTIFY_OFF &&
		!presence_queue_is_empty(database);
}

/* Whether to wait for the listeners to read. */
static bool
listeners_are_behind(void)
{
	return presence_notify_queue_usage() > MAX_UNREAD;
}

/* Deliver if there is something and it may go now. */
void
presence_delivery_deliver(PresenceTime now)
{
	PresenceDatabase *database = presence_my_database();

	if (database == NULL || !has_news(database) || now < delivery.next)
		return;
	if (listeners_are_behind() || !deliver(database))
		delivery.next = now + PRESENCE_WORKER_RETRY_DELAY;
	else if (presence_queue_bytes(database) > BATCH)
		delivery.next = 0;
	else
		delivery.next = now + (PresenceTime) presence_notify_interval * 1000;
}

/* Take what has changed in short-lived state, of which nobody is to hear. */
static void
drop_state(PresenceTime now)
{
	PresenceStateRound *round = presence_state_begin_round(now);
	List	   *ignored;

	while (presence_state_take(round, &ignored))
		continue;
	presence_state_end_round();
}

/* Announce what has changed in it. */
static void
send_state(PresenceTime now)
{
	presence_worker_xact_begin("announcing short-lived state");
	presence_state_notify_send(presence_state_begin_round(now));
	presence_worker_xact_end();
	presence_state_end_round();
}

/* Bury expired state, and announce what changed if it may go now. */
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

/* When there is something to do here; now, if there is nothing in the way. */
PresenceTime
presence_delivery_next(PresenceTime now)
{
	PresenceDatabase *database = presence_my_database();
	PresenceTime next;

	if (database == NULL)
		return PG_INT64_MAX;
	next = Min(presence_state_next_expiry(),
			   Max(delivery.next_state, presence_state_next_due()));
	return has_news(database) ? Min(next, Max(delivery.next, now)) : next;
}
