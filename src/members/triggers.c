/*-------------------------------------------------------------------------
 *
 * triggers.c
 *		Triggers that capture changes of presences and people as hints.
 *
 * They note every change (hint.h), whether it comes from a function of the
 * extension, plain SQL, COPY or a replication worker.  They check rows as the
 * functions check their arguments, and the rules of admission (admission.c),
 * unless the function that writes the row has done so (intent.h).  The
 * triggers fire after WITH CHECK, so policies are checked first.
 *
 * Any role that may execute a trigger function may put it on a table of its
 * own, so the table is verified before its columns are read.
 *
 * No locks of their own; admission.c and pins.c take theirs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/json.h"
#include "base/name.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "mb/pg_wchar.h"
#include "members/admission.h"
#include "members/intent.h"
#include "members/pins.h"
#include "members/xact.h"
#include "shared/liveness.h"
#include "shared/places.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "visits/visits.h"

PG_FUNCTION_INFO_V1(presence_capture_row);
PG_FUNCTION_INFO_V1(presence_renew_id);
PG_FUNCTION_INFO_V1(presence_write_visits);
PG_FUNCTION_INFO_V1(presence_capture_truncate);
PG_FUNCTION_INFO_V1(presence_capture_person);

/* Columns of presence.people. */
enum
{
	PERSON_USER = 1,
	PERSON_STATUS,
	PERSON_MESSAGE
};

/* Columns of presence.presences. */
enum
{
	COLUMN_ID = 1,
	COLUMN_ROOM,
	COLUMN_CHANNEL,
	COLUMN_USER,
	COLUMN_META,
	COLUMN_JOINED_AT,
	COLUMN_LAST_SEEN
};

/* A text column of a row as a value, not copied. */
static PresenceValue
row_text(HeapTuple row, TupleDesc desc, int column)
{
	PresenceValue value = {NULL, 0};
	bool		isnull;
	Datum		datum = heap_getattr(row, column, desc, &isnull);

	if (!isnull)
	{
		text	   *txt = DatumGetTextPP(datum);

		value.data = VARDATA_ANY(txt);
		value.length = VARSIZE_ANY_EXHDR(txt);
	}
	return value;
}

/* Whether two values, either of which may be NULL, are the same. */
static bool
same_value(PresenceValue a, PresenceValue b)
{
	if (a.data == NULL || b.data == NULL)
		return a.data == b.data;
	return a.length == b.length && memcmp(a.data, b.data, a.length) == 0;
}

/* Whether a column has the same value in two rows. */
static bool
same_column(HeapTuple a, HeapTuple b, TupleDesc desc, int column)
{
	bool		anull,
				bnull;
	Datum		adatum = heap_getattr(a, column, desc, &anull);
	Datum		bdatum = heap_getattr(b, column, desc, &bnull);
	Form_pg_attribute att = TupleDescAttr(desc, column - 1);

	if (anull || bnull)
		return anull == bnull;
	if (att->attlen == -1)
	{
		adatum = PointerGetDatum(PG_DETOAST_DATUM(adatum));
		bdatum = PointerGetDatum(PG_DETOAST_DATUM(bdatum));
	}
	return datumIsEqual(adatum, bdatum, att->attbyval, att->attlen);
}

/* The id of a row. */
static int64
row_id(HeapTuple row, TupleDesc desc)
{
	bool		isnull;

	return DatumGetInt64(heap_getattr(row, COLUMN_ID, desc, &isnull));
}

/* Fill in which presence a hint is about. */
static void
fill_key(PresenceValue *fields, HeapTuple row, TupleDesc desc)
{
	memset(fields, 0, sizeof(PresenceValue) * PRESENCE_NFIELDS);
	fields[PRESENCE_FIELD_ROOM] = row_text(row, desc, COLUMN_ROOM);
	fields[PRESENCE_FIELD_CHANNEL] = row_text(row, desc, COLUMN_CHANNEL);
	fields[PRESENCE_FIELD_USER] = row_text(row, desc, COLUMN_USER);
}

