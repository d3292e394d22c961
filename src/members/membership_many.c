/*-------------------------------------------------------------------------
 *
 * membership_many.c
 *		Adds many channels to a room, a batch of them by one statement.
 *
 * A batch is added as membership.c adds one channel: the rules of the room are
 * checked, the channels are pinned in the registry, the rows are written, and
 * who was present gives a sign of life.  Each step is taken once for the whole
 * batch, except that a channel which may have old rows, because it has
 * expired, is added alone, by membership.c.
 *
 * Rows are written, and so locked, in the order of channels, as by all that
 * write many: a channel that is added alone has its place among the others,
 * and a presence that changes is updated by the statement that inserts the
 * others.  One that would not change is found before, and left out.
 *
 * A whole batch is added one by one if a policy or a trigger may interfere, if
 * joins are limited by presence.join_rate, or if somebody may have to be
 * refused: so an error names who was the first in order.
 *
 * In a room with max_members, places are reserved for all who may be new, and
 * those that were not needed are given back.  If there are not so many, some
 * may have to be refused.  Expired channels free places in an order that only
 * adding one by one knows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "catalog/pg_type.h"
#include "members/admission.h"
#include "members/membership_many.h"
#include "members/heartbeat.h"
#include "members/membership.h"
#include "members/xact.h"
#include "miscadmin.h"
#include "shared/database.h"
#include "shared/liveness.h"
#include "shared/registry.h"
#include "tables/extension.h"
#include "tables/permission.h"
#include "tables/store_channels.h"
#include "tables/store_presences.h"
#include "tables/store_rooms.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* How many channels one statement adds at most; it bounds memory. */
#define BATCH 1000

/* How an entrant of a batch is added. */
typedef enum Way
{
	WAY_TOGETHER,				/* by the statement for many */
	WAY_ALONE,					/* it may have old rows to remove first */
	WAY_PRESENT					/* it is present, and nothing changes */
} Way;

/* What is known about an entrant of a batch. */
typedef struct EntrantFacts
{
	Way			way;
	PresenceEntryStatus status; /* in the registry, before */
	bool		has_older;		/* it has rows that are old by last_seen */
} EntrantFacts;

/* A batch; its memory is the current context. */
typedef struct Batch
{
	PresenceTicket ticket;
	PresenceAdmission admission;
	EntrantFacts *facts;		/* of the ticket's entrants */
	int			places;			/* reserved in the room */
	TimestampTz wall;
	MemoryContext scratch;		/* for one entrant that is added alone */
} Batch;

/* Add an entrant by itself. */
static void
add_alone(Batch *batch, PresenceEntrant *entrant)
{
	MemoryContext old = MemoryContextSwitchTo(batch->scratch);
	PresenceRow row;

	entrant->inserted = presence_membership_add(batch->ticket.room, entrant, &row);
	MemoryContextSwitchTo(old);
	MemoryContextReset(batch->scratch);
}

/*
 * Whether neither policies nor triggers of users interfere with rows, and the
 * row trigger will say which rows are new.
 */
static bool
is_free(void)
{
	return presence_permission_is_free() &&
		presence_extension_fires("presences", "presence_capture_row") &&
		presence_extension_suppressor("presences", true) == NULL &&
		presence_extension_suppressor("presences", false) == NULL;
}

/* Make an array of values, some of which may be NULL. */
static Datum
make_array(Datum *values, bool *nulls, int count, Oid type)
{
	int			lower = 1;

	return PointerGetDatum(construct_md_array(values, nulls, 1, &count, &lower, type,
											  -1, false, TYPALIGN_INT));
}

/* Make an array of the users of all entrants; "some" is set to one, or NULL. */
static Datum
all_users(const PresenceTicket *ticket, text **some)
{
	Datum	   *users = palloc(sizeof(Datum) * ticket->count);
	bool	   *nulls = palloc(sizeof(bool) * ticket->count);

	*some = NULL;
	for (int i = 0; i < ticket->count; i++)
	{
		users[i] = PointerGetDatum(ticket->entrants[i].user);
		nulls[i] = ticket->entrants[i].user == NULL;
		if (!nulls[i])
			*some = ticket->entrants[i].user;
	}
	return make_array(users, nulls, ticket->count, TEXTOID);
}

/*
 * Make the room if need be; whether it admits all entrants without more ado, if
 * it has places for them.
 */
static bool
are_admitted(Batch *batch)
{
	text	   *room = batch->ticket.room;
	PresenceRoomRules rules;
	text	   *some;
	Datum		users = all_users(&batch->ticket, &some);

	batch->ticket.rules = presence_admission_rules();
	rules = presence_store_enter_room(PointerGetDatum(room));
	batch->ticket.asked = PRESENCE_ASKED_ALL;
	return presence_admission_admits_all(&batch->admission, rules, room, users, some);
}

