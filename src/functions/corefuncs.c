/*-------------------------------------------------------------------------
 *
 * corefuncs.c
 *		SQL functions for entering and leaving rooms, heartbeats, and pruning.
 *
 * They check their arguments and delegate: membership.c adds and updates
 * presences, membership_many.c adds many, heartbeat.c handles heartbeats, removal.c
 * removes presences, and cleanup.c removes empty rooms.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/xlog.h"
#include "base/args.h"
#include "base/compat.h"
#include "base/shmem.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "members/membership_many.h"
#include "members/heartbeat.h"
#include "members/intent.h"
#include "members/membership.h"
#include "members/removal.h"
#include "miscadmin.h"
#include "shared/backend.h"
#include "shared/liveness.h"
#include "tables/permission.h"
#include "tables/store.h"
#include "tables/store_channels.h"
#include "tables/store_presences.h"
#include "utils/builtins.h"
#include "worker/cleanup.h"

PG_FUNCTION_INFO_V1(presence_add);
PG_FUNCTION_INFO_V1(presence_add_many);
PG_FUNCTION_INFO_V1(presence_update);
PG_FUNCTION_INFO_V1(presence_remove);
PG_FUNCTION_INFO_V1(presence_touch);
PG_FUNCTION_INFO_V1(presence_touch_many);
PG_FUNCTION_INFO_V1(presence_receive);
PG_FUNCTION_INFO_V1(presence_leave_all);
PG_FUNCTION_INFO_V1(presence_leave_all_many);
PG_FUNCTION_INFO_V1(prune_presences);
PG_FUNCTION_INFO_V1(prune_rooms);

/* A string as a Datum, or NULL. */
static Datum
text_or_null(const char *string, bool *isnull)
{
	*isnull = string == NULL;
	return string ? CStringGetTextDatum(string) : (Datum) 0;
}

/* Make a presence.added from a row. */
static Datum
added_of_row(FunctionCallInfo fcinfo, const PresenceRow *row, bool created)
{
	TupleDesc	desc;
	Datum		values[8];
	bool		nulls[8] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE ||
		desc->natts != lengthof(values))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("type presence.added is not as the library expects it"),
				 errhint("Run ALTER EXTENSION presence UPDATE.")));
	values[0] = Int64GetDatum(row->id);
	values[1] = CStringGetTextDatum(row->room);
	values[2] = CStringGetTextDatum(row->channel);
	values[3] = text_or_null(row->user, &nulls[3]);
	values[4] = PointerGetDatum(row->meta);
	nulls[4] = row->meta == NULL;
	values[5] = TimestampTzGetDatum(row->joined_at);
	values[6] = TimestampTzGetDatum(row->last_seen);
	values[7] = BoolGetDatum(created);
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}

/*
 * presence_add(room text, channel_name text, user_id text, meta jsonb)
 *		returns presence.added
 *
 * Returns the presence as of after the call, and whether the call created it.
 */
Datum
presence_add(PG_FUNCTION_ARGS)
{
	text	   *room = presence_args_name(fcinfo, 0, "room");
	PresenceEntrant entrant = {0};
	PresenceRow row;
	bool		created;

	entrant.channel = presence_args_name(fcinfo, 1, "channel_name");
	entrant.user = presence_args_optional_name(fcinfo, 2, "user_id");
	entrant.meta = presence_args_optional_object(fcinfo, 3, "meta");

	presence_store_connect();
	created = presence_membership_add(room, &entrant, &row);
	presence_store_finish();
	PG_RETURN_DATUM(added_of_row(fcinfo, &row, created));
}

/* Order by channel, so that concurrent calls cannot deadlock, then as given. */
static int
compare_entrants(const void *a, const void *b)
{
	const PresenceEntrant *left = a;
	const PresenceEntrant *right = b;
	int			result = presence_intent_compare(left->channel,
												 VARDATA_ANY(right->channel),
												 VARSIZE_ANY_EXHDR(right->channel));

	CHECK_FOR_INTERRUPTS();
	return result != 0 ? result : left->position - right->position;
}

/*
 * Sort entrants by channel; of equal channels, only the last one given stays.
 * Returns how many stay.
 */
