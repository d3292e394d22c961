/*-------------------------------------------------------------------------
 *
 * expiry.c
 *		Takes the channels that have expired, in batches.
 *
 * The channels that are due come from the registry (deadlines.c).  Among them are
 * held ones that maybe have no rows, which are to be looked for.
 *
 * Expired channels are taken in batches, whose parts are removed one at a
 * time.  "ranges" has the parts that are still to be tried.  A part whose
 * removal failed is halved until the failing channel stands alone.  A channel
 * that could not be removed, because its rows were locked or because an error
 * was raised, is deferred, each time for longer, so that it does not delay the
 * others.
 *
 * All state is local to the worker, so no locks are needed.
 *
 *	due ──► batch ─► removed, or alive after all
 *	           │ ▲
 *	           ▼ │ when its pause is over
 *	     deferred (locked, failed)
 *
 * A channel that has no entry, and is expired by its rows alone, is added to
 * the batch by name (presence_expiry_offer()).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/name.h"
#include "base/shmem.h"
#include "catalog/pg_type.h"
#include "expiry/deadlines.h"
#include "expiry/expiry.h"
#include "lib/pairingheap.h"
#include "lib/simplehash.h"
#include "miscadmin.h"
#include "shared/database.h"
#include "shared/liveness.h"
#include "shared/registry.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* Channels removed in one transaction. */
#define RANGE_SIZE 2000

/* Parts of a batch of channels found by a scan of the table. */
#define MAX_OFFERED 32

/* Parts that are pending while one is halved repeatedly. */
#define MAX_HALVES 16

StaticAssertDecl(RANGE_SIZE < 1 << (MAX_HALVES - 1), "a part can be halved to the end");

/*
 * First and longest pause before a deferred channel is retried, for one whose
 * rows are locked and for one whose removal failed; microseconds.  The pause
 * doubles each time.
 */
#define LOCKED_PAUSE (50 * 1000)
#define MAX_LOCKED_PAUSE (5 * 1000 * 1000)
#define FAILED_PAUSE (INT64CONST(60) * USECS_PER_SEC)
#define MAX_FAILED_PAUSE (INT64CONST(3600) * USECS_PER_SEC)

/* An expired channel that could not be removed. */
typedef struct Deferred
{
	pairingheap_node node;		/* of "waiting" */
	bool		waits;			/* is in "waiting"; else in the batch */
	PresenceName name;
	PresenceEntryRef ref;		/* index 0: no entry */
	int64		seen;			/* last heartbeat, as in Overdue */
	PresenceTime time;			/* of the next retry */
	PresenceTime pause;			/* before that retry */
} Deferred;

typedef struct DeferredName
{
	PresenceName name;			/* key; data belongs to the Deferred */
	char		status;			/* for simplehash */
	Deferred   *deferred;
} DeferredName;

#define SH_PREFIX deferred_names
#define SH_ELEMENT_TYPE DeferredName
#define SH_KEY_TYPE PresenceName
#define SH_KEY name
#define SH_HASH_KEY(tb, key) (key).hash
#define SH_EQUAL(tb, a, b) presence_name_equal(&(a), &(b))
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* A channel of the batch. */
typedef struct Overdue
{
	char	   *name;
	PresenceEntryRef ref;		/* index 0: no entry */
	int64		seen;			/* last heartbeat: PresenceTime of the entry,
								 * or TimestampTz of the row */
	PresenceTime time;			/* when it was due; 0: not known */
	bool		has_old_rows;	/* still has expired rows */
} Overdue;

/* A part of the batch. */
typedef struct Range
{
	int			from;
	int			to;
} Range;

struct PresenceExpiry
{
	MemoryContext context;		/* of all but the batch */
	PresenceDeadlines *deadlines;
	pairingheap *waiting;		/* of Deferred, by time */
	deferred_names_hash *deferred;	/* in "waiting" or in the batch */

	MemoryContext names;		/* of the batch */
	Overdue    *batch;
	int			nbatch;
	int			maxbatch;
	Range		ranges[MAX_OFFERED + MAX_HALVES];	/* the last is tried next */
	int			nranges;
};

/* Order deferred channels by time, the earliest first. */
static int
compare_deferred(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	PresenceTime left = pairingheap_const_container(Deferred, node, a)->time;
	PresenceTime right = pairingheap_const_container(Deferred, node, b)->time;

	return (left < right) - (left > right);
}

