/*-------------------------------------------------------------------------
 *
 * capture.c
 *		Follows what the running transaction does to presences, and acts on it
 *		when the transaction ends.
 *
 * The row trigger notes every change as a hint (hint.h), whoever makes it:
 * a function of the extension, plain SQL, COPY, a replication worker.  Marks
 * say where the hints of each subtransaction begin, so that a savepoint rolled
 * back takes its hints along and one released hands them to its parent, at a
 * cost that does not depend on how many there are.
 *
 * PRE_COMMIT is the last moment at which anything may fail.  There the hints
 * are counted by channel, and a way is chosen: the queue, where a worker
 * reads it, or NOTIFY by the transaction itself.  In the second case the hints
 * go to the queue as well if one is open by then, marked as announced: a
 * worker that counts who was announced must not miss any.  From PRE_COMMIT
 * until the hints are in the queue the process shows its transaction id
 * (backend.c), so that the worker can wait for hints of changes that it sees
 * already.
 *
 * COMMIT and ABORT tell the registry and fill the queue.  An error there
 * would bring the server down, so they only copy memory under LWLocks: all
 * they need was allocated before, in TopTransactionContext, which still
 * exists then.
 *
 * A channel that the transaction adds is pinned in the registry from the
 * first add until the transaction ends.  One that it condemns is released when
 * the subtransaction that did so is rolled back, for its rows are there again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "backend.h"
#include "capture.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "commands/extension.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "database.h"
#include "guc.h"
#include "json.h"
#include "liveness.h"
#include "mb/pg_wchar.h"
#include "queue.h"
#include "shmem.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(presence_capture_row);
PG_FUNCTION_INFO_V1(presence_renew_id);
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

/* A channel that this transaction touches in the registry at its end. */
typedef struct CapturedChannel
{
	PresenceName name;			/* key */
	char		status;			/* for simplehash */
	PresenceDeed deed;			/* PRE_COMMIT fills in all but the pin */
} CapturedChannel;

#define SH_PREFIX channels
#define SH_ELEMENT_TYPE CapturedChannel
#define SH_KEY_TYPE PresenceName
#define SH_KEY name
#define SH_HASH_KEY(tb, key) (key).hash
#define SH_EQUAL(tb, a, b) ((a).hash == (b).hash && (a).length == (b).length && \
							memcmp((a).data, (b).data, (a).length) == 0)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

typedef struct CapturedDeath
{
	PresenceVerdict verdict;
	bool		bury;			/* no rows are left once this commits */
} CapturedDeath;

/* What holds for the changes of a function of the extension. */
typedef struct CapturedMoment
{
	PresenceReason reason;		/* why rows that are deleted leave */
	const PresenceTicket *ticket;	/* who is being let in; may be NULL */
	int			level;			/* nesting level of its subtransaction */
} CapturedMoment;

/* What a subtransaction has added begins after so many. */
typedef struct CapturedMark
{
	int			level;			/* its nesting level */
	int			nhints;
	int			ndeaths;
} CapturedMark;

/* The running transaction; all zero when it has done nothing yet. */
typedef struct Capture
{
	MemoryContext context;		/* child of TopTransactionContext */
	PresenceHint **hints;
	int			nhints;
	int			maxhints;
	CapturedDeath *deaths;
	int			ndeaths;
	int			maxdeaths;
	CapturedMark *marks;		/* by level, the innermost last */
	int			nmarks;
	int			maxmarks;
	channels_hash *channels;
	TransactionId xid;			/* shown to the worker from PRE_COMMIT on */
	bool		announced;		/* not to be announced by the worker */
	bool		untold;			/* nor by the transaction itself */
	bool		resynced;		/* it announced a resync, too */
	PresenceTime death;			/* when one whose rows beat would have died */
	uint32		losses;			/* the resync was owed for so many losses */
	bool		truncated;		/* the table was truncated */
	bool		created;		/* the extension was created */
	int			counts[PRESENCE_NCOUNTERS];
	CapturedMoment *moments;	/* the last holds now */
	int			nmoments;
	int			maxmoments;
	bool		changes_rules;	/* there are bans or deleted rooms */
	bool		needs_worker;	/* there are bans that only it can enforce */
} Capture;

static Capture capture;
static PresenceAnnounceFunc announce_hints;
static PresenceAdmitFunc admit_row;

