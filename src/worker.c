/*-------------------------------------------------------------------------
 *
 * worker.c
 *		Announces the events of one database and expires its silent channels.
 *
 * The worker's round: deliver what is in the queue, remove the dead, remove
 * empty rooms now and then, and sleep until there is something to do: until
 * the next deadline at the latest, or until a committing transaction sets its
 * latch.  While it sleeps it holds neither snapshot nor transaction.
 *
 * Each round works in short transactions of its own, as the owner of the
 * extension.  Each of them first takes a share lock on the extension and
 * looks whether it still exists, so a DROP EXTENSION is waited for, and a
 * committed one ends the worker.
 *
 * Delivery.  A transaction takes a snapshot, waits until every transaction
 * that the snapshot shows as ended has queued its hints (backend.c), reads what
 * is new in the queue into its backlog (backlog.c), and announces the hints that
 * belong to the snapshot, in order.
 * What was announced is dropped from the queue, and the number of the last
 * event published, only once the NOTIFY has committed, with nothing between
 * that could fail: so nothing is lost, and nothing gets two numbers.  That
 * transaction writes no row but when users who went were last seen, and never
 * waits for WAL to be flushed or for a standby.
 *
 * An error ends the worker; the launcher starts another one, which finds the
 * queue as it was.  What the worker remembers, it can build again: the roster
 * from the tables, the deadlines from the registry.
 *
 * Not so where users' triggers, constraints and locks may make removals fail.
 * There "rescue" says who deals with the error once the main loop has rolled
 * the transaction back, so that one row costs the others nothing.
 *
 * The worker waits for no table.  Whoever may write to one may lock it, for as
 * long as he likes.  So each step first takes, if it can, the locks that its
 * statements take again, before its snapshot; if not, it is put off, and the
 * other steps go on.
 *
 * Without shared memory there is no queue and no registry; the worker then
 * only removes what the rows call dead.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "announce.h"
#include "backend.h"
#include "backlog.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "cleanup.h"
#include "commands/extension.h"
#include "compat.h"
#include "database.h"
#include "enforce.h"
#include "ephemeral.h"
#include "executor/spi.h"
#include "expiry.h"
#include "extension.h"
#include "guc.h"
#include "liveness.h"
#include "miscadmin.h"
#include "notify.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "queue.h"
#include "registry.h"
#include "relay.h"
#include "removal.h"
#include "shmem.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/procsignal.h"
#include "store.h"
#include "store_channels.h"
#include "store_rooms.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "worker.h"

/*
 * How long a death may wait for others, so that they are removed and told
 * together; microseconds.
 */
#define EXPIRY_PATIENCE (20 * 1000)

/*
 * How often the table is searched for rows without entries, which would never
 * expire; there should be none; microseconds.
 */
#define AUDIT_INTERVAL (INT64CONST(3600) * USECS_PER_SEC)

/* How often chores are done where empty rooms are to stay; seconds. */
#define CHORES_INTERVAL 3600

/* How long those who enter may wait behind the worker for others; ms. */
#define LOCK_TIMEOUT "20"

/* Bytes of hints announced in one transaction. */
#define DELIVERY_BATCH (256 * 1024)

/* When to try again what others stood in the way of; microseconds. */
#define RETRY_DELAY (50 * 1000)

/* How long to wait for hints of transactions that have ended; microseconds. */
#define LATE_LIMIT (1000 * 1000)

/* A worker at work that is not heard of for so long was stopped; microseconds. */
#define STEP_LIMIT (2 * 1000 * 1000)

/* How often the same failure is logged at most; microseconds. */
#define COMPLAINT_INTERVAL (60 * USECS_PER_SEC)

/* How often it lets hear of itself meanwhile; milliseconds. */
#define TICK_INTERVAL 250

/* Above this the worker waits for the listeners to read. */
#define MAX_QUEUE_USAGE 0.5

/* Channels that could not be removed and are named in the log, a minute. */
#define MAX_COMPLAINTS 10

/* Deals with an error of what the worker was trying. */
typedef void (*WorkerRescue) (const ErrorData *error);

/* What is done now and then, a part at a time. */
typedef enum Chore
{
	CHORE_ROOMS,				/* remove empty rooms */
	CHORE_LAST_SEEN,			/* forget who was last seen long ago */
	CHORE_ADMISSIONS,			/* forget who was admitted a while ago */
	NCHORES
} Chore;

typedef struct WorkerChores
{
	PresenceTime next;			/* part of them; 0: nobody has said when */
	PresenceTime pause;			/* while others are in the way */
	Chore		chore;
	BlockNumber block;			/* where its next part begins ... */
	char		room[PRESENCE_MAX_NAME_BYTES + 1];	/* ... after which room */
	char		reached[PRESENCE_MAX_NAME_BYTES + 1];	/* by the part under way */
	int			nrooms;			/* looked at in a part */
} WorkerChores;

typedef struct Worker
{
	PresenceDatabase *database; /* NULL without shared memory */
	Oid			extension;
	bool		leaving;		/* ends by its own will */
	bool		gone;			/* so is the extension */
	bool		needed;			/* but it has come back: another worker is to come */
	MemoryContext scratch;		/* reset each round */
	WorkerRescue rescue;		/* NULL: an error ends the worker */
	PresenceRoster *roster;
	PresenceBacklog *backlog;	/* what was read of the queue and not told */
	PresenceQueuePosition position; /* behind that */
	PresenceExpiry *expiry;
	PresenceTime last_delivery;
	PresenceTime next_delivery; /* not before */
	PresenceTime next_state;	/* no short-lived state is announced before */
	WorkerChores chores;
	PresenceTime next_expiry;	/* nobody is removed before */
	PresenceTime next_rows;		/* when to look at rows without entries */
	PresenceTime next_future;	/* when to look at rows of the future */
	PresenceTime next_rules;	/* when to apply changed rules again */
	PresenceTime rules_pause;	/* after errors of that */
	PresenceTime next_audit;	/* when to look for rows without entries */
	PresenceTime idle_since;	/* 0: not idle */
	PresenceTime next_complaint;	/* no failure is logged again before */
	TimeoutId	tick;			/* calls promise_step() while at work */
	int			max_age;		/* setting in the last round */
	uint64		adds;			/* counted in this database at the last scan */
	int			complaints;		/* of channels that could not be removed ... */
	PresenceTime complaints_since;	/* ... since then */
} Worker;

