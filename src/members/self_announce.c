/*-------------------------------------------------------------------------
 *
 * self_announce.c
 *		Announces the changes of a transaction from within it, if no worker
 *		does.
 *
 * This runs in the commit of a transaction with another purpose, so it must
 * neither fail it nor delay it: a full notify queue would fail the commit, and
 * statement_timeout does not end a wait there.  So it checks the notify queue
 * first, and tries to take each lock, for MAX_LOCK_WAIT in all.  If either is
 * not possible, nothing is announced, and a warning says so.
 *
 * Locking.  The tables to read are locked before the snapshot is taken,
 * because TRUNCATE empties a table for older snapshots, too.  They are read
 * and written as the owner of the extension.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/guc.h"
#include "base/shmem.h"
#include "events/announce.h"
#include "events/notify.h"
#include "members/self_announce.h"
#include "miscadmin.h"
#include "shared/database.h"
#include "state/state.h"
#include "tables/extension.h"
#include "tables/store.h"
#include "tables/store_people.h"
#include "tables/store_presences.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* Above this usage of the notify queue its rest is left to others. */
#define ALMOST_FULL 0.9

/* How long a commit waits for locks in all; milliseconds. */
#define MAX_LOCK_WAIT 100

/* Whether a hint asks for a resync. */
static bool
asks_resync(PresenceHint *const *hints, int nhints)
{
	for (int i = 0; i < nhints; i++)
		if (hints[i]->kind == PRESENCE_HINT_RESYNC)
			return true;
	return false;
}

/* Lock a table that is read to announce, or warn that it is locked. */
static bool
lock_to_announce(const char *name, int *wait)
{
	if (presence_extension_try_lock(name, AccessShareLock, wait))
		return true;
	ereport(WARNING,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("changes of presence are not announced because table presence.%s is locked",
					name),
			 errhint("Look in pg_locks for who has locked it.")));
	return false;
}

/*
 * Whether the changes may be announced now; then the tables that are read for
 * that are locked, before the snapshot.
 */
static bool
may_announce(int *wait)
{
	if (presence_notify == PRESENCE_NOTIFY_OFF)
		return false;
	if (presence_notify_queue_usage() <= ALMOST_FULL)
		return lock_to_announce("presences", wait) &&
			lock_to_announce("people", wait) &&
			lock_to_announce("user_last_seen", wait) &&
			lock_to_announce("rooms", wait);
	ereport(WARNING,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("changes of presence are not announced because the notify queue is almost full"),
			 errhint("Look for sessions that LISTEN and stay in a transaction.")));
	return false;
}

/*
 * Leaves are not announced: remove the short-lived state of users who have no
 * other connection in the room all the same.
 */
static void
forget_leavers(PresenceHint *const *hints, int nhints, Snapshot snapshot)
{
	for (int i = 0; i < nhints; i++)
	{
		const char *user = presence_hint_leaver(hints[i]);
		const char *room = presence_hint_text(hints[i], PRESENCE_FIELD_ROOM);

		CHECK_FOR_INTERRUPTS();
		if (user && presence_state_shows_user(room, user) &&
			!presence_store_has_user(room, user, snapshot))
			presence_state_user_left(room, user, hints[i]->noted);
	}
}

/*
 * Store when users who lose a presence by the hints were last seen, unless the
 * table is locked.
 */
static void
remember_leavers(PresenceHint *const *hints, int nhints, int *wait)
{
	List	   *seen = NIL;
	PresenceDatabase *database = presence_my_database();

	for (int i = 0; i < nhints; i++)
	{
		PresenceLastSeen *one;

		CHECK_FOR_INTERRUPTS();
		if (presence_hint_leaver(hints[i]) == NULL)
			continue;
		one = palloc0(sizeof(PresenceLastSeen));
		one->user = presence_hint_leaver(hints[i]);
		one->last_seen = hints[i]->last_seen;
		seen = lappend(seen, one);
	}
	if (seen == NIL || XactReadOnly)
		return;					/* it became read-only after the changes */
	if (!presence_extension_try_lock("user_last_seen", RowExclusiveLock, wait))
		return;
	presence_store_add_last_seen(seen);
	if (database)
		pg_atomic_write_u32(&database->last_seen_rows, 1);
}

/*
 * Without shared memory a resync cannot be left pending: send it now, which
 * needs no table, unless the notify queue is almost full.
 */
static void
send_resync(PresenceStamp *stamp)
{
	if (presence_notify != PRESENCE_NOTIFY_OFF &&
		presence_notify_queue_usage() <= ALMOST_FULL)
		presence_notify_resync(stamp);
}

/*
 * Do what a worker would do with the changes of the running transaction, from
 * within it: announce them, after a resync of all rooms if one is pending, and
 * store when users who lose presences were last seen.  Returns false if
 * nothing was announced, because announcing is off, the notify queue is almost
 * full or a table is locked; then listeners miss the events.
 *
 * Rooms are read in the latest snapshot.  The snapshot of a REPEATABLE READ
 * transaction would show what others have removed since beside what the
 * transaction has added, even two presences of the same room and channel.
 */
bool
presence_self_announce(PresenceHint *const *hints, int nhints, bool resync)
{
	PresenceStamp stamp = {false};
	int			wait = MAX_LOCK_WAIT;
	bool		announced;
	PresenceSession caller;
	Snapshot	snapshot;
	MemoryContext context;
	MemoryContext old;

	if (!presence_extension_exists())
		return true;			/* dropped since: nothing to announce */
	announced = may_announce(&wait);
	context = AllocSetContextCreate(CurrentMemoryContext, "presence self announce",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	CommandCounterIncrement();	/* the last command may have been the change */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	PushActiveSnapshot(snapshot);
	caller = presence_extension_become_owner();
	presence_store_connect();
	remember_leavers(hints, nhints, &wait);
	if (announced && (resync || asks_resync(hints, nhints)))
		presence_notify_resync(&stamp);
	if (announced)
		presence_notify_events(presence_announce_alone(hints, nhints, snapshot),
							   &stamp);
	else if (!presence_shmem_ready())
		send_resync(&stamp);
	else if (presence_extension_try_lock("presences", AccessShareLock, &wait))
		forget_leavers(hints, nhints, snapshot);
	presence_store_finish();
	presence_extension_become_caller(caller);
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return announced;
}