/* The memory of this transaction's notes. */
static MemoryContext
capture_context(void)
{
	if (capture.context == NULL)
		capture.context = AllocSetContextCreate(TopTransactionContext,
												"presence capture",
												ALLOCSET_DEFAULT_SIZES);
	return capture.context;
}

/* Whether the running transaction has dealt with presences. */
bool
presence_capture_is_active(void)
{
	return capture.context != NULL;
}

/* What holds for changes that are made now. */
static CapturedMoment
current_moment(void)
{
	CapturedMoment start = {.reason = PRESENCE_REASON_LEAVE};

	return capture.nmoments > 0 ? capture.moments[capture.nmoments - 1] : start;
}

/* Begin a moment in the running subtransaction. */
static void
push_moment(CapturedMoment moment)
{
	if (capture.nmoments == capture.maxmoments)
	{
		int			room = Max(capture.maxmoments * 2, 8);

		capture.moments = capture.moments ?
			repalloc_huge(capture.moments, room * sizeof(CapturedMoment)) :
			MemoryContextAlloc(TopTransactionContext, room * sizeof(CapturedMoment));
		capture.maxmoments = room;
	}
	moment.level = GetCurrentTransactionNestLevel();
	capture.moments[capture.nmoments++] = moment;
}

/*
 * Say why rows that are deleted from now on leave, until presence_capture_pop()
 * or until the subtransaction is rolled back.
 */
void
presence_capture_push_reason(PresenceReason reason)
{
	CapturedMoment moment = current_moment();

	moment.reason = reason;
	push_moment(moment);
}

/* Say who is being let in from now on.  It ends as a reason does. */
void
presence_capture_push_ticket(const PresenceTicket *ticket)
{
	CapturedMoment moment = current_moment();

	moment.ticket = ticket;
	push_moment(moment);
}

/* What held before holds again. */
void
presence_capture_pop(void)
{
	Assert(capture.nmoments > 0);
	capture.nmoments--;
}

/* Have room for one more element in an array of "max" that has "count". */
static void *
have_room(void *array, int count, int *max, Size size)
{
	int			room = Max(*max * 2, 16);

	if (count < *max)
		return array;
	array = array ? repalloc_huge(array, room * size) :
		MemoryContextAlloc(capture_context(), room * size);
	*max = room;
	return array;
}

/* The same for a mark. */
static void
reserve_mark(void)
{
	capture.marks = have_room(capture.marks, capture.nmarks, &capture.maxmarks,
							  sizeof(CapturedMark));
}

/* The mark of the innermost subtransaction, at a level; NULL: it has none. */
static CapturedMark *
last_mark(int level)
{
	CapturedMark *mark;

	if (capture.nmarks == 0)
		return NULL;
	mark = &capture.marks[capture.nmarks - 1];
	return mark->level == level ? mark : NULL;
}

/* Mark where the running subtransaction begins, at the first that it adds. */
static void
set_mark(void)
{
	int			level = GetCurrentTransactionNestLevel();
	CapturedMark *mark;

	if (last_mark(level))
		return;
	mark = &capture.marks[capture.nmarks];
	mark->level = level;
	mark->nhints = capture.nhints;
	mark->ndeaths = capture.ndeaths;
	capture.nmarks++;
}

/* Note a change of the running subtransaction; the hint is copied. */
void
presence_capture_note(PresenceHint *hint)
{
	PresenceHint *copy = MemoryContextAlloc(capture_context(), hint->size);

	memcpy(copy, hint, hint->size);
	capture.hints = have_room(capture.hints, capture.nhints, &capture.maxhints,
							  sizeof(PresenceHint *));
	reserve_mark();
	set_mark();
	capture.hints[capture.nhints++] = copy;
}

/* Find or make this transaction's note of a channel. */
static CapturedChannel *
get_channel(const PresenceName *name)
{
	PresenceName kept = *name;
	CapturedChannel *channel;
	char	   *copy;
	bool		found;

	if (capture.channels == NULL)
		capture.channels = channels_create(capture_context(), 16, NULL);
	channel = channels_lookup(capture.channels, *name);
	if (channel)
		return channel;
	/* Should memory run out, no key may be left that points to the caller's. */
	copy = MemoryContextAlloc(capture_context(), name->length);
	memcpy(copy, name->data, name->length);
	kept.data = copy;
	channel = channels_insert(capture.channels, kept, &found);
	memset(&channel->deed, 0, sizeof(PresenceDeed));
	return channel;
}

