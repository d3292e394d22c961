/*-------------------------------------------------------------------------
 *
 * api_read.c
 *		What the reading functions, which are SQL, need from C.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "args.h"
#include "compat.h"
#include "database.h"
#include "liveness.h"
#include "notify.h"
#include "queue.h"
#include "store.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(presence_is_live);
PG_FUNCTION_INFO_V1(presence_is_older);
PG_FUNCTION_INFO_V1(presence_effective_last_seen);
PG_FUNCTION_INFO_V1(presence_check_name);
PG_FUNCTION_INFO_V1(presence_check_names);
PG_FUNCTION_INFO_V1(presence_snapshot);

/* Whether a row's presence gave a sign of life within an age. */
static bool
is_live(text *channel, TimestampTz last_seen, PresenceTime age)
{
	return presence_liveness_is_live(VARDATA_ANY(channel),
									 VARSIZE_ANY_EXHDR(channel), last_seen,
									 presence_liveness_cutoff(presence_clock_now(), age));
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
						   presence_liveness_max_age()));
}

/*
 * presence.is_older(channel_name text, last_seen timestamptz, age bigint)
 *		returns boolean
 *
 * The age is in microseconds.
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

/* The second argument: what the first is called. */
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

/*
 * presence.check_names(value text[], argument text) returns text[]
 */
Datum
presence_check_names(PG_FUNCTION_ARGS)
{
	(void) presence_args_names(fcinfo, 0, argument_name(fcinfo), false);
	PG_RETURN_DATUM(PG_GETARG_DATUM(0));
}

/*
 * presence_snapshot(room text) returns jsonb
 *
 * The number of the last event is read before the room: every event up to it
 * shows in the room.  A transaction with an older snapshot cannot say so, and
 * without a worker there are no numbers.
 */
Datum
presence_snapshot(PG_FUNCTION_ARGS)
{
	text	   *room = presence_args_name(fcinfo, 0, "room");
	PresenceDatabase *database = presence_database_mine();
	char	   *epoch = NULL;
	int64		seq = 0;
	bool		has_seq = false;
	Jsonb	   *snapshot;

	if (database && presence_queue_is_open(database))
	{
		epoch = presence_notify_epoch_text(presence_database_epoch());
		seq = (int64) pg_atomic_read_u64(&database->seq[PRESENCE_VOICE_CHANGED]);
		has_seq = !IsolationUsesXactSnapshot();
	}
	presence_store_connect();
	snapshot = presence_store_snapshot(PointerGetDatum(room), epoch, seq, has_seq);
	presence_store_finish();
	PG_RETURN_JSONB_P(snapshot);
}
