/*-------------------------------------------------------------------------
 *
 * expiry.c
 *		Knows which channels die next, and when.
 *
 * Looking at every entry of the registry costs milliseconds in a large one, so
 * it is done rarely: a scan notes the channels that die within a horizon, a
 * quarter of max_age, sorted by deadline, and the earliest deadline beyond it.
 * Until then nobody else can die: a heartbeat only puts a deadline off, and a
 * new channel has all of max_age before it.  In between only the noted
 * channels are looked at, each when it is due.
 *
 * The dead are taken in batches, whose parts are removed one at a time: those
 * in "ranges" are still to be tried.  A part whose removal failed is halved
 * until the one stands alone that cannot be removed.  What could not be removed,
 * because somebody had locked its rows or because that raised an error, is put
 * off, for longer each time, so that it is in nobody's way.
 *
 * This is the worker's own memory: no locks.
 *
 *	noted ─► batch ─► removed, or alive after all
 *	           │ ▲
 *	           ▼ │ when its pause is over
 *	       late (locked, failed)
 *
 * A channel without an entry, which only its rows call dead, is offered to the
 * batch by its name.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/guc.h"
#include "base/name.h"
#include "base/shmem.h"
#include "catalog/pg_type.h"
#include "lib/pairingheap.h"
#include "lib/pairingheap.h"
#include "lib/simplehash.h"
#include "miscadmin.h"
#include "shared/database.h"
#include "shared/liveness.h"
#include "shared/registry.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "worker/expiry.h"

/* Channels removed in one transaction. */
#define RANGE_SIZE 2000

/* Parts of a batch that was found by its rows: finding them reads the table. */
#define MAX_OFFERED 32

/* Parts that wait while one is halved again and again. */
#define MAX_HALVES 16

StaticAssertDecl(RANGE_SIZE < 1 << (MAX_HALVES - 1), "a part can be halved to the end");

/*
 * How long a channel is put off at first, which doubles each time, and at most:
 * one whose rows are locked, and one that cannot be removed; microseconds.
 */
#define LOCKED_PAUSE (50 * 1000)
#define MAX_LOCKED_PAUSE (5 * 1000 * 1000)
#define FAILED_PAUSE (INT64CONST(60) * USECS_PER_SEC)
#define MAX_FAILED_PAUSE (INT64CONST(3600) * USECS_PER_SEC)

typedef struct Deadline
{
	PresenceTime time;
	PresenceEntryRef ref;
} Deadline;

/* A dead channel that could not be removed. */
typedef struct Late
{
	pairingheap_node node;		/* of "waiting" */
	bool		waits;			/* else it is being tried */
	PresenceName name;
	PresenceEntryRef ref;		/* index 0: it has no entry */
	int64		seen;			/* its last sign of life, as in Overdue */
	PresenceTime time;			/* of the next try */
	PresenceTime pause;			/* before that */
} Late;

typedef struct LateName
{
	PresenceName name;			/* key; its data is the Late's */
	char		status;			/* for simplehash */
	Late	   *late;
} LateName;

#define SH_PREFIX latenames
#define SH_ELEMENT_TYPE LateName
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
	PresenceEntryRef ref;		/* index 0: it has no entry */
	int64		seen;			/* its last sign of life: PresenceTime of the
								 * entry, or TimestampTz of the row */
	PresenceTime time;			/* when it was due; 0: nobody knows */
	bool		left;			/* still has rows that are too old */
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
	Deadline   *noted;			/* sorted by time, from "done" on */
	Size		nnoted;
	Size		maxnoted;
	Size		done;
	PresenceTime horizon;		/* noted are those that die before */
	PresenceTime next_scan;
	PresenceTime earliest;		/* deadline beyond the horizon, while scanning */
	PresenceTime scanned;		/* time of the last scan */
	int			max_age;		/* setting at the last scan */
	uint64		channels;		/* seen by the last scan */

	pairingheap *waiting;		/* Late, by time */
	latenames_hash *late;		/* those that wait, or are being tried */

	MemoryContext names;		/* of the batch */
	Overdue	   *batch;
	int			nbatch;
	int			maxbatch;
	Range		ranges[MAX_OFFERED + MAX_HALVES];	/* the last is tried next */
	int			nranges;
};

