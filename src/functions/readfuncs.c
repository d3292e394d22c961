/*-------------------------------------------------------------------------
 *
 * readfuncs.c
 *		SQL functions that read presences.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/args.h"
#include "base/compat.h"
#include "catalog/pg_type.h"
#include "events/notify.h"
#include "funcapi.h"
#include "shared/database.h"
#include "shared/liveness.h"
#include "miscadmin.h"
#include "shared/queue.h"
#include "state/replay.h"
#include "tables/permission.h"
#include "tables/reader.h"
#include "tables/store.h"
#include "tables/snapshot.h"
#include "tables/store_presences.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(presence_is_live);
PG_FUNCTION_INFO_V1(presence_is_older);
PG_FUNCTION_INFO_V1(presence_effective_last_seen);
PG_FUNCTION_INFO_V1(presence_check_name);
PG_FUNCTION_INFO_V1(presence_list);
PG_FUNCTION_INFO_V1(presence_page);
PG_FUNCTION_INFO_V1(presence_users);
PG_FUNCTION_INFO_V1(presence_count);
PG_FUNCTION_INFO_V1(presence_anonymous_count);
PG_FUNCTION_INFO_V1(presence_counts);
PG_FUNCTION_INFO_V1(presence_rooms);
PG_FUNCTION_INFO_V1(presence_user_rooms);
PG_FUNCTION_INFO_V1(presence_is_online);
PG_FUNCTION_INFO_V1(presence_online);
PG_FUNCTION_INFO_V1(presence_snapshot);
PG_FUNCTION_INFO_V1(presence_since);

/* Whether the channel of a row lives, or its last heartbeat is within an age. */
static bool
is_live(text *channel, TimestampTz last_seen, int64 age)
{
	PresenceCutoff cutoff = presence_liveness_cutoff_of_age(age);

	return presence_liveness_is_live(VARDATA_ANY(channel),
									 VARSIZE_ANY_EXHDR(channel), last_seen,
									 &cutoff);
}

/*
 * presence.is_live(channel_name text, last_seen timestamptz) returns boolean
 */
Datum
presence_is_live(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	PG_RETURN_BOOL(is_live(PG_GETARG_TEXT_PP(0), PG_GETARG_TIMESTAMPTZ(1),
						   PRESENCE_OWN_AGE));
}

/*
 * presence.is_older(channel_name text, last_seen timestamptz, age bigint)
 *		returns boolean
 *
 * The age is in microseconds; -1: that of each channel.
 */
Datum
presence_is_older(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		PG_RETURN_NULL();
	PG_RETURN_BOOL(!is_live(PG_GETARG_TEXT_PP(0), PG_GETARG_TIMESTAMPTZ(1),
							PG_GETARG_INT64(2)));
}

/*
 * presence.effective_last_seen(channel_name text, last_seen timestamptz)
 *		returns timestamptz
 */
Datum
presence_effective_last_seen(PG_FUNCTION_ARGS)
{
	text	   *channel;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	channel = PG_GETARG_TEXT_PP(0);
	PG_RETURN_TIMESTAMPTZ(presence_clock_to_timestamp(
													  presence_liveness_seen(VARDATA_ANY(channel),
																			 VARSIZE_ANY_EXHDR(channel),
																			 PG_GETARG_TIMESTAMPTZ(1))));
}

/* The second argument: the name of the first one, for error messages. */
static char *
argument_name(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(1))
		presence_args_reject_null("argument");
	return text_to_cstring(PG_GETARG_TEXT_PP(1));
}

/*
 * presence.check_name(value text, argument text) returns text
 */
Datum
presence_check_name(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(presence_args_name(fcinfo, 0, argument_name(fcinfo)));
}

/* Return the only value, pass-by-value, of a result. */
static Datum
return_value(PresenceRead what, Datum argument, Oid type)
{
	TupleDesc	desc = CreateTemplateTupleDesc(1);
	bool		isnull;

	TupleDescInitEntry(desc, 1, NULL, type, -1, 0);
	return heap_getattr(presence_reader_row(what, argument), 1, desc, &isnull);
}

/* The first argument, a name. */
static Datum
name_argument(FunctionCallInfo fcinfo, const char *argument)
{
	return PointerGetDatum(presence_args_name(fcinfo, 0, argument));
}

/* The first argument, an array of names. */
static Datum
names_argument(FunctionCallInfo fcinfo, const char *argument)
{
	(void) presence_args_names(fcinfo, 0, argument, false);
	return PG_GETARG_DATUM(0);
}

