/*-------------------------------------------------------------------------
 *
 * operationfuncs.c
 *		SQL functions for administration and monitoring.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/args.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/shmem.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "events/notify.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "shared/backend.h"
#include "shared/database.h"
#include "shared/queue.h"
#include "shared/registry.h"
#include "state/replay_mem.h"
#include "state/state.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/timestamp.h"
#include "worker/launcher.h"

PG_FUNCTION_INFO_V1(presence_grant);
PG_FUNCTION_INFO_V1(presence_revoke);
PG_FUNCTION_INFO_V1(presence_start_worker);
PG_FUNCTION_INFO_V1(presence_schedule_pruning);
PG_FUNCTION_INFO_V1(presence_unschedule_pruning);
PG_FUNCTION_INFO_V1(presence_stat_row);
PG_FUNCTION_INFO_V1(presence_reset_stats);

/* Levels of access; each includes those before it. */
typedef enum Level
{
	LEVEL_READER,
	LEVEL_MEMBER,
	LEVEL_ADMIN
} Level;

/*
 * Privileges that a level adds: "privileges ON objects" as GRANT has it.  If
 * the objects are functions, their names are in "functions", separated by
 * spaces.
 */
typedef struct Privilege
{
	Level		level;
	const char *clause;
	const char *functions;
} Privilege;

static const Privilege privileges[] = {
	{LEVEL_READER, "USAGE ON SCHEMA presence"},
	{LEVEL_READER, NULL},		/* stands for USAGE on the functions' schema */
	{LEVEL_READER, "USAGE ON TYPE presence.member, presence.added,"
	" presence.person, presence.room"},
	{LEVEL_READER, "SELECT ON presence.presences, presence.rooms, presence.people,"
		" presence.user_last_seen, presence.visits, presence.members, presence.room_list,"
	" presence.stats"},
	{LEVEL_READER, "EXECUTE ON FUNCTION", "is_live is_older effective_last_seen check_name"
		" stat_row presence_list presence_page presence_users presence_count presence_anonymous_count"
		" presence_counts presence_rooms presence_user_rooms presence_is_online"
		" presence_online presence_snapshot presence_since presence_status presence_statuses"
	" presence_get_state presence_cursors presence_typing_users"},
	{LEVEL_MEMBER, "INSERT (room, channel_name, user_id, meta, joined_at, last_seen),"
	" UPDATE, DELETE ON presence.presences"},
	{LEVEL_MEMBER, "INSERT (name) ON presence.rooms"},
	{LEVEL_MEMBER, "INSERT, UPDATE ON presence.people"},
	{LEVEL_MEMBER, "SELECT ON presence.bans, presence.invitations"},
	{LEVEL_MEMBER, "EXECUTE ON FUNCTION", "note_touchable check_status presence_add"
		" presence_add_many presence_update presence_remove presence_touch"
		" presence_touch_many presence_receive presence_hold presence_hold_many"
		" presence_release presence_release_all presence_leave_all"
		" presence_leave_all_many presence_set_status presence_broadcast"
		" presence_set_state presence_clear_state presence_cursor_update"
	" presence_cursor_remove presence_typing"},
	{LEVEL_ADMIN, "INSERT, UPDATE, DELETE ON presence.rooms"},
	{LEVEL_ADMIN, "INSERT, UPDATE, DELETE ON presence.bans, presence.invitations"},
	{LEVEL_ADMIN, "SELECT, UPDATE, DELETE ON presence.admissions"},
	{LEVEL_ADMIN, "DELETE ON presence.people"},
	{LEVEL_ADMIN, "UPDATE, DELETE ON presence.user_last_seen, presence.visits"},
	{LEVEL_ADMIN, "EXECUTE ON FUNCTION", "check_room_settings presence_configure_room"
		" presence_invite presence_uninvite presence_kick presence_ban presence_unban"
		" prune_presences prune_rooms presence_start_worker presence_schedule_pruning"
	" presence_unschedule_pruning presence_reset_stats"},
};

/* Parse the name of a level. */
static Level
parse_level(const char *word)
{
	static const char *const words[] = {"reader", "member", "admin"};

	for (int i = 0; i < lengthof(words); i++)
		if (strcmp(word, words[i]) == 0)
			return (Level) i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("argument \"level\" must be reader, member or admin"),
			 errdetail("The value has %d characters.", (int) strlen(word)),
			 errhint("A reader reads, a member also enters and leaves, an admin also prunes and moderates.")));
}

/* The role in argument 0, quoted for GRANT. */
static const char *
role_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		presence_args_reject_null("role");
	return quote_identifier(GetUserNameFromId(PG_GETARG_OID(0), false));
}

