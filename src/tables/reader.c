/*-------------------------------------------------------------------------
 *
 * reader.c
 *		Runs the statements of the reading functions, with plans that do not
 *		depend on statistics.
 *
 * For a room or user that is not in its statistics the planner assumes an
 * average one.  If one room has nearly all presences, the average is a large
 * part of the table, and a room of five would be read with a sequential scan.
 * So these statements are planned with sequential scans disabled, once per
 * session, with generic plans.  OFFSET 0 keeps an outer ORDER BY from making a
 * full scan of another index attractive.  A page is read in the order of the
 * primary key, as far as it goes: so neither is anything sorted for it.
 *
 * The planner settings are changed while a plan is made, and restored before
 * it runs, so that functions called by policies are planned with the settings
 * of the session.
 *
 * The statements run as the caller, in the snapshot of the calling statement,
 * as STABLE SQL functions do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "jit/jit.h"
#include "nodes/params.h"
#include "optimizer/cost.h"
#include "tables/reader.h"
#include "tables/store.h"
#include "tcop/dest.h"
#include "utils/plancache.h"

/* The live presences that a condition finds by an index. */
#define LIVE(columns, condition) \
	"(SELECT " columns " FROM presence.members m WHERE " condition " OFFSET 0) m"
#define LIVE_IN_ROOM(columns)	LIVE(columns, "m.room " SQL_EQ " $1")

/* Most arguments of a statement. */
#define MAX_ARGUMENTS 3

/* A statement, prepared at its first use in a session. */
typedef struct Question
{
	const char *sql;
	Oid			arguments[MAX_ARGUMENTS];	/* their types; InvalidOid: no
											 * more */
	bool		page;			/* stops early, in the order of an index */
	SPIPlanPtr	plan;
} Question;

