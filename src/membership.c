/*-------------------------------------------------------------------------
 *
 * membership.c
 *		Lets channels enter rooms, stay and leave, keeping table and registry
 *		in step.
 *
 * All functions expect SPI to be connected.
 *
 * Death.  Whoever removes the silent first condemns their registry entries
 * (registry.c), so that a heartbeat that comes later is answered with false.
 * Then it locks the rows, looks once more (an add may have revived a channel
 * since, which it shows in the registry before its rows can be seen) and
 * deletes what is still condemned.  The end of the transaction frees the
 * entries, or makes them what they were.
 *
 * An add that finds its channel dead waits for such a removal, or removes the
 * old rows itself, before it enters: nothing old comes back to life.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "admission.h"
#include "capture.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "database.h"
#include "extension.h"
#include "guc.h"
#include "liveness.h"
#include "membership.h"
#include "miscadmin.h"
#include "permission.h"
#include "shmem.h"
#include "store_channels.h"
#include "store_people.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/*
 * How often a change is tried again when others add and remove the same pair;
 * less often where row-level security or a trigger may stand in its way.
 */
#define MAX_ATTEMPTS 1000
#define MAX_HINDERED_ATTEMPTS 10

/* How long prune_rooms tries to find a moment without anybody entering; ms. */
#define ROOMS_LOCK_TIMEOUT 20

/* Rooms that it removes while it keeps those who enter out. */
#define MAX_ROOMS_A_CALL 10000

/* Blocks of a table from which old rows are removed at once. */
#define BLOCKS_AT_ONCE 32

/* What the registry knows of a channel; ABSENT without shared memory. */
static PresenceLife
look_at(text *channel, PresenceTime cutoff)
{
	PresenceName name;
	PresenceTime seen;

	if (!presence_shmem_ready())
		return PRESENCE_LIFE_ABSENT;
	name = presence_name_of_text(channel);
	return presence_registry_look(&name, cutoff, &seen);
}

/* The time before which a last sign of life means death now. */
static PresenceTime
current_cutoff(void)
{
	return presence_liveness_cutoff(presence_clock_now(),
									presence_liveness_max_age());
}

/*
 * Where the worker is overdue the server was stopped, and silence proves
 * nothing.  Asked before anybody is pronounced dead.
 */
static void
forgive_stall(void)
{
	PresenceDatabase *database = presence_database_mine();

	if (presence_database_stalled(database))
		presence_database_raise_floor(database, presence_clock_now());
	presence_liveness_check_wall_clock();
}

/* The same for a channel that seems dead and is giving a sign of life. */
static PresenceTime
forgiving_cutoff(void)
{
	forgive_stall();
	return current_cutoff();
}

/* The age limit as a time of rows; -infinity where nothing is too old. */
static TimestampTz
row_cutoff(PresenceTime cutoff)
{
	if (cutoff == 0)
		return DT_NOBEGIN;
	return presence_clock_to_timestamp(cutoff - presence_liveness_row_slack());
}

/* A text[] of one channel. */
static ArrayType *
array_of_one(text *channel)
{
	Datum		datum = PointerGetDatum(channel);

	return construct_array(&datum, 1, TEXTOID, -1, false, TYPALIGN_INT);
}

