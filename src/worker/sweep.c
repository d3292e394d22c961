/*-------------------------------------------------------------------------
 *
 * sweep.c
 *		Removes expired channels.
 *
 * Channels that have an entry in the registry are found there when they are
 * due (expiry.c), and their rows are removed in batches.  Rows without an
 * entry would never expire that way:
 *
 *	- While the registry is not complete, because the worker has just started or
 *	  the registry was found full, the table is searched for rows that are
 *	  expired by themselves.  Channels that are alive get an entry, as far as
 *	  there is space.
 *	- While it is complete, all channels are loaded once an hour, as a safeguard.
 *	- Without shared memory there is no registry, only the search.
 *
 * A lock on a row, or a user's trigger or constraint, may make a removal fail.
 * Then the channel is deferred, without delaying the others.
 *
 * All state here is local to the worker.  The registry has its own locks.
 * Whether it is complete is an atomic, which any process that finds the
 * registry full may reset at any time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/name.h"
#include "expiry/expiry.h"
#include "members/membership.h"
#include "members/removal.h"
#include "shared/database.h"
#include "shared/liveness.h"
#include "shared/registry.h"
#include "tables/store.h"
#include "tables/store_channels.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/sweep.h"
#include "worker/worker_xact.h"

/*
 * How long an expired channel waits for others that expire next, so that they
 * are removed and announced together; microseconds.
 */
#define BATCH_DELAY (20 * 1000)

/*
 * How often a complete registry is loaded again, in case there are rows
 * without entries, which would never expire; there should be none;
 * microseconds.
 */
#define AUDIT_INTERVAL (INT64CONST(3600) * USECS_PER_SEC)

/* Failed removals that are logged per minute. */
#define MAX_LOGGED 10

static const PresenceWorkerTable read_tables[] = {{"presences", AccessShareLock}, {NULL}};

static const PresenceWorkerTable written_tables[] = {
	{"presences", RowExclusiveLock},
	PRESENCE_WORKER_VISITS,
	{NULL}
};

static struct
{
	PresenceExpiry *expiry;
	PresenceTime next_expiry;	/* earliest time of the next removal */
	PresenceTime next_rows;		/* when to search the table */
	PresenceTime next_future;	/* when to correct rows of the future */
	PresenceTime next_audit;	/* when to load a complete registry again */
	uint64		adds;			/* counter of adds when last expiring */
	int			nlogged;		/* failures logged since logged_since */
	PresenceTime logged_since;
}			sweep;

/* Create the expiry state. */
void
presence_sweep_init(void)
{
	sweep.expiry = presence_expiry_create(TopMemoryContext);
}

/* Whether every channel with rows is in the registry. */
static bool
is_loaded(void)
{
	return presence_registry_is_complete(presence_my_database());
}

/* Log why a channel cannot be removed, a few times per minute. */
static void
log_failure(const char *channel, PresenceTime pause, const ErrorData *error)
{
	PresenceTime now = presence_clock_now();

	if (now > sweep.logged_since + 60 * USECS_PER_SEC)
	{
		sweep.logged_since = now;
		sweep.nlogged = 0;
	}
	if (sweep.nlogged++ >= MAX_LOGGED)
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
 * The removal of a batch has failed.  If that was due to concurrent activity,
 * it may be retried soon.
 */
static void
handle_expiry_error(const ErrorData *error)
{
	bool		transient = presence_worker_xact_is_transient(error);
	PresenceTime pause;
	const char *channel = presence_expiry_fail(sweep.expiry, presence_clock_now(),
											   transient, &pause);

	if (channel && !transient)
		log_failure(channel, pause, error);
}

/* When the next removal is due. */
static PresenceTime
next_expiry(void)
{
	return Max(presence_expiry_next(sweep.expiry) + BATCH_DELAY, sweep.next_expiry);
}

/*
 * Remove channels in one transaction.  If its locks are not available, the
 * channels are not settled, and so will be taken again.
 */
static void
remove_channels(ArrayType *channels, PresenceTime now, PresenceTime lag)
{
	ArrayType  *remaining = NULL;
	uint64		removed;

	if (!presence_worker_xact_begin_on("removing expired presences", written_tables,
									   handle_expiry_error))
	{
		sweep.next_expiry = now + PRESENCE_WORKER_RETRY_DELAY;
		return;
	}
	presence_store_connect();
	presence_removal_verify(channels);
	removed = presence_removal_expire(channels, PRESENCE_OWN_AGE);
	if (!is_loaded())
		remaining = presence_store_older_among(channels, PRESENCE_OWN_AGE);
	presence_store_finish();
	presence_worker_xact_commit();
	if (removed > 0)
		presence_database_set(presence_my_database(), PRESENCE_LAST_EXPIRY_LAG,
							  (uint64) lag);
	presence_expiry_settle(sweep.expiry, now, remaining);
	presence_worker_xact_cleanup();
}

/* Remove the channels that have expired. */
void
presence_sweep_expire(PresenceTime now)
{
	PresenceDatabase *database = presence_my_database();
	ArrayType  *channels;
	PresenceTime lag;

	presence_expiry_follow(sweep.expiry);
	if (now < next_expiry())
		return;
	if (database)
		sweep.adds = presence_database_count(database, PRESENCE_ADDS);
	channels = presence_expiry_take(sweep.expiry, now, &lag);
	if (channels)
		remove_channels(channels, now, lag);
}

/* Make an entry for a channel of the table. */
static bool
load_channel(void *arg, const char *channel, int length, TimestampTz last_seen)
{
	bool	   *complete = arg;
	PresenceName name = presence_name_make(channel, length);
	PresenceCutoff none = {0};
	uint32		changes;

	if (presence_registry_load(&name, presence_clock_from_timestamp(last_seen),
							   &none, &changes) == PRESENCE_ENTRY_NO_SPACE)
		*complete = false;
	return true;
}

/*
 * Make entries for all channels of the table.  A process that finds the
 * registry full meanwhile changes "loaded", and it does not become complete.
 */
static void
load_registry(PresenceDatabase *database)
{
	uint32		loading = PRESENCE_LOAD_RUNNING;
	bool		complete = true;

	presence_liveness_disarm_watchdog(database);	/* may take long */
	pg_atomic_write_u32(&database->loaded, loading);
	if (!presence_worker_xact_begin_on("loading channels", read_tables, NULL))
	{
		pg_atomic_write_u32(&database->loaded, PRESENCE_LOAD_PARTIAL);
		sweep.next_rows = presence_clock_now() + PRESENCE_WORKER_RETRY_DELAY;
		return;
	}
	presence_store_connect();
	presence_store_each_channel(load_channel, &complete);
	presence_store_finish();
	presence_worker_xact_end();
	if (complete)
		pg_atomic_compare_exchange_u32(&database->loaded, &loading,
									   PRESENCE_LOAD_COMPLETE);
	presence_expiry_rescan(sweep.expiry);
}

/* Add a channel that is expired by its rows to the next batch. */
static bool
offer_channel(void *arg, const char *channel, int length, TimestampTz last_seen)
{
	return presence_expiry_offer(sweep.expiry, channel, length, last_seen);
}

/* Rows of the future could not be corrected: log that, and retry much later. */
static void
handle_future_error(const ErrorData *error)
{
	sweep.next_future = presence_clock_now() + AUDIT_INTERVAL;
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("could not correct presences whose last_seen lies in the future: %s",
					error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->context ? errcontext("%s", error->context) : 0));
}

