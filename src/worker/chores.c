/*-------------------------------------------------------------------------
 *
 * chores.c
 *		Periodically removes empty rooms and old rows.
 *
 * Empty rooms, rows of user_last_seen, admissions and visits accumulate.  They
 * are removed in rounds, every presence.prune_rooms_interval, one part at a time.
 * After each part the chores pause for as long as it took, so that the worker
 * has that time for its other work.
 *
 * The lock that removes empty rooms blocks transactions that enter rooms.  So
 * the worker waits for that lock only briefly, and otherwise retries later.
 * Rows whose removal a user's trigger or constraint forbids are kept.
 *
 * All state is local to the worker and needs no locks, except for
 * "last_seen_rows" of the database, which is atomic.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/guc.h"
#include "base/name.h"
#include "members/membership.h"
#include "shared/database.h"
#include "shared/registry.h"
#include "tables/store.h"
#include "tables/store_rooms.h"
#include "utils/builtins.h"
#include "worker/chores.h"
#include "worker/cleanup.h"
#include "worker/worker_xact.h"

/* Interval if prune_rooms_interval is 0, which keeps empty rooms; seconds. */
#define DEFAULT_INTERVAL 3600

/* The chores of a round, in order. */
typedef enum Chore
{
	CHORE_ROOMS,				/* remove empty rooms */
	CHORE_LAST_SEEN,			/* remove old rows of user_last_seen */
	CHORE_ADMISSIONS,			/* remove old rows of admissions */
	CHORE_VISITS,				/* remove old rows of visits */
	NCHORES
} Chore;

static struct
{
	PresenceTime next;			/* time of the next part; 0: not scheduled */
	PresenceTime pause;			/* after a failure to lock rooms */
	Chore		chore;			/* current one */
	int64		position;		/* where its next part begins, for rows */
	char		room[PRESENCE_MAX_NAME_BYTES + 1];	/* same, for rooms: after
													 * it */
	char		reached[PRESENCE_MAX_NAME_BYTES + 1];	/* last room of the
														 * current part */
	int			nrooms;			/* to examine in a part */
}			chores;

static const PresenceWorkerTable emptied_tables[] = {
	{"presences", RowExclusiveLock},
	{"rooms", AccessShareLock}, /* upgraded later, with lock_timeout */
	PRESENCE_WORKER_VISITS,
	{NULL}
};

static const PresenceWorkerTable past_tables[] = {
	{"admissions", RowExclusiveLock},
	{"user_last_seen", RowExclusiveLock},
	{NULL}
};

static const PresenceWorkerTable visits_tables[] = {
	{"visits", RowExclusiveLock},
	{NULL}
};

/* A user may have several rows in user_last_seen: do not skip that chore. */
static void
request_last_seen(void)
{
	PresenceDatabase *database = presence_my_database();

	if (database)
		pg_atomic_write_u32(&database->last_seen_rows, 1);
}

/* Interval between rounds. */
static PresenceTime
chores_interval(void)
{
	int			seconds = presence_prune_rooms_interval > 0 ?
		presence_prune_rooms_interval : DEFAULT_INTERVAL;

	return (PresenceTime) seconds * USECS_PER_SEC;
}

/* Go on with the next chore, or, after the last one, wait for the next round. */
static void
end_chore(void)
{
	PresenceTime now = presence_clock_now();

	chores.chore = (chores.chore + 1) % NCHORES;
	chores.next = chores.chore == 0 ? now + chores_interval() : now;
	chores.pause = 0;
	chores.position = 0;
	chores.room[0] = '\0';
	chores.nrooms = PRESENCE_ROOMS_AT_ONCE;
}

/* A part is done: pause for as long as it took. */
static void
pause_chore(PresenceTime began)
{
	PresenceTime now = presence_clock_now();

	chores.next = now + (now - began);
	chores.pause = 0;
}

/* Locks were not available: retry the chore soon. */
static void
retry_chore_soon(void)
{
	chores.next = presence_clock_now() + USECS_PER_SEC;
	request_last_seen();
}

/* A chore failed: retry it soon if that was transient, else next round. */
static void
handle_chore_error(const ErrorData *error)
{
	if (presence_worker_xact_is_transient(error))
	{
		retry_chore_soon();
		return;
	}
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("could not remove old rows of presence: %s", error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->context ? errcontext("%s", error->context) : 0));
	request_last_seen();
	end_chore();
}