/* Remove presences that are locked, for a reason; how many went. */
uint64
presence_membership_remove(List *rows, PresenceReason reason)
{
	uint64		count;

	if (rows == NIL)
		return 0;
	presence_capture_push_reason(reason);
	count = presence_store_delete(rows);
	presence_capture_pop();
	return count;
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

/*
 * Whether another transaction is bringing a channel back to life: its old rows
 * can still be seen, but will go when that commits.
 */
static bool
others_revive(text *channel)
{
	PresenceName name;

	if (!presence_shmem_ready())
		return false;
	name = presence_name_of_text(channel);
	return presence_registry_is_reviving(&name) &&
		!presence_capture_has_pinned(&name);
}

/*
 * A channel is about to enter a room: if it has died before, its old rows go
 * first, waiting for whoever is removing them already.
 */
static void
bury_old_self(text *channel)
{
	PresenceTime cutoff = forgiving_cutoff();
	PresenceLife life = look_at(channel, cutoff);
	List	   *rows;

	if (life != PRESENCE_LIFE_DEAD && !others_revive(channel) &&
		(life != PRESENCE_LIFE_ABSENT || presence_registry_is_complete(presence_database_mine()) ||
		 !presence_store_has_older(PointerGetDatum(channel), row_cutoff(cutoff))))
		return;
	rows = presence_store_lock_channels(PointerGetDatum(array_of_one(channel)),
										false);
	(void) presence_membership_remove(dead_rows(rows, cutoff),
									  PRESENCE_REASON_EXPIRED);
}

/* Whether an add names another user than the one that is stored. */
static bool
user_differs(const PresenceEntrant *entrant, const PresenceRow *row)
{
	return entrant->user &&
		(row->user == NULL ||
		 strlen(row->user) != VARSIZE_ANY_EXHDR(entrant->user) ||
		 memcmp(row->user, VARDATA_ANY(entrant->user), strlen(row->user)) != 0);
}

/* Whether an add changes what is stored. */
static bool
differs(const PresenceEntrant *entrant, const PresenceRow *row)
{
	if (user_differs(entrant, row))
		return true;
	if (entrant->meta == NULL)
		return false;
	return row->meta == NULL ||
		compareJsonbContainers(&row->meta->root, &entrant->meta->root) != 0;
}

/* Whether there is such a presence, be it hidden from the caller. */
static bool
is_present(const PresenceEntrant *entrant)
{
	PresenceSession caller = presence_extension_become_owner();
	PresenceRow row;
	bool		found;

	found = presence_store_find(PointerGetDatum(entrant->room),
								PointerGetDatum(entrant->channel), &row);
	presence_extension_become_caller(caller);
	return found;
}

/* An add has come to no end: a policy, a trigger or others are in its way. */
static void
give_up(const PresenceEntrant *entrant, int attempts)
{
	char	   *channel = text_to_cstring(entrant->channel);
	char	   *room = text_to_cstring(entrant->room);
	bool		present = is_present(entrant);
	char	   *suppressor = presence_extension_suppressor("presences", !present);

	if (present && !presence_permission_may_update(entrant->room, entrant->channel))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for channel \"%s\" in room \"%s\"",
						channel, room),
				 errdetail("It is present, and the row-level security of presence.presences does not let role \"%s\" update it.",
						   GetUserNameFromId(GetUserId(), false)),
				 errhint("Use another channel name, or change the policies.")));
	if (suppressor)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("could not add channel \"%s\" to room \"%s\"",
						channel, room),
				 errdetail("Trigger \"%s\" of presence.presences, or another one, suppressed the %s of its row.",
						   suppressor, present ? "update" : "insertion"),
				 errhint("Have the trigger return the row, or raise an error that says why it refuses it.")));
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not add channel \"%s\" to room \"%s\"",
					channel, room),
			 errdetail("Other transactions added and removed it %d times meanwhile.",
					   attempts),
			 errhint("Repeat the call.")));
}

/* Whether something but other transactions may keep an add from its end. */
static bool
may_be_hindered(void)
{
	return !presence_permission_touch_is_free() ||
		presence_extension_suppressor("presences", true) ||
		presence_extension_suppressor("presences", false);
}

/*
 * Bring a presence that is there up to date, which is an update even where
 * nothing differs; false: it is gone, or not the caller's to update.
 */
static bool
find_and_replace(const PresenceEntrant *entrant, const char *nulls,
				 PresenceRow *row)
{
	Datum		room = PointerGetDatum(entrant->room);
	Datum		channel = PointerGetDatum(entrant->channel);

	if (!presence_store_find(room, channel, row))
		return false;
	if (!differs(entrant, row))
		return presence_permission_may_update(entrant->room, entrant->channel);
	return presence_store_replace(room, channel, PointerGetDatum(entrant->user),
								  PointerGetDatum(entrant->meta), nulls, row);
}

/* Insert the presence, or bring the one that is there up to date. */
static bool
insert_or_replace(const PresenceEntrant *entrant, TimestampTz now,
				  bool known, PresenceRow *row)
{
	Datum		room = PointerGetDatum(entrant->room);
	Datum		channel = PointerGetDatum(entrant->channel);
	Datum		user = PointerGetDatum(entrant->user);
	Datum		meta = PointerGetDatum(entrant->meta);
	char		nulls[] = {entrant->user ? ' ' : 'n', entrant->meta ? ' ' : 'n'};
	bool		is_free = presence_permission_touch_is_free();
	int			attempts = MAX_ATTEMPTS;

	for (int attempt = 0; attempt < attempts; attempt++)
	{
		/* The add of a channel that beats is most likely a repetition. */
		if (!(known && is_free && attempt == 0) &&
			presence_store_insert(room, channel, user, meta, nulls, now, row))
			return true;
		if (find_and_replace(entrant, nulls, row))
			return false;
		if (attempt == MAX_HINDERED_ATTEMPTS - 1 && may_be_hindered())
			attempts = MAX_HINDERED_ATTEMPTS;
		CHECK_FOR_INTERRUPTS();
	}
	give_up(entrant, attempts);
	return false;
}

