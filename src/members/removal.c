/*-------------------------------------------------------------------------
 *
 * removal.c
 *		Removes presences, keeping table and registry consistent.
 *
 * The removal of expired channels first marks their registry entries as
 * expiring (registry.c), so that later heartbeats are answered with false.
 * Then it locks the rows, checks the marks again, since an add may have
 * revived a channel, which the registry shows before the new rows become
 * visible, and deletes the rows that are still marked.  The end of the
 * transaction frees the entries, or restores them on rollback.
 *
 * An add of an expired channel waits for such a removal, or removes the old
 * rows itself, before it writes, so old presences never become live again.  It
 * finds out in one look at the registry whether the channel has expired and
 * whether another add is reviving it, and pins the channel if neither: with
 * two looks, a channel whose revival is rolled back in between would be taken
 * for alive.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/name.h"
#include "base/shmem.h"
#include "catalog/pg_type.h"
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

/* Delete locked rows, for a reason; how many. */
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

/* Make a text[] of one channel. */
static ArrayType *
array_of_one(text *channel)
{
	Datum		datum = PointerGetDatum(channel);

	return construct_array(&datum, 1, TEXTOID, -1, false, TYPALIGN_INT);
}

/* Those of the rows whose channels have expired. */
static List *
expired_rows(List *rows, const PresenceCutoff *cutoff)
{
	List	   *expired = NIL;
	ListCell   *lc;

	foreach(lc, rows)
	{
		PresenceLocked *row = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (!presence_liveness_is_live(row->channel, row->length,
									   row->last_seen, cutoff))
			expired = lappend(expired, row);
	}
	return expired;
}

/* What the registry has for a channel; ABSENT without shared memory. */
static PresenceEntryView
look_at(const PresenceName *name, const PresenceCutoff *cutoff)
{
	PresenceEntryView nothing = {PRESENCE_ENTRY_ABSENT};

	return presence_shmem_ready() ? presence_registry_look(name, cutoff) : nothing;
}

/*
 * Whether the registry knows all channels, so that one which it does not know
 * has no old rows.
 */
static bool
knows_all(void)
{
	return presence_registry_is_complete(presence_my_database());
}

/*
 * Whether a channel that the registry does not know has old rows, which are to
 * be removed before it is added to a room.
 */
static bool
has_old_rows(text *channel, const PresenceCutoff *cutoff)
{
	PresenceName name = presence_name_of_text(channel);

	return look_at(&name, cutoff).status == PRESENCE_ENTRY_ABSENT &&
		presence_store_has_older(PointerGetDatum(channel),
								 presence_liveness_row_cutoff(cutoff));
}

/* Remove the rows of a channel that has expired, waiting for a concurrent removal. */
static void
expire_channel(text *channel, const PresenceCutoff *cutoff)
{
	PresenceName name = presence_name_of_text(channel);
	PresenceEntryView view = look_at(&name, cutoff);
	List	   *rows = presence_store_lock_channels(PointerGetDatum(array_of_one(channel)),
													false);

	(void) presence_removal_delete(expired_rows(rows, cutoff),
								   view.status == PRESENCE_ENTRY_EXPIRED ?
								   view.reason : PRESENCE_REASON_EXPIRED);
}

/*
 * A channel is about to be added to a room: pin it.  If it has expired, or
 * another transaction is reviving it, so that its old rows may still be
 * visible, remove these first.  Returns its status before, NO_SPACE without a
 * pin.
 */
PresenceEntryStatus
presence_removal_enter(text *channel, PresencePin *pin)
{
	PresenceCutoff cutoff = presence_liveness_checked_cutoff(PRESENCE_OWN_AGE);
	bool		rowless = knows_all() || !has_old_rows(channel, &cutoff);
	PresenceEntryStatus status = presence_pins_enter(pin, &cutoff, rowless);

	if (status != PRESENCE_ENTRY_EXPIRED)
		return status;
	expire_channel(channel, &cutoff);
	cutoff = presence_liveness_cutoff();
	return presence_pins_begin(pin, &cutoff, false);
}

