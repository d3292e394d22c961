/*-------------------------------------------------------------------------
 *
 * sweep.c
 *		Removes the channels that have fallen silent.
 *
 * Those with an entry in the registry are found there, when they are due
 * (expiry.c), and their rows removed in batches.  Rows without an entry would
 * never expire that way:
 *
 *	- While the registry is not complete, because the worker has just begun or it
 *	  was found full, the table is searched for rows that are dead by themselves;
 *	  the channels that live get an entry, as far as the registry takes them.
 *	- Where it is complete that is done now and then all the same, to be sure.
 *	- Without shared memory there is no registry, and searching is all there is.
 *
 * Whoever has a row locked, or a trigger or constraint on it, may make its removal
 * fail.  Such a channel is put off, and costs the others nothing.
 *
 * This is the worker's own memory.  The registry locks itself, and whether it is
 * complete is an atomic, which whoever finds it full takes back at any time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/name.h"
#include "members/membership.h"
#include "members/removal.h"
#include "shared/database.h"
#include "shared/liveness.h"
#include "shared/registry.h"
#include "tables/store.h"
#include "tables/store_channels.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/expiry.h"
#include "worker/sweep.h"
#include "worker/worker_xact.h"

/*
 * How long a death may wait for others, so that they are removed and told
 * together; microseconds.
 */
#define PATIENCE (20 * 1000)

/*
 * How often the table is searched for rows without entries, which would never
 * expire; there should be none; microseconds.
 */
#define AUDIT_INTERVAL (INT64CONST(3600) * USECS_PER_SEC)

/* Channels that could not be removed and are named in the log, a minute. */
#define MAX_COMPLAINTS 10

static const PresenceWorkerTable read_tables[] = {{"presences", AccessShareLock}, {NULL}};

static const PresenceWorkerTable written_tables[] = {{"presences", RowExclusiveLock}, {NULL}};

static struct
{
	PresenceExpiry *expiry;
	PresenceTime next_expiry;	/* nobody is removed before */
	PresenceTime next_rows;		/* when to look at rows without entries */
	PresenceTime next_future;	/* when to look at rows of the future */
	PresenceTime next_audit;	/* when to look for rows without entries */
	uint64		adds;			/* counted in this database at the last scan */
	int			complaints;		/* of channels that could not be removed ... */
	PresenceTime complaints_since;	/* ... since then */
} sweep;

/* Make what is remembered from one sweep to the next. */
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

/* Say which channel cannot be removed, and why; not of thousands at once. */
static void
complain(const char *channel, PresenceTime pause, const ErrorData *error)
{
	PresenceTime now = presence_clock_now();

	if (now > sweep.complaints_since + 60 * USECS_PER_SEC)
	{
		sweep.complaints_since = now;
		sweep.complaints = 0;
	}
	if (sweep.complaints++ >= MAX_COMPLAINTS)
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
handle_expiry_error(const ErrorData *error)
{
	bool		again = presence_worker_xact_is_transient(error);
	PresenceTime pause;
	const char *channel = presence_expiry_fail(sweep.expiry, presence_clock_now(),
											   again, &pause);

	if (channel && !again)
		complain(channel, pause, error);
}

/* When somebody is to be removed. */
static PresenceTime
next_expiry(void)
{
	return Max(presence_expiry_next(sweep.expiry) + PATIENCE, sweep.next_expiry);
}

/*
 * Remove channels, as many as one transaction should.  Those that are taken and
 * left where they are will be taken again.
 */
static void
remove_channels(ArrayType *channels, PresenceTime now, PresenceTime lag)
{
	PresenceTime max_age = presence_liveness_max_age();
	ArrayType  *left = NULL;
	uint64		removed;

	if (!presence_worker_xact_begin_on("removing expired presences", written_tables,
									   handle_expiry_error))
	{
		sweep.next_expiry = now + PRESENCE_WORKER_RETRY_DELAY;
		return;
	}
	presence_store_connect();
	removed = presence_removal_expire(channels, max_age);
	if (!is_loaded())
		left = presence_store_older_among(channels, max_age);
	presence_store_finish();
	presence_worker_xact_commit();
	if (removed > 0)
		presence_database_set(presence_my_database(), PRESENCE_LAST_EXPIRY_LAG,
							  (uint64) lag);
	presence_expiry_settle(sweep.expiry, now, left);
	presence_worker_xact_cleanup();
}

/* Remove the channels that are due. */
void
presence_sweep_expire(PresenceTime now)
{
	PresenceDatabase *database = presence_my_database();
	ArrayType  *channels;
	PresenceTime lag;

	if (now < next_expiry())
		return;
	if (database)
		sweep.adds = presence_database_count(database, PRESENCE_ADDS);
	channels = presence_expiry_take(sweep.expiry, now, &lag);
	if (channels)
		remove_channels(channels, now, lag);
}

/* Give a channel of the table an entry. */
static bool
load_channel(void *arg, const char *channel, int length, TimestampTz last_seen)
{
	bool	   *complete = arg;
	PresenceName name = presence_name_make(channel, length);
	uint32		changes;

	if (presence_registry_load(&name, presence_clock_from_timestamp(last_seen),
							   0, &changes) == PRESENCE_ENTRY_NO_SPACE)
		*complete = false;
	return true;
}

/*
 * Give every channel of the table an entry.  Whoever finds the registry full
 * meanwhile takes back that it is being made complete.
 */
static void
load_registry(PresenceDatabase *database)
{
	uint32		loading = PRESENCE_LOAD_RUNNING;
	bool		complete = true;

	presence_liveness_disarm_watchdog(database);	/* it may take long */
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

/* Have a channel removed that its rows call dead. */
static bool
offer_channel(void *arg, const char *channel, int length, TimestampTz last_seen)
{
	return presence_expiry_offer(sweep.expiry, channel, length, last_seen);
}

/* Rows of the future could not be corrected; the others do not wait for them. */
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

/* Correct rows that only their last_seen keeps alive. */
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

/* When to search again without a registry, of which "oldest" is the next to die. */
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
 * Look for channels without entries that their rows call dead: all of them
 * without shared memory, those that found no room otherwise; those get entries
 * as room comes.
 */
void
presence_sweep_search(PresenceTime now)
{
	PresenceDatabase *database = presence_my_database();
	PresenceTime max_age = presence_liveness_max_age();
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
	complete = presence_store_each_older(max_age, offer_channel, NULL);
	if (database == NULL)
		oldest = presence_store_oldest_living(max_age);
	presence_store_finish();
	presence_worker_xact_end();
	if (!complete)
		return;
	sweep.next_rows = next_search(now, oldest);
	if (database)
		load_registry(database);
}

/* Give rows without entries one when it is time. */
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

/* Settings have changed: search the rows again. */
void
presence_sweep_reload(void)
{
	sweep.next_rows = 0;
}

/* When there is something to do here. */
PresenceTime
presence_sweep_next(void)
{
	return is_loaded() ? next_expiry() : Min(next_expiry(), sweep.next_rows);
}
