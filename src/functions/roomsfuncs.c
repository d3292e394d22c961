/*-------------------------------------------------------------------------
 *
 * roomsfuncs.c
 *		SQL functions for admission, moderation and broadcasts.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/args.h"
#include "base/compat.h"
#include "base/hint.h"
#include "base/json.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "members/admission.h"
#include "members/removal.h"
#include "members/xact.h"
#include "miscadmin.h"
#include "tables/extension.h"
#include "tables/permission.h"
#include "tables/store.h"
#include "tables/store_presences.h"
#include "tables/store_rooms.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(presence_capture_room);
PG_FUNCTION_INFO_V1(presence_check_room_settings);
PG_FUNCTION_INFO_V1(presence_invite);
PG_FUNCTION_INFO_V1(presence_uninvite);
PG_FUNCTION_INFO_V1(presence_kick);
PG_FUNCTION_INFO_V1(presence_ban);
PG_FUNCTION_INFO_V1(presence_unban);
PG_FUNCTION_INFO_V1(presence_room_deleted);
PG_FUNCTION_INFO_V1(presence_broadcast);

/* Limit of a broadcast: a payload without space for its epoch and number. */
#define MAX_BROADCAST (PRESENCE_MAX_PAYLOAD - 64)

/* Raise the error for a trigger that the extension has not made. */
static void
reject_trigger(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
			 errmsg("this function serves the trigger of presence.rooms only"),
			 errhint("Leave the trigger as CREATE EXTENSION presence made it.")));
}

/* Raise an error unless an argument says how a room can be announced. */
static void
check_announce(const char *value)
{
	if (presence_store_parse_announce(value) != PRESENCE_ANNOUNCE_DEFAULT ||
		strcmp(value, "default") == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("argument \"announce\" must be all, counts, none or default"),
			 errdetail("The value has %d characters.", pg_mbstrlen(value)),
			 errhint("all announces each change, counts how many there are, none nothing; default is all within presence.announce_max.")));
}

/*
 * presence.check_room_settings(max_members integer, meta jsonb, announce text)
 *		returns void
 */
Datum
presence_check_room_settings(PG_FUNCTION_ARGS)
{
	if (!PG_ARGISNULL(0) && PG_GETARG_INT32(0) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"max_members\" must not be negative"),
				 errdetail("The value of type integer is %d.", PG_GETARG_INT32(0)),
				 errhint("Pass the most connections to admit, or 0 for no limit.")));
	if (!PG_ARGISNULL(1))
		presence_args_check_object(PG_GETARG_JSONB_P(1), "meta");
	if (!PG_ARGISNULL(2))
		check_announce(text_to_cstring(PG_GETARG_TEXT_PP(2)));
	PG_RETURN_VOID();
}

/* Note that a room is to be announced in another way than "before" (or NULL). */
static void
note_announce(const char *room, const char *before)
{
	PresenceValue fields[PRESENCE_NFIELDS] = {0};

	fields[PRESENCE_FIELD_ROOM].data = room;
	fields[PRESENCE_FIELD_ROOM].length = strlen(room);
	fields[PRESENCE_FIELD_PREVIOUS].data = before;
	fields[PRESENCE_FIELD_PREVIOUS].length = before ? strlen(before) : 0;
	presence_xact_note(presence_xact_make_hint(PRESENCE_HINT_ANNOUNCE, 0, fields), NULL);
}

/* Note what the change of a row of presence.rooms means; either may be NULL. */
static void
note_change(TupleDesc desc, HeapTuple before, HeapTuple after)
{
	int			name = SPI_fnumber(desc, "name");
	int			announce = SPI_fnumber(desc, "announce");
	const char *old_room = before ? SPI_getvalue(before, desc, name) : NULL;
	const char *new_room = SPI_getvalue(after, desc, name);
	const char *old = before ? SPI_getvalue(before, desc, announce) : NULL;
	const char *new = SPI_getvalue(after, desc, announce);

	if (old_room && strcmp(old_room, new_room) != 0)
	{
		if (old)
			note_announce(old_room, old);
		old = NULL;
	}
	if ((old == NULL) != (new == NULL) || (old && strcmp(old, new) != 0))
		note_announce(new_room, old);
}