/* Whether an entrant is in already, alive; "row" gets the presence. */
static bool
is_in(const PresenceEntrant *entrant, PresenceRow *row)
{
	return presence_store_find(PointerGetDatum(entrant->room),
							   PointerGetDatum(entrant->channel), row) &&
		presence_liveness_is_live(row->channel, strlen(row->channel),
								  row->last_seen, current_cutoff());
}

/*
 * Raise an error if the rules keep an entrant out, and make the room.  Who is in
 * already is not asked again, except as another user.  Returns what was asked;
 * "row" is used for a moment.
 */
static PresenceAsked
admit(const PresenceEntrant *entrant, PresenceRow *row)
{
	PresenceAdmission admission;
	bool		in;

	if (!presence_admission_prepare(&admission,
									presence_store_enter_room(PointerGetDatum(entrant->room)),
									entrant->user))
		return PRESENCE_ASKED_ALL;
	presence_admission_lock(&admission, entrant->room, entrant->user);
	in = is_in(entrant, row);
	if (!in || user_differs(entrant, row))
		presence_admission_check(&admission, entrant->room, entrant->user,
								 in ? PRESENCE_ENTRANCE_USER : PRESENCE_ENTRANCE_DEAD);
	return in ? PRESENCE_ASKED_USER : PRESENCE_ASKED_ALL;
}

/*
 * The same where policies apply to the caller: they speak first, so that the
 * rules of a room that is not his tell him nothing.  The row, once it is
 * written, is asked about (capture.c); only the lock is taken in time.
 */
static PresenceAsked
admit_later(const PresenceEntrant *entrant)
{
	PresenceAdmission admission;
	PresenceRoomRules rules = {0};

	if (presence_store_find_room(PointerGetDatum(entrant->room), &rules) &&
		presence_admission_prepare(&admission, rules, entrant->user))
		presence_admission_lock(&admission, entrant->room, entrant->user);
	return PRESENCE_ASKED_NOTHING;
}

/* Pin a channel that enters a room; "beat" makes it a sign of life. */
static PresenceLife
begin(text *channel, bool beat)
{
	return presence_capture_begin(VARDATA_ANY(channel), VARSIZE_ANY_EXHDR(channel),
								  presence_clock_now(), current_cutoff(), beat);
}

/*
 * Write a sign of life into the rows of a channel that have had none since a
 * time; how many.  Others see it once it is committed, which may be after they
 * have seen the channel dead.
 */
static uint64
beat_rows(Datum channel, TimestampTz wall, TimestampTz since)
{
	PresenceTime slack = presence_liveness_row_slack();
	TimestampTz oldest;
	uint64		count = presence_store_beat(channel, wall, since, wall - slack, &oldest);

	if (count > 0)
		presence_capture_put_off_death(Max(presence_clock_from_timestamp(oldest),
										   presence_database_floor()) +
									   presence_liveness_max_age() + slack);
	return count;
}

/*
 * Add a channel to a room; whether that is new.  "row" gets the presence as
 * it stands, seen now.
 */
bool
presence_membership_add(const PresenceEntrant *entrant, PresenceRow *row)
{
	TimestampTz wall = presence_clock_wall();
	PresenceTicket ticket = {entrant->room, entrant->channel, entrant->user};
	PresenceLife life;
	bool		inserted;

	ticket.rules = presence_admission_rules();
	ticket.asked = presence_permission_touch_is_free() ? admit(entrant, row) :
		admit_later(entrant);
	presence_capture_push_ticket(&ticket);
	bury_old_self(entrant->channel);
	life = begin(entrant->channel, false);
	inserted = insert_or_replace(entrant, wall, life == PRESENCE_LIFE_ALIVE, row);
	presence_capture_pop();
	if (!inserted)
		(void) begin(entrant->channel, true);
	if (life == PRESENCE_LIFE_FULL)
		(void) beat_rows(PointerGetDatum(entrant->channel), wall, DT_NOBEGIN);
	row->last_seen = wall;
	return inserted;
}

