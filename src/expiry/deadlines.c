/*-------------------------------------------------------------------------
 *
 * deadlines.c
 *		Determines which entries of the registry expire next, and when.
 *
 * Scanning a large registry takes milliseconds, so it is done rarely.  A scan
 * notes the channels that expire within a horizon, a quarter of max_age,
 * sorted by deadline, and the earliest deadline beyond it, which is when the
 * next scan is due.  Between scans only the noted channels are looked at, each
 * when it is due.
 *
 * A new channel does not expire for max_age, and most signs of life postpone a
 * deadline.  What brings one closer, a shorter time to live, a goodbye or the
 * end of a hold, is noted in the database's record (database.c), from which it
 * is read here before each look.  Such channels, and those that were due and
 * live on for less than until the next scan, are in "moved", one note each.
 *
 * All state is local to the worker, so no locks are needed but those of the
 * modules it calls.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/guc.h"
#include "common/hashfn.h"
#include "expiry/deadlines.h"
#include "lib/pairingheap.h"
#include "lib/simplehash.h"
#include "miscadmin.h"
#include "shared/liveness.h"
#include "utils/memutils.h"

typedef struct Deadline
{
	PresenceTime time;
	PresenceEntryRef ref;
} Deadline;

/* A channel that expires earlier than the last scan knew. */
typedef struct Moved
{
	pairingheap_node node;
	Deadline	deadline;
} Moved;

typedef struct MovedEntry
{
	uint32		index;			/* key: of the entry */
	char		status;			/* for simplehash */
	Moved	   *moved;
} MovedEntry;

#define SH_PREFIX moved_entries
#define SH_ELEMENT_TYPE MovedEntry
#define SH_KEY_TYPE uint32
#define SH_KEY index
#define SH_HASH_KEY(tb, key) murmurhash32(key)
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

struct PresenceDeadlines
{
	MemoryContext context;
	Deadline   *noted;			/* sorted by time, from "done" on */
	Size		nnoted;
	Size		maxnoted;
	Size		done;
	PresenceTime horizon;		/* channels that expire before it are noted */
	PresenceTime next_scan;
	PresenceTime earliest;		/* deadline beyond the horizon, while scanning */
	int			max_age;		/* setting at the last scan */
	uint64		channels;		/* seen by the last scan */

	pairingheap *order;			/* of Moved, by time */
	moved_entries_hash *moved;	/* the same, by entry */
};

/* Order moved deadlines by time, the earliest first. */
static int
compare_moved(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	PresenceTime left = pairingheap_const_container(Moved, node, a)->deadline.time;
	PresenceTime right = pairingheap_const_container(Moved, node, b)->deadline.time;

	return (left < right) - (left > right);
}

/* Create the state; the first call of presence_deadlines_take() scans. */
PresenceDeadlines *
presence_deadlines_create(MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	PresenceDeadlines *deadlines = palloc0(sizeof(PresenceDeadlines));

	deadlines->context = context;
	deadlines->maxnoted = 1024;
	deadlines->noted = MemoryContextAllocHuge(context, deadlines->maxnoted * sizeof(Deadline));
	deadlines->order = pairingheap_allocate(compare_moved, NULL);
	deadlines->moved = moved_entries_create(context, 16, NULL);
	MemoryContextSwitchTo(old);
	return deadlines;
}

/* Note an entry if it expires before the horizon. */
static void
note_entry(void *arg, PresenceEntryRef ref, PresenceTime deadline)
{
	PresenceDeadlines *deadlines = arg;

	deadlines->channels++;
	if (deadline >= deadlines->horizon)
	{
		deadlines->earliest = Min(deadlines->earliest, deadline);
		return;
	}
	if (deadlines->nnoted == deadlines->maxnoted)
	{
		deadlines->maxnoted *= 2;
		deadlines->noted = repalloc_huge(deadlines->noted,
										 deadlines->maxnoted * sizeof(Deadline));
	}
	deadlines->noted[deadlines->nnoted].time = deadline;
	deadlines->noted[deadlines->nnoted].ref = ref;
	deadlines->nnoted++;
}

/* Order deadlines by time. */
static int
compare_deadlines(const void *a, const void *b)
{
	PresenceTime left = ((const Deadline *) a)->time;
	PresenceTime right = ((const Deadline *) b)->time;

	return (left > right) - (left < right);
}

/* Remove a moved deadline. */
static void
forget_moved(PresenceDeadlines *deadlines, Moved *moved)
{
	pairingheap_remove(deadlines->order, &moved->node);
	(void) moved_entries_delete(deadlines->moved, moved->deadline.ref.index);
	pfree(moved);
}

