/*-------------------------------------------------------------------------
 *
 * removal.c
 *		Removes presences, keeping table and registry in step.
 *
 * Whoever removes the silent first marks their registry entries (registry.c),
 * so that a heartbeat that comes later is answered with false.  Then it locks the
 * rows, looks once more (an add may have revived a channel since, which it shows
 * in the registry before its rows can be seen) and deletes what is still
 * marked.  The end of the transaction frees the entries, or makes them what
 * they were.
 *
 * An add that finds its channel dead waits for such a removal, or removes the
 * old rows itself, before it enters: nothing old comes back to life.  One look at
 * the registry says whether the channel is dead and whether another add is
 * reviving it; with two, a revival that is rolled back in between would pass for
 * a living channel.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/name.h"
#include "base/shmem.h"
#include "catalog/pg_type.h"
#include "lib/simplehash.h"
#include "members/intent.h"
#include "members/pins.h"
#include "members/removal.h"
#include "members/xact.h"
#include "miscadmin.h"
#include "shared/database.h"
#include "shared/liveness.h"
#include "shared/registry.h"
#include "tables/store_channels.h"
#include "tables/store_presences.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* Remove presences that are locked, for a reason; how many went. */
uint64
presence_removal_delete(List *rows, PresenceReason reason)
{
	uint64		count;

	if (rows == NIL)
		return 0;
	presence_intent_push_reason(reason);
	count = presence_store_delete(rows);
	presence_intent_pop();
	return count;
}

/* A text[] of one channel. */
static ArrayType *
array_of_one(text *channel)
{
	Datum		datum = PointerGetDatum(channel);

	return construct_array(&datum, 1, TEXTOID, -1, false, TYPALIGN_INT);
}

/* Those of the rows whose channels are dead. */
static List *
dead_rows(List *rows, PresenceTime cutoff)
{
	List	   *dead = NIL;
	ListCell   *lc;

	foreach(lc, rows)
	{
		PresenceRow *row = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (!presence_liveness_is_live(row->channel, strlen(row->channel),
									   row->last_seen, cutoff))
			dead = lappend(dead, row);
	}
	return dead;
}

/* What the registry knows of a channel; nothing without shared memory. */
static PresenceEntryView
look_at(const PresenceName *name, PresenceTime cutoff)
{
	PresenceEntryView nothing = {PRESENCE_ENTRY_ABSENT};

	return presence_shmem_ready() ? presence_registry_look(name, cutoff) : nothing;
}

/*
 * Whether a channel may have rows that are to go before it enters a room: it has
 * died, or another transaction is bringing it back to life, so that its old rows
 * can still be seen.
 */
static bool
may_have_old_rows(text *channel, PresenceTime cutoff)
{
	PresenceName name = presence_name_of_text(channel);
	PresenceEntryView view = look_at(&name, cutoff);

	if (view.status == PRESENCE_ENTRY_EXPIRED ||
		(view.revived && !presence_pins_has(&name)))
		return true;
	return view.status == PRESENCE_ENTRY_ABSENT &&
		!presence_registry_is_complete(presence_my_database()) &&
		presence_store_has_older(PointerGetDatum(channel),
								 presence_liveness_row_cutoff(cutoff));
}

/*
 * A channel is about to enter a room: if it has died before, its old rows go
 * first, waiting for whoever is removing them already.
 */
void
presence_removal_expire_previous(text *channel)
{
	PresenceTime cutoff = presence_liveness_checked_cutoff(presence_liveness_max_age());
	List	   *rows;

	if (!may_have_old_rows(channel, cutoff))
		return;
	rows = presence_store_lock_channels(PointerGetDatum(array_of_one(channel)),
										false);
	(void) presence_removal_delete(dead_rows(rows, cutoff),
								   PRESENCE_REASON_EXPIRED);
}

/* A channel that is to be removed because it is silent. */
typedef struct Marked
{
	PresenceName name;			/* key */
	char		status;			/* for simplehash */
	PresenceExpireMark mark;
	int			expiry;			/* as xact.c numbers it */
	bool		counted;		/* the end of its rows frees its entry */
	bool		has_rows;		/* at least one was found */
} Marked;