static Worker worker;

/* A table that a step works on, and the strongest lock that it takes. */
typedef struct WorkerTable
{
	const char *name;			/* NULL ends a list */
	LOCKMODE	mode;
} WorkerTable;

static const WorkerTable told_tables[] = {
	{"presences", AccessShareLock},
	{"people", AccessShareLock},
	{"user_last_seen", RowExclusiveLock},
	{NULL}
};

static const WorkerTable read_tables[] = {{"presences", AccessShareLock}, {NULL}};

static const WorkerTable expired_tables[] = {{"presences", RowExclusiveLock}, {NULL}};

static const WorkerTable ruled_tables[] = {
	{"bans", AccessShareLock},
	{"presences", RowExclusiveLock},
	{"rooms", RowExclusiveLock},
	{NULL}
};

static const WorkerTable emptied_tables[] = {
	{"presences", RowExclusiveLock},
	{"rooms", AccessShareLock}, /* a stronger one follows, bounded */
	{NULL}
};

static const WorkerTable past_tables[] = {
	{"admissions", RowExclusiveLock},
	{"user_last_seen", RowExclusiveLock},
	{NULL}
};

/* What one delivery brings about. */
typedef struct Delivery
{
	int			nhints;			/* told, of the backlog */
	Size		bytes;			/* that these have in the queue */
	List	   *covered;		/* hints that wait, by where they lie there */
} Delivery;

/* Describe a worker of a database to the postmaster. */
void
presence_worker_describe(BackgroundWorker *description, Oid database)
{
	memset(description, 0, sizeof(*description));
	description->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	description->bgw_start_time = BgWorkerStart_RecoveryFinished;
	description->bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(description->bgw_library_name, "presence", BGW_MAXLEN);
	strlcpy(description->bgw_function_name, "presence_worker_main", BGW_MAXLEN);
	snprintf(description->bgw_name, BGW_MAXLEN, "presence worker for database %u", database);
	strlcpy(description->bgw_type, "presence worker", BGW_MAXLEN);
	description->bgw_main_arg = ObjectIdGetDatum(database);
	description->bgw_notify_pid = MyProcPid;
}

/*
 * Give the slot back; whoever ended by an error is started again later.
 *
 * A transaction that commits at this moment asks for a worker only once it
 * finds none; before, its channel is in the registry already.
 */
static void
release_slot(int code, Datum arg)
{
	PresenceDatabase *database = worker.database;

	LWLockAcquire(presence_database_lock(), LW_EXCLUSIVE);
	if (database->worker_pid == MyProcPid)
	{
		database->worker_state = PRESENCE_WORKER_NONE;
		database->worker_pid = 0;
		database->worker_latch = NULL;
		pg_atomic_write_u64(&database->due, 0);
		database->wanted = !worker.leaving;
		database->failures = worker.leaving ? 0 : database->failures + 1;
		database->retry_at = worker.leaving ? 0 :
			presence_clock_now() + (PresenceTime) 100000 * (1 << Min(database->failures, 8));
	}
	LWLockRelease(presence_database_lock());
	if (worker.gone ? worker.needed :
		worker.leaving && (presence_registry_count(MyDatabaseId) > 0 ||
						   !presence_ephemeral_is_empty(MyDatabaseId) ||
						   !presence_queue_is_empty(database)))
		presence_database_want_worker(database);
	presence_database_wake_launcher();
}

/* Take the slot of this database; false: another worker has it. */
static bool
claim_slot(void)
{
	PresenceDatabase *database = presence_database_mine();
	bool		claimed;

	if (database == NULL)
		return false;
	LWLockAcquire(presence_database_lock(), LW_EXCLUSIVE);
	claimed = database->worker_pid == 0 && database->holds == 0;
	if (claimed)
	{
		database->worker_state = PRESENCE_WORKER_RUNNING;
		database->worker_pid = MyProcPid;
		database->worker_latch = MyLatch;
		database->wanted = false;
	}
	else if (database->worker_state == PRESENCE_WORKER_STARTING)
	{
		/* Held off, which is no failure: it is started again after that. */
		database->worker_state = PRESENCE_WORKER_NONE;
		database->wanted = true;
	}
	LWLockRelease(presence_database_lock());
	if (claimed)
	{
		worker.database = database;
		before_shmem_exit(release_slot, (Datum) 0);
	}
	return claimed;
}

/*
 * Settings that must not depend on the database's or the owner's.  They become
 * what ResetAllOptions() goes back to: a user's trigger may change any setting
 * for the session, so that is done after every transaction that has written.
 */
static void
pin_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"lock_timeout", "0"},
		{"statement_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"synchronous_commit", "local"},
		{"row_security", "on"},
		{"enable_seqscan", "on"},
		{"plan_cache_mode", "auto"},
		{"jit", "off"},
#ifdef PRESENCE_HAS_TRANSACTION_TIMEOUT
		{"transaction_timeout", "0"},
#endif
	};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/* End the worker by its own will. */
static void
leave(void)
{
	worker.leaving = true;
	proc_exit(0);
}