/*
 * The transaction adds a channel: pin it in the registry, once.  "beat" says
 * that the add is done, so that it is a sign of life.  Answers as
 * presence_registry_begin() does; FULL also without shared memory.
 */
PresenceLife
presence_capture_begin(const char *channel, int length, PresenceTime now,
					   PresenceTime cutoff, bool beat)
{
	PresenceName name;
	CapturedChannel *note;
	PresenceLife life;

	if (!presence_shmem_ready())
		return PRESENCE_LIFE_FULL;
	name = presence_name_make(channel, length);
	note = get_channel(&name);
	if (!note->deed.pinned)
	{
		life = presence_registry_begin(&name, now, cutoff, true);
		note->deed.pinned = life != PRESENCE_LIFE_FULL;
		if (!beat || !note->deed.pinned)
			return life;
	}
	life = beat ? presence_registry_touch(&name, now, cutoff) :
		presence_registry_look(&name, cutoff).life;
	if (life == PRESENCE_LIFE_DEAD)
		(void) presence_registry_begin(&name, now, cutoff, false);
	return life;
}

/* Whether the transaction holds a pin on a channel. */
bool
presence_capture_has_pinned(const PresenceName *name)
{
	CapturedChannel *note = capture.channels ?
		channels_lookup(capture.channels, *name) : NULL;

	return note && note->deed.pinned;
}

/* Make room for one more death, before the channel is condemned. */
void
presence_capture_reserve_death(void)
{
	capture.deaths = have_room(capture.deaths, capture.ndeaths,
							   &capture.maxdeaths, sizeof(CapturedDeath));
	reserve_mark();
}

/*
 * The transaction has condemned a channel; its end releases the entry.  Room
 * must be reserved, so that nothing can fail between the two.
 */
int
presence_capture_condemned(const PresenceVerdict *verdict)
{
	Assert(capture.ndeaths < capture.maxdeaths);
	set_mark();
	capture.deaths[capture.ndeaths].verdict = *verdict;
	capture.deaths[capture.ndeaths].bury = false;
	return capture.ndeaths++;
}

/* Once this commits a condemned channel has no rows: free its entry then. */
void
presence_capture_bury(int death)
{
	capture.deaths[death].bury = true;
}

/* A text column of a row as a value. */
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

/* Whether two values are the same. */
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

/* Raise an error unless listeners can read a name. */
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
 * Raise an error unless a row is as the functions of the extension would have
 * written it.  Check constraints could do this, but every statement would
 * read them from the catalogs anew.
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

/* Whether a text, NULL or not, is the same as a value. */
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

/* A value as a text; NULL: none. */
static text *
value_text(const PresenceValue *value)
{
	return value->data ? cstring_to_text_with_len(value->data, value->length) : NULL;
}

/*
 * Who enters by a row, or is in by it as another user than before, has to pass
 * the rules, unless whoever wrote the row has asked them.  The row is there, so
 * policies have spoken.  Returns which state of the rules let him in.
 */
static uint64
admit(const PresenceValue *fields, PresenceEntrance entrance)
{
	const PresenceTicket *ticket = current_moment().ticket;
	bool		expected;

	expected = ticket && same_text(ticket->room, &fields[PRESENCE_FIELD_ROOM]) &&
		same_text(ticket->channel, &fields[PRESENCE_FIELD_CHANNEL]);
	if (expected && same_text(ticket->user, &fields[PRESENCE_FIELD_USER]) &&
		ticket->asked >= (entrance == PRESENCE_ENTRANCE_USER ? PRESENCE_ASKED_USER : PRESENCE_ASKED_ALL))
		return ticket->rules;
	return admit_row(value_text(&fields[PRESENCE_FIELD_ROOM]),
					 value_text(&fields[PRESENCE_FIELD_USER]), entrance, expected);
}

/* Whether the channel of a row counts as alive. */
static bool
is_live(HeapTuple row, TupleDesc desc, const PresenceValue *channel)
{
	bool		isnull;
	Datum		last_seen = heap_getattr(row, COLUMN_LAST_SEEN, desc, &isnull);

	return presence_liveness_is_live(channel->data, channel->length,
									 DatumGetTimestampTz(last_seen),
									 presence_liveness_cutoff(presence_clock_now(),
															  presence_liveness_max_age()));
}

