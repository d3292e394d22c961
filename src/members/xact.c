/*-------------------------------------------------------------------------
 *
 * xact.c
 *		Follows what the running transaction does to presences until it ends.
 *
 * Every change is noted here as a hint (triggers.c).  A stack records where
 * the hints of each subtransaction begin, so that rolling back a savepoint
 * drops its hints and releasing one leaves them to its parent; the cost of a
 * release does not depend on how many there are.  The same holds for the
 * channels that a subtransaction has marked as expiring: a rollback clears the
 * marks, because the rows are there again; and for the places that it has
 * reserved in rooms (places.c).
 *
 * PRE_COMMIT is the last point at which anything may fail.  There the hints
 * are counted by channel, and the way to announce them is chosen: the queue if
 * a worker reads it, else NOTIFY by the transaction itself.  In the second
 * case the hints are queued as well if the queue is open at commit, marked as
 * announced, because the roster of a worker must not miss any.  From
 * PRE_COMMIT until the hints are in the queue the backend advertises its
 * transaction id (backend.c), so that the worker can wait for hints of changes
 * that its snapshot shows already.
 *
 * COMMIT and ABORT update the registry and the occupancy of rooms, and COMMIT
 * then fills the queue: who hears of a leave finds the place.  An error
 * there would crash the server, so they only copy memory under LWLocks.  All
 * that they need was allocated before, in TopTransactionContext, which still
 * exists then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/guc.h"
#include "base/shmem.h"
#include "members/intent.h"
#include "members/pins.h"
#include "members/self_announce.h"
#include "members/xact.h"
#include "miscadmin.h"
#include "shared/backend.h"
#include "shared/database.h"
#include "shared/occupancy.h"
#include "shared/places.h"
#include "shared/queue.h"
#include "state/replay.h"
#include "utils/memutils.h"
#include "visits/visits.h"

/* A channel that the transaction has marked as expiring. */
typedef struct PendingExpiry
{
	PresenceExpireMark mark;
	bool		rowless;		/* no rows are left once this commits */
} PendingExpiry;

/* How many changes were pending when a subtransaction made its first. */
typedef struct PendingSubxact
{
	int			level;			/* its nesting level */
	int			nhints;
	int			nexpiries;
	int			places;			/* where its log of places begins */
} PendingSubxact;

/* The running transaction; all zero when it has done nothing yet. */
typedef struct PendingChanges
{
	MemoryContext context;		/* child of TopTransactionContext */
	PresenceHint **hints;
	PresencePin **pins;			/* of their channels, or NULL */
	int			nhints;
	int			maxhints;
	PendingExpiry *expiries;
	int			nexpiries;
	int			maxexpiries;
	PendingSubxact *subxacts;	/* by level, the innermost last */
	int			nsubxacts;
	int			maxsubxacts;
	TransactionId xid;			/* advertised from PRE_COMMIT on */
	bool		announced;		/* the worker is not to announce it */
	bool		unannounced;	/* nor has the transaction done so */
	bool		resynced;		/* it announced the pending resync, too */
	int			unnumbered;		/* streams on which it did that, or should
								 * have: a set of bits */
	PresenceTime expires_at;	/* earliest expiry that a late touch put off */
	uint32		lost_count;		/* losses that the resync stands for */
	bool		truncated;		/* the table was truncated */
	int			nuncounted;		/* hints of changes of unknown rooms */
	bool		created;		/* the extension was created */
	int			counts[PRESENCE_NCOUNTERS];
	bool		changes_rules;	/* there are bans or deleted rooms */
	bool		needs_worker;	/* there are bans that only it can enforce */
} PendingChanges;

static PendingChanges pending;

/* ----------------------------------------------------------- what is pending */

/* The memory context of what is pending. */
static MemoryContext
pending_context(void)
{
	if (pending.context == NULL)
		pending.context = AllocSetContextCreate(TopTransactionContext,
												"presence xact",
												ALLOCSET_DEFAULT_SIZES);
	return pending.context;
}

/* Whether the running transaction has changed presences, or has pins. */
bool
presence_xact_is_active(void)
{
	return pending.context != NULL || presence_pins_is_active();
}