/*
 * The extension is gone, and with it all that was to be told.  Should it come
 * back, listeners are to forget whom they know.
 *
 * Somebody may have created it again and added presences just before they were
 * swept away with the rest.  Whoever did so has committed by then, and is seen
 * by a second look: another worker is to begin with the rows, and listeners are
 * to read them.
 */
static void
leave_for_good(void)
{
	AbortCurrentTransaction();
	worker.gone = true;
	if (worker.database)
	{
		pg_atomic_write_u32(&worker.database->loaded, 0);
		presence_queue_reset(worker.database);
		presence_registry_clear(MyDatabaseId);
		presence_ephemeral_clear(MyDatabaseId);
		StartTransactionCommand();
		worker.needed = OidIsValid(get_extension_oid("presence", true));
		CommitTransactionCommand();
		if (worker.needed || OidIsValid(worker.extension))
			presence_queue_owe_resync(worker.database);
	}
	leave();
}

/*
 * The extension was dropped and created again, or may have been while no worker
 * ran: nothing remembered is sure, and listeners have to read all rooms again.
 */
static void
adopt_extension(Oid extension)
{
	worker.extension = extension;
	if (worker.database == NULL)
		return;
	presence_registry_doubt(MyDatabaseId);
	presence_queue_cut(worker.database);
	presence_roster_clear(worker.roster);
}

/*
 * Begin a transaction as the owner of the extension, in the scratch context;
 * the caller takes a snapshot.  A worker whose extension is gone leaves.
 *
 * The session's user is the bootstrap superuser, so the owner's triggers must
 * not get back to it: with SECURITY_LOCAL_USERID_CHANGE neither SET ROLE nor
 * SET SESSION AUTHORIZATION is possible.  It holds through the commit, where
 * deferred triggers fire, and an abort takes it back.
 */
static void
begin_transaction(const char *what)
{
	Oid			extension;

	SetCurrentStatementStartTimestamp();
	SetUserIdAndSecContext(GetSessionUserId(), 0);
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, what);
	extension = get_extension_oid("presence", true);
	if (OidIsValid(extension))
	{
		LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
		extension = get_extension_oid("presence", true);
	}
	if (!OidIsValid(extension))
		leave_for_good();
	if (OidIsValid(worker.extension) ? extension != worker.extension :
		worker.database && worker.database->doubtful)
		adopt_extension(extension);
	worker.extension = extension;
	SetUserIdAndSecContext(presence_extension_owner(),
						   SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	MemoryContextSwitchTo(worker.scratch);
}

/* The same with a snapshot. */
static void
begin_work(const char *what)
{
	begin_transaction(what);
	PushActiveSnapshot(GetTransactionSnapshot());
}

/* What follows the commit of work that did or did not write. */
static void
leave_work(bool wrote)
{
	MemoryContextSwitchTo(worker.scratch);
	worker.rescue = NULL;
	if (wrote)
		ResetAllOptions();
}

/*
 * Commit what begin_work() or its like began.  A commit leaves the
 * memory context of the whole session behind; whatever comes next is of this
 * round and belongs to its scratch, which is kept.
 */
static void
commit_work(void)
{
	bool		wrote = TransactionIdIsValid(GetTopTransactionIdIfAny());

	PopActiveSnapshot();
	CommitTransactionCommand();
	leave_work(wrote);
}

/* A step that has done something is over, and its memory with it. */
static void
end_step(void)
{
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextReset(worker.scratch);
}

/* Both. */
static void
end_work(void)
{
	commit_work();
	end_step();
}

/* Take the locks of a step; false: somebody is in the way of one. */
static bool
lock_tables(const WorkerTable *tables)
{
	for (; tables->name; tables++)
		if (!ConditionalLockRelationOid(presence_extension_table(tables->name), tables->mode))
			return false;
	return true;
}

/*
 * The same as begin_work() on tables that others may have locked; false: some
 * have, and nothing has begun.
 *
 * The locks come before the snapshot.  TRUNCATE empties a table for older
 * snapshots, too: one taken before the lock could show a delivery rooms empty of
 * which the hint that says so is still to come.
 */
