/*-------------------------------------------------------------------------
 *
 * enforce.c
 *		Applies bans and deletions of rooms to presences added concurrently.
 *
 * A ban and an add that commit concurrently do not see each other, and neither
 * do the deletion of a room and an add.  The worker gets hints of both.  It
 * calls presence_enforce_note() for each hint that it announces, and later
 * presence_enforce_apply(), which checks, in the newest snapshot, the
 * presences of the users and rooms that these hints name.  At the second of
 * the two hints both transactions have committed, so this check sees both.  It
 * may fail because of concurrent locks or a user's triggers; then it is
 * retried, less and less often.
 *
 * The hint of an add is noted only if the rules have changed since the add was
 * admitted (see "rules" in database.h), so this costs nothing while nobody is
 * banned.  If hints were lost, or the worker has just started, all presences
 * are checked.
 *
 * All state is local to the worker, so no locks are needed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "members/removal.h"
#include "shared/database.h"
#include "tables/store.h"
#include "tables/store_presences.h"
#include "tables/store_rooms.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "worker/enforce.h"
#include "worker/worker_xact.h"

/* Presences removed in one transaction. */
#define BATCH 1000

/* Number of names above which all presences are checked instead. */
#define MAX_NAMES 10000

/* Longest pause after errors; microseconds. */
#define MAX_PAUSE (60 * USECS_PER_SEC)

static const PresenceWorkerTable ruled_tables[] = {
	{"bans", AccessShareLock},
	{"presences", RowExclusiveLock},
	{"rooms", RowExclusiveLock},
	PRESENCE_WORKER_VISITS,
	{NULL}
};

/* What is to be checked. */
static struct
{
	MemoryContext context;		/* of the lists and their strings */
	List	   *users;			/* users that may be banned */
	List	   *rooms;			/* rooms that may be deleted */
	bool		all;			/* check everything */
}			wanted;

static PresenceTime next_try;	/* earliest time of the next check */
static PresenceTime error_pause;	/* pause after the last error */

/* Request a check of all presences. */
void
presence_enforce_all(void)
{
	wanted.all = true;
}

/* Whether there is anything to check. */
static bool
is_wanted(void)
{
	return wanted.all || wanted.users != NIL || wanted.rooms != NIL;
}

/* Add a text of a hint to a list. */
static void
note_name(List **names, const PresenceHint *hint, PresenceHintField field)
{
	const char *name = presence_hint_text(hint, field);
	MemoryContext old;

	if (name == NULL || wanted.all)
		return;
	if (list_length(*names) >= MAX_NAMES)
	{
		presence_enforce_all();
		return;
	}
	if (wanted.context == NULL)
		wanted.context = AllocSetContextCreate(TopMemoryContext, "presence enforce",
											   ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(wanted.context);
	*names = lappend(*names, pstrdup(name));
	MemoryContextSwitchTo(old);
}

/* Note what has to be checked because of a hint. */
void
presence_enforce_note(const PresenceHint *hint)
{
	PresenceDatabase *database = presence_my_database();

	if (hint->kind == PRESENCE_HINT_BAN)
		note_name(&wanted.users, hint, PRESENCE_FIELD_USER);
	else if (hint->kind == PRESENCE_HINT_ROOM_DELETED)
		note_name(&wanted.rooms, hint, PRESENCE_FIELD_ROOM);
	else if ((hint->kind == PRESENCE_HINT_JOIN ||
			  hint->kind == PRESENCE_HINT_UPDATE) &&
			 hint->rules != 0 &&
			 hint->rules != pg_atomic_read_u64(&database->rules))
	{
		note_name(&wanted.users, hint, PRESENCE_FIELD_USER);
		note_name(&wanted.rooms, hint, PRESENCE_FIELD_ROOM);
	}
}

/* A list of names as text[]; 0, which stands for all, if "all" is set. */
static Datum
name_array(List *names)
{
	Datum	   *datums = palloc(Max(list_length(names), 1) * sizeof(Datum));
	ListCell   *lc;

	if (wanted.all)
		return (Datum) 0;
	foreach(lc, names)
		datums[foreach_current_index(lc)] = CStringGetTextDatum(lfirst(lc));
	return PointerGetDatum(construct_array(datums, list_length(names), TEXTOID,
										   -1, false, TYPALIGN_INT));
}

/*
 * Remove a batch of presences that a ban forbids; false if there are more, or
 * some were locked.
 */
static bool
apply_bans(void)
{
	Datum		users = name_array(wanted.users);

	if (!wanted.all && wanted.users == NIL)
		return true;
	(void) presence_removal_delete(presence_store_lock_banned(users, BATCH),
								   PRESENCE_REASON_BANNED);
	return !presence_store_banned_exist(users);
}

/*
 * Insert the missing rows of rooms that have presences.  Waits briefly for
 * transactions that are inserting the same room.
 */
static void
restore_rooms(void)
{
	if (wanted.all || wanted.rooms != NIL)
		presence_store_restore_rooms(name_array(wanted.rooms));
}

/* Everything has been checked, and that is committed. */
static void
forget_wanted(void)
{
	wanted.users = NIL;
	wanted.rooms = NIL;
	wanted.all = false;
	if (wanted.context)
		MemoryContextReset(wanted.context);
}

/* Rules could not be applied: log the first error, and retry later. */
static void
handle_rules_error(const ErrorData *error)
{
	PresenceTime now = presence_clock_now();

	next_try = now + PRESENCE_WORKER_RETRY_DELAY;
	if (presence_worker_xact_is_transient(error))
		return;
	if (error_pause == 0)
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("could not apply bans and deletions of rooms to those who entered meanwhile: %s",
						error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 errhint("The worker tries again, at least once a minute."),
				 error->context ? errcontext("%s", error->context) : 0));
	error_pause = Min(Max(error_pause * 2, USECS_PER_SEC), MAX_PAUSE);
	next_try = now + error_pause;
}

/* Begin to apply rules; false if a lock is not available. */
static bool
begin(PresenceTime now)
{
	next_try = now + PRESENCE_WORKER_RETRY_DELAY;
	if (!presence_worker_xact_begin_on("applying changed rules of rooms",
									   ruled_tables, handle_rules_error))
		return false;
	presence_worker_xact_limit_lock_waits();
	presence_store_connect();
	return true;
}

/* Commit what has been applied. */
static void
end(void)
{
	presence_store_finish();
	presence_worker_xact_end();
}

/*
 * Apply rules that changed while presences were added.  Either of the two
 * steps may fail, so each has its own transaction: an error in the second must
 * not roll back the first.
 */
void
presence_enforce_apply(PresenceTime now)
{
	bool		done;

	if (!is_wanted() || now < next_try || !begin(now))
		return;
	done = apply_bans();
	end();
	if (!begin(now))
		return;
	restore_rooms();
	end();
	error_pause = 0;
	if (!done)
		return;
	next_try = now;
	forget_wanted();
}

/* When the next check is due. */
PresenceTime
presence_enforce_next(PresenceTime now)
{
	return is_wanted() ? Max(next_try, now) : PG_INT64_MAX;
}