static Question questions[] = {
	[PRESENCE_READ_LIST] = {
		"SELECT m.id, m.room, m.channel_name, m.user_id, m.meta, m.joined_at, m.last_seen FROM "
		LIVE_IN_ROOM("m.id, m.room, m.channel_name, m.user_id, m.meta, m.joined_at, m.last_seen")
		" ORDER BY m.joined_at, m.id", {TEXTOID}
	},

	/*
	 * Only the primary key has this order, so no other index is scanned for
	 * it.
	 */
	[PRESENCE_READ_PAGE] = {
		"SELECT m.id, m.room, m.channel_name, m.user_id, m.meta, m.joined_at, m.last_seen"
		" FROM presence.members m"
		" WHERE ROW(m.room, m.channel_name) " SQL_GT " ROW($1, $2)"
		" AND m.room OPERATOR(pg_catalog.<=) $1"
		" ORDER BY m.room, m.channel_name LIMIT $3", {TEXTOID, TEXTOID, INT4OID},.page = true
	},
	[PRESENCE_READ_USERS] = {
		"SELECT m.user_id, pg_catalog.count(*), pg_catalog.min(m.joined_at), pg_catalog.max(m.last_seen),"
		" (pg_catalog.array_agg(m.meta ORDER BY m.joined_at DESC, m.id DESC))[1] FROM "
		LIVE_IN_ROOM("m.id, m.user_id, m.meta, m.joined_at, m.last_seen")
		" WHERE m.user_id IS NOT NULL GROUP BY m.user_id ORDER BY 3, 1", {TEXTOID}
	},
	[PRESENCE_READ_COUNT] = {
		"SELECT pg_catalog.count(*) FROM " LIVE_IN_ROOM(""), {TEXTOID}
	},
	[PRESENCE_READ_ANONYMOUS_COUNT] = {
		"SELECT pg_catalog.count(*) FROM " LIVE_IN_ROOM("m.user_id")
		" WHERE m.user_id IS NULL", {TEXTOID}
	},
	[PRESENCE_READ_COUNTS] = {
		"SELECT pg_catalog.count(*), pg_catalog.count(DISTINCT m.user_id),"
		" pg_catalog.count(*) FILTER (WHERE m.user_id IS NULL) FROM "
		LIVE_IN_ROOM("m.user_id"), {TEXTOID}
	},
	[PRESENCE_READ_ROOMS] = {
		"SELECT m.room FROM " LIVE("m.room", "m.channel_name " SQL_EQ " $1")
		" ORDER BY m.room", {TEXTOID}
	},
	[PRESENCE_READ_USER_ROOMS] = {
		"SELECT DISTINCT m.room FROM " LIVE("m.room", "m.user_id " SQL_EQ " $1")
		" ORDER BY m.room", {TEXTOID}
	},
	[PRESENCE_READ_IS_ONLINE] = {
		"SELECT EXISTS (SELECT FROM presence.members m WHERE m.user_id " SQL_EQ " $1)", {TEXTOID}
	},
	[PRESENCE_READ_ONLINE] = {
		"SELECT m.user_id, pg_catalog.count(DISTINCT m.channel_name), pg_catalog.max(m.last_seen) FROM "
		LIVE("m.user_id, m.channel_name, m.last_seen", "m.user_id " SQL_EQ " ANY ($1)")
		" GROUP BY m.user_id ORDER BY m.user_id", {TEXTARRAYOID}
	},
	[PRESENCE_READ_STATUSES] = {
		"SELECT u.user_id,"
		" CASE WHEN l.connections " SQL_GT " 0 THEN COALESCE(p.chosen_status, 'online') ELSE 'offline' END,"
		" p.chosen_status, p.custom_message,"
		" CASE WHEN p.invisible THEN 0 ELSE l.connections END,"
		" CASE WHEN p.invisible THEN p.chosen_at ELSE GREATEST(l.last_seen, s.last_seen) END"
		" FROM pg_catalog.unnest($1) WITH ORDINALITY AS u (user_id, position)"
		" CROSS JOIN LATERAL (SELECT pg_catalog.count(DISTINCT m.channel_name) AS connections,"
		" pg_catalog.max(m.last_seen) AS last_seen FROM "
		LIVE("m.channel_name, m.last_seen", "m.user_id " SQL_EQ " u.user_id") ") l"
		" CROSS JOIN LATERAL (SELECT pg_catalog.max(g.last_seen) AS last_seen"
		" FROM presence.user_last_seen g WHERE g.user_id " SQL_EQ " u.user_id) s"
		" LEFT JOIN LATERAL (SELECT q.chosen_status, q.custom_message, q.chosen_at,"
		" q.chosen_status " SQL_EQ " 'offline' AS invisible FROM presence.people q"
		" WHERE q.user_id " SQL_EQ " u.user_id OFFSET 0) p ON true"
		" ORDER BY u.position", {TEXTARRAYOID}
	},
};

/* Planner settings of the session. */
typedef struct Settings
{
	bool		seqscan;
	bool		indexscan;
	bool		bitmapscan;
	bool		sort;
	bool		incremental_sort;
	bool		jit;
	int			cache_mode;
} Settings;

/* Receives the result of a statement. */
typedef struct Answer
{
	DestReceiver receiver;
	Settings	settings;		/* of the session */
	bool		planning;		/* settings are to be restored */
	Tuplestorestate *rows;		/* for all rows; NULL: keep only the first */
	HeapTuple	row;			/* the first one */
	MemoryContext context;		/* that it is allocated in */
} Answer;

/* Change settings so that generic plans with index scans are made. */
static void
begin_planning(Answer *answer, const Question *question)
{
	answer->settings.seqscan = enable_seqscan;
	answer->settings.indexscan = enable_indexscan;
	answer->settings.bitmapscan = enable_bitmapscan;
	answer->settings.sort = enable_sort;
	answer->settings.incremental_sort = enable_incremental_sort;
	answer->settings.jit = jit_enabled;
	answer->settings.cache_mode = plan_cache_mode;
	answer->planning = true;
	enable_seqscan = false;
	enable_indexscan = true;
	enable_bitmapscan = !question->page;
	enable_sort = enable_incremental_sort = !question->page;
	jit_enabled = false;		/* disabled nodes look very expensive */
	plan_cache_mode = PLAN_CACHE_MODE_FORCE_GENERIC_PLAN;
}

