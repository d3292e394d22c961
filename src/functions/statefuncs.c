/*-------------------------------------------------------------------------
 *
 * statefuncs.c
 *		SQL functions for short-lived state: cursors, typing, and keys of
 *		applications.
 *
 * They check their arguments and delegate to state.c.  A cursor is a state
 * with the key cursor:<user> and the value {"x", "y", "meta"}.  A typing user
 * is a state with the key typing:<user> and the value true.
 *
 * State belongs to a room; permission.c checks access to it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/xlog.h"
#include "base/args.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/json.h"
#include "base/shmem.h"
#include "common/shortest_dec.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "state/state.h"
#include "state/state_notify.h"
#include "tables/permission.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(presence_set_state);
PG_FUNCTION_INFO_V1(presence_get_state);
PG_FUNCTION_INFO_V1(presence_clear_state);
PG_FUNCTION_INFO_V1(presence_cursor_update);
PG_FUNCTION_INFO_V1(presence_cursors);
PG_FUNCTION_INFO_V1(presence_cursor_remove);
PG_FUNCTION_INFO_V1(presence_typing);
PG_FUNCTION_INFO_V1(presence_typing_users);

/* The longest time to live, 30 days; seconds. */
#define MAX_TTL (30 * 24 * 3600)

/* How long a call of presence_typing() is valid; microseconds. */
#define TYPING_TTL (6 * 1000 * 1000)

/* Raise an error without shared memory, which state is stored in. */
static void
require_shmem(void)
{
	if (!presence_shmem_ready())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("presence keeps no short-lived state on this server"),
				 errdetail("It needs shared memory, which the library reserves when it is preloaded."),
				 errhint("Add presence to shared_preload_libraries and restart the server.")));
}

/* The same for a function that changes state; not allowed on a standby. */
static void
begin_change(const char *function)
{
	require_shmem();
	PreventCommandDuringRecovery(function);
}

/* Make the name of a state from room, prefix and key; checks permission. */
static void
name_state(PresenceStateName *name, text *room, const char *prefix, text *key)
{
	presence_permission_check_room(room);
	presence_state_name(name, VARDATA_ANY(room), VARSIZE_ANY_EXHDR(room), prefix,
						VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
}

/* Raise an error for a state that is too large. */
static void
reject_size(const char *argument)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("argument \"%s\" is too large", argument),
			 errdetail("The state has more than %d bytes as JSON text.",
					   presence_max_state_size),
			 errhint("Pass less, or raise presence.max_state_size, which is %d bytes.",
					 presence_max_state_size)));
}

/* Set a state, if it is not too large. */
static void
set_state(const PresenceStateName *name, const char *value, int length,
		  PresenceTime ttl, const char *argument)
{
	if (length > presence_max_state_size)
		reject_size(argument);
	presence_state_notify_check_size(name, length);
	presence_state_set(name, value, length, ttl);
}

/* Whether a jsonb is a JSON null. */
static bool
is_json_null(Jsonb *value)
{
	JsonbValue	scalar;

	return JB_ROOT_IS_SCALAR(value) &&
		JsonbExtractScalar(&value->root, &scalar) && scalar.type == jbvNull;
}

/* The value in argument number n, not null. */
static Jsonb *
value_argument(FunctionCallInfo fcinfo, int n)
{
	Jsonb	   *value;

	if (PG_ARGISNULL(n))
		presence_args_reject_null("value");
	value = PG_GETARG_JSONB_P(n);
	if (is_json_null(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"value\" must not be a JSON null"),
				 errdetail("Listeners take null for a state that is gone."),
				 errhint("Call presence_clear_state() to remove the state.")));
	return value;
}

/* The time to live in argument number n, converted to microseconds. */
static PresenceTime
ttl_argument(FunctionCallInfo fcinfo, int n)
{
	double		seconds;

	if (PG_ARGISNULL(n))
		presence_args_reject_null("ttl_in_seconds");
	seconds = PG_GETARG_FLOAT8(n);
	if (isnan(seconds) || seconds <= 0 || seconds > MAX_TTL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"ttl_in_seconds\" must be greater than 0 and at most %d",
						MAX_TTL),
				 errdetail("The value of type double precision is %g.", seconds),
				 errhint("Pass for how many seconds the state lives, such as 10.")));
	return Max((PresenceTime) (seconds * USECS_PER_SEC), 1);
}

/*
 * presence_set_state(room text, key text, value jsonb,
 *					  ttl_in_seconds double precision) returns void
 */