/* Ensure space for one more element in an array of "max" that has "count". */
static void *
ensure_space(void *array, int count, int *max, Size size)
{
	int			newmax = Max(*max * 2, 16);

	if (count < *max)
		return array;
	array = array ? repalloc_huge(array, newmax * size) :
		MemoryContextAlloc(pending_context(), newmax * size);
	*max = newmax;
	return array;
}

/* Ensure space for one more subtransaction. */
static void
reserve_subxact(void)
{
	pending.subxacts = ensure_space(pending.subxacts, pending.nsubxacts,
									&pending.maxsubxacts,
									sizeof(PendingSubxact));
}

/* The innermost subtransaction with changes, if it is at a level, or NULL. */
static PendingSubxact *
last_subxact(int level)
{
	PendingSubxact *subxact;

	if (pending.nsubxacts == 0)
		return NULL;
	subxact = &pending.subxacts[pending.nsubxacts - 1];
	return subxact->level == level ? subxact : NULL;
}

/* Record where the running subtransaction begins, at its first change. */
static void
open_subxact(void)
{
	int			level = GetCurrentTransactionNestLevel();
	PendingSubxact *subxact;

	if (last_subxact(level))
		return;
	subxact = &pending.subxacts[pending.nsubxacts];
	subxact->level = level;
	subxact->nhints = pending.nhints;
	subxact->nexpiries = pending.nexpiries;
	subxact->places = presence_places_savepoint();
	pending.nsubxacts++;
}

/* Make a hint in memory of the running transaction, for presence_xact_note(). */
PresenceHint *
presence_xact_make_hint(PresenceHintKind kind, int64 id, const PresenceValue *fields)
{
	MemoryContext old = MemoryContextSwitchTo(pending_context());
	PresenceHint *hint = presence_hint_make(kind, id, fields);

	MemoryContextSwitchTo(old);
	return hint;
}

/*
 * Note a change of the running subtransaction, by a hint that
 * presence_xact_make_hint() has made.  "pin" is that of the channel if a
 * presence of it joins or leaves, NULL if the registry cannot know it.
 */
void
presence_xact_note(PresenceHint *hint, PresencePin *pin)
{
	int			max = pending.maxhints;

	pending.pins = ensure_space(pending.pins, pending.nhints, &max,
								sizeof(PresencePin *));
	pending.hints = ensure_space(pending.hints, pending.nhints, &pending.maxhints,
								 sizeof(PresenceHint *));
	reserve_subxact();
	if (presence_places_is_active())
		presence_places_note(hint, 1);
	/* Nothing may fail from here on: the hint is counted. */
	open_subxact();
	pending.nuncounted += hint->kind == PRESENCE_HINT_RESYNC;
	pending.pins[pending.nhints] = pin;
	pending.hints[pending.nhints++] = hint;
}

/*
 * The transaction is about to reserve places in a room: keep account of them
 * from now on.  Returns where the log of the running subtransaction begins.
 */
int
presence_xact_begin_places(void)
{
	(void) pending_context();
	reserve_subxact();
	open_subxact();
	if (!presence_places_is_active())
		presence_places_begin(pending.hints, pending.nhints);
	return last_subxact(GetCurrentTransactionNestLevel())->places;
}

/* Whether the transaction has changed members of rooms that it does not know. */
bool
presence_xact_has_uncounted(void)
{
	return pending.nuncounted > 0 || pending.created;
}

/*
 * Publish that the transaction is about to add a presence (0: no more); a
 * rollback ends that, too.  Returns what was published before.
 */
uint32
presence_xact_set_adding(uint32 presence)
{
	static uint32 adding = 0;
	uint32		before = adding;

	if (presence != before)
		presence_backend_set_adding(presence);
	adding = presence;
	return before;
}

/*
 * The extension is being created.  There is nothing to announce, but registry
 * entries for an earlier table may be left: they are invalidated at commit.
 */
void
presence_xact_note_creation(void)
{
	(void) pending_context();
	pending.truncated = true;
	pending.created = true;
}