/* A row was inserted. */
static void
note_join(HeapTuple row, TupleDesc desc)
{
	PresenceValue fields[PRESENCE_NFIELDS];
	PresenceTime now = presence_clock_now();
	PresenceHint *hint;

	fill_key(fields, row, desc);
	check_row(row, desc, fields);
	(void) presence_capture_begin(fields[PRESENCE_FIELD_CHANNEL].data,
								  fields[PRESENCE_FIELD_CHANNEL].length, now,
								  presence_liveness_cutoff(now, presence_liveness_max_age()),
								  true);
	hint = presence_hint_make(PRESENCE_HINT_JOIN, row_id(row, desc), fields);
	hint->rules = admit(fields, is_live(row, desc, &fields[PRESENCE_FIELD_CHANNEL]) ?
						PRESENCE_ENTRANCE_LIVE : PRESENCE_ENTRANCE_DEAD);
	presence_capture_note(hint);
}

/* The newest sign of life of the channel of a row. */
static TimestampTz
newest_sign(HeapTuple row, TupleDesc desc, const PresenceValue *channel)
{
	bool		isnull;
	Datum		last_seen = heap_getattr(row, COLUMN_LAST_SEEN, desc, &isnull);

	return presence_clock_to_timestamp(presence_liveness_seen(channel->data,
															  channel->length,
															  DatumGetTimestampTz(last_seen)));
}

/* A row was deleted. */
static void
note_leave(HeapTuple row, TupleDesc desc)
{
	PresenceValue fields[PRESENCE_NFIELDS];
	PresenceHint *hint;
	bool		truncated = false;
	bool		isnull;
	Datum		meta = heap_getattr(row, COLUMN_META, desc, &isnull);

	fill_key(fields, row, desc);
	if (!isnull && presence_notify_meta)
	{
		truncated = toast_raw_datum_size(meta) > PRESENCE_HINT_MAX_META;
		if (!truncated)
		{
			Jsonb	   *jsonb = DatumGetJsonbP(meta);

			fields[PRESENCE_FIELD_META].data = (char *) jsonb;
			fields[PRESENCE_FIELD_META].length = VARSIZE(jsonb);
		}
	}
	hint = presence_hint_make(PRESENCE_HINT_LEAVE, row_id(row, desc), fields);
	hint->reason = current_moment().reason;
	hint->truncated = truncated;
	hint->joined_at = DatumGetTimestampTz(heap_getattr(row, COLUMN_JOINED_AT,
													   desc, &isnull));
	hint->last_seen = newest_sign(row, desc, &fields[PRESENCE_FIELD_CHANNEL]);
	presence_capture_note(hint);
}

/*
 * Whoever brings a dead row back to life by its last_seen takes a place anew.  A
 * heartbeat does not: it finds none that is dead.
 */
static void
note_revival(HeapTuple before, HeapTuple after, TupleDesc desc,
			 const PresenceValue *fields)
{
	const PresenceValue *channel = &fields[PRESENCE_FIELD_CHANNEL];

	if (!same_column(before, after, desc, COLUMN_LAST_SEEN) &&
		!is_live(before, desc, channel) && is_live(after, desc, channel))
		(void) admit(fields, PRESENCE_ENTRANCE_LIVE);
}

/* A row was changed: a rename leaves and joins, a heartbeat is no news. */
static void
note_update(HeapTuple before, HeapTuple after, TupleDesc desc)
{
	PresenceValue fields[PRESENCE_NFIELDS];
	PresenceValue previous = row_text(before, desc, COLUMN_USER);
	PresenceHint *hint;

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
	hint = presence_hint_make(PRESENCE_HINT_UPDATE, row_id(after, desc), fields);
	if (!same_value(previous, fields[PRESENCE_FIELD_USER]))
	{
		hint->rules = admit(fields, PRESENCE_ENTRANCE_USER);
		hint->last_seen = newest_sign(after, desc, &fields[PRESENCE_FIELD_CHANNEL]);
	}
	presence_capture_note(hint);
}

/* A table, and the types of its first columns, on which the triggers rely. */
typedef struct CapturedTable
{
	const char *name;
	int			ncolumns;
	Oid			types[COLUMN_LAST_SEEN];
} CapturedTable;