/* Raise an error unless a name is valid in payloads. */
static void
check_encoding(const PresenceValue *value, const char *column)
{
	if (!presence_json_is_text(value->data, value->length))
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("column \"%s\" of presence.presences must hold valid UTF-8", column),
				 errdetail("The value has %d bytes.", value->length),
				 errhint("Write names in UTF-8: the encoding of the database is SQL_ASCII, and listeners could not read others.")));
}

/* Raise an error unless a column holds a name of 1 to 255 characters. */
static void
check_name(const PresenceValue *value, const char *column)
{
	int			length;

	check_encoding(value, column);
	if (value->length > 0 && value->length <= PRESENCE_MAX_NAME_CHARS)
		return;
	length = pg_mbstrlen_with_len(value->data, value->length);
	if (length > 0 && length <= PRESENCE_MAX_NAME_CHARS)
		return;
	ereport(ERROR,
			(errcode(length == 0 ? ERRCODE_INVALID_PARAMETER_VALUE :
					 ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
			 errmsg("column \"%s\" of presence.presences must hold 1 to %d characters",
					column, PRESENCE_MAX_NAME_CHARS),
			 errdetail("The value has %d characters.", length),
			 errhint("Use a shorter name, such as a hash of the long one.")));
}

/*
 * Raise an error unless the functions of the extension could have written a
 * row.  Check constraints could do this, but each statement would read them
 * from the catalogs again.
 */
static void
check_row(HeapTuple row, TupleDesc desc, const PresenceValue *fields)
{
	bool		isnull;
	Datum		meta = heap_getattr(row, COLUMN_META, desc, &isnull);

	check_name(&fields[PRESENCE_FIELD_ROOM], "room");
	check_name(&fields[PRESENCE_FIELD_CHANNEL], "channel_name");
	if (fields[PRESENCE_FIELD_USER].data)
		check_name(&fields[PRESENCE_FIELD_USER], "user_id");
	if (!isnull && !JB_ROOT_IS_OBJECT(DatumGetJsonbP(meta)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("column \"meta\" of presence.presences must hold a JSON object"),
				 errdetail("The value is a JSON array or a scalar."),
				 errhint("Wrap it, as in {\"value\": 1}.")));
}

/* Whether a text, which may be NULL, is the same as a value. */
static bool
same_text(text *txt, const PresenceValue *value)
{
	PresenceValue other = {NULL, 0};

	if (txt)
	{
		other.data = VARDATA_ANY(txt);
		other.length = VARSIZE_ANY_EXHDR(txt);
	}
	return same_value(other, *value);
}

/* A value as a text, or NULL. */
static text *
value_text(const PresenceValue *value)
{
	return value->data ? cstring_to_text_with_len(value->data, value->length) : NULL;
}

/* The entrant that a written row is for, if it is as its ticket says, or NULL. */
static PresenceEntrant *
find_entrant(PresenceTicket *ticket, const PresenceValue *fields)
{
	return ticket ? presence_intent_entrant(ticket, &fields[PRESENCE_FIELD_ROOM],
											&fields[PRESENCE_FIELD_CHANNEL]) : NULL;
}

/* Whether the rules have been checked for the row of an entrant. */
static bool
is_admitted(const PresenceTicket *ticket, const PresenceEntrant *entrant,
			const PresenceValue *fields, PresenceEntrance entrance)
{
	return entrant &&
		ticket->asked >= (entrance == PRESENCE_ENTRANCE_USER ? PRESENCE_ASKED_USER : PRESENCE_ASKED_ALL) &&
		same_text(entrant->user, &fields[PRESENCE_FIELD_USER]);
}

/* A row was written for which a place in its room may have been reserved. */
static void
use_place(const PresenceValue *room)
{
	PresenceName name;

	if (!presence_places_is_active())
		return;
	name = presence_name_make(room->data, room->length);
	presence_places_use(&name);
}

/*
 * Check the rules of admission for a written row, unless the function that
 * writes it has done so.  Returns the number of the rules that admitted it.
 */
static uint64
admit(const PresenceTicket *ticket, const PresenceEntrant *entrant,
	  const PresenceValue *fields, PresenceEntrance entrance)
{
	if (is_admitted(ticket, entrant, fields, entrance))
		return ticket->rules;
	return presence_admission_admit_row(value_text(&fields[PRESENCE_FIELD_ROOM]),
										value_text(&fields[PRESENCE_FIELD_USER]),
										entrance, entrant != NULL);
}

/* The same for an updated row. */
static uint64
admit_update(const PresenceValue *fields, PresenceEntrance entrance)
{
	PresenceTicket *ticket = presence_intent_ticket();

	return admit(ticket, find_entrant(ticket, fields), fields, entrance);
}

/* Whether a row is live, by its channel. */
static bool
is_live(HeapTuple row, TupleDesc desc, const PresenceValue *channel)
{
	PresenceCutoff cutoff = presence_liveness_cutoff();
	bool		isnull;
	Datum		last_seen = heap_getattr(row, COLUMN_LAST_SEEN, desc, &isnull);

	return presence_liveness_is_live(channel->data, channel->length,
									 DatumGetTimestampTz(last_seen), &cutoff);
}

/* The same for an inserted row; whether it is live matters to the check only. */
static uint64
admit_join(const PresenceTicket *ticket, const PresenceEntrant *entrant,
		   HeapTuple row, TupleDesc desc, const PresenceValue *fields)
{
	if (is_admitted(ticket, entrant, fields, PRESENCE_ENTRANCE_LIVE))
	{
		use_place(&fields[PRESENCE_FIELD_ROOM]);
		return ticket->rules;
	}
	return admit(ticket, entrant, fields,
				 is_live(row, desc, &fields[PRESENCE_FIELD_CHANNEL]) ?
				 PRESENCE_ENTRANCE_LIVE : PRESENCE_ENTRANCE_EXPIRED);
}

/* The pin of the channel of a row, or NULL. */
static PresencePin *
get_pin(const PresenceValue *channel)
{
	return presence_pins_get(channel->data, channel->length);
}

/*
 * Fill in the meta of a row, unless it is larger than "limit" or is not
 * announced; whether it is filled in, or there is none.
 */
static bool
fill_meta(PresenceValue *fields, HeapTuple row, TupleDesc desc, Size limit)
{
	bool		isnull;
	Datum		meta = heap_getattr(row, COLUMN_META, desc, &isnull);
	Jsonb	   *jsonb;

	if (isnull)
		return true;
	if (!presence_notify_meta || toast_raw_datum_size(meta) > limit)
		return false;
	jsonb = DatumGetJsonbP(meta);
	fields[PRESENCE_FIELD_META].data = (char *) jsonb;
	fields[PRESENCE_FIELD_META].length = VARSIZE(jsonb);
	return true;
}

/* When the presence of a row joined. */
static TimestampTz
joined_at(HeapTuple row, TupleDesc desc)
{
	bool		isnull;

	return DatumGetTimestampTz(heap_getattr(row, COLUMN_JOINED_AT, desc, &isnull));
}

/* A value as a string, or NULL. */
static char *
value_string(const PresenceValue *value)
{
	return value->data ? pnstrdup(value->data, value->length) : NULL;
}

/* Tell the function that inserts a row for an entrant what it has become. */
static void
describe(PresenceEntrant *entrant, HeapTuple row, TupleDesc desc,
		 const PresenceValue *fields)
{
	PresenceRow *target = entrant->row;
	MemoryContext old = MemoryContextSwitchTo(entrant->context);
	bool		isnull;
	Datum		meta = heap_getattr(row, COLUMN_META, desc, &isnull);

	target->id = row_id(row, desc);
	target->room = value_string(&fields[PRESENCE_FIELD_ROOM]);
	target->channel = value_string(&fields[PRESENCE_FIELD_CHANNEL]);
	target->user = value_string(&fields[PRESENCE_FIELD_USER]);
	target->meta = isnull ? NULL : DatumGetJsonbPCopy(meta);
	target->truncated = false;
	target->joined_at = joined_at(row, desc);
	target->last_seen = DatumGetTimestampTz(heap_getattr(row, COLUMN_LAST_SEEN,
														 desc, &isnull));
	MemoryContextSwitchTo(old);
}

/* A row was inserted. */
static void
note_join(HeapTuple row, TupleDesc desc)
{
	PresenceValue fields[PRESENCE_NFIELDS];
	PresenceCutoff cutoff = presence_liveness_cutoff();
	PresenceTicket *ticket = presence_intent_ticket();
	PresenceEntrant *entrant;
	PresencePin *pin;
	PresenceHint *hint;
	uint64		rules;
	bool		whole;

	fill_key(fields, row, desc);
	check_row(row, desc, fields);
	entrant = find_entrant(ticket, fields);
	pin = entrant && entrant->pin ? entrant->pin : get_pin(&fields[PRESENCE_FIELD_CHANNEL]);
	(void) presence_pins_begin(pin, &cutoff, true);
	rules = admit_join(ticket, entrant, row, desc, fields);
	whole = fill_meta(fields, row, desc, PRESENCE_HINT_MAX_JOIN_META);
	hint = presence_xact_make_hint(PRESENCE_HINT_JOIN, row_id(row, desc), fields);
	hint->whole = whole;
	hint->joined_at = joined_at(row, desc);
	hint->rules = rules;
	presence_xact_note(hint, pin);
	if (entrant && entrant->row && !entrant->inserted)
		describe(entrant, row, desc, fields);
	if (entrant)
		entrant->inserted = true;
}

/* When the channel of a row was last seen, given the registry's sign of life. */
static TimestampTz
newest_sign(HeapTuple row, TupleDesc desc, PresenceTime seen)
{
	bool		isnull;
	Datum		last_seen = heap_getattr(row, COLUMN_LAST_SEEN, desc, &isnull);

	return presence_clock_to_timestamp(presence_liveness_newest(seen,
																DatumGetTimestampTz(last_seen)));
}

/* A row was deleted. */
static void
note_leave(HeapTuple row, TupleDesc desc)
{
	PresenceValue fields[PRESENCE_NFIELDS];
	PresencePin *pin;
	PresenceHint *hint;
	bool		whole;

	fill_key(fields, row, desc);
	whole = fill_meta(fields, row, desc, PRESENCE_HINT_MAX_META);
	pin = get_pin(&fields[PRESENCE_FIELD_CHANNEL]);
	hint = presence_xact_make_hint(PRESENCE_HINT_LEAVE, row_id(row, desc), fields);
	hint->reason = presence_intent_reason();
	hint->truncated = !whole && presence_notify_meta;
	hint->joined_at = joined_at(row, desc);
	hint->last_seen = newest_sign(row, desc, presence_pins_seen(pin));
	presence_xact_note(hint, pin);
	if (presence_visits_are_kept())
		presence_visits_note(fields, joined_at(row, desc), presence_intent_reason());
}

/*
 * Check the rules of admission if plain SQL makes an expired row live by its
 * last_seen.  Heartbeats never do: they do not find expired rows.
 */
static void
note_revival(HeapTuple before, HeapTuple after, TupleDesc desc,
			 const PresenceValue *fields)
{
	const PresenceValue *channel = &fields[PRESENCE_FIELD_CHANNEL];

	if (!same_column(before, after, desc, COLUMN_LAST_SEEN) &&
		!is_live(before, desc, channel) && is_live(after, desc, channel))
		(void) admit_update(fields, PRESENCE_ENTRANCE_REVIVED);
}

/* A row was updated: a rename is leave and join, a heartbeat is ignored. */
static void
note_update(HeapTuple before, HeapTuple after, TupleDesc desc)
{
	PresenceValue fields[PRESENCE_NFIELDS];
	PresenceValue previous = row_text(before, desc, COLUMN_USER);
	PresenceHint *hint;
	uint64		rules = 0;
	TimestampTz seen = 0;

	fill_key(fields, after, desc);
	if (row_id(before, desc) != row_id(after, desc) ||
		!same_value(row_text(before, desc, COLUMN_ROOM),
					fields[PRESENCE_FIELD_ROOM]) ||
		!same_value(row_text(before, desc, COLUMN_CHANNEL),
					fields[PRESENCE_FIELD_CHANNEL]))
	{
		note_leave(before, desc);
		note_join(after, desc);
		return;
	}
	note_revival(before, after, desc, fields);
	if (same_value(previous, fields[PRESENCE_FIELD_USER]) &&
		same_column(before, after, desc, COLUMN_META))
		return;
	check_row(after, desc, fields);
	fields[PRESENCE_FIELD_PREVIOUS] = previous;
	if (!same_value(previous, fields[PRESENCE_FIELD_USER]))
	{
		rules = admit_update(fields, PRESENCE_ENTRANCE_USER);
		seen = newest_sign(after, desc,
						   presence_pins_seen(get_pin(&fields[PRESENCE_FIELD_CHANNEL])));
	}
	hint = presence_xact_make_hint(PRESENCE_HINT_UPDATE, row_id(after, desc), fields);
	hint->rules = rules;
	hint->last_seen = seen;
	presence_xact_note(hint, NULL);
}

/* A table, with the types of the columns on which the triggers rely. */
typedef struct WatchedTable
{
	const char *name;
	int			ncolumns;
	Oid			types[COLUMN_LAST_SEEN];
} WatchedTable;

static const WatchedTable presences_table = {
	"presences", COLUMN_LAST_SEEN,
	{INT8OID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

static const WatchedTable people_table = {
	"people", PERSON_MESSAGE, {TEXTOID, TEXTOID, TEXTOID}
};

/* Whether a relation is a table of the extension, with unchanged columns. */
static bool
is_table(Relation relation, const WatchedTable *table)
{
	TupleDesc	desc = RelationGetDescr(relation);

	if (strcmp(RelationGetRelationName(relation), table->name) != 0 ||
		RelationGetNamespace(relation) != get_namespace_oid("presence", true) ||
		desc->natts < table->ncolumns)
		return false;
	for (int i = 0; i < table->ncolumns; i++)
		if (TupleDescAttr(desc, i)->atttypid != table->types[i])
			return false;
	return true;
}

/*
 * Whether the table of a trigger is verified: only once in a statement, which
 * keeps it from being changed.
 */
static bool
is_verified(FmgrInfo *function, Relation relation, const WatchedTable *table)
{
	if (function->fn_extra == NULL && is_table(relation, table))
		function->fn_extra = (void *) table;
	return function->fn_extra == table;
}

/*
 * Raise an error unless called by a trigger as the install script created it:
 * any role that may execute the function may put it on a table of its own.
 */
static TriggerData *
check_trigger(FunctionCallInfo fcinfo, TriggerEvent timing, bool row,
			  const WatchedTable *table)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		(data->tg_event & TRIGGER_EVENT_TIMINGMASK) != timing ||
		(timing == TRIGGER_EVENT_BEFORE && !TRIGGER_FIRED_BY_UPDATE(data->tg_event)) ||
		(TRIGGER_FIRED_FOR_ROW(data->tg_event) != 0) != row ||
		!is_verified(fcinfo->flinfo, data->tg_relation, table))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function serves the triggers of the tables of presence only"),
				 errhint("Leave the triggers, and the columns of the tables, as CREATE EXTENSION presence made them.")));
	return data;
}