/*
 * presence_list(room text) returns setof presence.member
 *
 * Ordered by joined_at and id.
 */
Datum
presence_list(PG_FUNCTION_ARGS)
{
	return presence_reader_return_rows(fcinfo, PRESENCE_READ_LIST, name_argument(fcinfo, "room"), 0);
}

/* An argument that limits a result: an integer that is not below "least". */
static int
limit_argument(FunctionCallInfo fcinfo, int n, const char *argument, int least)
{
	if (PG_GETARG_INT32(n) < least)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be at least %d", argument, least),
				 errdetail("The value of type integer is %d.", PG_GETARG_INT32(n)),
				 errhint("Pass the most members to return.")));
	return PG_GETARG_INT32(n);
}

/*
 * presence_page(room text, max_rows integer, after_channel text)
 *		returns setof presence.member
 *
 * Ordered by channel_name, from the one after "after_channel" on (NULL: from
 * the first one), at most "max_rows".
 */
Datum
presence_page(PG_FUNCTION_ARGS)
{
	Datum		room = name_argument(fcinfo, "room");
	text	   *after = presence_args_optional_name(fcinfo, 2, "after_channel");

	if (PG_ARGISNULL(1))
		presence_args_reject_null("max_rows");
	return presence_reader_return_page(fcinfo, room,
									   PointerGetDatum(after ? after : cstring_to_text("")),
									   limit_argument(fcinfo, 1, "max_rows", 1));
}

/*
 * presence_users(room text)
 *		returns table (user_id, connections, joined_at, last_seen, meta)
 *
 * Ordered by joined_at and user.  The meta is that of the newest connection.
 */
Datum
presence_users(PG_FUNCTION_ARGS)
{
	return presence_reader_return_rows(fcinfo, PRESENCE_READ_USERS, name_argument(fcinfo, "room"), 0);
}

/*
 * presence_count(room text) returns bigint
 */
Datum
presence_count(PG_FUNCTION_ARGS)
{
	return return_value(PRESENCE_READ_COUNT, name_argument(fcinfo, "room"), INT8OID);
}

/*
 * presence_anonymous_count(room text) returns bigint
 */
Datum
presence_anonymous_count(PG_FUNCTION_ARGS)
{
	return return_value(PRESENCE_READ_ANONYMOUS_COUNT, name_argument(fcinfo, "room"), INT8OID);
}

/*
 * presence_counts(room text, OUT connections, OUT users, OUT anonymous)
 */
Datum
presence_counts(PG_FUNCTION_ARGS)
{
	return presence_reader_return_row(fcinfo, PRESENCE_READ_COUNTS, name_argument(fcinfo, "room"));
}

/*
 * presence_rooms(channel_name text) returns setof text
 */
Datum
presence_rooms(PG_FUNCTION_ARGS)
{
	return presence_reader_return_rows(fcinfo, PRESENCE_READ_ROOMS, name_argument(fcinfo, "channel_name"),
									   MAT_SRF_USE_EXPECTED_DESC);
}

/*
 * presence_user_rooms(user_id text) returns setof text
 */
Datum
presence_user_rooms(PG_FUNCTION_ARGS)
{
	return presence_reader_return_rows(fcinfo, PRESENCE_READ_USER_ROOMS, name_argument(fcinfo, "user_id"),
									   MAT_SRF_USE_EXPECTED_DESC);
}

/*
 * presence_is_online(user_id text) returns boolean
 */
Datum
presence_is_online(PG_FUNCTION_ARGS)
{
	return return_value(PRESENCE_READ_IS_ONLINE, name_argument(fcinfo, "user_id"), BOOLOID);
}

/*
 * presence_online(user_ids text[])
 *		returns table (user_id, connections, last_seen)
 */
Datum
presence_online(PG_FUNCTION_ARGS)
{
	return presence_reader_return_rows(fcinfo, PRESENCE_READ_ONLINE, names_argument(fcinfo, "user_ids"), 0);
}

/*
 * presence_snapshot(room text, max_members integer) returns jsonb
 *
 * Of a room with more members than that the first ones are returned, by
 * channel; its counts are of all.
 *
 * The number of the last event is read before the room, so the room shows all
 * events up to that number.  It is null in a transaction that keeps an older
 * snapshot, where this would not hold, and without a worker, which numbers the
 * events.
 */