static const CapturedTable presences_table = {
	"presences", COLUMN_LAST_SEEN,
	{INT8OID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

static const CapturedTable people_table = {
	"people", PERSON_MESSAGE, {TEXTOID, TEXTOID, TEXTOID}
};

/* Whether a relation is a table of the extension, as it was created. */
static bool
is_table(Relation relation, const CapturedTable *table)
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
 * Raise an error unless called as a trigger as the install script does: anybody
 * who may execute the function may put it on a table of his own.
 */
static TriggerData *
check_trigger(FunctionCallInfo fcinfo, TriggerEvent timing, bool row,
			  const CapturedTable *table)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		(data->tg_event & TRIGGER_EVENT_TIMINGMASK) != timing ||
		(timing == TRIGGER_EVENT_BEFORE && !TRIGGER_FIRED_BY_UPDATE(data->tg_event)) ||
		(TRIGGER_FIRED_FOR_ROW(data->tg_event) != 0) != row ||
		!is_table(data->tg_relation, table))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function serves the triggers of the tables of presence only"),
				 errhint("Leave the triggers, and the columns of the tables, as CREATE EXTENSION presence made them.")));
	return data;
}

/*
 * presence.capture_row() returns trigger
 *
 * Notes an inserted, changed or deleted presence.
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
 * presence.renew_id() returns trigger
 *
 * A presence that plain SQL moves to another room or channel leaves and joins.
 * It gets a new id for that: each id joins once and leaves once, so that it
 * cannot matter in which order the hints come.
 */
Datum
presence_renew_id(PG_FUNCTION_ARGS)
{
	TriggerData *data = check_trigger(fcinfo, TRIGGER_EVENT_BEFORE, true, &presences_table);
	TupleDesc	desc = RelationGetDescr(data->tg_relation);
	HeapTuple	before = data->tg_trigtuple;
	HeapTuple	after = data->tg_newtuple;
	int			column = COLUMN_ID;
	bool		isnull = false;
	Datum		id;

	if (same_column(before, after, desc, COLUMN_ROOM) &&
		same_column(before, after, desc, COLUMN_CHANNEL))
		return PointerGetDatum(after);
	id = Int64GetDatum(nextval_internal(presence_compat_identity_sequence(data->tg_relation, COLUMN_ID),
										false));
	return PointerGetDatum(heap_modify_tuple_by_cols(after, desc, 1, &column,
													 &id, &isnull));
}

/*
 * presence.capture_truncate() returns trigger
 *
 * Notes that every presence is gone.
 */
Datum
presence_capture_truncate(PG_FUNCTION_ARGS)
{
	PresenceValue fields[PRESENCE_NFIELDS] = {0};

	(void) check_trigger(fcinfo, TRIGGER_EVENT_AFTER, false, &presences_table);
	if (creating_extension)
	{
		/* Nobody was announced, but entries of an earlier table may be left. */
		(void) capture_context();
		capture.truncated = true;
		capture.created = true;
	}
	else
		presence_capture_note(presence_hint_make(PRESENCE_HINT_RESYNC, 0, fields));
	return PointerGetDatum(NULL);
}

/*
 * presence.capture_person() returns trigger
 *
 * Notes that a chosen status or message changed, with what it was.
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
		presence_capture_note(presence_hint_make(PRESENCE_HINT_STATUS, 0, fields));
	return PointerGetDatum(NULL);
}

/* Count a presence that joins or leaves with its channel. */
static void
count_change(const PresenceHint *hint, bool joins)
{
	const char *channel = presence_hint_text(hint, PRESENCE_FIELD_CHANNEL);
	CapturedChannel *note;
	PresenceName name;

	capture.counts[joins ? PRESENCE_ADDS :
				   hint->reason == PRESENCE_REASON_EXPIRED ?
				   PRESENCE_EXPIRATIONS : PRESENCE_LEAVES]++;
	if (channel == NULL)
		return;					/* too long for the registry, too */
	name = presence_name_make(channel, strlen(channel));
	note = get_channel(&name);
	if (!note->deed.changed && !note->deed.pinned)
		note->deed.ref = presence_registry_find(&name);
	note->deed.changed = true;
	note->deed.joined |= joins;
	note->deed.change += joins ? 1 : -1;
}