static int
sort_entrants(PresenceEntrant *entrants, int count)
{
	int			kept = 0;

	qsort(entrants, count, sizeof(PresenceEntrant), compare_entrants);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (kept > 0 && presence_intent_compare(entrants[i].channel,
												VARDATA_ANY(entrants[kept - 1].channel),
												VARSIZE_ANY_EXHDR(entrants[kept - 1].channel)) == 0)
			kept--;
		entrants[kept++] = entrants[i];
	}
	return kept;
}

/* Raise an error unless an array is as long as the channel names. */
static void
check_length(int count, int expected, const char *argument)
{
	if (count != expected)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("arguments \"channel_names\" and \"%s\" must have the same length",
						argument),
				 errdetail("\"channel_names\" has %d elements, \"%s\" has %d.",
						   expected, argument, count),
				 errhint("Pass one element for each channel, NULL where there is nothing to say.")));
}

/* Set the users of entrants, if given. */
static void
take_users(FunctionCallInfo fcinfo, PresenceEntrant *entrants, int count)
{
	PresenceTexts users;

	if (PG_ARGISNULL(2))
		return;
	users = presence_args_names(fcinfo, 2, "user_ids", true);
	check_length(users.count, count, "user_ids");
	for (int i = 0; i < count; i++)
		if (!users.nulls[i])
			entrants[i].user = DatumGetTextPP(users.datums[i]);
}

/* Set the metas of entrants, if given. */
static void
take_metas(FunctionCallInfo fcinfo, PresenceEntrant *entrants, int count)
{
	Datum	   *metas;
	bool	   *nulls;
	int			nmetas;

	if (PG_ARGISNULL(3))
		return;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(3), JSONBOID, -1, false, TYPALIGN_INT,
					  &metas, &nulls, &nmetas);
	check_length(nmetas, count, "metas");
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (nulls[i])
			continue;
		entrants[i].meta = DatumGetJsonbP(metas[i]);
		presence_args_check_object(entrants[i].meta, "metas");
	}
}

/*
 * presence_add_many(room text, channel_names text[], user_ids text[],
 *					 metas jsonb[]) returns bigint
 *
 * Returns how many of the channels were new in the room.
 */
Datum
presence_add_many(PG_FUNCTION_ARGS)
{
	text	   *room = presence_args_name(fcinfo, 0, "room");
	PresenceTexts channels = presence_args_names(fcinfo, 1, "channel_names", false);
	PresenceEntrant *entrants = palloc_extended(sizeof(PresenceEntrant) * Max(channels.count, 1),
												MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	int			count;
	int64		added;

	for (int i = 0; i < channels.count; i++)
	{
		entrants[i].channel = DatumGetTextPP(channels.datums[i]);
		entrants[i].position = i;
	}
	take_users(fcinfo, entrants, channels.count);
	take_metas(fcinfo, entrants, channels.count);
	count = sort_entrants(entrants, channels.count);

	presence_store_connect();
	added = presence_membership_add_many(room, entrants, count);
	presence_store_finish();
	PG_RETURN_INT64(added);
}

/*
 * presence_update(room text, channel_name text, meta jsonb) returns boolean
 *
 * Returns whether there is such a presence.
 */
Datum
presence_update(PG_FUNCTION_ARGS)
{
	text	   *room = presence_args_name(fcinfo, 0, "room");
	text	   *channel = presence_args_name(fcinfo, 1, "channel_name");
	Jsonb	   *meta = presence_args_object(fcinfo, 2, "meta");
	bool		found;

	PreventCommandDuringRecovery("presence_update()");
	presence_store_connect();
	found = presence_membership_update(room, channel, meta);
	presence_store_finish();
	PG_RETURN_BOOL(found);
}

/*
 * presence_remove(room text, channel_name text) returns boolean
 *
 * Returns whether there was such a presence.
 */
Datum
presence_remove(PG_FUNCTION_ARGS)
{
	text	   *room = presence_args_name(fcinfo, 0, "room");
	text	   *channel = presence_args_name(fcinfo, 1, "channel_name");
	List	   *rows;
	uint64		removed;

	presence_store_connect();
	rows = presence_store_lock_presence(PointerGetDatum(room),
										PointerGetDatum(channel));
	removed = presence_removal_delete(rows, PRESENCE_REASON_LEAVE);

	presence_store_finish();
	PG_RETURN_BOOL(removed > 0);
}

/*
 * The time to live in argument number n, in milliseconds; 0 if it is NULL.
 * Only shared memory has one.
 */
static uint32
ttl_argument(FunctionCallInfo fcinfo, int n)
{
	uint32		ttl;

	if (PG_ARGISNULL(n))
		return 0;
	ttl = presence_args_milliseconds(fcinfo, n, "ttl_in_seconds", 0.1);
	if (!presence_shmem_ready())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a time to live needs presence in shared memory"),
				 errhint("Add presence to shared_preload_libraries and restart the server, or leave \"ttl_in_seconds\" out for presence.max_age.")));
	return ttl;
}