/*
 * presence.capture_room() returns trigger
 *
 * Has a room announced as its row says from this transaction on.
 */
Datum
presence_capture_room(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	bool		update;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(data->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(data->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(data->tg_event) ||
		RelationGetRelid(data->tg_relation) != presence_extension_table("rooms"))
		reject_trigger();
	update = TRIGGER_FIRED_BY_UPDATE(data->tg_event);
	note_change(data->tg_relation->rd_att, update ? data->tg_trigtuple : NULL,
				update ? data->tg_newtuple : data->tg_trigtuple);
	return PointerGetDatum(NULL);
}

/*
 * presence_invite(room text, user_id text) returns boolean
 *
 * Returns whether the user was not invited yet.
 */
Datum
presence_invite(PG_FUNCTION_ARGS)
{
	text	   *room = presence_args_name(fcinfo, 0, "room");
	text	   *user = presence_args_name(fcinfo, 1, "user_id");
	bool		invited;

	presence_store_connect();
	invited = presence_store_invite(PointerGetDatum(room), PointerGetDatum(user));

	presence_store_finish();
	PG_RETURN_BOOL(invited);
}

/*
 * presence_uninvite(room text, user_id text) returns boolean
 *
 * Returns whether the user was invited.
 */
Datum
presence_uninvite(PG_FUNCTION_ARGS)
{
	text	   *room = presence_args_name(fcinfo, 0, "room");
	text	   *user = presence_args_name(fcinfo, 1, "user_id");
	bool		invited;

	presence_store_connect();
	invited = presence_store_uninvite(PointerGetDatum(room), PointerGetDatum(user));

	presence_store_finish();
	PG_RETURN_BOOL(invited);
}

/*
 * presence_kick(room text, user_id text, channel_name text) returns bigint
 *
 * Returns the number of presences removed.
 */
Datum
presence_kick(PG_FUNCTION_ARGS)
{
	text	   *room = presence_args_name(fcinfo, 0, "room");
	text	   *user = presence_args_optional_name(fcinfo, 1, "user_id");
	text	   *channel = presence_args_optional_name(fcinfo, 2, "channel_name");
	char		nulls[] = {' ', user ? ' ' : 'n', channel ? ' ' : 'n'};
	List	   *rows;
	uint64		removed;

	if (user == NULL && channel == NULL)
		presence_args_reject_null("user_id");
	presence_store_connect();
	rows = presence_store_lock_members(PointerGetDatum(room), PointerGetDatum(user),
									   PointerGetDatum(channel), nulls);
	removed = presence_removal_delete(rows, PRESENCE_REASON_KICKED);
	presence_store_finish();
	PG_RETURN_INT64(removed);
}

/*
 * presence_ban(room text, user_id text, until timestamptz, reason text)
 *		returns bigint
 *
 * Returns the number of presences removed.
 */
Datum
presence_ban(PG_FUNCTION_ARGS)
{
	text	   *room = presence_args_optional_name(fcinfo, 0, "room");
	text	   *user = presence_args_name(fcinfo, 1, "user_id");
	char		nulls[] = {room ? ' ' : 'n', ' ', 'n'};
	List	   *rows;
	uint64		removed;

	if (PG_ARGISNULL(2))
		presence_args_reject_null("until");
	PreventCommandDuringRecovery("presence_ban()");
	presence_store_connect();
	presence_admission_begin_ban(user);
	presence_store_ban(PointerGetDatum(room), PointerGetDatum(user),
					   PG_GETARG_DATUM(2), PG_GETARG_DATUM(3),
					   room == NULL, !PG_ARGISNULL(3));
	rows = PG_GETARG_TIMESTAMPTZ(2) <= GetCurrentTimestamp() ? NIL :
		presence_store_lock_members(PointerGetDatum(room), PointerGetDatum(user),
									(Datum) 0, nulls);
	removed = presence_removal_delete(rows, PRESENCE_REASON_BANNED);
	presence_store_finish();
	PG_RETURN_INT64(removed);
}

/*
 * presence_unban(room text, user_id text) returns boolean
 *
 * Returns whether there was a ban.
 */
Datum
presence_unban(PG_FUNCTION_ARGS)
{
	text	   *room = presence_args_optional_name(fcinfo, 0, "room");
	text	   *user = presence_args_name(fcinfo, 1, "user_id");
	bool		banned;

	presence_store_connect();
	banned = presence_store_unban(PointerGetDatum(room), PointerGetDatum(user),
								  room == NULL);

	presence_store_finish();
	PG_RETURN_BOOL(banned);
}

/*
 * presence.room_deleted() returns trigger
 *
 * Removes all presences of a deleted room, as the owner of the extension, so
 * including those that policies hide from the caller.
 */
Datum
presence_room_deleted(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	PresenceSession caller;
	bool		isnull;
	Datum		room;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(data->tg_event) ||
		!TRIGGER_FIRED_BY_DELETE(data->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(data->tg_event) ||
		RelationGetRelid(data->tg_relation) != presence_extension_table("rooms"))
		reject_trigger();
	room = SPI_getbinval(data->tg_trigtuple, data->tg_relation->rd_att, 1, &isnull);
	presence_admission_note_room_deleted(data->tg_relation, DatumGetTextPP(room));
	presence_store_connect();
	caller = presence_extension_become_owner();
	(void) presence_removal_delete(presence_store_lock_members(room, (Datum) 0,
															   (Datum) 0, " nn"),
								   PRESENCE_REASON_ROOM_DELETED);
	presence_extension_become_caller(caller);
	presence_store_finish();
	return PointerGetDatum(NULL);
}

/* Append a member of a JSON object with a text value, or null. */
static void
append_member(StringInfo buf, const char *name, text *value)
{
	appendStringInfo(buf, "\"%s\":", name);
	if (value)
		escape_json(buf, text_to_cstring(value));
	else
		appendStringInfoString(buf, "null");
}

/* Write a broadcast without its epoch and number; false if it is too large. */
static bool
write_broadcast(StringInfo buf, text *room, text *event, Jsonb *payload,
				text *sender)
{
	appendStringInfoChar(buf, ',');
	append_member(buf, "room", room);
	appendStringInfoChar(buf, ',');
	append_member(buf, "event", event);
	appendStringInfoString(buf, ",\"payload\":");
	if (!presence_json_append(buf, payload, MAX_BROADCAST))
		return false;
	appendStringInfoChar(buf, ',');
	append_member(buf, "sender", sender);
	appendStringInfoChar(buf, '}');
	return buf->len <= MAX_BROADCAST;
}

/*
 * presence_broadcast(room text, event text, payload jsonb, sender text)
 *		returns void
 */
Datum
presence_broadcast(PG_FUNCTION_ARGS)
{
	text	   *room = presence_args_name(fcinfo, 0, "room");
	text	   *event = presence_args_name(fcinfo, 1, "event");
	text	   *sender = presence_args_optional_name(fcinfo, 3, "sender");
	PresenceValue fields[PRESENCE_NFIELDS] = {0};
	StringInfoData buf;

	if (PG_ARGISNULL(2))
		presence_args_reject_null("payload");
	PreventCommandDuringRecovery("presence_broadcast()");
	presence_permission_check_room(room);
	initStringInfo(&buf);
	if (!write_broadcast(&buf, room, event, PG_GETARG_JSONB_P(2), sender))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("broadcast is too large"),
				 errdetail("The notification would have more than the %d bytes that are possible.",
						   MAX_BROADCAST),
				 errhint("Store the payload in a table and broadcast its key.")));
	fields[PRESENCE_FIELD_ROOM].data = text_to_cstring(room);
	fields[PRESENCE_FIELD_ROOM].length = VARSIZE_ANY_EXHDR(room);
	fields[PRESENCE_FIELD_PAYLOAD].data = buf.data;
	fields[PRESENCE_FIELD_PAYLOAD].length = buf.len;
	presence_xact_note(presence_xact_make_hint(PRESENCE_HINT_BROADCAST, 0, fields), NULL);
	PG_RETURN_VOID();
}