/* The schema of the called function, quoted. */
static const char *
my_schema(FunctionCallInfo fcinfo)
{
	return quote_identifier(get_namespace_name(get_func_namespace(fcinfo->flinfo->fn_oid)));
}

/*
 * The signatures of the extension's functions with some names, for GRANT.
 * Only members of the extension, because others may have functions of the
 * same names in that schema.
 */
static char *
signatures(const char *names)
{
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(names);

	if (SPI_execute_with_args("SELECT pg_catalog.string_agg(p.oid::pg_catalog.regprocedure::pg_catalog.text, ', ')"
							  " FROM pg_catalog.pg_depend d"
							  " JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid"
							  " JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) d.objid"
							  " WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass"
							  " AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass"
							  " AND d.deptype OPERATOR(pg_catalog.=) 'e'"
							  " AND e.extname OPERATOR(pg_catalog.=) 'presence'"
							  " AND p.proname::pg_catalog.text OPERATOR(pg_catalog.=)"
							  " ANY (pg_catalog.string_to_array($1, ' '))",
							  1, &type, &value, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look the functions of the extension up");
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/* The "privileges ON objects" of a GRANT; "schema" is that of the functions. */
static char *
privilege_clause(const Privilege *privilege, const char *schema)
{
	if (privilege->functions)
		return psprintf("%s %s", privilege->clause, signatures(privilege->functions));
	if (privilege->clause == NULL)
		return psprintf("USAGE ON SCHEMA %s", schema);
	return pstrdup(privilege->clause);
}

/* Run "verb <clause> preposition role" for the levels up to "level". */
static void
change_privileges(FunctionCallInfo fcinfo, const char *verb,
				  const char *preposition, Level level)
{
	const char *role = role_argument(fcinfo);
	const char *schema = my_schema(fcinfo);

	SPI_connect();
	for (int i = 0; i < lengthof(privileges); i++)
	{
		char	   *command;

		if (privileges[i].level > level)
			continue;
		command = psprintf("%s %s %s %s", verb,
						   privilege_clause(&privileges[i], schema),
						   preposition, role);
		if (SPI_execute(command, false, 0) != SPI_OK_UTILITY)
			elog(ERROR, "could not execute \"%s\"", command);
	}
	SPI_finish();
}

/*
 * presence_grant(role regrole, level text) returns void
 */
Datum
presence_grant(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(1))
		presence_args_reject_null("level");
	change_privileges(fcinfo, "GRANT", "TO",
					  parse_level(text_to_cstring(PG_GETARG_TEXT_PP(1))));
	PG_RETURN_VOID();
}

/*
 * presence_revoke(role regrole) returns void
 */
Datum
presence_revoke(PG_FUNCTION_ARGS)
{
	change_privileges(fcinfo, "REVOKE", "FROM", LEVEL_ADMIN);
	PG_RETURN_VOID();
}

/*
 * presence_start_worker() returns boolean
 *
 * Returns whether a worker had to be started.
 */
Datum
presence_start_worker(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(presence_launcher_start_worker());
}

/* Raise an error unless pg_cron is installed in this database. */
static void
check_pg_cron(void)
{
	Oid			schema = get_namespace_oid("cron", true);

	if (!OidIsValid(schema) || !OidIsValid(get_extension_oid("pg_cron", true)))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("pg_cron is not installed in this database"),
				 errhint("Install pg_cron and run CREATE EXTENSION pg_cron, or preload presence, whose worker needs no schedule.")));
}

/* Name of the pg_cron job that calls a function in this database. */
static char *
job_name(const char *function)
{
	return psprintf("presence %s %s", function, get_database_name(MyDatabaseId));
}

/* Run a statement with up to three text arguments; returns the row count. */
static uint64
call_cron(const char *sql, int nargs, const char *a, const char *b, const char *c)
{
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID};
	Datum		values[3];
	const char *texts[] = {a, b, c};

	for (int i = 0; i < nargs; i++)
		values[i] = CStringGetTextDatum(texts[i]);
	if (SPI_execute_with_args(sql, nargs, types, values, NULL, false, 0) < 0)
		elog(ERROR, "could not execute \"%s\"", sql);
	return SPI_processed;
}

static const char *const cron_functions[] = {"prune_presences", "prune_rooms"};

/*
 * presence_schedule_pruning(schedule text) returns void
 */