/* Count the hints by channel, for the registry and the statistics. */
static void
count_changes(int from)
{
	if (!presence_shmem_ready())
		return;
	for (int i = from; i < capture.nhints; i++)
	{
		const PresenceHint *hint = capture.hints[i];

		CHECK_FOR_INTERRUPTS();
		if (hint->stands_for == PRESENCE_HINT_RESYNC)
			capture.truncated = true;
		else if (hint->stands_for == PRESENCE_HINT_BAN)
			capture.changes_rules = capture.needs_worker = true;
		else if (hint->stands_for == PRESENCE_HINT_ROOM_DELETED)
			capture.changes_rules = true;
		else if (hint->stands_for == PRESENCE_HINT_JOIN ||
				 hint->stands_for == PRESENCE_HINT_LEAVE)
			count_change(hint, hint->stands_for == PRESENCE_HINT_JOIN);
	}
}

/* Whether a worker will announce what is queued. */
static bool
worker_announces(PresenceDatabase *database)
{
	return presence_notify == PRESENCE_NOTIFY_AUTO && database &&
		presence_queue_is_open(database);
}

/*
 * Announce the changes from within the transaction.  What nobody is told of is
 * made up for by a resync, once there is somebody to say it.
 *
 * What is written down while announcing may fire triggers of a user's, which
 * may change presences: so until nothing new has come.
 */
static void
announce_myself(PresenceDatabase *database)
{
	bool		resync = false;
	int			done = 0;

	capture.announced = true;
	if (database && presence_notify != PRESENCE_NOTIFY_OFF)
	{
		resync = presence_queue_owes_resync(database, &capture.losses);
		if (presence_notify == PRESENCE_NOTIFY_AUTO)
			capture.counts[PRESENCE_FALLBACKS]++;
	}
	while (done < capture.nhints)
	{
		int			count = capture.nhints - done;
		Size		size = count * sizeof(PresenceHint *);
		PresenceHint **hints = MemoryContextAllocHuge(capture_context(), size);

		if (done > 0)
			count_changes(done);
		memcpy(hints, capture.hints + done, size);
		capture.untold |= !announce_hints(hints, count, resync && done == 0);
		done += count;
	}
	capture.resynced = resync && !capture.untold;
}

/*
 * Draw a ticket for the hints.  Whoever sees this transaction committed before
 * its own PRE_COMMIT draws a later one.
 */
static void
draw_ticket(PresenceDatabase *database)
{
	uint64		ticket = pg_atomic_fetch_add_u64(&database->tickets, 1);

	for (int i = 0; i < capture.nhints; i++)
		capture.hints[i]->ticket = ticket;
}

/* A ban took no lock because a worker would enforce it, and it has left. */
static void
refuse_ban(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("could not ban the user now"),
			 errdetail("The presence worker left while the ban was under way."),
			 errhint("Repeat the transaction.")));
}

/* The transaction is about to commit: prepare all that must not fail later. */
static void
before_commit(void)
{
	PresenceDatabase *database;

	if (capture.nhints == 0)
		return;
	database = presence_database_mine();
	count_changes(0);
	if (!worker_announces(database))
	{
		if (capture.needs_worker)
			refuse_ban();
		announce_myself(database);
	}
	if (database)
	{
		draw_ticket(database);
		capture.xid = GetTopTransactionId();
		presence_backend_show_xid(capture.xid);
	}
}

/* Tell the registry how the transaction ended. */
static void
settle_registry(bool committed)
{
	channels_iterator iterator;
	CapturedChannel *channel;

	if (capture.channels)
	{
		channels_start_iterate(capture.channels, &iterator);
		while ((channel = channels_iterate(capture.channels, &iterator)))
			if (channel->deed.pinned || channel->deed.changed)
				presence_registry_end(&channel->name, &channel->deed, committed);
	}
	for (int i = 0; i < capture.ndeaths; i++)
		presence_registry_release(&capture.deaths[i].verdict,
								  committed && capture.deaths[i].bury);
	if (committed && capture.truncated && presence_shmem_ready())
		presence_registry_doubt(MyDatabaseId);
}

/* Forget the transaction; its memory goes with TopTransactionContext. */
static void
forget_capture(void)
{
	memset(&capture, 0, sizeof(capture));
}

