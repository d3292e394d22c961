/*-------------------------------------------------------------------------
 *
 * state_notify.c
 *		Sends changes of short-lived state as JSON with NOTIFY.
 *
 * The changes of a room share payloads, each filled until the next change
 * does not fit.  A single change always fits, because a larger one is rejected
 * when it is set.  No locks of its own; state.c takes those of the state.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/json.h"
#include "commands/async.h"
#include "lib/stringinfo.h"
#include "state/state_notify.h"
#include "utils/json.h"

#define CHANNEL "presence_state"

/* Most bytes that JSON needs for one byte of a name: \u0000. */
#define ESCAPED_BYTE 6

/* A payload that is being written. */
typedef struct Payload
{
	StringInfoData text;
	char	   *room;			/* NULL: no payload begun */
	bool		empty;			/* no change yet */
} Payload;

/* Begin the payload of a room. */
static void
begin_payload(Payload *payload)
{
	resetStringInfo(&payload->text);
	appendStringInfoString(&payload->text, "{\"room\":");
	escape_json(&payload->text, payload->room);
	appendStringInfoString(&payload->text, ",\"state\":{");
	payload->empty = true;
}

/* Send the payload, if it has any changes. */
static void
send_payload(Payload *payload)
{
	if (payload->room == NULL || payload->empty)
		return;
	appendStringInfoString(&payload->text, "}}");
	Assert(payload->text.len <= PRESENCE_MAX_PAYLOAD);
	presence_json_mend(payload->text.data);
	Async_Notify(CHANNEL, payload->text.data);
}

/* Write changes of a room, sending each payload that is full. */
static void
append_states(Payload *payload, const char *room, List *states)
{
	StringInfoData member;
	ListCell   *lc;

	if (payload->room == NULL || strcmp(payload->room, room) != 0)
	{
		send_payload(payload);
		payload->room = pstrdup(room);
		begin_payload(payload);
	}
	initStringInfo(&member);
	foreach(lc, states)
	{
		PresenceState *state = lfirst(lc);

		resetStringInfo(&member);
		escape_json(&member, state->key);
		appendStringInfoChar(&member, ':');
		appendStringInfoString(&member, state->value ? state->value : "null");
		if (payload->text.len + member.len + (int) strlen(",}}") > PRESENCE_MAX_PAYLOAD)
		{
			send_payload(payload);
			begin_payload(payload);
		}
		if (!payload->empty)
			appendStringInfoChar(&payload->text, ',');
		appendBinaryStringInfo(&payload->text, member.data, member.len);
		payload->empty = false;
	}
	pfree(member.data);
}

/*
 * Announce the changes of a round, in the running transaction.  If changes
 * were lost, a resync asks listeners to read the state again.
 */
void
presence_state_notify_send(PresenceStateRound *round)
{
	Payload		payload = {{0}};
	List	   *states;

	if (round->lost)
		Async_Notify(CHANNEL, "{\"room\":null,\"state\":{},\"resync\":true}");
	initStringInfo(&payload.text);
	while (presence_state_take(round, &states))
		if (states != NIL)
			append_states(&payload, round->room, states);
	send_payload(&payload);
}

/* The length of a text as JSON, in bytes. */
static int
json_length(const char *text, int length)
{
	StringInfoData buf;

	initStringInfo(&buf);
	escape_json(&buf, pnstrdup(text, length));
	return buf.len;
}

/* Raise an error if a value of this length could not be announced. */
void
presence_state_notify_check_size(const PresenceStateName *name, int length)
{
	int			frame = strlen("{\"room\":,\"state\":{:}}") + length;

	if (frame + 4 + ESCAPED_BYTE * (name->room.length + name->key_length) <= PRESENCE_MAX_PAYLOAD)
		return;
	frame += json_length(name->room.data, name->room.length) +
		json_length(name->key, name->key_length);
	if (frame > PRESENCE_MAX_PAYLOAD)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("state is too large to be announced"),
				 errdetail("Room, key and value take %d bytes in a notification, which may have %d.",
						   frame, PRESENCE_MAX_PAYLOAD),
				 errhint("Pass a shorter value, or shorter names.")));
}