static bool
begin_work_on(const char *what, const WorkerTable *tables)
{
	begin_transaction(what);
	if (!lock_tables(tables))
	{
		CommitTransactionCommand();
		leave_work(false);
		end_step();
		return false;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	return true;
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
current_stamp(void)
{
	PresenceStamp stamp;

	stamp.numbered = true;
	stamp.epoch = presence_database_epoch();
	for (int i = 0; i < PRESENCE_NVOICES; i++)
		stamp.seq[i] = pg_atomic_read_u64(&worker.database->seq[i]);
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

/* Forget what was read of the queue, and read it from the beginning. */
static void
begin_queue(void)
{
	presence_backlog_clear(worker.backlog);
	presence_queue_begin(worker.database, &worker.position);
}

/*
 * Read into the backlog what came to the queue since the last turn; how the
 * queue stood before.
 */
static PresenceQueueState
read_queue(void)
{
	PresenceQueueState state;
	char	   *buffer = palloc(PRESENCE_QUEUE_READ_SIZE);

	for (;;)
	{
		PresenceHint *queued;
		Size		size;

		state = presence_queue_look(worker.database);
		if (state.cuts != worker.position.cuts)
			begin_queue();
		do
		{
			CHECK_FOR_INTERRUPTS();
			size = presence_queue_read(worker.database, &worker.position,
									   buffer, &queued);
			if (size > 0)
				presence_backlog_append(worker.backlog, buffer, size, queued);
		} while (size > 0 && worker.position.read < state.appended);
		if (worker.position.read >= state.appended)
			return state;
	}
}

/* Forget who was announced and have listeners read all rooms again. */
static void
resync(PresenceStamp *stamp)
{
	presence_roster_clear(worker.roster);
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

	if (now < worker.next_complaint)
		return;
	worker.next_complaint = now + COMPLAINT_INTERVAL;
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
announce_turn(Snapshot snapshot, PresenceStamp *stamp, Delivery *delivery)
{
	PresenceWaiting **now;
	List	   *events;
	List	   *gone;

	presence_backlog_know(worker.backlog, snapshot);
	if (presence_backlog_take_resyncs(worker.backlog))
		resync(stamp);
	now = presence_backlog_take(worker.backlog, DELIVERY_BATCH,
								&delivery->nhints, &delivery->bytes);
	for (int i = 0; i < delivery->nhints; i++)
		presence_enforce_note(now[i]->hint);
	qsort(now, delivery->nhints, sizeof(PresenceWaiting *), compare_tickets);
	presence_store_connect();
	events = presence_announce(worker.roster, worker.backlog, now,
							   delivery->nhints, snapshot, &gone);
	presence_notify_events(events, stamp);
	presence_store_finish();
	if (gone != NIL)
		remember_gone(gone);
	delivery->covered = presence_backlog_covered(worker.backlog);
}

/* The delivery has committed: tell numbers and queue.  Nothing here may fail. */
static void
publish(const PresenceStamp *stamp, const PresenceQueueState *state,
		const Delivery *delivery)
{
	for (int i = 0; i < PRESENCE_NVOICES; i++)
		pg_atomic_write_u64(&worker.database->seq[i], stamp->seq[i]);
	if (state->resync)
		presence_queue_resynced(worker.database, state->losses);
	presence_queue_cover(worker.database, &worker.position, delivery->covered);
	presence_queue_consume(worker.database, &worker.position, delivery->bytes);
}

/*
 * Deliver what is in the queue, as much as one transaction should; false: that
 * cannot be now.  From the commit on nothing is interrupted until the queue
 * knows.
 */
static bool
deliver(void)
{
	PresenceStamp stamp = current_stamp();
	Snapshot	snapshot;
	PresenceQueueState state;
	Delivery	delivery = {0};
	bool		resynced;
	bool		wrote;
	bool		open = presence_queue_is_open(worker.database);

	if (!begin_work_on("delivering events", told_tables))
		return false;
	snapshot = GetActiveSnapshot();
	resynced = !wait_for_hints(snapshot);
	state = read_queue();
	resynced |= state.resync;
	if (resynced)
	{
		resync(&stamp);
		presence_enforce_all();
	}
	else
		announce_turn(snapshot, &stamp, &delivery);
	if (!open && !resynced)
		resync(&stamp);

	wrote = TransactionIdIsValid(GetTopTransactionIdIfAny());
	PopActiveSnapshot();
	HOLD_INTERRUPTS();
	CommitTransactionCommand();
	publish(&stamp, &state, &delivery);
	RESUME_INTERRUPTS();
	leave_work(wrote);

	presence_backlog_drop(worker.backlog, delivery.nhints);
	worker.last_delivery = presence_clock_now();
	presence_database_set(worker.database, PRESENCE_LAST_DRAIN,
						  (uint64) GetCurrentTimestamp());
	worker.database->failures = 0;
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextReset(worker.scratch);
	presence_roster_trim(worker.roster, (Size) presence_roster_memory * 1024);
	return true;
}

/* Whether there is something to deliver. */
static bool
has_news(void)
{
	return presence_notify != PRESENCE_NOTIFY_OFF &&
		!presence_queue_is_empty(worker.database);
}

/* Deliver if there is something and it may go now. */
static void
deliver_if_due(PresenceTime now)
{
	if (worker.database == NULL || !has_news() || now < worker.next_delivery)
		return;
	if (presence_notify_queue_usage() > MAX_QUEUE_USAGE || !deliver())
	{
		worker.next_delivery = now + RETRY_DELAY;
		return;
	}
	worker.next_delivery = presence_queue_bytes(worker.database) > DELIVERY_BATCH ?
		0 : now + (PresenceTime) presence_notify_interval * 1000;
}

/* Announce what has changed in short-lived state; nobody hears of it if off. */
static void
tell_state(PresenceTime now)
{
	PresenceStateRound *round;
	List	   *ignored;

	if (presence_notify == PRESENCE_NOTIFY_OFF)
	{
		round = presence_ephemeral_begin_round(now);
		while (presence_ephemeral_take(round, &ignored))
			continue;
	}
	else
	{
		begin_work("announcing short-lived state");
		round = presence_ephemeral_begin_round(now);
		presence_relay_send(round);
		end_work();
	}
	presence_ephemeral_end_round();
}

/* Bury expired state, and announce what changed if it may go now. */
static void
tell_state_if_due(PresenceTime now)
{
	if (worker.database == NULL)
		return;
	presence_ephemeral_expire(now);
	if (now < presence_ephemeral_next_due() || now < worker.next_state)
		return;
	if (presence_notify_queue_usage() > MAX_QUEUE_USAGE)
	{
		worker.next_state = now + RETRY_DELAY;
		return;
	}
	tell_state(now);
	worker.next_state = now + (PresenceTime) presence_notify_interval * 1000;
}

/* Whether an error was the work of others, so that the same may do later. */
static bool
is_passing(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
		ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_TRANSACTION_ROLLBACK;
}

/*
 * Let the transaction wait for others, who may have locked what it changes or be
 * making the same, for a moment only.
 */
static void
limit_lock_waits(void)
{
	(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

/* Rules could not be applied: say so once, and try again later. */
static void
rescue_rules(const ErrorData *error)
{
	PresenceTime now = presence_clock_now();

	worker.next_rules = now + RETRY_DELAY;
	if (is_passing(error))
		return;
	if (worker.rules_pause == 0)
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("could not apply bans and deletions of rooms to those who entered meanwhile: %s",
						error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 errhint("The worker tries again, at least once a minute."),
				 error->context ? errcontext("%s", error->context) : 0));
	worker.rules_pause = Min(Max(worker.rules_pause * 2, 1 * USECS_PER_SEC),
							 60 * USECS_PER_SEC);
	worker.next_rules = now + worker.rules_pause;
}

/* Begin to apply rules; false: others are in the way. */
static bool
begin_rules(PresenceTime now)
{
	worker.rescue = rescue_rules;
	worker.next_rules = now + RETRY_DELAY;
	if (!begin_work_on("applying changed rules of rooms", ruled_tables))
		return false;
	limit_lock_waits();
	presence_store_connect();
	return true;
}

/*
 * Apply rules that changed while somebody entered.  Others may be in the way of
 * each of the two steps, and the second one must not take the first one back.
 */
static void
enforce_rules_if_due(PresenceTime now)
{
	bool		done;

	if (!presence_enforce_is_wanted() || now < worker.next_rules || !begin_rules(now))
		return;
	done = presence_enforce_bans();
	presence_store_finish();
	end_work();
	if (!begin_rules(now))
		return;
	presence_enforce_rooms();
	presence_store_finish();
	end_work();
	worker.rules_pause = 0;
	if (!done)
		return;
	worker.next_rules = now;
	presence_enforce_finish();
}

/* Whether every channel with rows is in the registry. */
static bool
is_loaded(void)
{
	return worker.database && pg_atomic_read_u32(&worker.database->loaded) == 1;
}

/* Say which channel cannot be removed, and why; not of thousands at once. */
static void
complain(const char *channel, PresenceTime pause, const ErrorData *error)
{
	PresenceTime now = presence_clock_now();

	if (now > worker.complaints_since + 60 * USECS_PER_SEC)
	{
		worker.complaints_since = now;
		worker.complaints = 0;
	}
	if (worker.complaints++ >= MAX_COMPLAINTS)
		return;
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("could not remove the expired presences of channel \"%s\": %s",
					channel, error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 errhint("Other channels expire in time. This one is tried again after %d seconds, then less and less often.",
					 (int) (pause / USECS_PER_SEC)),
			 error->context ? errcontext("%s", error->context) : 0));
}

/*
 * The removal of a batch has failed.  Where that was only because of what
 * others did at the same time, it may be tried again soon.
 */
static void
rescue_expiry(const ErrorData *error)
{
	bool		again = is_passing(error);
	PresenceTime pause;
	const char *channel = presence_expiry_fail(worker.expiry, presence_clock_now(),
											   again, &pause);

	if (channel && !again)
		complain(channel, pause, error);
}

/* When somebody is to be removed. */
static PresenceTime
next_expiry(void)
{
	return Max(presence_expiry_next(worker.expiry) + EXPIRY_PATIENCE, worker.next_expiry);
}

/*
 * Remove the channels that are due, as many as one transaction should.  Those
 * that are taken and left where they are will be taken again.
 */
static void
expire_due(PresenceTime now)
{
	ArrayType  *channels;
	ArrayType  *left = NULL;
	PresenceTime max_age = presence_liveness_max_age();
	PresenceTime lag;
	uint64		removed;

	if (now < next_expiry())
		return;
	if (worker.database)
		worker.adds = presence_database_count(worker.database, PRESENCE_ADDS);
	channels = presence_expiry_take(worker.expiry, now, &lag);
	if (channels == NULL)
		return;
	worker.rescue = rescue_expiry;
	if (!begin_work_on("removing expired presences", expired_tables))
	{
		worker.next_expiry = now + RETRY_DELAY;
		return;
	}
	presence_store_connect();
	removed = presence_removal_expire(channels, max_age);
	if (!is_loaded())
		left = presence_store_older_among(channels, max_age);
	presence_store_finish();
	commit_work();
	if (removed > 0)
		presence_database_set(worker.database, PRESENCE_LAST_EXPIRY_LAG, (uint64) lag);
	presence_expiry_settle(worker.expiry, now, left);
	end_step();
}

/* Give a channel of the table an entry. */
static bool
load_channel(void *arg, const char *channel, int length, TimestampTz last_seen)
{
	bool	   *complete = arg;
	PresenceName name = presence_name_make(channel, length);
	uint32		changes;

	if (presence_registry_load(&name, presence_clock_from_timestamp(last_seen),
							   0, &changes) == PRESENCE_LIFE_FULL)
		*complete = false;
	return true;
}

/*
 * Give every channel of the table an entry.  "loaded" is 1 when every channel
 * with rows has one, 2 while that is being brought about; whoever finds the
 * registry full sets it to 0.
 */
static void
load_registry(void)
{
	uint32		loading = 2;
	bool		complete = true;

	pg_atomic_write_u64(&worker.database->due, 0);	/* nobody knows how long */
	pg_atomic_write_u32(&worker.database->loaded, loading);
	if (!begin_work_on("loading channels", read_tables))
	{
		pg_atomic_write_u32(&worker.database->loaded, 0);
		worker.next_rows = presence_clock_now() + RETRY_DELAY;
		return;
	}
	presence_store_connect();
	presence_store_each_channel(load_channel, &complete);
	presence_store_finish();
	end_work();
	if (complete)
		pg_atomic_compare_exchange_u32(&worker.database->loaded, &loading, 1);
	presence_expiry_rescan(worker.expiry);
}

/* Have a channel removed that its rows call dead. */
static bool
offer_channel(void *arg, const char *channel, int length, TimestampTz last_seen)
{
	return presence_expiry_offer(worker.expiry, channel, length, last_seen);
}

/* Rows of the future could not be corrected; the others do not wait for them. */
static void
rescue_future(const ErrorData *error)
{
	worker.next_future = presence_clock_now() + AUDIT_INTERVAL;
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("could not correct presences whose last_seen lies in the future: %s",
					error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->context ? errcontext("%s", error->context) : 0));
}

/* Correct rows that only their last_seen keeps alive. */
static void
correct_future(PresenceTime now)
{
	if (now < worker.next_future)
		return;
	worker.next_future = now + RETRY_DELAY;
	worker.rescue = rescue_future;
	if (!begin_work_on("correcting presences of the future", expired_tables))
		return;
	worker.next_future = now + presence_liveness_max_age() / 4;
	presence_store_connect();
	presence_removal_pull_back();
	presence_store_finish();
	end_work();
}

/*
 * Look for channels without entries that their rows call dead: all of them
 * without shared memory, those that found no room otherwise; those get entries
 * as room comes.
 */
static void
search_rows(PresenceTime now)
{
	PresenceTime max_age = presence_liveness_max_age();
	TimestampTz oldest = DT_NOEND;
	bool		complete;

	if (is_loaded() || now < worker.next_rows || presence_expiry_is_busy(worker.expiry))
		return;
	correct_future(now);
	if (!begin_work_on("looking for expired presences", read_tables))
	{
		worker.next_rows = now + RETRY_DELAY;
		return;
	}
	presence_store_connect();
	complete = presence_store_each_older(max_age, offer_channel, NULL);
	if (worker.database == NULL)
		oldest = presence_store_oldest_living(max_age);
	presence_store_finish();
	end_work();
	if (!complete)
		return;
	worker.next_rows = now + max_age / 4;
	if (worker.database)
		load_registry();
	else if (!TIMESTAMP_NOT_FINITE(oldest))
		worker.next_rows = Min(worker.next_rows,
							   Max(presence_clock_from_timestamp(oldest) + max_age + 1000,
								   now + RETRY_DELAY));
}

/* Give rows without entries one when it is time. */
static void
audit_registry_if_due(PresenceTime now)
{
	if (worker.database == NULL || now < worker.next_audit)
		return;
	if (worker.next_audit != 0 && is_loaded())
		load_registry();
	worker.next_audit = now + AUDIT_INTERVAL;
}

/* How often the chores are done. */
static PresenceTime
chores_interval(void)
{
	int			seconds = presence_prune_rooms_interval > 0 ?
		presence_prune_rooms_interval : CHORES_INTERVAL;

	return (PresenceTime) seconds * USECS_PER_SEC;
}

/* Go on with the next chore, or wait for the next time. */
static void
end_chore(void)
{
	WorkerChores *chores = &worker.chores;
	PresenceTime now = presence_clock_now();

	chores->chore = (chores->chore + 1) % NCHORES;
	chores->next = chores->chore == 0 ? now + chores_interval() : now;
	chores->pause = 0;
	chores->block = 0;
	chores->room[0] = '\0';
	chores->nrooms = PRESENCE_ROOMS_AT_ONCE;
}

/* A part of a chore is done; the others come first for as long as it took. */
static void
rest_from_chore(PresenceTime began)
{
	PresenceTime now = presence_clock_now();

	worker.chores.next = now + (now - began);
	worker.chores.pause = 0;
}

/* Others are in the way of a chore: it is tried again soon. */
static void
put_off_chore(void)
{
	worker.chores.next = presence_clock_now() + USECS_PER_SEC;
	if (worker.database)
		pg_atomic_write_u32(&worker.database->last_seen_rows, 1);
}

/* A chore could not be done; it is left until the next time. */
static void
rescue_chore(const ErrorData *error)
{
	if (is_passing(error))
	{
		put_off_chore();
		return;
	}
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("could not remove old rows of presence: %s", error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->context ? errcontext("%s", error->context) : 0));
	if (worker.database)
		pg_atomic_write_u32(&worker.database->last_seen_rows, 1);
	end_chore();
}

/* Rooms could not be removed for one that cannot; it is left where it is. */
static void
leave_room(const ErrorData *error)
{
	WorkerChores *chores = &worker.chores;

	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("could not remove the empty room \"%s\": %s", chores->reached,
					error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 errhint("Make it persistent if it is to stay."),
			 error->context ? errcontext("%s", error->context) : 0));
	strlcpy(chores->room, chores->reached, sizeof(chores->room));
}

/*
 * Rooms could not be removed.  While somebody who enters stays in the way they
 * are tried again, less and less often.  Of rooms that cannot be removed fewer
 * are tried, until one stands alone.
 */
static void
rescue_rooms(const ErrorData *error)
{
	WorkerChores *chores = &worker.chores;

	if (is_passing(error))
	{
		chores->pause = Min(Max(chores->pause * 2, USECS_PER_SEC), 60 * USECS_PER_SEC);
		chores->next = presence_clock_now() + chores->pause;
		ereport(DEBUG1,
				(errmsg_internal("empty rooms are not removed now: %s", error->message)));
	}
	else if (chores->reached[0] == '\0')
		rescue_chore(error);
	else if (chores->nrooms > 1)
		chores->nrooms /= 2;
	else
		leave_room(error);
}

/*
 * Remove the empty ones among the next rooms.  Those who enter wait while that
 * is done, and a moment before: for those whom the worker waits for.
 */
static void
prune_some_rooms(PresenceTime now)
{
	WorkerChores *chores = &worker.chores;
	ArrayType  *rooms;
	text	   *last;

	chores->reached[0] = '\0';
	worker.rescue = rescue_rooms;
	if (!begin_work_on("removing empty rooms", emptied_tables))
	{
		put_off_chore();
		return;
	}
	presence_store_connect();
	rooms = presence_store_empty_rooms(cstring_to_text(chores->room),
									   chores->nrooms, &last);
	if (last)
		text_to_cstring_buffer(last, chores->reached, sizeof(chores->reached));
	if (rooms)
	{
		limit_lock_waits();
		presence_store_lock_rooms();
		(void) presence_store_delete_empty_rooms(rooms);
	}
	presence_store_finish();
	end_work();
	strlcpy(chores->room, chores->reached, sizeof(chores->room));
	chores->nrooms = Min(chores->nrooms * 2, PRESENCE_ROOMS_AT_ONCE);
	rest_from_chore(now);
	if (last == NULL)
		end_chore();
}

/* Remove the old rows of a part of a table. */
static void
forget_some(PresencePast past, PresenceTime now)
{
	worker.rescue = rescue_chore;
	if (!begin_work_on("removing old rows", past_tables))
	{
		put_off_chore();
		return;
	}
	presence_store_connect();
	worker.chores.block = presence_cleanup_forget(past, worker.chores.block);
	presence_store_finish();
	end_work();
	rest_from_chore(now);
	if (worker.chores.block == 0)
		end_chore();
}

/*
 * Whether the table of who was last seen can be passed over: nothing gets too
 * old there, and no user has several rows.
 */
static bool
spares_last_seen(void)
{
	return worker.chores.block == 0 && worker.database &&
		pg_atomic_exchange_u32(&worker.database->last_seen_rows, 0) == 0 &&
		presence_keep_last_seen == 0;
}

/* Do a part of what is to be done now and then. */
static void
do_chores_if_due(PresenceTime now)
{
	WorkerChores *chores = &worker.chores;

	if (chores->next == 0)
	{
		chores->chore = NCHORES - 1;
		end_chore();
	}
	if (now < chores->next)
		return;
	if (chores->chore == CHORE_ROOMS && presence_prune_rooms_interval == 0)
		end_chore();
	if (chores->chore == CHORE_LAST_SEEN && spares_last_seen())
		end_chore();
	if (chores->chore == CHORE_ROOMS)
		prune_some_rooms(now);
	else
		forget_some(chores->chore == CHORE_ADMISSIONS ? PRESENCE_PAST_ADMISSIONS :
					PRESENCE_PAST_LAST_SEEN, now);
}

/*
 * Open the queue while events are to be announced by the worker.
 *
 * For the transactions to take over, it is closed once it is empty.  What they
 * tell from then on may overtake what was told here last, or come with hints
 * that miss the queue, so a resync follows.  For nobody to announce anything,
 * what is in the queue is thrown away.
 */
static void
follow_mode(PresenceTime now)
{
	bool		open;

	if (worker.database == NULL)
		return;
	open = presence_queue_is_open(worker.database);
	if (presence_notify == PRESENCE_NOTIFY_AUTO && !open)
	{
		presence_roster_clear(worker.roster);
		presence_queue_open(worker.database);
	}
	else if (presence_notify == PRESENCE_NOTIFY_OFF && open)
		(void) presence_queue_close(worker.database, true);
	else if (presence_notify == PRESENCE_NOTIFY_TRANSACTION && open &&
			 presence_queue_close(worker.database, false))
	{
		presence_roster_clear(worker.roster);
		presence_queue_owe_resync(worker.database);
	}
}

/* Whether the registry may hold channels of this database. */
static bool
has_channels(void)
{
	return presence_expiry_channels(worker.expiry) > 0 ||
		presence_database_count(worker.database, PRESENCE_ADDS) != worker.adds;
}

/* Somebody is dropping the extension: wait for the outcome. */
static void
look_for_extension(PresenceTime now)
{
	if (worker.database == NULL || !worker.database->doubtful)
		return;
	worker.database->doubtful = false;
	begin_work("looking for the extension");
	end_work();
}

/* Leave when nothing has happened for long, or when somebody asks for it. */
static void
leave_if_idle(PresenceTime now)
{
	if (worker.database == NULL)
		return;
	if (worker.database->holds > 0)
		leave();
	if (has_channels() || !is_loaded() ||
		!presence_queue_is_empty(worker.database) ||
		!presence_ephemeral_is_empty(MyDatabaseId))
		worker.idle_since = 0;
	else if (worker.idle_since == 0)
		worker.idle_since = now;
	if (worker.idle_since != 0 && presence_worker_idle_timeout > 0 &&
		now >= worker.idle_since + (PresenceTime) presence_worker_idle_timeout * USECS_PER_SEC &&
		presence_queue_close(worker.database, false))
		leave();
}

/* When to wake at the latest. */
static PresenceTime
next_wake(PresenceTime now)
{
	PresenceTime wake = now + presence_liveness_max_age();

	wake = Min(wake, next_expiry());
	if (worker.database)
	{
		if (has_news())
			wake = Min(wake, Max(worker.next_delivery, now));
		wake = Min(wake, presence_ephemeral_next_expiry());
		wake = Min(wake, Max(worker.next_state, presence_ephemeral_next_due()));
		if (has_channels())
			wake = Min(wake, now + presence_database_stall_limit());
		else if (presence_worker_idle_timeout > 0)
			wake = Min(wake, now + (PresenceTime) presence_worker_idle_timeout * USECS_PER_SEC);
	}
	if (!is_loaded())
		wake = Min(wake, worker.next_rows);
	if (presence_enforce_is_wanted())
		wake = Min(wake, Max(worker.next_rules, now));
	if (worker.chores.next != 0)
		wake = Min(wake, worker.chores.next);
	return wake;
}

/*
 * Promise to be heard of again within a while.  If the last promise was broken
 * the server stood still, so nobody died.
 */
static void
promise(PresenceTime within)
{
	if (worker.database == NULL)
		return;
	if (presence_database_stalled(worker.database))
		presence_database_raise_floor(worker.database, presence_clock_now());
	pg_atomic_write_u64(&worker.database->due,
						(uint64) (presence_clock_machine() + within));
}

/*
 * The same while at work.  The timer calls this, too, in the middle of whatever
 * takes long or waits for a lock: that is no sign of a server that stood still.
 */
static void
promise_step(void)
{
	promise(STEP_LIMIT);
}

/* Let hear of the worker for as long as it is at work. */
static void
start_ticking(void)
{
	enable_timeout_every(worker.tick,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), TICK_INTERVAL),
						 TICK_INTERVAL);
}

