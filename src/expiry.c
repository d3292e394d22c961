/*-------------------------------------------------------------------------
 *
 * expiry.c
 *		Knows which channels of the registry die next, and when.
 *
 * Looking at every entry costs milliseconds in a large registry, so it is done
 * rarely: a scan notes the channels that die within a horizon, a quarter of
 * max_age, sorted by deadline, and the earliest deadline beyond it.  Until
 * then nobody else can die: a heartbeat only puts a deadline off, and a new
 * channel has all of max_age before it.  In between only the noted channels
 * are looked at, each when it is due.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "database.h"
#include "expiry.h"
#include "guc.h"
#include "liveness.h"
#include "registry.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

typedef struct Deadline
{
	PresenceTime time;
	PresenceEntryRef ref;
} Deadline;

struct PresenceExpiry
{
	MemoryContext context;		/* of "noted" */
	Deadline   *noted;			/* sorted by time, from "done" on */
	Size		nnoted;
	Size		maxnoted;
	Size		done;
	Size		taken;			/* the last that were taken begin here */
	PresenceTime horizon;		/* noted are those that die before */
	PresenceTime next_scan;
	PresenceTime earliest;		/* deadline beyond the horizon, while scanning */
	int			max_age;		/* setting at the last scan */
	uint64		channels;		/* seen by the last scan */
};

/* Make a diary that begins with a scan. */
PresenceExpiry *
presence_expiry_create(MemoryContext context)
{
	PresenceExpiry *expiry = MemoryContextAllocZero(context, sizeof(PresenceExpiry));

	expiry->context = context;
	expiry->maxnoted = 1024;
	expiry->noted = MemoryContextAllocHuge(context, expiry->maxnoted * sizeof(Deadline));
	return expiry;
}

/* Note an entry if it dies before the horizon. */
static void
note_entry(void *arg, PresenceEntryRef ref, PresenceTime seen)
{
	PresenceExpiry *expiry = arg;
	PresenceTime deadline = Max(seen, presence_database_floor()) +
		presence_liveness_max_age();

	expiry->channels++;
	if (deadline >= expiry->horizon)
	{
		expiry->earliest = Min(expiry->earliest, deadline);
		return;
	}
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
	expiry->nnoted = 0;
	expiry->done = 0;
	expiry->taken = 0;
	expiry->channels = 0;
	presence_registry_scan(note_entry, expiry);
	qsort(expiry->noted, expiry->nnoted, sizeof(Deadline), compare_deadlines);
	expiry->next_scan = expiry->earliest;
}

/* When the next channel may die, or a scan is due. */
PresenceTime
presence_expiry_next(PresenceExpiry *expiry)
{
	if (expiry->max_age != presence_max_age)
		return 0;
	if (expiry->done < expiry->nnoted)
		return Min(expiry->noted[expiry->done].time, expiry->next_scan);
	return expiry->next_scan;
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

/*
 * The channels (text[]) that are due, at most so many; NULL: none.  "lag" gets
 * by how much the first of them is late.
 */
ArrayType *
presence_expiry_take(PresenceExpiry *expiry, PresenceTime now, int limit,
					 PresenceTime *lag)
{
	PresenceTime cutoff = presence_liveness_cutoff(now, presence_liveness_max_age());
	Datum	   *names = palloc(limit * sizeof(Datum));
	int			count = 0;

	if (expiry->max_age != presence_max_age || expiry->next_scan <= now)
		scan_registry(expiry, now);
	*lag = 0;
	expiry->taken = expiry->done;
	while (count < limit && expiry->done < expiry->nnoted &&
		   expiry->noted[expiry->done].time < now)
	{
		Deadline   *deadline = &expiry->noted[expiry->done++];
		PresenceTime seen;
		char	   *name = presence_registry_read(deadline->ref, &seen);

		if (name == NULL || seen >= cutoff)
			continue;
		if (count == 0)
			*lag = now - deadline->time;
		names[count++] = CStringGetTextDatum(name);
	}
	if (count == 0)
		return NULL;
	return construct_array(names, count, TEXTOID, -1, false, TYPALIGN_INT);
}

/*
 * Those taken last have been removed, or are to be taken again at that time:
 * somebody had locked their rows.  A diary made anew meanwhile has them all.
 */
void
presence_expiry_settle(PresenceExpiry *expiry, PresenceTime when)
{
	Size		end = expiry->done;
	PresenceTime cutoff = presence_liveness_cutoff(presence_clock_now(),
												   presence_liveness_max_age());

	for (Size i = end; i > expiry->taken; i--)
	{
		PresenceEntryRef ref = expiry->noted[i - 1].ref;
		PresenceTime seen;

		if (presence_registry_read(ref, &seen) == NULL || seen >= cutoff)
			continue;
		expiry->done--;
		expiry->noted[expiry->done].ref = ref;
		expiry->noted[expiry->done].time = when;
	}
}