Datum
presence_set_state(PG_FUNCTION_ARGS)
{
	PresenceStateName name;
	StringInfoData value;
	text	   *room;
	text	   *key;
	Jsonb	   *json;
	PresenceTime ttl;

	begin_change("presence_set_state()");
	room = presence_args_name(fcinfo, 0, "room");
	key = presence_args_name(fcinfo, 1, "key");
	json = value_argument(fcinfo, 2);
	ttl = ttl_argument(fcinfo, 3);
	name_state(&name, room, "", key);
	initStringInfo(&value);
	if (!presence_json_append(&value, json, presence_max_state_size))
		reject_size("value");
	set_state(&name, value.data, value.len, ttl, "value");
	PG_RETURN_VOID();
}

/*
 * Convert a monotonic time to wall-clock time, by an offset that is the same
 * for all rows of a result.
 */
static TimestampTz
wall_time(PresenceTime time, int64 offset)
{
	return time + offset;
}

/* The states of a room, argument 0, whose keys begin with a prefix. */
static List *
read_states(FunctionCallInfo fcinfo, const char *prefix, int prefix_length)
{
	text	   *room = presence_args_name(fcinfo, 0, "room");

	presence_permission_check_room(room);
	return presence_state_read(VARDATA_ANY(room), VARSIZE_ANY_EXHDR(room),
							   prefix, prefix_length);
}

/* JSON text as jsonb. */
static Datum
jsonb_of(const char *value)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(value));
}

/*
 * presence_get_state(room text, key_prefix text)
 *		returns table (key text, value jsonb, updated_at timestamptz,
 *					   expires_at timestamptz)
 */