/* Sleep until there is something to do. */
static void
sleep_until(PresenceTime wake, uint32 wait_event)
{
	PresenceTime now = presence_clock_now();
	long		timeout = wake <= now ? 0 : (wake - now + 999) / 1000;

	disable_timeout(worker.tick, false);
	promise(timeout > 0 ? wake - now : STEP_LIMIT);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 timeout, wait_event);
	ResetLatch(MyLatch);
	promise_step();
	start_ticking();
	presence_liveness_check_wall_clock();
	CHECK_FOR_INTERRUPTS();
}

/*
 * Those who had died unremoved are alive again, because the floor or max_age
 * was raised.  Whoever read a room meanwhile did not see them, and no event
 * will tell of them: all rooms have to be read again.
 */
static void
notice_revival(PresenceTime now)
{
	uint64		floor;

	if (worker.database == NULL)
		return;
	floor = pg_atomic_read_u64(&worker.database->floor);
	if (floor != pg_atomic_read_u64(&worker.database->floor_told) ||
		(worker.max_age != 0 && presence_max_age > worker.max_age))
		presence_queue_owe_resync(worker.database);
	pg_atomic_write_u64(&worker.database->floor_told, floor);
	worker.max_age = presence_max_age;
}

/*
 * Do a part of a round, in memory of its own, and promise that the next one
 * will not take long either.
 */