/* A heartbeat of a channel; returns whether it is present. */
static bool
touch(text *channel, uint32 ttl)
{
	bool		present;

	presence_backend_count_touches(1);
	if (presence_permission_touch_is_free() &&
		presence_heartbeat_touch_fastpath(channel, ttl) == PRESENCE_ENTRY_ALIVE)
		return true;
	presence_store_connect();
	present = presence_heartbeat_touch(channel, ttl);
	presence_store_finish();
	return present;
}

/*
 * presence_touch(channel_name text, ttl_in_seconds double precision)
 *		returns boolean
 *
 * Returns whether the channel is present in any room.
 */
Datum
presence_touch(PG_FUNCTION_ARGS)
{
	text	   *channel = presence_args_name(fcinfo, 0, "channel_name");
	uint32		ttl = ttl_argument(fcinfo, 1);

	PreventCommandDuringRecovery("presence_touch()");
	PG_RETURN_BOOL(touch(channel, ttl));
}

/*
 * presence_touch_many(channel_names text[], ttl_in_seconds double precision)
 *		returns text[]
 *
 * Returns the channels that are not present.
 */
Datum
presence_touch_many(PG_FUNCTION_ARGS)
{
	PresenceTexts channels = presence_args_names(fcinfo, 0, "channel_names", false);
	uint32		ttl = ttl_argument(fcinfo, 1);
	bool		is_free;
	int			nmissing = 0;

	PreventCommandDuringRecovery("presence_touch_many()");
	presence_backend_count_touches(channels.count);
	is_free = presence_permission_touch_is_free();
	for (int i = 0; i < channels.count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!is_free ||
			presence_heartbeat_touch_fastpath(DatumGetTextPP(channels.datums[i]), ttl) != PRESENCE_ENTRY_ALIVE)
			channels.datums[nmissing++] = channels.datums[i];
	}

	if (nmissing > 0)
	{
		int			ncandidates = nmissing;

		nmissing = 0;
		presence_store_connect();
		for (int i = 0; i < ncandidates; i++)
		{
			CHECK_FOR_INTERRUPTS();
			if (!presence_heartbeat_touch(DatumGetTextPP(channels.datums[i]), ttl))
				channels.datums[nmissing++] = channels.datums[i];
		}
		presence_store_finish();
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(channels.datums, nmissing, TEXTOID,
										  -1, false, TYPALIGN_INT));
}

/*
 * presence_receive(channel_name text, message text) returns boolean
 *
 * Counts as a heartbeat; returns whether the message is anything else, too.
 */
Datum
presence_receive(PG_FUNCTION_ARGS)
{
	static const char heartbeat[] = "\"heartbeat\"";
	text	   *channel = presence_args_name(fcinfo, 0, "channel_name");
	text	   *message;

	if (PG_ARGISNULL(1))
		presence_args_reject_null("message");
	message = PG_GETARG_TEXT_PP(1);
	PreventCommandDuringRecovery("presence_receive()");
	(void) touch(channel, 0);
	PG_RETURN_BOOL(VARSIZE_ANY_EXHDR(message) != sizeof(heartbeat) - 1 ||
				   memcmp(VARDATA_ANY(message), heartbeat, sizeof(heartbeat) - 1) != 0);
}