#define SH_PREFIX marked
#define SH_ELEMENT_TYPE Marked
#define SH_KEY_TYPE PresenceName
#define SH_KEY name
#define SH_HASH_KEY(tb, key) (key).hash
#define SH_EQUAL(tb, a, b) presence_name_equal(&(a), &(b))
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* Condemn those of the channels that the registry knows to be silent. */
static marked_hash *
mark_channels(Datum *channels, int nchannels, PresenceTime cutoff)
{
	marked_hash *table = marked_create(CurrentMemoryContext,
											 Max(nchannels, 1), NULL);

	for (int i = 0; i < nchannels && presence_shmem_ready(); i++)
	{
		text	   *channel = DatumGetTextPP(channels[i]);
		PresenceName name = presence_name_of_text(channel);
		PresenceExpireMark mark;
		Marked  *entry;
		bool		counted;
		bool		found;
		int			expiry;

		CHECK_FOR_INTERRUPTS();
		/* Nothing may fail between the two: the entry must be released. */
		presence_xact_reserve_expiry();
		if (!presence_registry_mark_expiring(&name, presence_pins_has(&name),
									   cutoff, &mark, &counted))
			continue;
		expiry = presence_xact_add_expiry(&mark);
		entry = marked_insert(table, name, &found);
		entry->mark = mark;
		entry->expiry = expiry;
		entry->counted = counted;
		entry->has_rows = false;
	}
	return table;
}

/* Those of the locked rows that may really go. */
static List *
marked_rows(List *rows, marked_hash *table, PresenceTime cutoff)
{
	List	   *overdue = NIL;
	ListCell   *lc;

	foreach(lc, rows)
	{
		PresenceRow *row = lfirst(lc);
		PresenceName name = presence_name_make(row->channel,
											   strlen(row->channel));
		Marked  *entry = marked_lookup(table, name);

		CHECK_FOR_INTERRUPTS();
		if (entry)
			entry->has_rows = true;
		if (entry ? presence_registry_is_marked(&entry->mark) :
			look_at(&name, cutoff).status == PRESENCE_ENTRY_ABSENT &&
			!presence_liveness_is_live(row->channel, strlen(row->channel),
									   row->last_seen, cutoff))
			overdue = lappend(overdue, row);
	}
	return overdue;
}

/* Whether there are entries that no count of rows will free. */
static bool
has_uncounted(marked_hash *table)
{
	marked_iterator iterator;
	Marked  *entry;
	bool		found = false;

	marked_start_iterate(table, &iterator);
	while ((entry = marked_iterate(table, &iterator)))
	{
		CHECK_FOR_INTERRUPTS();
		entry->counted &= entry->has_rows;
		found |= !entry->counted;
	}
	return found;
}

/*
 * Have the entries freed at commit whose channels have no rows left, where no
 * count of their rows will do so.
 */
static void
free_rowless_entries(marked_hash *table, ArrayType *channels)
{
	ArrayType  *left = presence_store_remaining(PointerGetDatum(channels));
	marked_iterator iterator;
	Marked  *entry;
	Datum	   *datums;
	int			count = 0;

	if (left)
		deconstruct_array(left, TEXTOID, -1, false, TYPALIGN_INT,
						  &datums, NULL, &count);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		entry = marked_lookup(table, presence_name_of_text(DatumGetTextPP(datums[i])));
		if (entry)
			entry->counted = true;
	}
	marked_start_iterate(table, &iterator);
	while ((entry = marked_iterate(table, &iterator)))
	{
		CHECK_FOR_INTERRUPTS();
		if (!entry->counted)
			presence_xact_set_rowless(entry->expiry);
	}
}

/*
 * Remove the presences of those of the channels (text[]) that were silent for
 * longer than an age in microseconds; how many went.  Rows that somebody else
 * has locked are left for the next time.
 */
uint64
presence_removal_expire(ArrayType *channels, int64 age)
{
	PresenceTime cutoff;
	Datum	   *datums;
	int			count;
	marked_hash *table;
	List	   *rows;
	uint64		removed;

	cutoff = presence_liveness_checked_cutoff(age);
	if (channels == NULL || cutoff == 0)
		return 0;
	deconstruct_array(channels, TEXTOID, -1, false, TYPALIGN_INT,
					  &datums, NULL, &count);
	table = mark_channels(datums, count, cutoff);
	rows = presence_store_lock_channels(PointerGetDatum(channels), true);
	removed = presence_removal_delete(marked_rows(rows, table, cutoff),
									  PRESENCE_REASON_EXPIRED);
	if (has_uncounted(table))
		free_rowless_entries(table, channels);
	return removed;
}

/*
 * A last_seen that plain SQL, or a clock that was set back, has put far into
 * the future would keep a row alive until then: it counts as now.
 */
void
presence_removal_pull_back(void)
{
	TimestampTz wall = presence_clock_wall();

	if (!presence_registry_is_complete(presence_my_database()))
		presence_store_pull_back(wall, wall + presence_liveness_max_age());
}

/*
 * Remove all presences that were silent for longer than an age in microseconds;
 * how many went.
 */
uint64
presence_removal_prune(int64 age)
{
	presence_removal_pull_back();
	return presence_removal_expire(presence_store_older(age), age);
}