Datum
presence_get_state(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int64		offset = presence_clock_wall_offset();
	text	   *prefix;
	ListCell   *lc;

	require_shmem();
	if (PG_ARGISNULL(0))
		presence_args_reject_null("room");
	if (PG_ARGISNULL(1))
		presence_args_reject_null("key_prefix");
	prefix = PG_GETARG_TEXT_PP(1);
	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, read_states(fcinfo, VARDATA_ANY(prefix), VARSIZE_ANY_EXHDR(prefix)))
	{
		PresenceState *state = lfirst(lc);
		Datum		values[4];
		bool		nulls[4] = {false};

		values[0] = CStringGetTextDatum(state->key);
		values[1] = jsonb_of(state->value);
		values[2] = TimestampTzGetDatum(wall_time(state->updated, offset));
		values[3] = TimestampTzGetDatum(wall_time(state->expires, offset));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * presence_clear_state(room text, key text) returns boolean
 *
 * Returns whether there was such a state.
 */
Datum
presence_clear_state(PG_FUNCTION_ARGS)
{
	PresenceStateName name;
	text	   *room;
	text	   *key;

	begin_change("presence_clear_state()");
	room = presence_args_name(fcinfo, 0, "room");
	key = presence_args_name(fcinfo, 1, "key");
	name_state(&name, room, "", key);
	PG_RETURN_BOOL(presence_state_remove(&name));
}

/* Name the state of a user, argument 1, in a room, argument 0. */
static void
name_user_state(FunctionCallInfo fcinfo, PresenceStateName *name,
				const char *prefix)
{
	text	   *room = presence_args_name(fcinfo, 0, "room");
	text	   *user = presence_args_name(fcinfo, 1, "user_id");

	name_state(name, room, prefix, user);
}

/* The coordinate in argument number n. */
static double
coordinate(FunctionCallInfo fcinfo, int n, const char *argument)
{
	double		value;

	if (PG_ARGISNULL(n))
		presence_args_reject_null(argument);
	value = PG_GETARG_FLOAT8(n);
	if (isnan(value) || isinf(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be a finite number", argument),
				 errdetail("The value of type double precision is %s.",
						   isnan(value) ? "NaN" : "infinite"),
				 errhint("Pass a coordinate.")));
	return value;
}

/* Append a number as JSON, in shortest-precise form. */
static void
append_number(StringInfo buf, const char *member, double value)
{
	char		digits[DOUBLE_SHORTEST_DECIMAL_LEN];

	appendStringInfoString(buf, member);
	appendBinaryStringInfo(buf, digits,
						   double_to_shortest_decimal_bufn(value, digits));
}

/*
 * presence_cursor_update(room text, user_id text, x double precision,
 *						  y double precision, meta jsonb) returns void
 */
Datum
presence_cursor_update(PG_FUNCTION_ARGS)
{
	PresenceStateName name;
	StringInfoData value;
	Jsonb	   *meta;

	begin_change("presence_cursor_update()");
	name_user_state(fcinfo, &name, PRESENCE_CURSOR_PREFIX);
	initStringInfo(&value);
	append_number(&value, "{\"x\":", coordinate(fcinfo, 2, "x"));
	append_number(&value, ",\"y\":", coordinate(fcinfo, 3, "y"));
	appendStringInfoString(&value, ",\"meta\":");
	meta = presence_args_object(fcinfo, 4, "meta");
	if (!presence_json_append(&value, meta, presence_max_state_size))
		reject_size("meta");
	appendStringInfoChar(&value, '}');
	set_state(&name, value.data, value.len,
			  (PresenceTime) presence_cursor_timeout * 1000, "meta");
	PG_RETURN_VOID();
}

/* Get a member of an object, if it has this type. */
static bool
get_member(Jsonb *object, const char *key, enum jbvType type, JsonbValue *member)
{
	return getKeyJsonValueFromContainer(&object->root, key, strlen(key),
										member) != NULL &&
		(member->type == type || (type == jbvObject && member->type == jbvBinary &&
								  JsonContainerIsObject(member->val.binary.data)));
}

/* Get a numeric member that fits into double precision. */
static bool
get_coordinate(Jsonb *object, const char *key, Datum *result)
{
	JsonbValue	member;
	double		value = 0;

	if (!get_member(object, key, jbvNumeric, &member) ||
		!presence_json_double(member.val.numeric, &value))
		return false;
	*result = Float8GetDatum(value);
	return true;
}

/*
 * Read the cursor in a state; false if it is none, as presence_set_state() may
 * set any value for such a key.
 */
static bool
read_cursor(const char *value, Datum *x, Datum *y, Datum *meta)
{
	Jsonb	   *object = DatumGetJsonbP(jsonb_of(value));
	JsonbValue	member;

	if (!JB_ROOT_IS_OBJECT(object) || !get_coordinate(object, "x", x) ||
		!get_coordinate(object, "y", y) ||
		!get_member(object, "meta", jbvObject, &member))
		return false;
	*meta = JsonbPGetDatum(JsonbValueToJsonb(&member));
	return true;
}

/*
 * presence_cursors(room text)
 *		returns table (user_id text, x double precision, y double precision,
 *					   meta jsonb, updated_at timestamptz)
 */
Datum
presence_cursors(PG_FUNCTION_ARGS)
{
	static const char prefix[] = PRESENCE_CURSOR_PREFIX;
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int64		offset = presence_clock_wall_offset();
	ListCell   *lc;

	require_shmem();
	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, read_states(fcinfo, prefix, sizeof(prefix) - 1))
	{
		PresenceState *state = lfirst(lc);
		Datum		values[5];
		bool		nulls[5] = {false};

		if (!read_cursor(state->value, &values[1], &values[2], &values[3]))
			continue;
		values[0] = CStringGetTextDatum(state->key + sizeof(prefix) - 1);
		values[4] = TimestampTzGetDatum(wall_time(state->updated, offset));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * presence_cursor_remove(room text, user_id text) returns boolean
 *
 * Returns whether there was a cursor.
 */
Datum
presence_cursor_remove(PG_FUNCTION_ARGS)
{
	PresenceStateName name;

	begin_change("presence_cursor_remove()");
	name_user_state(fcinfo, &name, PRESENCE_CURSOR_PREFIX);
	PG_RETURN_BOOL(presence_state_remove(&name));
}

/*
 * presence_typing(room text, user_id text, is_typing boolean) returns void
 */
Datum
presence_typing(PG_FUNCTION_ARGS)
{
	PresenceStateName name;

	begin_change("presence_typing()");
	name_user_state(fcinfo, &name, PRESENCE_TYPING_PREFIX);
	if (PG_ARGISNULL(2))
		presence_args_reject_null("is_typing");
	if (PG_GETARG_BOOL(2))
		set_state(&name, "true", strlen("true"), TYPING_TTL, "is_typing");
	else
		(void) presence_state_remove(&name);
	PG_RETURN_VOID();
}

/*
 * presence_typing_users(room text) returns setof text
 */
Datum
presence_typing_users(PG_FUNCTION_ARGS)
{
	static const char prefix[] = PRESENCE_TYPING_PREFIX;
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *lc;

	require_shmem();
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	foreach(lc, read_states(fcinfo, prefix, sizeof(prefix) - 1))
	{
		PresenceState *state = lfirst(lc);
		Datum		user = CStringGetTextDatum(state->key + sizeof(prefix) - 1);
		bool		null = false;

		if (strcmp(state->value, "true") == 0)
			tuplestore_putvalues(result->setResult, result->setDesc, &user, &null);
	}
	return (Datum) 0;
}