/*
 * presence.capture_row() returns trigger
 *
 * Notes an inserted, updated or deleted presence.
 */
Datum
presence_capture_row(PG_FUNCTION_ARGS)
{
	TriggerData *data = check_trigger(fcinfo, TRIGGER_EVENT_AFTER, true, &presences_table);
	TupleDesc	desc = RelationGetDescr(data->tg_relation);

	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		note_join(data->tg_trigtuple, desc);
	else if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
		note_leave(data->tg_trigtuple, desc);
	else
		note_update(data->tg_trigtuple, data->tg_newtuple, desc);
	return PointerGetDatum(NULL);
}

/*
 * presence.write_visits() returns trigger
 *
 * Writes the visits of presences that a statement has removed, or moved.
 */
Datum
presence_write_visits(PG_FUNCTION_ARGS)
{
	(void) check_trigger(fcinfo, TRIGGER_EVENT_AFTER, false, &presences_table);
	presence_visits_write();
	return PointerGetDatum(NULL);
}

/*
 * presence.renew_id() returns trigger
 *
 * A presence that plain SQL moves to another room or channel leaves and joins.
 * It gets a new id for that, so that each id joins once and leaves once, and
 * the order in which the hints arrive does not matter.  It joins now, unless
 * the statement says when, so that its visits do not overlap.
 */