/*
 * Merge keys into the meta of a presence; false: it is gone, or policies or a
 * trigger leave it as it is.  Between two statements others may change it.
 */
static bool
merge_meta(text *room, text *channel, Jsonb *meta)
{
	Datum		room_datum = PointerGetDatum(room);
	Datum		channel_datum = PointerGetDatum(channel);
	Datum		meta_datum = PointerGetDatum(meta);

	for (int attempt = 0; attempt < MAX_HINDERED_ATTEMPTS; attempt++)
	{
		PresenceRow row;

		if (presence_store_merge_meta(room_datum, channel_datum, meta_datum))
			return true;
		if (presence_store_has_meta(room_datum, channel_datum, meta_datum))
			return presence_permission_may_update(room, channel);
		if (!presence_store_find(room_datum, channel_datum, &row))
			return false;
		CHECK_FOR_INTERRUPTS();
	}
	return false;
}

/*
 * Merge keys into the meta of a live presence; false: there is none, or it
 * cannot be changed.
 */
bool
presence_membership_update(text *room, text *channel, Jsonb *meta)
{
	PresenceRow row;
	PresenceTime cutoff = current_cutoff();

	if (!presence_store_find(PointerGetDatum(room), PointerGetDatum(channel), &row) ||
		!presence_liveness_is_live(row.channel, strlen(row.channel),
								   row.last_seen, cutoff) ||
		!presence_permission_may_touch(channel))
		return false;
	if (presence_membership_beat(channel) != PRESENCE_LIFE_ALIVE)
		(void) presence_membership_touch(channel);
	return merge_meta(room, channel, meta);
}

/* A heartbeat that lives in the rows of its channel. */
static bool
touch_rows(text *channel, PresenceTime cutoff)
{
	Datum		datum = PointerGetDatum(channel);
	TimestampTz wall = presence_clock_wall();
	TimestampTz since = row_cutoff(cutoff);

	if (beat_rows(datum, wall, since) > 0)
		return true;
	return presence_store_has_channel(datum, since);
}

/* A heartbeat in the registry. */
static PresenceLife
beat_entry(text *channel)
{
	PresenceTime now = presence_clock_now();
	PresenceName name = presence_name_of_text(channel);

	return presence_registry_touch(&name, now,
								   presence_liveness_cutoff(now, presence_liveness_max_age()));
}

/*
 * A heartbeat, as far as the registry can answer it alone: ALIVE means that
 * it was stored.  The registry knows nothing of what the running transaction
 * has added or removed.  Needs no SPI.
 */
PresenceLife
presence_membership_beat(text *channel)
{
	if (!presence_shmem_ready() || presence_capture_is_active())
		return PRESENCE_LIFE_ABSENT;
	return beat_entry(channel);
}

/*
 * Whether what the running transaction sees is what is committed: not once it
 * has dealt with presences itself, nor with a snapshot of the past.
 */
static bool
sees_committed(void)
{
	return !presence_capture_is_active() && !IsolationUsesXactSnapshot();
}

/*
 * Look whether a channel has rows, and make its entry say so, if what is seen
 * can be trusted for that.
 */