/* Correct rows whose last_seen lies in the future. */
static void
correct_future(PresenceTime now)
{
	if (now < sweep.next_future)
		return;
	sweep.next_future = now + PRESENCE_WORKER_RETRY_DELAY;
	if (!presence_worker_xact_begin_on("correcting presences of the future",
									   written_tables, handle_future_error))
		return;
	sweep.next_future = now + presence_liveness_max_age() / 4;
	presence_store_connect();
	presence_removal_pull_back();
	presence_store_finish();
	presence_worker_xact_end();
}

/* When to search again; "oldest" is last_seen of the next row to expire. */
static PresenceTime
next_search(PresenceTime now, TimestampTz oldest)
{
	PresenceTime max_age = presence_liveness_max_age();
	PresenceTime next = now + max_age / 4;

	if (TIMESTAMP_NOT_FINITE(oldest))
		return next;
	return Min(next, Max(presence_clock_from_timestamp(oldest) + max_age + 1000,
						 now + PRESENCE_WORKER_RETRY_DELAY));
}

/*
 * Search the table for channels that are expired by their rows: all of them
 * without shared memory, else those that did not fit into the registry.  Then
 * load the registry again, as there may be space now.
 */
void
presence_sweep_search(PresenceTime now)
{
	PresenceDatabase *database = presence_my_database();
	TimestampTz oldest = DT_NOEND;
	bool		complete;

	if (is_loaded() || now < sweep.next_rows || presence_expiry_is_busy(sweep.expiry))
		return;
	correct_future(now);
	if (!presence_worker_xact_begin_on("looking for expired presences", read_tables, NULL))
	{
		sweep.next_rows = now + PRESENCE_WORKER_RETRY_DELAY;
		return;
	}
	presence_store_connect();
	complete = presence_store_each_older(PRESENCE_OWN_AGE, offer_channel, NULL);
	if (database == NULL)
		oldest = presence_store_oldest_living(PRESENCE_OWN_AGE);
	presence_store_finish();
	presence_worker_xact_end();
	if (!complete)
		return;
	sweep.next_rows = next_search(now, oldest);
	if (database)
		load_registry(database);
}

/* Load a complete registry again if it is time. */
void
presence_sweep_audit(PresenceTime now)
{
	PresenceDatabase *database = presence_my_database();

	if (database == NULL || now < sweep.next_audit)
		return;
	if (sweep.next_audit != 0 && is_loaded())
		load_registry(database);
	sweep.next_audit = now + AUDIT_INTERVAL;
}

/* Whether the registry may hold channels of this database. */
bool
presence_sweep_has_channels(void)
{
	return presence_expiry_channels(sweep.expiry) > 0 ||
		presence_database_count(presence_my_database(), PRESENCE_ADDS) != sweep.adds;
}

/* Settings have changed: search the table again. */
void
presence_sweep_reload(void)
{
	sweep.next_rows = 0;
}

/* When there is something to do. */
PresenceTime
presence_sweep_next(void)
{
	return is_loaded() ? next_expiry() : Min(next_expiry(), sweep.next_rows);
}
