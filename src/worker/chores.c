/*-------------------------------------------------------------------------
 *
 * chores.c
 *		Removes now and then what is only old.
 *
 * Empty rooms, times at which users were last seen and admissions pile up where
 * nobody removes them.  That is done in rounds, every
 * presence.prune_rooms_interval, a part at a time; between two parts the worker
 * has as much time for the rest of its work as the part has taken.
 *
 * Those who enter wait while empty rooms are removed, so the worker waits for
 * them for a moment only, and comes back later.  What a user's trigger or
 * constraint forbids to remove is left where it is.
 *
 * This is the worker's own memory: no locks, but that "last_seen_rows" of the
 * database is an atomic.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/guc.h"
#include "base/name.h"
#include "members/cleanup.h"
#include "members/membership.h"
#include "shared/database.h"
#include "shared/registry.h"
#include "tables/store.h"
#include "tables/store_rooms.h"
#include "utils/builtins.h"
#include "worker/chores.h"
#include "worker/worker_xact.h"

/* How often chores are done where empty rooms are to stay; seconds. */
#define DEFAULT_INTERVAL 3600

/* What is done, in this order. */
typedef enum Chore
{
	CHORE_ROOMS,				/* remove empty rooms */
	CHORE_LAST_SEEN,			/* forget who was last seen long ago */
	CHORE_ADMISSIONS,			/* forget who was admitted a while ago */
	NCHORES
} Chore;

static struct
{
	PresenceTime next;			/* part of them; 0: nobody has said when */
	PresenceTime pause;			/* while others are in the way */
	Chore		chore;
	BlockNumber block;			/* where its next part begins ... */
	char		room[PRESENCE_MAX_NAME_BYTES + 1];	/* ... after which room */
	char		reached[PRESENCE_MAX_NAME_BYTES + 1];	/* by the part under way */
	int			nrooms;			/* looked at in a part */
} chores;

static const PresenceWorkerTable emptied_tables[] = {
	{"presences", RowExclusiveLock},
	{"rooms", AccessShareLock}, /* a stronger one follows, bounded */
	{NULL}
};

static const PresenceWorkerTable past_tables[] = {
	{"admissions", RowExclusiveLock},
	{"user_last_seen", RowExclusiveLock},
	{NULL}
};

/* Somebody may have several rows in the table of who was last seen. */
static void
suspect_last_seen(void)
{
	PresenceDatabase *database = presence_my_database();

	if (database)
		pg_atomic_write_u32(&database->last_seen_rows, 1);
}

/* How often the chores are done. */
static PresenceTime
chores_interval(void)
{
	int			seconds = presence_prune_rooms_interval > 0 ?
		presence_prune_rooms_interval : DEFAULT_INTERVAL;

	return (PresenceTime) seconds * USECS_PER_SEC;
}

/* Go on with the next chore, or wait for the next time. */
static void
end_chore(void)
{
	PresenceTime now = presence_clock_now();

	chores.chore = (chores.chore + 1) % NCHORES;
	chores.next = chores.chore == 0 ? now + chores_interval() : now;
	chores.pause = 0;
	chores.block = 0;
	chores.room[0] = '\0';
	chores.nrooms = PRESENCE_ROOMS_AT_ONCE;
}

/* A part of a chore is done; the others come first for as long as it took. */
static void
rest_from_chore(PresenceTime began)
{
	PresenceTime now = presence_clock_now();

	chores.next = now + (now - began);
	chores.pause = 0;
}

/* Others are in the way of a chore: it is tried again soon. */
static void
put_off_chore(void)
{
	chores.next = presence_clock_now() + USECS_PER_SEC;
	suspect_last_seen();
}

/* A chore could not be done; it is left until the next time. */
static void
handle_chore_error(const ErrorData *error)
{
	if (presence_worker_xact_is_transient(error))
	{
		put_off_chore();
		return;
	}
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("could not remove old rows of presence: %s", error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->context ? errcontext("%s", error->context) : 0));
	suspect_last_seen();
	end_chore();
}

/* Rooms could not be removed for one that cannot; it is left where it is. */
static void
leave_room(const ErrorData *error)
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
 * Rooms could not be removed.  While somebody who enters stays in the way they
 * are tried again, less and less often.  Of rooms that cannot be removed fewer
 * are tried, until one stands alone.
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
		leave_room(error);
}

/*
 * Remove the empty ones among the next rooms.  Those who enter wait while that
 * is done, and a moment before: for those whom the worker waits for.
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
		put_off_chore();
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
	rest_from_chore(now);
	if (last == NULL)
		end_chore();
}

/* Remove the old rows of a part of a table. */
static void
forget_some(PresencePast past, PresenceTime now)
{
	if (!presence_worker_xact_begin_on("removing old rows", past_tables, handle_chore_error))
	{
		put_off_chore();
		return;
	}
	presence_store_connect();
	chores.block = presence_cleanup_forget(past, chores.block);
	presence_store_finish();
	presence_worker_xact_end();
	rest_from_chore(now);
	if (chores.block == 0)
		end_chore();
}

/*
 * Whether the table of who was last seen can be passed over: nothing gets too
 * old there, and no user has several rows.
 */
static bool
spares_last_seen(void)
{
	PresenceDatabase *database = presence_my_database();

	return chores.block == 0 && database &&
		pg_atomic_exchange_u32(&database->last_seen_rows, 0) == 0 &&
		presence_keep_last_seen == 0;
}

/* Do a part of what is to be done now and then. */
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
	if (chores.chore == CHORE_LAST_SEEN && spares_last_seen())
		end_chore();
	if (chores.chore == CHORE_ROOMS)
		prune_some_rooms(now);
	else
		forget_some(chores.chore == CHORE_ADMISSIONS ? PRESENCE_PAST_ADMISSIONS :
					PRESENCE_PAST_LAST_SEEN, now);
}

/* Settings have changed: reckon anew when to do them. */
void
presence_chores_reload(void)
{
	chores.next = 0;
}

/* When there is something to do here, as far as that is known. */
PresenceTime
presence_chores_next(void)
{
	return chores.next != 0 ? chores.next : PG_INT64_MAX;
}
