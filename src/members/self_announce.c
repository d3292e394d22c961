/*-------------------------------------------------------------------------
 *
 * self_announce.c
 *		Announces the changes of a transaction from within it, where no worker
 *		will.
 *
 * This runs in the commit of somebody who came for something else, so it may
 * neither fail nor hold up what he does: a full notify queue would fail the
 * commit, and no statement_timeout ends a wait there.  So it looks at the notify
 * queue first, and tries for each lock, MAX_LOCK_WAIT in all; where the one or
 * the other cannot be had nothing is announced, with a warning.
 *
 * Locking.  The tables that are read are locked before the snapshot is taken,
 * because TRUNCATE empties a table for older snapshots, too.  It reads and writes
 * them as the owner of the extension.
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
#include "shared/state.h"
#include "tables/extension.h"
#include "tables/store.h"
#include "tables/store_people.h"
#include "tables/store_presences.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* Above this use of the notify queue the rest of it is left to others. */
#define ALMOST_FULL 0.9

/* How long a commit waits for tables that others have locked; milliseconds. */
#define MAX_LOCK_WAIT 100

/* Whether a hint says that everything changed. */
static bool
asks_resync(PresenceHint *const *hints, int nhints)
{
	for (int i = 0; i < nhints; i++)
		if (hints[i]->kind == PRESENCE_HINT_RESYNC)
			return true;
	return false;
}

/* Lock a table that announcing reads; warn if that takes too long. */
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
 * Whether transactions may announce their changes now; what they read for it
 * is locked then, before their snapshot.
 */
static bool
may_announce(int *wait)
{
	if (presence_notify == PRESENCE_NOTIFY_OFF)
		return false;
	if (presence_notify_queue_usage() <= ALMOST_FULL)
		return lock_to_announce("presences", wait) &&
			lock_to_announce("people", wait) &&
			lock_to_announce("user_last_seen", wait);
	ereport(WARNING,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("changes of presence are not announced because the notify queue is almost full"),
			 errhint("Look for sessions that LISTEN and stay in a transaction.")));
	return false;
}

/*
 * Nobody is announced that connections have gone: the cursors and the typing of
 * users who have no other one in the room go all the same.
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
 * Remember when users from whom hints take a presence were last seen, unless
 * others keep the table to themselves.
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
		one = palloc(sizeof(PresenceLastSeen));
		one->user = presence_hint_leaver(hints[i]);
		one->last_seen = hints[i]->last_seen;
		seen = lappend(seen, one);
	}
	if (seen == NIL || XactReadOnly)
		return;					/* it may have become read-only since */
	if (!presence_extension_try_lock("user_last_seen", RowExclusiveLock, wait))
		return;
	presence_store_add_last_seen(seen);
	if (database)
		pg_atomic_write_u32(&database->last_seen_rows, 1);
}

/*
 * Without shared memory nobody remembers what was not announced: have listeners read
 * all rooms, which takes no table, unless the notify queue must be spared.
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
 * within it: announce them, a resync of all rooms first where one is owed, and
 * remember when users whose presences go were last seen.  false: nothing was
 * announced, for the notify queue is almost full or a table is locked, and
 * listeners miss the events.
 *
 * Rooms are read in the newest snapshot: an older one, of a transaction that
 * keeps its first, shows beside what the transaction put in what others have
 * taken away since, even two presences of one pair.
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
		return true;			/* dropped since: nobody is to be announced */
	announced = may_announce(&wait);
	context = AllocSetContextCreate(CurrentMemoryContext, "presence self announce",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
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