/* Create the expiry state; its first take scans the registry. */
PresenceExpiry *
presence_expiry_create(MemoryContext context)
{
	MemoryContext own = AllocSetContextCreate(context, "presence expiry",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(own);
	PresenceExpiry *expiry = palloc0(sizeof(PresenceExpiry));

	expiry->context = own;
	expiry->deadlines = presence_deadlines_create(own);
	expiry->waiting = pairingheap_allocate(compare_deferred, NULL);
	expiry->deferred = deferred_names_create(own, 16, NULL);
	expiry->names = AllocSetContextCreate(own, "presence expiry names",
										  ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(old);
	return expiry;
}

/* Find a deferred channel by name, or NULL. */
static Deferred *
find_deferred(PresenceExpiry *expiry, const char *channel, int length)
{
	DeferredName *entry;

	if (expiry->deferred->members == 0)
		return NULL;
	entry = deferred_names_lookup(expiry->deferred, presence_name_make(channel, length));
	return entry ? entry->deferred : NULL;
}

/* Remove a channel from those deferred. */
static void
forget_deferred(PresenceExpiry *expiry, Deferred *deferred)
{
	if (deferred->waits)
		pairingheap_remove(expiry->waiting, &deferred->node);
	deferred_names_delete(expiry->deferred, deferred->name);
	pfree(unconstify(char *, deferred->name.data));
	pfree(deferred);
}

/* Find or make the Deferred of a channel of the batch. */
static Deferred *
make_deferred(PresenceExpiry *expiry, const Overdue *overdue)
{
	int			length = strlen(overdue->name);
	Deferred   *deferred = find_deferred(expiry, overdue->name, length);
	DeferredName *entry;
	bool		found;

	if (deferred)
		return deferred;
	deferred = MemoryContextAllocZero(expiry->context, sizeof(Deferred));
	deferred->name = presence_name_make(MemoryContextStrdup(expiry->context, overdue->name),
										length);
	entry = deferred_names_insert(expiry->deferred, deferred->name, &found);
	entry->deferred = deferred;
	return deferred;
}

/* Defer a channel of the batch; returns for how long. */
static PresenceTime
defer(PresenceExpiry *expiry, const Overdue *overdue, PresenceTime now, bool failed)
{
	Deferred   *deferred = make_deferred(expiry, overdue);
	PresenceTime first = failed ? FAILED_PAUSE : LOCKED_PAUSE;
	PresenceTime most = failed ? MAX_FAILED_PAUSE : MAX_LOCKED_PAUSE;

	if (deferred->waits)
		pairingheap_remove(expiry->waiting, &deferred->node);
	deferred->ref = overdue->ref;
	deferred->seen = overdue->seen;
	deferred->pause = Min(Max(deferred->pause * 2, first), most);
	deferred->time = now + deferred->pause;
	deferred->waits = true;
	pairingheap_add(expiry->waiting, &deferred->node);
	return deferred->pause;
}

/* A channel of the batch needs no more attention. */
static void
settle_channel(PresenceExpiry *expiry, const Overdue *overdue)
{
	Deferred   *deferred = find_deferred(expiry, overdue->name, strlen(overdue->name));

	if (deferred)
		forget_deferred(expiry, deferred);
}

/*
 * Whether an expired channel is among those deferred, and has not been alive
 * since then.  "ref" is its entry, if it has one.
 */
static bool
is_deferred(PresenceExpiry *expiry, const char *channel, int length,
			PresenceEntryRef ref, int64 seen)
{
	Deferred   *deferred = find_deferred(expiry, channel, length);

	if (deferred == NULL)
		return false;
	if (deferred->ref.index == 0 && ref.index != 0)
	{
		deferred->ref = ref;	/* got an entry since then */
		deferred->seen = seen;
		return true;
	}
	if (ref.index == deferred->ref.index && ref.generation == deferred->ref.generation &&
		seen <= deferred->seen)
		return true;
	forget_deferred(expiry, deferred);
	return false;
}

/* When the next deferred channel is to be retried. */
static PresenceTime
next_deferred(PresenceExpiry *expiry)
{
	if (pairingheap_is_empty(expiry->waiting))
		return PG_INT64_MAX / 2;
	return pairingheap_container(Deferred, node,
								 pairingheap_first(expiry->waiting))->time;
}

/* Whether parts of a batch are still to be tried. */
bool
presence_expiry_is_busy(const PresenceExpiry *expiry)
{
	return expiry->nranges > 0;
}

/*
 * When the next channel may expire, a deferred one is to be retried, or a scan
 * is due.  Without a registry there are only the deferred ones.
 */
PresenceTime
presence_expiry_next(PresenceExpiry *expiry)
{
	PresenceTime next = next_deferred(expiry);

	if (expiry->nranges > 0)
		return 0;
	return presence_shmem_ready() ? Min(next, presence_deadlines_next(expiry->deadlines)) : next;
}

/* Number of channels that the last scan of the registry saw. */
uint64
presence_expiry_channels(const PresenceExpiry *expiry)
{
	return presence_deadlines_channels(expiry->deadlines);
}

/* Request a scan of the registry. */
void
presence_expiry_rescan(PresenceExpiry *expiry)
{
	presence_deadlines_rescan(expiry->deadlines);
}

/* Look at the channels that expire earlier than was known. */
void
presence_expiry_follow(PresenceExpiry *expiry)
{
	if (presence_shmem_ready())
		presence_deadlines_follow(expiry->deadlines, presence_my_database());
}

/* Begin another batch. */
static void
empty_batch(PresenceExpiry *expiry)
{
	Assert(expiry->nranges == 0);
	MemoryContextReset(expiry->names);
	expiry->maxbatch = RANGE_SIZE;
	expiry->batch = MemoryContextAlloc(expiry->names, RANGE_SIZE * sizeof(Overdue));
	expiry->nbatch = 0;
}

/* Append an item to the batch, and to its last part or a new one. */
static Overdue *
next_overdue(PresenceExpiry *expiry)
{
	Range	   *range = expiry->nranges > 0 ? &expiry->ranges[expiry->nranges - 1] : NULL;

	if (expiry->nbatch == expiry->maxbatch)
	{
		expiry->maxbatch *= 2;
		expiry->batch = repalloc_huge(expiry->batch, expiry->maxbatch * sizeof(Overdue));
	}
	if (range == NULL || range->to - range->from == RANGE_SIZE)
	{
		range = &expiry->ranges[expiry->nranges++];
		range->from = expiry->nbatch;
	}
	range->to = expiry->nbatch + 1;
	return &expiry->batch[expiry->nbatch++];
}

/* Add a channel to the batch. */
static void
add_overdue(PresenceExpiry *expiry, const char *name, int length,
			PresenceEntryRef ref, int64 seen, PresenceTime time)
{
	char	   *copy = MemoryContextAlloc(expiry->names, length + 1);
	Overdue    *overdue = next_overdue(expiry);

	memcpy(copy, name, length);
	copy[length] = '\0';
	overdue->name = copy;
	overdue->ref = ref;
	overdue->seen = seen;
	overdue->time = time;
	overdue->has_old_rows = false;
}

/*
 * Add a channel that is expired by its rows to the batch, of which no part has
 * been tried yet; false if it is full.  A deferred channel is skipped.  "seen"
 * is the row's value, because a conversion would give a different time on each
 * call.
 */
bool
presence_expiry_offer(PresenceExpiry *expiry, const char *channel, int length,
					  TimestampTz seen)
{
	PresenceEntryRef none = {0, 0};

	if (expiry->nranges == 0)
		empty_batch(expiry);
	if (expiry->nbatch == MAX_OFFERED * RANGE_SIZE)
		return false;
	if (!is_deferred(expiry, channel, length, none, seen))
		add_overdue(expiry, channel, length, none, seen, 0);
	return true;
}

/*
 * Fill the batch with channels that expire now, in order of deadline, except
 * those deferred.
 */
static void
take_due(PresenceExpiry *expiry, PresenceTime now)
{
	PresenceCutoff cutoff = presence_liveness_cutoff();
	PresenceEntryView view;
	PresenceTime due;
	char	   *name;

	while (expiry->nbatch < RANGE_SIZE &&
		   (name = presence_deadlines_take(expiry->deadlines, now, &cutoff, &view, &due)))
	{
		int			length = strlen(name);

		if (!is_deferred(expiry, name, length, view.ref, view.seen))
			add_overdue(expiry, name, length, view.ref, view.seen, due);
		pfree(name);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Fill the batch with deferred channels that are to be retried. */
static void
take_deferred(PresenceExpiry *expiry, PresenceTime now)
{
	while (expiry->nbatch < RANGE_SIZE && next_deferred(expiry) <= now)
	{
		Deferred   *deferred = pairingheap_container(Deferred, node,
													 pairingheap_remove_first(expiry->waiting));

		deferred->waits = false;
		add_overdue(expiry, deferred->name.data, deferred->name.length, deferred->ref,
					deferred->seen, deferred->time);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Begin the next batch; newly expired channels go before deferred ones. */
static void
fill_batch(PresenceExpiry *expiry, PresenceTime now)
{
	empty_batch(expiry);
	if (presence_shmem_ready())
		take_due(expiry, now);
	if (expiry->nbatch == 0)
		take_deferred(expiry, now);
}

/*
 * Whether a channel of the batch is still expired by its entry, if any, or
 * doubtful.
 */
static bool
is_due(Overdue *overdue, const PresenceCutoff *cutoff)
{
	PresenceEntryView view;
	char	   *name;

	if (overdue->ref.index == 0)
		return true;
	name = presence_registry_read(overdue->ref, cutoff, &view);
	if (name == NULL)
		return false;
	pfree(name);
	overdue->seen = view.seen;
	return !view.live || view.doubtful;
}

/*
 * The channels (text[]) to remove, or to verify, now; NULL if none.  *lag is set to how long
 * ago the first of them was due.  The caller has to report the outcome with
 * presence_expiry_settle() or presence_expiry_fail(), or gets them again.
 */
ArrayType *
presence_expiry_take(PresenceExpiry *expiry, PresenceTime now, PresenceTime *lag)
{
	PresenceCutoff cutoff = presence_liveness_cutoff();
	Datum	   *names;
	Range	   *range;
	int			count = 0;

	*lag = 0;
	if (expiry->nranges == 0)
		fill_batch(expiry, now);
	if (expiry->nranges == 0)
		return NULL;
	range = &expiry->ranges[expiry->nranges - 1];
	names = palloc((range->to - range->from) * sizeof(Datum));
	for (int i = range->from; i < range->to; i++)
	{
		Overdue    *overdue = &expiry->batch[i];

		if (!is_due(overdue, &cutoff))
			continue;
		if (count == 0 && overdue->time != 0)
			*lag = now - overdue->time;
		names[count++] = CStringGetTextDatum(overdue->name);
	}
	if (count == 0)
	{
		presence_expiry_settle(expiry, now, NULL);
		return NULL;
	}
	return construct_array(names, count, TEXTOID, -1, false, TYPALIGN_INT);
}

/* Order items of the batch by name. */
static int
compare_names(const void *a, const void *b)
{
	return strcmp(((const Overdue *) a)->name, ((const Overdue *) b)->name);
}

/* Mark the channels of a range that "remaining" (text[]) names. */
static void
mark_old_rows(PresenceExpiry *expiry, const Range *range, ArrayType *remaining)
{
	Datum	   *datums;
	int			count;

	qsort(&expiry->batch[range->from], range->to - range->from, sizeof(Overdue),
		  compare_names);
	deconstruct_array(remaining, TEXTOID, -1, false, TYPALIGN_INT, &datums, NULL, &count);
	for (int i = 0; i < count; i++)
	{
		Overdue		key = {0};
		Overdue    *overdue;

		key.name = TextDatumGetCString(datums[i]);
		overdue = bsearch(&key, &expiry->batch[range->from], range->to - range->from,
						  sizeof(Overdue), compare_names);
		if (overdue)
			overdue->has_old_rows = true;
	}
}

/*
 * The channels taken last have been removed, except where rows were locked.
 * Those are the channels whose entries are still expired and the ones that
 * "remaining" (text[], or NULL) names; they are deferred.
 */
void
presence_expiry_settle(PresenceExpiry *expiry, PresenceTime now, ArrayType *remaining)
{
	Range		range = expiry->ranges[expiry->nranges - 1];
	PresenceCutoff cutoff = presence_liveness_cutoff();

	if (remaining)
		mark_old_rows(expiry, &range, remaining);
	expiry->nranges--;
	for (int i = range.from; i < range.to; i++)
	{
		Overdue    *overdue = &expiry->batch[i];

		if (overdue->has_old_rows || (overdue->ref.index != 0 && is_due(overdue, &cutoff)))
			(void) defer(expiry, overdue, now, false);
		else
			settle_channel(expiry, overdue);
	}
}

/*
 * The removal of the channels taken last has failed.  If there are several,
 * halve them and return NULL.  A single one is deferred: return its name, and
 * set *pause to how long.  The pause is short if the failure is "transient".
 */
const char *
presence_expiry_fail(PresenceExpiry *expiry, PresenceTime now, bool transient,
					 PresenceTime *pause)
{
	Range	   *range = &expiry->ranges[expiry->nranges - 1];
	int			middle = (range->from + range->to) / 2;

	if (range->to - range->from > 1)
	{
		Assert(expiry->nranges < lengthof(expiry->ranges));
		range[1].from = range->from;
		range[1].to = middle;
		range->from = middle;
		expiry->nranges++;
		return NULL;
	}
	expiry->nranges--;
	*pause = defer(expiry, &expiry->batch[range->from], now, !transient);
	return expiry->batch[range->from].name;
}