Datum
presence_schedule_pruning(PG_FUNCTION_ARGS)
{
	char	   *schedule;

	if (PG_ARGISNULL(0))
		presence_args_reject_null("schedule");
	schedule = text_to_cstring(PG_GETARG_TEXT_PP(0));
	check_pg_cron();
	SPI_connect();
	for (int i = 0; i < lengthof(cron_functions); i++)
		(void) call_cron("SELECT cron.schedule($1, $2, $3)", 3,
						 job_name(cron_functions[i]), schedule,
						 psprintf("SELECT %s.%s()", my_schema(fcinfo), cron_functions[i]));
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * presence_unschedule_pruning() returns boolean
 *
 * Returns whether there were jobs.
 */
Datum
presence_unschedule_pruning(PG_FUNCTION_ARGS)
{
	uint64		found = 0;

	check_pg_cron();
	SPI_connect();
	for (int i = 0; i < lengthof(cron_functions); i++)
		found += call_cron("SELECT cron.unschedule(j.jobid) FROM cron.job j"
						   " WHERE j.jobname OPERATOR(pg_catalog.=) $1", 1,
						   job_name(cron_functions[i]), NULL, NULL);
	SPI_finish();
	PG_RETURN_BOOL(found > 0);
}

/* Name of the mode in which events are announced. */
static const char *
mode_name(PresenceDatabase *database)
{
	if (presence_notify == PRESENCE_NOTIFY_OFF)
		return "off";
	if (presence_notify == PRESENCE_NOTIFY_AUTO && database &&
		presence_queue_is_open(database))
		return "worker";
	return "transaction";
}

/* Fill in the statistics from shared memory. */
static void
fill_shared_stats(PresenceDatabase *database, Datum *values, bool *nulls)
{
	uint64		lag = presence_database_count(database, PRESENCE_LAST_EXPIRY_LAG);
	uint64		drain = presence_database_count(database, PRESENCE_LAST_DRAIN);
	PresenceStateUsage states = presence_state_usage(database->oid);
	Interval   *interval = palloc0(sizeof(Interval));

	values[1] = Int32GetDatum(database->worker_pid);
	nulls[1] = database->worker_pid == 0;
	values[2] = CStringGetTextDatum(presence_notify_epoch_text(presence_database_epoch()));
	values[3] = Int64GetDatum((int64) pg_atomic_read_u64(&database->seq[PRESENCE_STREAM_CHANGED]));
	values[4] = Int64GetDatum((int64) presence_registry_count(database->oid));
	values[5] = Int64GetDatum(presence_max_channels);
	values[6] = Int64GetDatum((int64) presence_queue_bytes(database));
	values[7] = Int64GetDatum((int64) presence_queue_size * 1024);
	for (int i = PRESENCE_ADDS; i <= PRESENCE_FALLBACKS; i++)
		values[8 + i] = Int64GetDatum((int64) presence_database_count(database, i));
	values[8 + PRESENCE_TOUCHES] =
		Int64GetDatum((int64) (presence_database_count(database, PRESENCE_TOUCHES) +
							   presence_backend_touches(database->oid)));
	interval->time = (int64) lag;
	values[16] = IntervalPGetDatum(interval);
	values[17] = TimestampTzGetDatum((TimestampTz) drain);
	nulls[17] = drain == 0;
	values[18] = TimestampTzGetDatum((TimestampTz)
									 presence_database_count(database, PRESENCE_STATS_RESET));
	values[19] = Int64GetDatum((int64) states.entries);
	values[20] = Int64GetDatum((int64) states.bytes);
	values[21] = Int64GetDatum((int64) states.evictions);
	values[22] = Int64GetDatum((int64) presence_replay_mem_bytes(database));
	values[23] = Int64GetDatum((int64) presence_registry_count_held(database->oid));
}

/*
 * presence.stat_row() returns record
 *
 * Without shared memory all columns but the mode are NULL.
 */
Datum
presence_stat_row(PG_FUNCTION_ARGS)
{
	PresenceDatabase *database = presence_my_database();
	TupleDesc	desc;
	Datum		values[24];
	bool		nulls[24];

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE ||
		desc->natts != lengthof(values))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("function presence.stat_row() is not as the library expects it"),
				 errhint("Run ALTER EXTENSION presence UPDATE.")));
	memset(nulls, database ? false : true, sizeof(nulls));
	values[0] = CStringGetTextDatum(mode_name(database));
	nulls[0] = false;
	if (database)
		fill_shared_stats(database, values, nulls);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}

/*
 * presence_reset_stats() returns void
 */
Datum
presence_reset_stats(PG_FUNCTION_ARGS)
{
	PresenceDatabase *database = presence_my_database();

	if (database)
	{
		presence_backend_reset_touches(database->oid);
		presence_database_reset_counters(database);
		presence_state_reset_evictions(database->oid);
	}
	PG_RETURN_VOID();
}