static void
take_step(void (*step) (PresenceTime now))
{
	MemoryContextSwitchTo(worker.scratch);
	MemoryContextReset(worker.scratch);
	step(presence_clock_now());
	promise_step();
}

/* Read the settings again if they have changed. */
static void
reload_if_asked(PresenceTime now)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	worker.chores.next = 0;
	worker.next_rows = 0;
}

/* Do all that is due. */
static void
do_round(void)
{
	take_step(reload_if_asked);
	take_step(look_for_extension);
	take_step(follow_mode);
	take_step(notice_revival);
	take_step(deliver_if_due);
	take_step(search_rows);
	take_step(expire_due);
	take_step(enforce_rules_if_due);
	take_step(audit_registry_if_due);
	take_step(do_chores_if_due);
	take_step(tell_state_if_due);
	take_step(leave_if_idle);
}

/*
 * An error has come up to the main loop.  Where somebody can deal with it the
 * transaction is rolled back, and the next round begins; otherwise it ends the
 * worker.
 */
static void
recover(void)
{
	WorkerRescue rescue = worker.rescue;
	ErrorData  *error;

	error_context_stack = NULL;
	HOLD_INTERRUPTS();
	worker.rescue = NULL;
	if (rescue == NULL)
	{
		EmitErrorReport();
		proc_exit(1);
	}
	disable_all_timeouts(false);
	QueryCancelPending = false;
	MemoryContextSwitchTo(worker.scratch);
	error = CopyErrorData();
	FlushErrorState();
	AbortCurrentTransaction();
	MemoryContextSwitchTo(worker.scratch);
	rescue(error);
	end_step();
	start_ticking();
	RESUME_INTERRUPTS();
}