/* A channel marked as expiring, or a doubtful one. */
typedef struct Marked
{
	PresenceName name;			/* key */
	char		status;			/* for simplehash */
	PresenceExpireMark mark;
	int			expiry;			/* its number in xact.c */
	uint32		changes;		/* of a doubtful channel's entry */
	bool		counted;		/* the count of its rows frees its entry */
	bool		has_rows;		/* at least one was locked */
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

/* Mark those of the channels as expiring that have expired in the registry. */
static marked_hash *
mark_channels(Datum *channels, int nchannels, const PresenceCutoff *cutoff)
{
	marked_hash *table = marked_create(CurrentMemoryContext,
									   Max(nchannels, 1), NULL);

	for (int i = 0; i < nchannels && presence_shmem_ready(); i++)
	{
		text	   *channel = DatumGetTextPP(channels[i]);
		PresenceName name = presence_name_of_text(channel);
		PresenceExpireMark mark;
		Marked	   *entry;
		bool		counted;
		bool		found;
		int			expiry;

		CHECK_FOR_INTERRUPTS();
		/* Nothing may fail between mark and note: the mark must be cleared. */
		presence_xact_reserve_expiry();
		if (!presence_registry_mark_expiring(&name, presence_pins_expire(&name),
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

/* Those of the locked rows that are still to be removed, by reason. */
static void
sort_marked_rows(List *rows, marked_hash *table, const PresenceCutoff *cutoff,
				 List **removable)
{
	ListCell   *lc;

	foreach(lc, rows)
	{
		PresenceLocked *row = lfirst(lc);
		PresenceName name = presence_name_make(row->channel, row->length);
		Marked	   *entry = marked_lookup(table, name);

		CHECK_FOR_INTERRUPTS();
		if (entry)
			entry->has_rows = true;
		if (entry ? presence_registry_is_marked(&entry->mark) :
			look_at(&name, cutoff).status == PRESENCE_ENTRY_ABSENT &&
			!presence_liveness_is_live(row->channel, row->length,
									   row->last_seen, cutoff))
		{
			List	  **reason = &removable[entry ? entry->mark.reason : PRESENCE_REASON_EXPIRED];

			*reason = lappend(*reason, row);
		}
	}
}

/* Whether there are marked entries that no count of rows will free. */
static bool
has_uncounted(marked_hash *table)
{
	marked_iterator iterator;
	Marked	   *entry;
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
 * Have marked entries freed at commit that no count of rows will free, if
 * their channels have no rows left.
 */
static void
free_rowless_entries(marked_hash *table, ArrayType *channels)
{
	ArrayType  *left = presence_store_remaining(PointerGetDatum(channels));
	marked_iterator iterator;
	Marked	   *entry;
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
 * Remove the presences of those of the channels (text[]) that were last seen
 * longer ago than an age in microseconds, or with PRESENCE_OWN_AGE have
 * expired; how many.  Locked rows are skipped, and left for the next call.
 */
uint64
presence_removal_expire(ArrayType *channels, int64 age)
{
	PresenceCutoff cutoff = presence_liveness_checked_cutoff(age);
	List	   *removable[PRESENCE_NREASONS] = {NIL};
	Datum	   *datums;
	int			count;
	marked_hash *table;
	List	   *rows;
	uint64		removed = 0;

	if (channels == NULL)
		return 0;
	deconstruct_array(channels, TEXTOID, -1, false, TYPALIGN_INT,
					  &datums, NULL, &count);
	table = mark_channels(datums, count, &cutoff);
	rows = presence_store_lock_channels(PointerGetDatum(channels), true);
	sort_marked_rows(rows, table, &cutoff, removable);
	for (PresenceReason reason = 0; reason < PRESENCE_NREASONS; reason++)
		removed += presence_removal_delete(removable[reason], reason);
	if (has_uncounted(table))
		free_rowless_entries(table, channels);
	return removed;
}

/* Those of the channels that are held, but maybe have no rows. */
static marked_hash *
find_doubtful(Datum *channels, int nchannels, ArrayBuildState **names)
{
	PresenceCutoff cutoff = presence_liveness_cutoff();
	marked_hash *table = marked_create(CurrentMemoryContext, 16, NULL);

	for (int i = 0; i < nchannels && presence_shmem_ready(); i++)
	{
		PresenceName name = presence_name_of_text(DatumGetTextPP(channels[i]));
		PresenceEntryView view = presence_registry_look(&name, &cutoff);
		Marked	   *entry;
		bool		found;

		CHECK_FOR_INTERRUPTS();
		if (!view.doubtful)
			continue;
		entry = marked_insert(table, name, &found);
		entry->changes = view.changes;
		entry->has_rows = false;
		*names = accumArrayResult(*names, channels[i], false, TEXTOID, CurrentMemoryContext);
	}
	return table;
}

/*
 * The worker looks for the rows of those of the channels (text[]) that are held,
 * but maybe have none: these have no deadline at which their entries would go.
 */
void
presence_removal_verify(ArrayType *channels)
{
	ArrayBuildState *names = NULL;
	ArrayType  *left;
	marked_hash *table;
	marked_iterator iterator;
	Marked	   *entry;
	Datum	   *datums;
	int			count;

	deconstruct_array(channels, TEXTOID, -1, false, TYPALIGN_INT, &datums, NULL, &count);
	table = find_doubtful(datums, count, &names);
	if (names == NULL)
		return;
	left = presence_store_remaining(makeArrayResult(names, CurrentMemoryContext));
	count = 0;
	if (left)
		deconstruct_array(left, TEXTOID, -1, false, TYPALIGN_INT, &datums, NULL, &count);
	for (int i = 0; i < count; i++)
	{
		entry = marked_lookup(table, presence_name_of_text(DatumGetTextPP(datums[i])));
		if (entry)
			entry->has_rows = true;
	}
	marked_start_iterate(table, &iterator);
	while ((entry = marked_iterate(table, &iterator)))
	{
		CHECK_FOR_INTERRUPTS();
		if (entry->has_rows)
			(void) presence_registry_confirm(&entry->name, entry->changes);
		else
			presence_registry_forget(&entry->name, entry->changes);
	}
}

/*
 * Set a last_seen far in the future to now.  It may come from plain SQL, or
 * from a clock that was set back, and would keep the row from expiring.
 */
void
presence_removal_pull_back(void)
{
	TimestampTz wall = presence_clock_wall();

	if (!presence_registry_is_complete(presence_my_database()))
		presence_store_pull_back(wall, wall + presence_liveness_max_age());
}

/*
 * Remove all presences last seen longer ago than an age in microseconds; how
 * many.
 */
uint64
presence_removal_prune(int64 age)
{
	presence_removal_pull_back();
	return presence_removal_expire(presence_store_older(age), age);
}