/* Remove channels from all rooms; SPI is connected. */
static int64
leave_now(Datum *channels, int count)
{
	ArrayType  *array = construct_array(channels, count, TEXTOID, -1, false,
										TYPALIGN_INT);
	List	   *rows = presence_store_lock_channels(PointerGetDatum(array), false);

	return presence_removal_delete(rows, PRESENCE_REASON_LEAVE);
}

/*
 * Have channels leave after a grace in milliseconds, unless they give a sign of
 * life before; those that shared memory cannot have leave at once.  Returns how
 * many presences go.
 */
static int64
leave_later(Datum *channels, int count, uint32 grace)
{
	PresenceChannelCount *found;
	int			nfound = presence_store_count_channels(construct_array(channels, count, TEXTOID, -1,
																	   false, TYPALIGN_INT),
													   &found);
	int64		leaving = 0;
	int			nunknown = 0;

	for (int i = 0; i < nfound; i++)
	{
		PresenceEntryStatus status;

		CHECK_FOR_INTERRUPTS();
		if (!presence_permission_may_touch(found[i].channel))
			continue;
		status = presence_heartbeat_say_goodbye(found[i].channel, grace);
		if (status == PRESENCE_ENTRY_NO_SPACE)
			channels[nunknown++] = PointerGetDatum(found[i].channel);
		else if (status != PRESENCE_ENTRY_EXPIRED)
			leaving += found[i].count;
	}
	return nunknown > 0 ? leaving + leave_now(channels, nunknown) : leaving;
}

/* Have channels leave all rooms; returns how many presences go. */
static int64
leave_all(FunctionCallInfo fcinfo, Datum *channels, int count)
{
	uint32		grace = presence_args_milliseconds(fcinfo, 1, "grace_in_seconds", 0);
	int64		leaving;

	PreventCommandDuringRecovery("presence_leave_all()");
	presence_store_connect();
	leaving = grace > 0 && presence_shmem_ready() ?
		leave_later(channels, count, grace) : leave_now(channels, count);
	presence_store_finish();
	return leaving;
}

/*
 * presence_leave_all(channel_name text, grace_in_seconds double precision)
 *		returns bigint
 *
 * Returns the number of rooms that the channel leaves.
 */
Datum
presence_leave_all(PG_FUNCTION_ARGS)
{
	Datum		channel = PointerGetDatum(presence_args_name(fcinfo, 0, "channel_name"));

	PG_RETURN_INT64(leave_all(fcinfo, &channel, 1));
}

/*
 * presence_leave_all_many(channel_names text[],
 *						   grace_in_seconds double precision) returns bigint
 *
 * Returns the number of presences that leave.
 */
Datum
presence_leave_all_many(PG_FUNCTION_ARGS)
{
	PresenceTexts channels = presence_args_names(fcinfo, 0, "channel_names", false);

	PG_RETURN_INT64(leave_all(fcinfo, channels.datums, channels.count));
}

/*
 * prune_presences(age_in_seconds double precision) returns bigint
 *
 * Returns the number of presences removed.
 */
Datum
prune_presences(PG_FUNCTION_ARGS)
{
	int64		age = PRESENCE_OWN_AGE;
	uint64		removed;

	if (!PG_ARGISNULL(0))
	{
		double		seconds = PG_GETARG_FLOAT8(0);

		if (isnan(seconds) || seconds < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("argument \"age_in_seconds\" must not be negative"),
					 errdetail("The value of type double precision is %g.", seconds),
					 errhint("Pass an age of 0 seconds or more, or NULL for presence.max_age.")));
		age = (int64) Min(seconds * USECS_PER_SEC, (double) (PG_INT64_MAX / 4));
	}
	PreventCommandDuringRecovery("prune_presences()");
	presence_store_connect();
	removed = presence_removal_prune(age);
	presence_store_finish();
	PG_RETURN_INT64(removed);
}

/*
 * prune_rooms() returns bigint
 *
 * Returns the number of rooms removed.
 */
Datum
prune_rooms(PG_FUNCTION_ARGS)
{
	uint64		removed;

	PreventCommandDuringRecovery("prune_rooms()");
	presence_store_connect();
	removed = presence_cleanup_rooms();
	presence_store_finish();
	PG_RETURN_INT64(removed);
}