/*
 * The transaction writes a heartbeat into rows of a channel that would expire
 * at the given time.  If it commits later than that, a resync is necessary.
 */
void
presence_xact_note_late_touch(PresenceTime expiry)
{
	if (pending.expires_at == 0 || expiry < pending.expires_at)
		pending.expires_at = expiry;
}

/* Ensure space for one more expiry, before the channel is marked. */
void
presence_xact_reserve_expiry(void)
{
	pending.expiries = ensure_space(pending.expiries, pending.nexpiries,
									&pending.maxexpiries, sizeof(PendingExpiry));
	reserve_subxact();
}

/*
 * The transaction has marked a channel; its end clears the mark.  Space must
 * have been reserved, so that nothing can fail between the two.  Returns the
 * number of the expiry, for presence_xact_set_rowless().
 */
int
presence_xact_add_expiry(const PresenceExpireMark *mark)
{
	Assert(pending.nexpiries < pending.maxexpiries);
	open_subxact();
	pending.expiries[pending.nexpiries].mark = *mark;
	pending.expiries[pending.nexpiries].rowless = false;
	return pending.nexpiries++;
}

/* Have the entry of a marked channel freed at commit: no rows will be left. */
void
presence_xact_set_rowless(int expiry)
{
	pending.expiries[expiry].rowless = true;
}

/* --------------------------------------------------------- before the commit */

/* Count a presence that joins or leaves. */
static void
count_change(const PresenceHint *hint, PresencePin *pin, bool joins)
{
	pending.counts[joins ? PRESENCE_ADDS :
				   hint->reason == PRESENCE_REASON_EXPIRED ?
				   PRESENCE_EXPIRATIONS : PRESENCE_LEAVES]++;
	if (pin)
		presence_pins_count(pin, joins);
}

/* Count the hints by channel, for the registry and the counters. */
static void
count_changes(int from)
{
	if (!presence_shmem_ready())
		return;
	for (int i = from; i < pending.nhints; i++)
	{
		const PresenceHint *hint = pending.hints[i];

		CHECK_FOR_INTERRUPTS();
		if (hint->stands_for == PRESENCE_HINT_RESYNC)
			pending.truncated = true;
		else if (hint->stands_for == PRESENCE_HINT_BAN)
			pending.changes_rules = pending.needs_worker = true;
		else if (hint->stands_for == PRESENCE_HINT_ROOM_DELETED)
			pending.changes_rules = true;
		else if (hint->stands_for == PRESENCE_HINT_JOIN ||
				 hint->stands_for == PRESENCE_HINT_LEAVE)
			count_change(hint, pending.pins[i], hint->stands_for == PRESENCE_HINT_JOIN);
	}
}

/*
 * Whether a worker announces what transactions queue.  The same worker then
 * applies bans and deletions of rooms to presences added concurrently
 * (enforce.c).
 */
bool
presence_xact_worker_announces(void)
{
	PresenceDatabase *database = presence_my_database();

	return presence_notify == PRESENCE_NOTIFY_AUTO && database &&
		presence_queue_is_open(database);
}

/* The streams on which a change is announced. */
static int
streams_of(const PresenceHint *hint)
{
	switch (hint->kind)
	{
		case PRESENCE_HINT_RESYNC:
			return PRESENCE_ALL_STREAMS;
		case PRESENCE_HINT_STATUS:
			return PRESENCE_STREAM_BIT(PRESENCE_STREAM_STATUS);
		case PRESENCE_HINT_BROADCAST:
			return PRESENCE_STREAM_BIT(PRESENCE_STREAM_BROADCAST);
		default:
			return PRESENCE_STREAM_BIT(PRESENCE_STREAM_CHANGED) |
				PRESENCE_STREAM_BIT(PRESENCE_STREAM_STATUS);
	}
}

/*
 * Announce the changes within the transaction, after the pending resync if
 * there is one.  If that is not possible, a resync is left pending.
 *
 * Rows written while announcing may fire triggers of users, which may change
 * presences, so repeat until there are no new hints.
 */