Datum
presence_snapshot(PG_FUNCTION_ARGS)
{
	text	   *room = presence_args_name(fcinfo, 0, "room");
	PresenceDatabase *database = presence_my_database();
	int			limit = PG_ARGISNULL(1) ? -1 : limit_argument(fcinfo, 1, "max_members", 0);
	char	   *epoch = NULL;
	int64		seq = 0;
	bool		has_seq = false;
	Jsonb	   *snapshot;

	if (database && presence_queue_is_open(database))
	{
		epoch = presence_notify_epoch_text(presence_database_epoch());
		seq = (int64) pg_atomic_read_u64(&database->seq[PRESENCE_STREAM_CHANGED]);
		has_seq = !IsolationUsesXactSnapshot();
	}
	presence_store_connect();
	snapshot = presence_snapshot_read(PointerGetDatum(room), limit, epoch, seq, has_seq);
	presence_store_finish();
	PG_RETURN_JSONB_P(snapshot);
}

/* The stream named by an argument. */
static PresenceNotifyStream
stream_argument(FunctionCallInfo fcinfo, int n)
{
	PresenceNotifyStream stream;
	char	   *name;

	if (PG_ARGISNULL(n))
		presence_args_reject_null("stream");
	name = text_to_cstring(PG_GETARG_TEXT_PP(n));
	if (!presence_notify_find_stream(name, &stream))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"stream\" must be presence_changed, presence_status or presence_broadcast"),
				 errdetail("The value has %d characters.", (int) strlen(name)),
				 errhint("presence_changed is the stream of changes whatever presence.notify_channel is.")));
	return stream;
}

/* Whether an argument is the current epoch, as text. */
static bool
is_current_epoch(FunctionCallInfo fcinfo, int n)
{
	return !PG_ARGISNULL(n) &&
		strcmp(text_to_cstring(PG_GETARG_TEXT_PP(n)),
			   presence_notify_epoch_text(presence_database_epoch())) == 0;
}

/* Add a payload to the result. */
static void
add_payload(ReturnSetInfo *result, char *payload)
{
	Datum		value = DirectFunctionCall1(jsonb_in, CStringGetDatum(payload));
	bool		null = false;

	tuplestore_putvalues(result->setResult, result->setDesc, &value, &null);
}

/*
 * Add the payloads of a position to the result; false if some were overwritten
 * meanwhile.
 */
static bool
add_payloads(ReturnSetInfo *result, PresenceDatabase *database,
			 PresenceReplayPosition *position)
{
	PresenceReplayChunk *chunk = palloc(sizeof(PresenceReplayChunk));
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "presence since",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	bool		there = true;

	while (there && position->next <= position->last)
	{
		const char *payload;
		uint32		length;

		CHECK_FOR_INTERRUPTS();
		there = presence_replay_mem_read(database, position, chunk);
		while ((payload = presence_replay_mem_take(position, chunk, &length)) != NULL)
		{
			CHECK_FOR_INTERRUPTS();
			add_payload(result, pnstrdup(payload, length));
			MemoryContextReset(scratch);
		}
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	return there;
}

/* A resync of all rooms that says from where to go on. */
static char *
resync_payload(PresenceDatabase *database, PresenceNotifyStream stream)
{
	PresenceStamp stamp = {.numbered = database != NULL};

	if (database)
	{
		stamp.epoch = presence_database_epoch();
		stamp.seq[stream] = pg_atomic_read_u64(&database->seq[stream]);
	}
	return presence_notify_format_resync(&stamp, stream);
}

/*
 * presence_since(epoch text, seq bigint, stream text) returns setof jsonb
 *
 * The payloads after that number, in order; a resync if they are not all known.
 * Epoch and number may be NULL, as they are in what was announced without a
 * worker: then, too, the answer is a resync.
 */
Datum
presence_since(PG_FUNCTION_ARGS)
{
	PresenceNotifyStream stream = stream_argument(fcinfo, 2);
	PresenceDatabase *database = presence_my_database();
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	PresenceReplayPosition position;

	presence_permission_check_events();
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (database)
		presence_replay_await(database);
	if (database && is_current_epoch(fcinfo, 0) && !PG_ARGISNULL(1) &&
		presence_replay_begin(database, stream, PG_GETARG_INT64(1), &position) &&
		add_payloads(result, database, &position))
		return (Datum) 0;
	tuplestore_clear(result->setResult);
	add_payload(result, resync_payload(database, stream));
	return (Datum) 0;
}