Datum
presence_renew_id(PG_FUNCTION_ARGS)
{
	TriggerData *data = check_trigger(fcinfo, TRIGGER_EVENT_BEFORE, true, &presences_table);
	TupleDesc	desc = RelationGetDescr(data->tg_relation);
	HeapTuple	before = data->tg_trigtuple;
	HeapTuple	after = data->tg_newtuple;
	int			columns[] = {COLUMN_ID, COLUMN_JOINED_AT};
	bool		nulls[] = {false, false};
	Datum		values[2];
	bool		dated;

	if (same_column(before, after, desc, COLUMN_ROOM) &&
		same_column(before, after, desc, COLUMN_CHANNEL))
		return PointerGetDatum(after);
	dated = !same_column(before, after, desc, COLUMN_JOINED_AT);
	values[0] = Int64GetDatum(nextval_internal(presence_compat_identity_sequence(data->tg_relation, COLUMN_ID),
											   false));
	values[1] = TimestampTzGetDatum(presence_clock_wall());
	return PointerGetDatum(heap_modify_tuple_by_cols(after, desc, dated ? 1 : 2,
													 columns, values, nulls));
}

/*
 * presence.capture_truncate() returns trigger
 *
 * Notes that all presences were removed.
 */
Datum
presence_capture_truncate(PG_FUNCTION_ARGS)
{
	PresenceValue fields[PRESENCE_NFIELDS] = {0};

	(void) check_trigger(fcinfo, TRIGGER_EVENT_AFTER, false, &presences_table);
	if (creating_extension)
		presence_xact_note_creation();
	else
		presence_xact_note(presence_xact_make_hint(PRESENCE_HINT_RESYNC, 0, fields), NULL);
	return PointerGetDatum(NULL);
}