static void
announce_changes(PresenceDatabase *database)
{
	bool		resync = false;
	int			done = 0;

	pending.announced = true;
	if (database && presence_notify != PRESENCE_NOTIFY_OFF)
	{
		resync = presence_queue_is_resync_pending(database, &pending.lost_count);
		if (presence_notify == PRESENCE_NOTIFY_AUTO)
			pending.counts[PRESENCE_FALLBACKS]++;
	}
	if (resync)
		pending.unnumbered = PRESENCE_ALL_STREAMS;
	while (done < pending.nhints)
	{
		int			count = pending.nhints - done;
		Size		size = count * sizeof(PresenceHint *);
		PresenceHint **hints = MemoryContextAllocHuge(pending_context(), size);

		if (done > 0)
			count_changes(done);
		memcpy(hints, pending.hints + done, size);
		for (int i = 0; i < count; i++)
			pending.unnumbered |= streams_of(hints[i]);
		pending.unannounced |= !presence_self_announce(hints, count, resync && done == 0);
		done += count;
	}
	pending.resynced = resync && !pending.unannounced;
}

/*
 * Draw a ticket for the hints.  A transaction that sees this one committed
 * before its own PRE_COMMIT draws a later ticket.
 */
static void
draw_ticket(PresenceDatabase *database)
{
	uint64		ticket = pg_atomic_fetch_add_u64(&database->tickets, 1);

	for (int i = 0; i < pending.nhints; i++)
		pending.hints[i]->ticket = ticket;
}

/* A ban took no lock because a worker would enforce it, but it has exited. */
static void
refuse_ban(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("could not ban the user now"),
			 errdetail("The presence worker left while the ban was under way."),
			 errhint("Repeat the transaction.")));
}

/* The transaction is about to commit: do everything that may fail. */
static void
before_commit(void)
{
	PresenceDatabase *database;

	if (pending.nhints == 0)
		return;
	presence_visits_write_all();
	database = presence_my_database();
	count_changes(0);
	if (!presence_xact_worker_announces())
	{
		if (pending.needs_worker)
			refuse_ban();
		announce_changes(database);
	}
	if (database)
		draw_ticket(database);
	if (presence_shmem_ready())
	{
		pending.xid = GetTopTransactionId();
		presence_backend_advertise_xid(pending.xid, pending.announced);
	}
}

/* ------------------------------------------------------------- after the end */

/* Update the registry for how the transaction ended. */
static void
settle_registry(bool committed)
{
	presence_pins_settle(committed);
	for (int i = 0; i < pending.nexpiries; i++)
		presence_registry_unmark(&pending.expiries[i].mark,
								 committed && pending.expiries[i].rowless);
	if (committed && pending.truncated && presence_shmem_ready())
		presence_registry_invalidate();
}

/* Update the occupancy of rooms for how the transaction ended. */
static void
settle_places(bool committed)
{
	presence_places_settle(committed, pending.hints, pending.nhints);
	if (committed && presence_xact_has_uncounted())
		presence_occupancy_forget(MyDatabaseId);
}

/* Reset for the next transaction; TopTransactionContext frees the memory. */
static void
forget(void)
{
	presence_intent_forget();
	presence_visits_forget();
	memset(&pending, 0, sizeof(pending));
}

/* Queue the hints, and do what follows from them. */
static void
queue_hints(PresenceDatabase *database)
{
	bool		wake;

	/* Before the hints: those admitted from now on have seen the new rules. */
	if (pending.changes_rules)
		pg_atomic_fetch_add_u64(&database->rules, 1);
	wake = presence_queue_push(database, pending.hints, pending.nhints,
							   pending.xid, pending.announced);
	if (pending.resynced)
		presence_queue_resynced(database, pending.lost_count);
	if (pending.unannounced)
		presence_queue_set_resync_pending(database);
	presence_replay_note_unnumbered(database, pending.unnumbered);
	presence_backend_withdraw_xid();
	for (int i = 0; i < PRESENCE_NCOUNTERS; i++)
		if (pending.counts[i] > 0)
			presence_database_add(database, i, pending.counts[i]);
	if (wake)
		presence_database_wake_worker(database);
	presence_database_want_worker(database);
}