/* Put the hints where the worker finds them. */
static void
queue_hints(PresenceDatabase *database)
{
	bool		news;

	/* Before the hints: who is let in from now on sees the new rules. */
	if (capture.changes_rules)
		pg_atomic_fetch_add_u64(&database->rules, 1);
	news = presence_queue_push(database, capture.hints, capture.nhints,
							   capture.xid, capture.announced);
	if (capture.resynced)
		presence_queue_resynced(database, capture.losses);
	if (capture.untold)
		presence_queue_owe_resync(database);
	presence_backend_hide_xid();
	for (int i = 0; i < PRESENCE_NCOUNTERS; i++)
		if (capture.counts[i] > 0)
			presence_database_add(database, i, capture.counts[i]);
	if (news)
		presence_database_wake_worker(database);
	presence_database_want_worker(database);
}

/* Who read a room a moment ago may have missed somebody who is alive again. */
static void
tell_revival(PresenceDatabase *database)
{
	if (database == NULL || presence_clock_now() < capture.death)
		return;
	presence_queue_owe_resync(database);
	presence_database_wake_worker(database);
}

/* The transaction has committed.  Nothing here may fail. */
static void
after_commit(void)
{
	if (capture.context)
		settle_registry(true);
	if (TransactionIdIsValid(capture.xid))
		queue_hints(presence_database_mine());
	if (capture.death != 0)
		tell_revival(presence_database_mine());
	if (capture.created)
		presence_database_want_worker(presence_database_mine());
	forget_capture();
}

/* The transaction has been rolled back.  Nothing here may fail. */
static void
after_abort(void)
{
	if (capture.context)
		settle_registry(false);
	if (TransactionIdIsValid(capture.xid))
		presence_backend_hide_xid();
	forget_capture();
}

/*
 * Refuse a two-phase commit, as NOTIFY does: nobody would announce it.  What was
 * rolled back with a savepoint does not matter.
 */
static void
before_prepare(void)
{
	if (capture.nhints > 0 || capture.truncated)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has changed presences"),
				 errdetail("A prepared transaction ends in another session, which could not announce the changes."),
				 errhint("Commit the changes of presences in a transaction of their own.")));
}

/* Follow the transaction to its end. */
static void
follow_transaction(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			before_commit();
			break;
		case XACT_EVENT_COMMIT:
			after_commit();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:	/* whatever it does, presences stay */
			after_abort();
			break;
		case XACT_EVENT_PRE_PREPARE:
			before_prepare();
			break;
		default:
			break;
	}
}

/* A subtransaction has been released: its parent has what it did. */
static void
after_release(int level)
{
	CapturedMark *mark = last_mark(level);

	if (mark == NULL)
		return;
	if (capture.nmarks > 1 && mark[-1].level == level - 1)
		capture.nmarks--;
	else
		mark->level = level - 1;
}

/* Drop what came after a mark, and the mark. */
static void
drop_since(const CapturedMark *mark)
{
	while (capture.nhints > mark->nhints)
		pfree(capture.hints[--capture.nhints]);
	while (capture.ndeaths > mark->ndeaths)
		presence_registry_release(&capture.deaths[--capture.ndeaths].verdict,
								  false);
	capture.nmarks--;
}

/* A subtransaction has been rolled back: it has done nothing. */
static void
after_rollback(int level)
{
	CapturedMark *mark = last_mark(level);

	if (mark)
		drop_since(mark);
	while (capture.nmoments > 0 &&
		   capture.moments[capture.nmoments - 1].level >= level)
		capture.nmoments--;
}

/* Follow a subtransaction to its end. */
static void
follow_subtransaction(SubXactEvent event, SubTransactionId mine,
					  SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		after_release(GetCurrentTransactionNestLevel());
	else if (event == SUBXACT_EVENT_ABORT_SUB)
		after_rollback(GetCurrentTransactionNestLevel());
}

/*
 * The transaction writes a sign of life into rows of a channel that dies at
 * that time without it.  If it commits no sooner, listeners are to read again.
 */
void
presence_capture_put_off_death(PresenceTime death)
{
	if (capture.death == 0 || death < capture.death)
		capture.death = death;
}

/* Register the callbacks; once, when the library is loaded. */
void
presence_capture_install(PresenceAnnounceFunc announce, PresenceAdmitFunc admit)
{
	announce_hints = announce;
	admit_row = admit;
	RegisterXactCallback(follow_transaction, NULL);
	RegisterSubXactCallback(follow_subtransaction, NULL);
}