/* Make an array of the channels for which a function returns true; or 0. */
static Datum
select_channels(const Batch *batch, bool (*wanted) (const EntrantFacts *fact))
{
	const PresenceTicket *ticket = &batch->ticket;
	Datum	   *channels = palloc(sizeof(Datum) * ticket->count);
	int			count = 0;

	for (int i = 0; i < ticket->count; i++)
		if (wanted == NULL || wanted(&batch->facts[i]))
			channels[count++] = PointerGetDatum(ticket->entrants[i].channel);
	return count == 0 ? (Datum) 0 : make_array(channels, NULL, count, TEXTOID);
}

/*
 * Find entrants with rows that are old by their last_seen.  They have expired
 * if the registry does not know them.
 */
static void
find_older(Batch *batch, const PresenceCutoff *cutoff)
{
	ArrayType  *older = presence_store_older_channels(select_channels(batch, NULL),
													  presence_liveness_row_cutoff(cutoff));
	Datum	   *channels;
	int			count = 0;

	if (older)
		deconstruct_array(older, TEXTOID, -1, false, TYPALIGN_INT,
						  &channels, NULL, &count);
	for (int i = 0; i < count; i++)
	{
		PresenceEntrant *entrant = presence_intent_find(&batch->ticket,
														DatumGetTextPP(channels[i]));

		CHECK_FOR_INTERRUPTS();
		if (entrant)
			batch->facts[entrant - batch->ticket.entrants].has_older = true;
	}
}

/* Pin all entrants in the registry, except those that may have old rows. */
static void
enter_all(Batch *batch)
{
	PresenceCutoff cutoff = presence_liveness_checked_cutoff(PRESENCE_OWN_AGE);

	if (!presence_registry_is_complete(presence_my_database()))
		find_older(batch, &cutoff);
	for (int i = 0; i < batch->ticket.count; i++)
	{
		PresenceEntrant *entrant = &batch->ticket.entrants[i];
		EntrantFacts *fact = &batch->facts[i];

		CHECK_FOR_INTERRUPTS();
		entrant->pin = presence_pins_get(VARDATA_ANY(entrant->channel),
										 VARSIZE_ANY_EXHDR(entrant->channel));
		fact->status = presence_pins_enter(entrant->pin, &cutoff, !fact->has_older);
		fact->way = fact->status == PRESENCE_ENTRY_EXPIRED ?
			WAY_ALONE : WAY_TOGETHER;
	}
}

/* Some entrants of a batch, as arrays, and where they are in it. */
typedef struct Selection
{
	PresenceArrays arrays;
	int		   *places;
	int			count;
} Selection;

/* Make arrays of the selected entrants. */
static void
fill_arrays(const Batch *batch, Selection *selection)
{
	int			count = selection->count;
	Datum	   *values = palloc(sizeof(Datum) * count);
	bool	   *nulls = palloc(sizeof(bool) * count);
	PresenceEntrant *entrants = batch->ticket.entrants;

	for (int i = 0; i < count; i++)
		values[i] = PointerGetDatum(entrants[selection->places[i]].channel);
	selection->arrays.channels = make_array(values, NULL, count, TEXTOID);
	for (int i = 0; i < count; i++)
	{
		values[i] = PointerGetDatum(entrants[selection->places[i]].user);
		nulls[i] = values[i] == 0;
	}
	selection->arrays.users = make_array(values, nulls, count, TEXTOID);
	for (int i = 0; i < count; i++)
	{
		values[i] = PointerGetDatum(entrants[selection->places[i]].meta);
		nulls[i] = values[i] == 0;
	}
	selection->arrays.metas = make_array(values, nulls, count, JSONBOID);
}

/* Select the entrants from one to another that are added together. */
static Selection
select_together(const Batch *batch, int from, int to, bool known_only)
{
	Selection	selection = {.places = palloc(sizeof(int) * Max(to - from, 1))};

	for (int i = from; i < to; i++)
	{
		const EntrantFacts *fact = &batch->facts[i];

		if (fact->way == WAY_TOGETHER &&
			!(known_only && fact->status == PRESENCE_ENTRY_ABSENT))
			selection.places[selection.count++] = i;
	}
	if (selection.count > 0)
		fill_arrays(batch, &selection);
	return selection;
}

/*
 * Find entrants that are present as they are to be.  A channel that was new to
 * the registry is in no room.
 */