static bool
touch_entry(text *channel, PresenceTime cutoff)
{
	PresenceName name = presence_name_of_text(channel);
	PresenceTime now = presence_clock_now();
	bool		absent = look_at(channel, cutoff) == PRESENCE_LIFE_ABSENT;

	for (;;)
	{
		uint32		changes;
		PresenceLife life = presence_registry_load(&name, now, cutoff, &changes);

		if (life == PRESENCE_LIFE_DEAD)
			return false;
		if (life == PRESENCE_LIFE_FULL)
			return touch_rows(channel, cutoff);
		if (!presence_store_has_channel(PointerGetDatum(channel),
										absent ? row_cutoff(cutoff) : DT_NOBEGIN))
		{
			if (sees_committed())
				presence_registry_forget(&name, changes);
			return false;
		}
		if (!sees_committed())
			return beat_entry(channel) != PRESENCE_LIFE_DEAD;
		if (presence_registry_confirm(&name, now, changes))
			return true;
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * A heartbeat that the registry could not answer alone: look at the table,
 * and repair the registry.  false: the channel is not present.
 */
bool
presence_membership_touch(text *channel)
{
	PresenceTime cutoff = forgiving_cutoff();

	if (look_at(channel, cutoff) == PRESENCE_LIFE_DEAD)
		return false;
	return presence_shmem_ready() ? touch_entry(channel, cutoff) :
		touch_rows(channel, cutoff);
}

/* A channel that is to be removed because it is silent. */
typedef struct Condemned
{
	PresenceName name;			/* key */
	char		status;			/* for simplehash */
	PresenceVerdict verdict;
	int			death;			/* as the capture numbers it */
	bool		counted;		/* the end of its rows frees its entry */
	bool		has_rows;		/* at least one was found */
} Condemned;

#define SH_PREFIX condemned
#define SH_ELEMENT_TYPE Condemned
#define SH_KEY_TYPE PresenceName
#define SH_KEY name
#define SH_HASH_KEY(tb, key) (key).hash
#define SH_EQUAL(tb, a, b) presence_name_equal(&(a), &(b))
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* Condemn those of the channels that the registry knows to be silent. */
static condemned_hash *
condemn_channels(Datum *channels, int nchannels, PresenceTime cutoff)
{
	condemned_hash *table = condemned_create(CurrentMemoryContext,
											 Max(nchannels, 1), NULL);

	for (int i = 0; i < nchannels && presence_shmem_ready(); i++)
	{
		text	   *channel = DatumGetTextPP(channels[i]);
		PresenceName name = presence_name_of_text(channel);
		PresenceVerdict verdict;
		Condemned  *entry;
		bool		counted;
		bool		found;
		int			death;

		CHECK_FOR_INTERRUPTS();
		/* Nothing may fail between the two: the entry must be released. */
		presence_capture_reserve_death();
		if (!presence_registry_condemn(&name, presence_capture_has_pinned(&name),
									   cutoff, &verdict, &counted))
			continue;
		death = presence_capture_condemned(&verdict);
		entry = condemned_insert(table, name, &found);
		entry->verdict = verdict;
		entry->death = death;
		entry->counted = counted;
		entry->has_rows = false;
	}
	return table;
}

/* Those of the locked rows that may really go. */
static List *
condemned_rows(List *rows, condemned_hash *table, PresenceTime cutoff)
{
	List	   *doomed = NIL;
	ListCell   *lc;

	foreach(lc, rows)
	{
		PresenceRow *row = lfirst(lc);
		PresenceName name = presence_name_make(row->channel,
												   strlen(row->channel));
		Condemned  *entry = condemned_lookup(table, name);

		CHECK_FOR_INTERRUPTS();
		if (entry)
			entry->has_rows = true;
		if (entry ? presence_registry_condemned(&entry->verdict) :
			look_at(cstring_to_text(row->channel), cutoff) == PRESENCE_LIFE_ABSENT &&
			!presence_liveness_is_live(row->channel, strlen(row->channel),
									   row->last_seen, cutoff))
			doomed = lappend(doomed, row);
	}
	return doomed;
}

/* Whether there are entries that no count of rows will free. */
static bool
has_uncounted(condemned_hash *table)
{
	condemned_iterator iterator;
	Condemned  *entry;
	bool		found = false;

	condemned_start_iterate(table, &iterator);
	while ((entry = condemned_iterate(table, &iterator)))
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
bury_rowless(condemned_hash *table, ArrayType *channels)
{
	ArrayType  *left = presence_store_remaining(PointerGetDatum(channels));
	condemned_iterator iterator;
	Condemned  *entry;
	Datum	   *datums;
	int			count = 0;

	if (left)
		deconstruct_array(left, TEXTOID, -1, false, TYPALIGN_INT,
						  &datums, NULL, &count);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		entry = condemned_lookup(table, presence_name_of_text(DatumGetTextPP(datums[i])));
		if (entry)
			entry->counted = true;
	}
	condemned_start_iterate(table, &iterator);
	while ((entry = condemned_iterate(table, &iterator)))
	{
		CHECK_FOR_INTERRUPTS();
		if (!entry->counted)
			presence_capture_bury(entry->death);
	}
}

/*
 * Remove the presences of those of the channels (text[]) that were silent for
 * longer than an age in microseconds; how many went.  Rows that somebody else
 * has locked are left for the next time.
 */
uint64
presence_membership_expire(ArrayType *channels, int64 age)
{
	PresenceTime cutoff;
	Datum	   *datums;
	int			count;
	condemned_hash *table;
	List	   *rows;
	uint64		removed;

	forgive_stall();
	cutoff = presence_liveness_cutoff(presence_clock_now(), age);
	if (channels == NULL || cutoff == 0)
		return 0;
	deconstruct_array(channels, TEXTOID, -1, false, TYPALIGN_INT,
					  &datums, NULL, &count);
	table = condemn_channels(datums, count, cutoff);
	rows = presence_store_lock_channels(PointerGetDatum(channels), true);
	removed = presence_membership_remove(condemned_rows(rows, table, cutoff),
										 PRESENCE_REASON_EXPIRED);
	if (has_uncounted(table))
		bury_rowless(table, channels);
	return removed;
}

/*
 * A last_seen that plain SQL, or a clock that was set back, has put far into
 * the future would keep a row alive until then: it counts as now.
 */
void
presence_membership_pull_back(void)
{
	TimestampTz wall = presence_clock_wall();

	if (!presence_registry_is_complete(presence_database_mine()))
		presence_store_pull_back(wall, wall + presence_liveness_max_age());
}

/*
 * Remove all presences that were silent for longer than an age in microseconds;
 * how many went.
 */
uint64
presence_membership_prune(int64 age)
{
	presence_membership_pull_back();
	return presence_membership_expire(presence_store_older(age), age);
}

/* Since when the rows of a table of the past are kept. */
static TimestampTz
oldest_kept(PresencePast past)
{
	int			seconds = past == PRESENCE_PAST_ADMISSIONS ?
		presence_join_rate_window : presence_keep_last_seen;

	if (past == PRESENCE_PAST_LAST_SEEN && seconds == 0)
		return DT_NOBEGIN;
	return GetCurrentTimestamp() - (int64) seconds * USECS_PER_SEC;
}

/*
 * Remove old rows from a part of a table, which begins with a block; where the
 * next part begins, 0: this was the last.
 */
BlockNumber
presence_membership_forget(PresencePast past, BlockNumber from)
{
	bool		admissions = past == PRESENCE_PAST_ADMISSIONS;
	BlockNumber blocks = presence_extension_blocks(admissions ? "admissions" : "user_last_seen");
	BlockNumber to = from + BLOCKS_AT_ONCE;

	if (from < blocks && admissions)
		presence_store_forget_admissions(from, to, oldest_kept(past));
	else if (from < blocks)
		presence_store_forget_last_seen(from, to, oldest_kept(past));
	return to < blocks ? to : 0;
}

/* Remove old rows from all tables of the past. */
static void
forget_all(void)
{
	for (PresencePast past = 0; past < PRESENCE_NPASTS; past++)
	{
		BlockNumber from = 0;

		do
		{
			from = presence_membership_forget(past, from);
			CHECK_FOR_INTERRUPTS();
		} while (from != 0);
	}
}

/* Arrays (text[]) of empty rooms, no more of them than one call removes. */
static List *
find_empty_rooms(void)
{
	List	   *found = NIL;
	text	   *after = cstring_to_text("");
	int			count = 0;

	while (after && count < MAX_ROOMS_A_CALL)
	{
		ArrayType  *rooms = presence_store_empty_rooms(after,
													   Min(PRESENCE_ROOMS_AT_ONCE, MAX_ROOMS_A_CALL - count),
													   &after);

		if (rooms)
		{
			found = lappend(found, rooms);
			count += ArrayGetNItems(ARR_NDIM(rooms), ARR_DIMS(rooms));
		}
		CHECK_FOR_INTERRUPTS();
	}
	return found;
}

/*
 * Remove empty rooms, as many as may be while others are kept out until the
 * transaction ends, and what is old; how many rooms.  None while somebody stays
 * in the way.
 */
uint64
presence_membership_prune_rooms(void)
{
	List	   *found;
	ListCell   *lc;
	int			wait = ROOMS_LOCK_TIMEOUT;
	uint64		count = 0;

	forget_all();
	if (!presence_admission_worker_enforces())
		presence_store_restore_rooms((Datum) 0);
	found = find_empty_rooms();
	if (found == NIL ||
		!presence_extension_try_lock("rooms", ShareRowExclusiveLock, &wait))
		return 0;
	foreach(lc, found)
		count += presence_store_delete_empty_rooms(lfirst(lc));
	return count;
}