/* A late touch committed: if readers may have missed its channel, resync. */
static void
announce_late_touch(PresenceDatabase *database)
{
	if (database == NULL || presence_clock_now() < pending.expires_at)
		return;
	presence_queue_set_resync_pending(database);
	presence_database_wake_worker(database);
}

/* Hand the hints over to the worker, if the database can have one. */
static void
hand_over(void)
{
	PresenceDatabase *database = presence_my_database();

	if (database)
		queue_hints(database);
	else
		presence_backend_withdraw_xid();
}

/*
 * The transaction has committed.  Nothing here may fail.  The record of the
 * database is looked up only if there is something to do: most transactions of
 * most databases have not changed any presence, and must not take a record.
 */
static void
after_commit(void)
{
	settle_registry(true);
	settle_places(true);
	if (TransactionIdIsValid(pending.xid))
		hand_over();
	if (pending.expires_at != 0)
		announce_late_touch(presence_my_database());
	if (pending.created)
		presence_database_want_worker(presence_my_database());
	forget();
}

/* The transaction has been rolled back.  Nothing here may fail. */
static void
after_abort(void)
{
	settle_registry(false);
	settle_places(false);
	(void) presence_xact_set_adding(0);
	if (TransactionIdIsValid(pending.xid))
		presence_backend_withdraw_xid();
	forget();
}

/*
 * Refuse a two-phase commit, as NOTIFY does, because the changes could not be
 * announced.  Changes rolled back with a savepoint do not matter.
 */
static void
before_prepare(void)
{
	if (pending.nhints > 0 || pending.truncated)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has changed presences"),
				 errdetail("A prepared transaction ends in another session, which could not announce the changes."),
				 errhint("Commit the changes of presences in a transaction of their own.")));
}

/* ----------------------------------------------------------- subtransactions */

/* A subtransaction has been released: its parent inherits its changes. */
static void
after_release(int level)
{
	PendingSubxact *subxact = last_subxact(level);

	presence_visits_release(level);
	if (subxact == NULL)
		return;
	if (pending.nsubxacts > 1 && subxact[-1].level == level - 1)
		pending.nsubxacts--;
	else
		subxact->level = level - 1;
}

/* Drop a hint whose change was rolled back. */
static void
drop_hint(PresenceHint *hint)
{
	if (presence_places_is_active())
		presence_places_note(hint, -1);
	pending.nuncounted -= hint->kind == PRESENCE_HINT_RESYNC;
	pfree(hint);
}

/* Drop the changes of a subtransaction, and itself. */
static void
drop_since(const PendingSubxact *subxact)
{
	presence_places_roll_back(subxact->places);
	while (pending.nhints > subxact->nhints)
		drop_hint(pending.hints[--pending.nhints]);
	while (pending.nexpiries > subxact->nexpiries)
		presence_registry_unmark(&pending.expiries[--pending.nexpiries].mark,
								 false);
	pending.nsubxacts--;
}

/* A subtransaction has been rolled back: drop its changes. */
static void
after_rollback(int level)
{
	PendingSubxact *subxact = last_subxact(level);

	if (subxact)
		drop_since(subxact);
	(void) presence_xact_set_adding(0);
	presence_intent_roll_back(level);
	presence_visits_roll_back(level);
}

/* ------------------------------------------------------------- the callbacks */

/* Transaction callback. */
static void
follow_transaction(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			before_commit();
			break;
		case XACT_EVENT_COMMIT:
			after_commit();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:	/* no changes are left to announce */
			after_abort();
			break;
		case XACT_EVENT_PRE_PREPARE:
			before_prepare();
			break;
		default:
			break;
	}
}

/* Subtransaction callback. */
static void
follow_subtransaction(SubXactEvent event, SubTransactionId mine,
					  SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		after_release(GetCurrentTransactionNestLevel());
	else if (event == SUBXACT_EVENT_ABORT_SUB)
		after_rollback(GetCurrentTransactionNestLevel());
}

/* Register the callbacks; once, when the library is loaded. */
void
presence_xact_install(void)
{
	RegisterXactCallback(follow_transaction, NULL);
	RegisterSubXactCallback(follow_subtransaction, NULL);
}