/* Restore the settings of the session, once. */
static void
end_planning(Answer *answer)
{
	if (!answer->planning)
		return;
	answer->planning = false;
	enable_seqscan = answer->settings.seqscan;
	enable_indexscan = answer->settings.indexscan;
	enable_bitmapscan = answer->settings.bitmapscan;
	enable_sort = answer->settings.sort;
	enable_incremental_sort = answer->settings.incremental_sort;
	jit_enabled = answer->settings.jit;
	plan_cache_mode = answer->settings.cache_mode;
}

/* rStartup callback: planning is over. */
static void
start_rows(DestReceiver *self, int operation, TupleDesc desc)
{
	end_planning((Answer *) self);
}

/* receiveSlot callback. */
static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	Answer	   *answer = (Answer *) self;

	if (answer->rows)
		tuplestore_puttupleslot(answer->rows, slot);
	else if (answer->row == NULL)
	{
		MemoryContext before = MemoryContextSwitchTo(answer->context);

		answer->row = ExecCopySlotHeapTuple(slot);
		MemoryContextSwitchTo(before);
	}
	return true;
}

static void
end_rows(DestReceiver *self)
{
}

/* How many arguments a statement has. */
static int
count_arguments(const Question *question)
{
	int			count = 0;

	while (count < MAX_ARGUMENTS && OidIsValid(question->arguments[count]))
		count++;
	return count;
}

/* Get the plan of a statement, prepared at its first use in a session. */
static SPIPlanPtr
get_plan(Question *question)
{
	if (question->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(question->sql, count_arguments(question),
									   question->arguments);

		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed for \"%s\": %s", question->sql,
				 SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		question->plan = plan;
	}
	return question->plan;
}

/* Run a statement with its arguments. */
static void
ask(Question *question, const Datum *arguments, Answer *answer)
{
	SPIExecuteOptions options = {0};
	ParamListInfo params = makeParamList(count_arguments(question));
	SPIPlanPtr	plan = get_plan(question);
	int			result;

	for (int i = 0; i < params->numParams; i++)
	{
		params->params[i].value = arguments[i];
		params->params[i].isnull = false;
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = question->arguments[i];
	}
	options.params = params;
	options.read_only = true;
	options.dest = &answer->receiver;

	begin_planning(answer, question);
	result = SPI_execute_plan_extended(plan, &options);
	if (result < 0)
		elog(ERROR, "SPI failed for \"%s\": %s", question->sql,
			 SPI_result_code_string(result));
}

/* Run a statement; puts all rows into "rows", or returns the first one. */
static HeapTuple
run(PresenceRead what, const Datum *arguments, Tuplestorestate *rows)
{
	Answer		answer = {
		{receive_row, start_rows, end_rows, end_rows, DestNone},
		.rows = rows,
		.context = CurrentMemoryContext
	};

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	PG_TRY();
	{
		ask(&questions[what], arguments, &answer);
	}
	PG_FINALLY();
	{
		end_planning(&answer);
	}
	PG_END_TRY();
	SPI_finish();
	return answer.row;
}

/* Return all rows of a result; "flags" are those of InitMaterializedSRF(). */
Datum
presence_reader_return_rows(FunctionCallInfo fcinfo, PresenceRead what,
							Datum argument, int flags)
{
	InitMaterializedSRF(fcinfo, flags);
	(void) run(what, &argument, ((ReturnSetInfo *) fcinfo->resultinfo)->setResult);
	return (Datum) 0;
}

/* Return a page of the members of a room: those after a channel (""; all). */
Datum
presence_reader_return_page(FunctionCallInfo fcinfo, Datum room, Datum after,
							int max_rows)
{
	Datum		arguments[] = {room, after, Int32GetDatum(max_rows)};

	InitMaterializedSRF(fcinfo, 0);
	(void) run(PRESENCE_READ_PAGE, arguments,
			   ((ReturnSetInfo *) fcinfo->resultinfo)->setResult);
	return (Datum) 0;
}

/* Read the first row, in the caller's memory context; NULL if none. */
HeapTuple
presence_reader_row(PresenceRead what, Datum argument)
{
	return run(what, &argument, NULL);
}

/* Return the only row of a result. */
Datum
presence_reader_return_row(FunctionCallInfo fcinfo, PresenceRead what,
						   Datum argument)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	PG_RETURN_DATUM(heap_copy_tuple_as_datum(presence_reader_row(what, argument),
											 BlessTupleDesc(desc)));
}