/* Scan the whole registry, the entries that were moved among it. */
static void
scan_registry(PresenceDeadlines *deadlines, const PresenceCutoff *cutoff)
{
	deadlines->max_age = presence_max_age;
	deadlines->horizon = cutoff->now + cutoff->age / 4;
	deadlines->earliest = cutoff->now + cutoff->age;
	deadlines->nnoted = 0;
	deadlines->done = 0;
	deadlines->channels = 0;
	while (!pairingheap_is_empty(deadlines->order))
		forget_moved(deadlines, pairingheap_container(Moved, node,
													  pairingheap_first(deadlines->order)));
	presence_registry_scan(cutoff, note_entry, deadlines);
	qsort(deadlines->noted, deadlines->nnoted, sizeof(Deadline), compare_deadlines);
	deadlines->next_scan = deadlines->earliest;
}

/* Request a scan. */
void
presence_deadlines_rescan(PresenceDeadlines *deadlines)
{
	deadlines->next_scan = 0;
}

/* Number of channels that the last scan saw. */
uint64
presence_deadlines_channels(const PresenceDeadlines *deadlines)
{
	return deadlines->channels;
}

/* Note that an entry is due at a time, if no scan comes before. */
static void
note_moved(PresenceDeadlines *deadlines, PresenceEntryRef ref, PresenceTime time)
{
	MovedEntry *entry;
	Moved	   *moved;
	bool		found;

	entry = moved_entries_lookup(deadlines->moved, ref.index);
	if (entry)
		forget_moved(deadlines, entry->moved);
	if (time >= deadlines->next_scan)
		return;
	moved = MemoryContextAlloc(deadlines->context, sizeof(Moved));
	moved->deadline.time = time;
	moved->deadline.ref = ref;
	entry = moved_entries_insert(deadlines->moved, ref.index, &found);
	entry->moved = moved;
	pairingheap_add(deadlines->order, &moved->node);
}

/* Look at the entries that expire earlier than was known. */
void
presence_deadlines_follow(PresenceDeadlines *deadlines, PresenceDatabase *database)
{
	PresenceEntryRef refs[PRESENCE_MAX_MOVED];
	PresenceCutoff cutoff;
	bool		all;
	int			count;

	if (database == NULL)
		return;
	count = presence_database_take_moved(database, refs, &all);
	if (all)
		presence_deadlines_rescan(deadlines);
	cutoff = presence_liveness_cutoff();
	for (int i = 0; i < count && !all; i++)
	{
		PresenceEntryView view;
		char	   *name = presence_registry_read(refs[i], &cutoff, &view);

		if (name == NULL)
			continue;
		note_moved(deadlines, refs[i], view.due);
		pfree(name);
	}
}

/* The earliest deadline that is known, or NULL. */
static const Deadline *
first_deadline(PresenceDeadlines *deadlines)
{
	const Deadline *noted = deadlines->done < deadlines->nnoted ?
		&deadlines->noted[deadlines->done] : NULL;
	const Deadline *moved;

	if (pairingheap_is_empty(deadlines->order))
		return noted;
	moved = &pairingheap_container(Moved, node, pairingheap_first(deadlines->order))->deadline;
	return noted && noted->time <= moved->time ? noted : moved;
}

/* Whether a scan is due. */
static bool
scan_is_due(const PresenceDeadlines *deadlines, PresenceTime now)
{
	return deadlines->max_age != presence_max_age || deadlines->next_scan <= now;
}

/* When the next entry expires, or a scan is due. */
PresenceTime
presence_deadlines_next(PresenceDeadlines *deadlines)
{
	const Deadline *first = first_deadline(deadlines);

	if (deadlines->max_age != presence_max_age)
		return 0;
	return first ? Min(first->time, deadlines->next_scan) : deadlines->next_scan;
}

/* Take the earliest deadline if it has come; false if it has not. */
static bool
take_first(PresenceDeadlines *deadlines, PresenceTime now, Deadline *taken)
{
	const Deadline *first = first_deadline(deadlines);

	if (first == NULL || first->time >= now)
		return false;
	*taken = *first;
	if (deadlines->done < deadlines->nnoted && first == &deadlines->noted[deadlines->done])
		deadlines->done++;
	else
		forget_moved(deadlines, moved_entries_lookup(deadlines->moved, first->ref.index)->moved);
	return true;
}

/*
 * The name of the next channel that has expired, or that is held but maybe has
 * no rows, palloc'd, with what its entry says and when it was due; NULL if there
 * is no other.  Scans if that is due.
 */
char *
presence_deadlines_take(PresenceDeadlines *deadlines, PresenceTime now,
						const PresenceCutoff *cutoff, PresenceEntryView *view,
						PresenceTime *due)
{
	Deadline	deadline;

	if (scan_is_due(deadlines, now))
		scan_registry(deadlines, cutoff);
	while (take_first(deadlines, now, &deadline))
	{
		char	   *name = presence_registry_read(deadline.ref, cutoff, view);

		CHECK_FOR_INTERRUPTS();
		*due = deadline.time;
		if (name && (!view->live || view->doubtful))
			return name;
		if (name)
		{
			note_moved(deadlines, deadline.ref, view->due);
			pfree(name);
		}
	}
	return NULL;
}