/* Do what is due, for ever. */
static void
run(uint32 wait_event)
{
	sigjmp_buf	handler;

	if (sigsetjmp(handler, 1) != 0)
		recover();
	PG_exception_stack = &handler;
	for (;;)
	{
		do_round();
		sleep_until(next_wake(presence_clock_now()), wait_event);
	}
}

/*
 * The lock that the only worker of a database holds for its session where there
 * is no shared memory.  It is a user lock because those alone are released when
 * an idle process is terminated.
 */
static LOCKTAG
lock_of_worker(Oid extension)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, extension, 1);
	tag.locktag_lockmethodid = USER_LOCKMETHOD;
	return tag;
}

/* Whether a worker has it; those who ask do not see each other. */
static bool
is_locked_out(const LOCKTAG *tag)
{
	if (LockAcquire(tag, ShareLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(tag, ShareLock, true);
	return false;
}

/* Take it, past those who only ask; false: another worker has it. */
static bool
lock_out_others(Oid extension)
{
	LOCKTAG		tag = lock_of_worker(extension);

	while (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
	{
		if (is_locked_out(&tag))
			return false;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(1000);
	}
	return true;
}

/* Whether a worker runs in this database; for servers without shared memory. */
bool
presence_worker_runs_alone(void)
{
	LOCKTAG		tag = lock_of_worker(get_extension_oid("presence", false));

	return is_locked_out(&tag);
}

/* Make this the only worker of the database. */
static void
become_the_worker(void)
{
	if (presence_shmem_ready())
	{
		if (!claim_slot())
			proc_exit(0);
		begin_queue();
		begin_work("starting");
		end_work();
		return;
	}
	begin_work("starting");
	if (!lock_out_others(worker.extension))
		proc_exit(0);
	end_work();
}

/* Entry point of the worker of one database. */
void
presence_worker_main(Datum database)
{
	uint32		wait_event;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(database), InvalidOid, 0);
	pin_settings();
	wait_event = presence_compat_wait_event("PresenceWorkerMain");

	worker.scratch = AllocSetContextCreate(TopMemoryContext, "presence worker scratch",
										   ALLOCSET_DEFAULT_SIZES);
	worker.roster = presence_roster_create(TopMemoryContext);
	worker.backlog = presence_backlog_create(TopMemoryContext);
	worker.expiry = presence_expiry_create(TopMemoryContext);
	become_the_worker();
	if (worker.database)
		presence_enforce_all();
	worker.tick = RegisterTimeout(USER_TIMEOUT, promise_step);
	start_ticking();
	run(wait_event);
}