/* Order the late by time, the earliest first. */
static int
compare_late(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	PresenceTime left = pairingheap_const_container(Late, node, a)->time;
	PresenceTime right = pairingheap_const_container(Late, node, b)->time;

	return (left < right) - (left > right);
}

/* Make a diary that begins with a scan. */
PresenceExpiry *
presence_expiry_create(MemoryContext context)
{
	MemoryContext own = AllocSetContextCreate(context, "presence expiry",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(own);
	PresenceExpiry *expiry = palloc0(sizeof(PresenceExpiry));

	expiry->context = own;
	expiry->maxnoted = 1024;
	expiry->noted = MemoryContextAllocHuge(own, expiry->maxnoted * sizeof(Deadline));
	expiry->waiting = pairingheap_allocate(compare_late, NULL);
	expiry->late = latenames_create(own, 16, NULL);
	expiry->names = AllocSetContextCreate(own, "presence expiry names",
										  ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(old);
	return expiry;
}

/* The late channel of that name, or NULL. */
static Late *
find_late(PresenceExpiry *expiry, const char *channel, int length)
{
	LateName   *entry;

	if (expiry->late->members == 0)
		return NULL;
	entry = latenames_lookup(expiry->late, presence_name_make(channel, length));
	return entry ? entry->late : NULL;
}

/* A late channel is not to be tried again. */
static void
forget_late(PresenceExpiry *expiry, Late *late)
{
	if (late->waits)
		pairingheap_remove(expiry->waiting, &late->node);
	latenames_delete(expiry->late, late->name);
	pfree(unconstify(char *, late->name.data));
	pfree(late);
}

/* The late channel of an item of the batch, which is made if there is none. */
static Late *
make_late(PresenceExpiry *expiry, const Overdue *overdue)
{
	int			length = strlen(overdue->name);
	Late	   *late = find_late(expiry, overdue->name, length);
	LateName   *entry;
	bool		found;

	if (late)
		return late;
	late = MemoryContextAllocZero(expiry->context, sizeof(Late));
	late->name = presence_name_make(MemoryContextStrdup(expiry->context, overdue->name),
									length);
	entry = latenames_insert(expiry->late, late->name, &found);
	entry->late = late;
	return late;
}

/* Put an item of the batch off; for how long. */
static PresenceTime
put_off(PresenceExpiry *expiry, const Overdue *overdue, PresenceTime now, bool failed)
{
	Late	   *late = make_late(expiry, overdue);
	PresenceTime first = failed ? FAILED_PAUSE : LOCKED_PAUSE;
	PresenceTime most = failed ? MAX_FAILED_PAUSE : MAX_LOCKED_PAUSE;

	if (late->waits)
		pairingheap_remove(expiry->waiting, &late->node);
	late->ref = overdue->ref;
	late->seen = overdue->seen;
	late->pause = Min(Max(late->pause * 2, first), most);
	late->time = now + late->pause;
	late->waits = true;
	pairingheap_add(expiry->waiting, &late->node);
	return late->pause;
}

/* An item of the batch is settled. */
static void
let_go(PresenceExpiry *expiry, const Overdue *overdue)
{
	Late	   *late = find_late(expiry, overdue->name, strlen(overdue->name));

	if (late)
		forget_late(expiry, late);
}

/*
 * Whether a dead channel is late already, rather than one that has lived again
 * since it was put off.  "ref" is its entry, if it has one.
 */
static bool
is_late(PresenceExpiry *expiry, const char *channel, int length,
		PresenceEntryRef ref, int64 seen)
{
	Late	   *late = find_late(expiry, channel, length);

	if (late == NULL)
		return false;
	if (late->ref.index == 0 && ref.index != 0)
	{
		late->ref = ref;		/* it has got one meanwhile */
		late->seen = seen;
		return true;
	}
	if (ref.index == late->ref.index && ref.generation == late->ref.generation &&
		seen <= late->seen)
		return true;
	forget_late(expiry, late);
	return false;
}

/* The same for an entry. */
static bool
entry_is_late(PresenceExpiry *expiry, PresenceEntryRef ref)
{
	PresenceTime seen;
	char	   *name;
	bool		late;

	if (expiry->late->members == 0)
		return false;
	name = presence_registry_read(ref, &seen);
	if (name == NULL)
		return false;
	late = is_late(expiry, name, strlen(name), ref, seen);
	pfree(name);
	return late;
}

/* Note an entry if it dies before the horizon. */
static void
note_entry(void *arg, PresenceEntryRef ref, PresenceTime seen)
{
	PresenceExpiry *expiry = arg;
	PresenceTime deadline = Max(seen, presence_liveness_grace_start()) +
		presence_liveness_max_age();

	expiry->channels++;
	if (deadline >= expiry->horizon)
	{
		expiry->earliest = Min(expiry->earliest, deadline);
		return;
	}
	if (deadline < expiry->scanned && entry_is_late(expiry, ref))
		return;
	if (expiry->nnoted == expiry->maxnoted)
	{
		expiry->maxnoted *= 2;
		expiry->noted = repalloc_huge(expiry->noted,
									  expiry->maxnoted * sizeof(Deadline));
	}
	expiry->noted[expiry->nnoted].time = deadline;
	expiry->noted[expiry->nnoted].ref = ref;
	expiry->nnoted++;
}

/* Order deadlines by time. */
static int
compare_deadlines(const void *a, const void *b)
{
	PresenceTime left = ((const Deadline *) a)->time;
	PresenceTime right = ((const Deadline *) b)->time;

	return (left > right) - (left < right);
}

/* Look at the whole registry. */
static void
scan_registry(PresenceExpiry *expiry, PresenceTime now)
{
	PresenceTime max_age = presence_liveness_max_age();

	expiry->max_age = presence_max_age;
	expiry->horizon = now + max_age / 4;
	expiry->earliest = now + max_age;
	expiry->scanned = now;
	expiry->nnoted = 0;
	expiry->done = 0;
	expiry->channels = 0;
	presence_registry_scan(note_entry, expiry);
	qsort(expiry->noted, expiry->nnoted, sizeof(Deadline), compare_deadlines);
	expiry->next_scan = expiry->earliest;
}

/* When the next of those that could not be removed is to be tried again. */
static PresenceTime
next_late(PresenceExpiry *expiry)
{
	if (pairingheap_is_empty(expiry->waiting))
		return PG_INT64_MAX / 2;
	return pairingheap_container(Late, node,
								 pairingheap_first(expiry->waiting))->time;
}

/* Whether part of a batch is still to be tried. */
bool
presence_expiry_is_busy(const PresenceExpiry *expiry)
{
	return expiry->nranges > 0;
}

/*
 * When the next channel may die, or a scan is due.  Where there is no registry
 * to scan, when one that could not be removed is to be tried again.
 */
PresenceTime
presence_expiry_next(PresenceExpiry *expiry)
{
	PresenceTime next = next_late(expiry);

	if (expiry->nranges > 0)
		return 0;
	if (!presence_shmem_ready())
		return next;
	if (expiry->max_age != presence_max_age)
		return 0;
	if (expiry->done < expiry->nnoted)
		next = Min(next, expiry->noted[expiry->done].time);
	return Min(next, expiry->next_scan);
}

/* How many channels the last scan saw. */
uint64
presence_expiry_channels(const PresenceExpiry *expiry)
{
	return expiry->channels;
}

/* Look at the whole registry next time. */
void
presence_expiry_rescan(PresenceExpiry *expiry)
{
	expiry->next_scan = 0;
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

/* The next item of the batch, which has room for it. */
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
	Overdue	   *overdue = next_overdue(expiry);

	memcpy(copy, name, length);
	copy[length] = '\0';
	overdue->name = copy;
	overdue->ref = ref;
	overdue->seen = seen;
	overdue->time = time;
	overdue->left = false;
}

/*
 * Add a channel that its rows call dead to the batch, which is not being tried
 * yet; false: it is full.  One that was put off is left out.  "seen" is what the
 * row says: to convert it would give another time each time.
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
	if (!is_late(expiry, channel, length, none, seen))
		add_overdue(expiry, channel, length, none, seen, 0);
	return true;
}

/* Begin a batch with those that die now, in the order of their deadlines. */
static void
take_noted(PresenceExpiry *expiry, PresenceTime now)
{
	PresenceTime cutoff = presence_liveness_cutoff(now, presence_liveness_max_age());

	while (expiry->nbatch < RANGE_SIZE && expiry->done < expiry->nnoted &&
		   expiry->noted[expiry->done].time < now)
	{
		Deadline   *deadline = &expiry->noted[expiry->done++];
		PresenceTime seen;
		char	   *name = presence_registry_read(deadline->ref, &seen);

		if (name && seen < cutoff)
			add_overdue(expiry, name, strlen(name), deadline->ref, seen, deadline->time);
		if (name)
			pfree(name);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Begin a batch with those that are to be tried again. */
static void
take_late(PresenceExpiry *expiry, PresenceTime now)
{
	while (expiry->nbatch < RANGE_SIZE && next_late(expiry) <= now)
	{
		Late	   *late = pairingheap_container(Late, node,
												 pairingheap_remove_first(expiry->waiting));

		late->waits = false;
		add_overdue(expiry, late->name.data, late->name.length, late->ref,
				   late->seen, late->time);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Begin the next batch; those that die for the first time come first. */
static void
fill_batch(PresenceExpiry *expiry, PresenceTime now)
{
	empty_batch(expiry);
	if (presence_shmem_ready() &&
		(expiry->max_age != presence_max_age || expiry->next_scan <= now))
		scan_registry(expiry, now);
	take_noted(expiry, now);
	if (expiry->nbatch == 0)
		take_late(expiry, now);
}

/* Whether an item of the batch is dead, as far as the registry knows. */
static bool
is_expired(Overdue *overdue, PresenceTime cutoff)
{
	char	   *name;

	if (overdue->ref.index == 0)
		return true;
	name = presence_registry_read(overdue->ref, &overdue->seen);
	if (name == NULL)
		return false;
	pfree(name);
	return overdue->seen < cutoff;
}

/*
 * The channels (text[]) that are to be removed now; NULL: none.  "lag" gets by
 * how much the first of them is late.  Somebody has to say what became of them:
 * presence_expiry_settle() or presence_expiry_fail().
 */
ArrayType *
presence_expiry_take(PresenceExpiry *expiry, PresenceTime now, PresenceTime *lag)
{
	PresenceTime cutoff = presence_liveness_cutoff(now, presence_liveness_max_age());
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
		Overdue	   *overdue = &expiry->batch[i];

		if (!is_expired(overdue, cutoff))
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

/* Mark the items of a range whose names are in an array (text[]). */
static void
mark_left(PresenceExpiry *expiry, const Range *range, ArrayType *left)
{
	Datum	   *datums;
	int			count;

	qsort(&expiry->batch[range->from], range->to - range->from, sizeof(Overdue),
		  compare_names);
	deconstruct_array(left, TEXTOID, -1, false, TYPALIGN_INT, &datums, NULL, &count);
	for (int i = 0; i < count; i++)
	{
		Overdue		key = {0};
		Overdue	   *overdue;

		key.name = TextDatumGetCString(datums[i]);
		overdue = bsearch(&key, &expiry->batch[range->from], range->to - range->from,
						 sizeof(Overdue), compare_names);
		if (overdue)
			overdue->left = true;
	}
}

/*
 * Those taken last have been removed, but for the ones whose rows somebody had
 * locked: those that are dead still, and, of those without entries, the ones
 * that "left" (text[]) names.
 */
void
presence_expiry_settle(PresenceExpiry *expiry, PresenceTime now, ArrayType *left)
{
	Range		range = expiry->ranges[expiry->nranges - 1];
	PresenceTime cutoff = presence_liveness_cutoff(presence_clock_now(),
												   presence_liveness_max_age());

	if (left)
		mark_left(expiry, &range, left);
	expiry->nranges--;
	for (int i = range.from; i < range.to; i++)
	{
		Overdue	   *overdue = &expiry->batch[i];

		if (overdue->left || (overdue->ref.index != 0 && is_expired(overdue, cutoff)))
			(void) put_off(expiry, overdue, now, false);
		else
			let_go(expiry, overdue);
	}
}

/*
 * The removal of those taken last has failed.  More than one of them are
 * halved.  One alone is put off, and its name is returned and for how long; for
 * a short time where it may do "again" at once.
 */
const char *
presence_expiry_fail(PresenceExpiry *expiry, PresenceTime now, bool again,
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
	*pause = put_off(expiry, &expiry->batch[range->from], now, !again);
	return expiry->batch[range->from].name;
}