static void
find_present(Batch *batch)
{
	Selection	known = select_together(batch, 0, batch->ticket.count, true);
	int64	   *numbers;
	uint64		count;

	if (known.count == 0)
		return;
	numbers = presence_store_find_same(PointerGetDatum(batch->ticket.room),
									   &known.arrays, &count);
	for (uint64 i = 0; i < count; i++)
		batch->facts[known.places[numbers[i] - 1]].way = WAY_PRESENT;
}

/*
 * Reserve places for all entrants who may be new; false if some of them may have
 * to be refused.
 */
static bool
take_places(Batch *batch)
{
	text	   *room = batch->ticket.room;
	int			places = 0;

	if (batch->admission.rules.max_members <= 0)
		return true;
	for (int i = 0; i < batch->ticket.count; i++)
	{
		if (batch->facts[i].way == WAY_ALONE)
			return false;
		places += batch->facts[i].way == WAY_TOGETHER;
	}
	if (places == 0)
		return true;
	presence_membership_set_adding(&batch->admission, room, NULL);
	if (presence_admission_reserve(&batch->admission, room, places, PRESENCE_ENTRANCE_JOIN))
		batch->places = places;
	else
		(void) presence_xact_set_adding(0);
	return batch->places > 0;
}

/* Give back the places of entrants who were not new after all. */
static void
return_places(Batch *batch)
{
	(void) presence_xact_set_adding(0);
	for (int i = 0; i < batch->ticket.count && batch->places > 0; i++)
		batch->places -= batch->ticket.entrants[i].inserted;
	presence_admission_return(&batch->admission, batch->ticket.room, batch->places);
}

/* Write the entrants from one to another that are added together. */
static void
write_together(Batch *batch, int from, int to)
{
	Selection	selection = select_together(batch, from, to, false);

	if (selection.count > 0)
		presence_store_insert_many(PointerGetDatum(batch->ticket.room),
								   &selection.arrays, batch->wall);
}

/* Write all entrants, in order. */
static void
write_all(Batch *batch)
{
	int			from = 0;

	for (int i = 0; i < batch->ticket.count; i++)
	{
		if (batch->facts[i].way != WAY_ALONE)
			continue;
		CHECK_FOR_INTERRUPTS();
		write_together(batch, from, i);
		add_alone(batch, &batch->ticket.entrants[i]);
		from = i + 1;
	}
	write_together(batch, from, batch->ticket.count);
}

/* Whether the heartbeat of an entrant goes to its rows. */
static bool
beats_in_rows(const EntrantFacts *fact)
{
	return fact->way != WAY_ALONE && fact->status == PRESENCE_ENTRY_NO_SPACE;
}

/* Entrants that were present already give a sign of life. */
static void
beat_all(Batch *batch)
{
	Datum		in_rows = select_channels(batch, beats_in_rows);

	for (int i = 0; i < batch->ticket.count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (batch->facts[i].way != WAY_ALONE && !batch->ticket.entrants[i].inserted)
			presence_membership_beat(&batch->ticket.entrants[i]);
	}
	if (in_rows)
		presence_heartbeat_write_many(in_rows, batch->wall);
}

/*
 * Add a batch by one statement, or one for each run between those alone; false
 * if it has to be added one by one.
 */
static bool
add_together(Batch *batch)
{
	bool		together;

	batch->facts = palloc0(sizeof(EntrantFacts) * batch->ticket.count);
	batch->wall = presence_clock_wall();
	presence_intent_push_ticket(&batch->ticket);
	enter_all(batch);
	find_present(batch);
	together = take_places(batch);
	if (together)
	{
		write_all(batch);
		return_places(batch);
		beat_all(batch);
	}
	presence_intent_pop();
	return together;
}

/* Add a batch one by one. */
static void
add_singly(Batch *batch)
{
	for (int i = 0; i < batch->ticket.count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		add_alone(batch, &batch->ticket.entrants[i]);
	}
}

/* Add a batch; returns how many entrants were new. */
static int64
add_batch(text *room, PresenceEntrant *entrants, int count)
{
	Batch		batch = {.ticket = {room, entrants, count}};
	int64		added = 0;

	batch.scratch = AllocSetContextCreate(CurrentMemoryContext, "presence entrant",
										  ALLOCSET_DEFAULT_SIZES);
	if (!(count > 1 && is_free() && are_admitted(&batch) && add_together(&batch)))
		add_singly(&batch);
	for (int i = 0; i < count; i++)
		added += entrants[i].inserted;
	return added;
}

/*
 * Add entrants, sorted by channel and each channel once, to a room; returns how
 * many were new.
 */
int64
presence_membership_add_many(text *room, PresenceEntrant *entrants, int count)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "presence batch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	int64		added = 0;

	for (int from = 0; from < count; from += BATCH)
	{
		CHECK_FOR_INTERRUPTS();
		added += add_batch(room, entrants + from, Min(BATCH, count - from));
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return added;
}