/* The only room of a part cannot be removed: log that, and keep it. */
static void
skip_room(const ErrorData *error)
{
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("could not remove the empty room \"%s\": %s", chores.reached,
					error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 errhint("Make it persistent if it is to stay."),
			 error->context ? errcontext("%s", error->context) : 0));
	strlcpy(chores.room, chores.reached, sizeof(chores.room));
}

/*
 * Rooms could not be removed.  After a lock timeout, retry them, less and less
 * often.  After another error, retry half as many, until the failing room
 * stands alone.
 */
static void
handle_rooms_error(const ErrorData *error)
{
	if (presence_worker_xact_is_transient(error))
	{
		chores.pause = Min(Max(chores.pause * 2, USECS_PER_SEC), 60 * USECS_PER_SEC);
		chores.next = presence_clock_now() + chores.pause;
		ereport(DEBUG1,
				(errmsg_internal("empty rooms are not removed now: %s", error->message)));
	}
	else if (chores.reached[0] == '\0')
		handle_chore_error(error);
	else if (chores.nrooms > 1)
		chores.nrooms /= 2;
	else
		skip_room(error);
}

/*
 * Remove the empty ones among the next rooms.  Transactions that enter rooms
 * are blocked meanwhile, and while the worker waits for its lock.
 */
static void
prune_some_rooms(PresenceTime now)
{
	ArrayType  *rooms;
	text	   *last;

	chores.reached[0] = '\0';
	if (!presence_worker_xact_begin_on("removing empty rooms", emptied_tables,
									   handle_rooms_error))
	{
		retry_chore_soon();
		return;
	}
	presence_store_connect();
	rooms = presence_store_empty_rooms(cstring_to_text(chores.room),
									   chores.nrooms, &last);
	if (last)
		text_to_cstring_buffer(last, chores.reached, sizeof(chores.reached));
	if (rooms)
	{
		presence_worker_xact_limit_lock_waits();
		presence_store_lock_rooms();
		(void) presence_store_delete_empty_rooms(rooms);
	}
	presence_store_finish();
	presence_worker_xact_end();
	strlcpy(chores.room, chores.reached, sizeof(chores.room));
	chores.nrooms = Min(chores.nrooms * 2, PRESENCE_ROOMS_AT_ONCE);
	pause_chore(now);
	if (last == NULL)
		end_chore();
}

/* Remove the old rows from a part of a table. */
static void
forget_some(PresencePast past, PresenceTime now)
{
	if (!presence_worker_xact_begin_on("removing old rows",
									   past == PRESENCE_PAST_VISITS ? visits_tables : past_tables,
									   handle_chore_error))
	{
		retry_chore_soon();
		return;
	}
	presence_store_connect();
	chores.position = presence_cleanup_forget(past, chores.position);
	presence_store_finish();
	presence_worker_xact_end();
	pause_chore(now);
	if (chores.position == 0)
		end_chore();
}

/*
 * Whether user_last_seen can be skipped: its rows never get too old, and no
 * user has several.
 */
static bool
can_skip_last_seen(void)
{
	PresenceDatabase *database = presence_my_database();

	return chores.position == 0 && database &&
		pg_atomic_exchange_u32(&database->last_seen_rows, 0) == 0 &&
		presence_keep_last_seen == 0;
}

/* Do the next part of a chore if it is due. */
void
presence_chores_do(PresenceTime now)
{
	if (chores.next == 0)
	{
		chores.chore = NCHORES - 1;
		end_chore();
	}
	if (now < chores.next)
		return;
	if (chores.chore == CHORE_ROOMS && presence_prune_rooms_interval == 0)
		end_chore();
	if (chores.chore == CHORE_LAST_SEEN && can_skip_last_seen())
		end_chore();
	if (chores.chore == CHORE_VISITS && presence_keep_visits == 0)
		end_chore();
	else if (chores.chore == CHORE_ROOMS)
		prune_some_rooms(now);
	else
		forget_some(chores.chore == CHORE_LAST_SEEN ? PRESENCE_PAST_LAST_SEEN :
					chores.chore == CHORE_ADMISSIONS ? PRESENCE_PAST_ADMISSIONS :
					PRESENCE_PAST_VISITS, now);
}

/* Settings have changed: schedule the chores anew. */
void
presence_chores_reload(void)
{
	chores.next = 0;
}

/* When the next part is due; infinity if not scheduled yet. */
PresenceTime
presence_chores_next(void)
{
	return chores.next != 0 ? chores.next : PG_INT64_MAX;
}