/*
 * presence.capture_person() returns trigger
 *
 * Notes a change of a chosen status or message, with the previous ones.
 */
Datum
presence_capture_person(PG_FUNCTION_ARGS)
{
	TriggerData *data = check_trigger(fcinfo, TRIGGER_EVENT_AFTER, true, &people_table);
	TupleDesc	desc = RelationGetDescr(data->tg_relation);
	HeapTuple	before = TRIGGER_FIRED_BY_INSERT(data->tg_event) ? NULL :
		data->tg_trigtuple;
	HeapTuple	after = TRIGGER_FIRED_BY_INSERT(data->tg_event) ? data->tg_trigtuple :
		TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple : NULL;
	PresenceValue none = {NULL, 0};
	PresenceValue fields[PRESENCE_NFIELDS] = {0};

	fields[PRESENCE_FIELD_USER] = row_text(after ? after : before, desc, PERSON_USER);
	fields[PRESENCE_FIELD_PREVIOUS] = before ? row_text(before, desc, PERSON_STATUS) : none;
	fields[PRESENCE_FIELD_PAYLOAD] = before ? row_text(before, desc, PERSON_MESSAGE) : none;
	if (!same_value(fields[PRESENCE_FIELD_PREVIOUS],
					after ? row_text(after, desc, PERSON_STATUS) : none) ||
		!same_value(fields[PRESENCE_FIELD_PAYLOAD],
					after ? row_text(after, desc, PERSON_MESSAGE) : none))
		presence_xact_note(presence_xact_make_hint(PRESENCE_HINT_STATUS, 0, fields), NULL);
	return PointerGetDatum(NULL);
}
