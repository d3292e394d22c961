/*-------------------------------------------------------------------------
 *
 * notify.c
 *		Formats events as JSON and sends them with NOTIFY.
 *
 * A payload has at most PRESENCE_MAX_PAYLOAD bytes.  If an event would be
 * longer, its meta is left out and the payload says "truncated"; a bulk leaves
 * out the lists of joined and left presences.  The rest fits: names have at
 * most 255 characters, each of at most 6 bytes in JSON.  Longer names can only
 * be stored while triggers are disabled; such an event is replaced by a resync
 * of all rooms.
 *
 * No locks of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/guc.h"
#include "base/json.h"
#include "base/shmem.h"
#include "commands/async.h"
#include "events/notify.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "shared/database.h"
#include "state/replay.h"
#include "state/state.h"
#include "tables/store_people.h"
#include "tables/store_presences.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/timestamp.h"

/* Format an epoch as payloads and functions show it. */
char *
presence_notify_epoch_text(uint64 epoch)
{
	return psprintf("%016llx", (unsigned long long) epoch);
}

/* The used fraction of the server's notify queue, from 0 to 1. */
double
presence_notify_queue_usage(void)
{
	return DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0));
}

/* Append a text as JSON; NULL as null. */
static void
append_text(StringInfo buf, const char *text)
{
	if (text)
		escape_json(buf, text);
	else
		appendStringInfoString(buf, "null");
}

/* Append a boolean member. */
static void
append_flag(StringInfo buf, const char *name, bool value)
{
	appendStringInfoString(buf, ",\"");
	appendStringInfoString(buf, name);
	appendStringInfoString(buf, value ? "\":true" : "\":false");
}

/* Append a number. */
static void
append_number(StringInfo buf, int64 number)
{
	char		digits[MAXINT8LEN + 1];

	appendBinaryStringInfo(buf, digits, pg_lltoa(number, digits));
}

/* Append a time in UTC, as ISO 8601 with microseconds. */
static void
append_time(StringInfo buf, TimestampTz time)
{
	char		formatted[PRESENCE_JSON_TIME_SIZE];
	int			length = presence_json_format_time(formatted, time);

	if (length == 0)
	{
		appendStringInfoString(buf, "null");
		return;
	}
	appendStringInfoChar(buf, '"');
	appendBinaryStringInfo(buf, formatted, length);
	appendStringInfoChar(buf, '"');
}

/* Append what every payload begins with: epoch and sequence number. */
static void
append_stamp(StringInfo buf, const PresenceStamp *stamp, PresenceNotifyStream stream)
{
	if (!stamp->numbered)
	{
		appendStringInfoString(buf, "{\"epoch\":null,\"seq\":null");
		return;
	}
	appendStringInfoString(buf, "{\"epoch\":\"");
	for (int shift = 60; shift >= 0; shift -= 4)
		appendStringInfoChar(buf, "0123456789abcdef"[(stamp->epoch >> shift) & 15]);
	appendStringInfoString(buf, "\",\"seq\":");
	append_number(buf, (int64) stamp->seq[stream]);
}

/* Append the beginning of an event on presence_notify_channel. */
static void
append_head(StringInfo buf, const PresenceStamp *stamp, PresenceNotifyStream stream,
			const char *event, const char *room)
{
	append_stamp(buf, stamp, stream);
	appendStringInfoString(buf, ",\"event\":\"");
	appendStringInfoString(buf, event);
	appendStringInfoString(buf, "\",\"room\":");
	append_text(buf, room);
}

/* Append the end of a payload about a room: its counts. */
static void
append_tail(StringInfo buf, const PresenceEvent *event)
{
	append_flag(buf, "user_joined", event->user_joined);
	append_flag(buf, "user_left", event->user_left);
	appendStringInfoString(buf, ",\"connections\":");
	append_number(buf, event->counts.connections);
	appendStringInfoString(buf, ",\"users\":");
	append_number(buf, event->counts.users);
	appendStringInfoString(buf, ",\"anonymous\":");
	append_number(buf, event->counts.anonymous);
	appendStringInfoChar(buf, '}');
}

/* Append the beginning of a presence: its id and names. */
static void
append_names(StringInfo buf, const PresenceRow *row)
{
	appendStringInfoString(buf, "{\"id\":");
	append_number(buf, row->id);
	appendStringInfoString(buf, ",\"channel_name\":");
	append_text(buf, row->channel);
	appendStringInfoString(buf, ",\"user_id\":");
	append_text(buf, row->user);
}

/*
 * Append a presence, with its meta or null instead.  Returns false if it does
 * not fit with its meta.
 */
static bool
append_presence(StringInfo buf, const PresenceRow *row, bool with_meta)
{
	append_names(buf, row);
	appendStringInfoString(buf, ",\"meta\":");
	if (!with_meta || row->meta == NULL)
		appendStringInfoString(buf, "null");
	else if (!presence_json_append(buf, row->meta, PRESENCE_MAX_PAYLOAD))
		return false;
	appendStringInfoString(buf, ",\"joined_at\":");
	append_time(buf, row->joined_at);
	appendStringInfoChar(buf, '}');
	return true;
}

/* Write a join, leave or update; false if it does not fit with its meta. */
static bool
write_change(StringInfo buf, const PresenceStamp *stamp,
			 const PresenceEvent *event, bool with_meta, bool truncated)
{
	static const char *const names[] = {"join", "leave", "update"};
	bool		leave = event->kind == PRESENCE_EVENT_LEAVE;

	append_head(buf, stamp, PRESENCE_STREAM_CHANGED, names[event->kind], event->room);
	appendStringInfoString(buf, leave ? ",\"added\":null,\"removed\":" : ",\"added\":");
	if (!append_presence(buf, event->row, with_meta))
		return false;
	if (!leave)
		appendStringInfoString(buf, ",\"removed\":null");
	else
		appendStringInfo(buf, ",\"reason\":\"%s\"",
						 presence_hint_reason_name(event->reason));
	if (event->user_changed)
	{
		appendStringInfoString(buf, ",\"previous\":{\"user_id\":");
		append_text(buf, event->previous_user);
		appendStringInfoChar(buf, '}');
	}
	if (truncated)
		append_flag(buf, "truncated", true);
	append_flag(buf, "bulk_change", false);
	append_tail(buf, event);
	return buf->len <= PRESENCE_MAX_PAYLOAD;
}

/* Write a join, leave or update, without its meta if need be. */
static void
format_change(StringInfo buf, const PresenceStamp *stamp,
			  const PresenceEvent *event)
{
	bool		truncated = event->row->truncated && presence_notify_meta;
	bool		with_meta = presence_notify_meta && !truncated;

	if (write_change(buf, stamp, event, with_meta, truncated) || !with_meta)
		return;
	resetStringInfo(buf);
	(void) write_change(buf, stamp, event, false, true);
}

/*
 * Append the list of presences that joined, or that left; false if it does not
 * fit.  A presence that did both is only in the list of those that left, since
 * a client may have read the room in between.
 */
static bool
append_folded(StringInfo buf, const PresenceEvent *bulk, PresenceEventKind kind)
{
	ListCell   *lc;
	bool		first = true;

	appendStringInfoChar(buf, '[');
	foreach(lc, bulk->folded)
	{
		PresenceEvent *event = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (event->kind != kind || event->undone)
			continue;
		if (!first)
			appendStringInfoChar(buf, ',');
		append_names(buf, event->row);
		appendStringInfoChar(buf, '}');
		first = false;
		if (buf->len > PRESENCE_MAX_PAYLOAD)
			return false;
	}
	appendStringInfoChar(buf, ']');
	return true;
}

/* Count the collapsed events of a kind. */
static int
count_folded(const PresenceEvent *bulk, PresenceEventKind kind)
{
	int			count = 0;
	ListCell   *lc;

	foreach(lc, bulk->folded)
	{
		PresenceEvent *event = lfirst(lc);

		if (event->kind == kind && !event->undone)
			count++;
	}
	return count;
}

/*
 * Write a bulk, with or without the lists of joined and left presences; false
 * if it does not fit with them.
 */
static bool
write_bulk(StringInfo buf, const PresenceStamp *stamp,
		   const PresenceEvent *bulk, bool with_list)
{
	append_head(buf, stamp, PRESENCE_STREAM_CHANGED, "bulk", bulk->room);
	appendStringInfoString(buf, ",\"added\":null,\"removed\":null,\"bulk_change\":true,\"joined\":");
	if (!with_list)
		appendStringInfo(buf, "null,\"left\":null,\"joined_count\":%d,\"left_count\":%d",
						 count_folded(bulk, PRESENCE_EVENT_JOIN),
						 count_folded(bulk, PRESENCE_EVENT_LEAVE));
	else
	{
		if (!append_folded(buf, bulk, PRESENCE_EVENT_JOIN))
			return false;
		appendStringInfoString(buf, ",\"left\":");
		if (!append_folded(buf, bulk, PRESENCE_EVENT_LEAVE))
			return false;
	}
	append_tail(buf, bulk);
	return buf->len <= PRESENCE_MAX_PAYLOAD;
}

/*
 * Write a bulk, without the lists if need be.  The lists cannot express
 * updates, so with updates they are left out and listeners re-read the room.
 */
static void
format_bulk(StringInfo buf, const PresenceStamp *stamp,
			const PresenceEvent *bulk)
{
	if (count_folded(bulk, PRESENCE_EVENT_UPDATE) == 0 &&
		write_bulk(buf, stamp, bulk, true))
		return;
	resetStringInfo(buf);
	(void) write_bulk(buf, stamp, bulk, false);
}

/*
 * Write a resync of a room, or of all rooms if it is NULL; "announce" is how
 * the room is announced from now on, if that has changed.
 */
static void
format_resync(StringInfo buf, const PresenceStamp *stamp, PresenceNotifyStream stream,
			  const char *room, PresenceAnnounce announce)
{
	append_head(buf, stamp, stream, "resync", room);
	if (announce != PRESENCE_ANNOUNCE_DEFAULT)
		appendStringInfo(buf, ",\"announce\":\"%s\"",
						 presence_store_announce_name(announce));
	appendStringInfoString(buf, ",\"added\":null,\"removed\":null,\"bulk_change\":true,"
						   "\"user_joined\":false,\"user_left\":false,"
						   "\"connections\":null,\"users\":null,\"anonymous\":null}");
}

/* Write the counts of a room. */
static void
format_counts(StringInfo buf, const PresenceStamp *stamp, const PresenceEvent *event)
{
	append_head(buf, stamp, PRESENCE_STREAM_CHANGED, "counts", event->room);
	appendStringInfoString(buf, ",\"added\":null,\"removed\":null,\"bulk_change\":false");
	append_tail(buf, event);
}

/* Write a status of a user. */
static void
format_status(StringInfo buf, const PresenceStamp *stamp,
			  const PresencePerson *person)
{
	append_stamp(buf, stamp, PRESENCE_STREAM_STATUS);
	appendStringInfoString(buf, ",\"user_id\":");
	append_text(buf, person->user);
	appendStringInfoString(buf, ",\"status\":\"");
	appendStringInfoString(buf, person->status);
	appendStringInfoString(buf, "\",\"custom_message\":");
	append_text(buf, strcmp(person->status, "offline") == 0 ? NULL : person->custom_message);
	appendStringInfoString(buf, ",\"last_seen\":");
	append_time(buf, person->last_seen);
	appendStringInfoChar(buf, '}');
}

/*
 * Write a broadcast; its sender has formatted the rest of the object.  NOTIFY
 * removes duplicate payloads within a transaction, so broadcasts without a
 * sequence number get a count.
 */
static void
format_broadcast(StringInfo buf, const PresenceStamp *stamp, const char *payload)
{
	uint64		count = stamp->seq[PRESENCE_STREAM_BROADCAST];

	append_stamp(buf, stamp, PRESENCE_STREAM_BROADCAST);
	if (!stamp->numbered && count > 1)
		appendStringInfo(buf, ",\"n\":%llu", (unsigned long long) count);
	appendStringInfoString(buf, payload);
}

/* The stream of an event. */
static PresenceNotifyStream
stream_of(const PresenceEvent *event)
{
	return event->kind == PRESENCE_EVENT_STATUS ? PRESENCE_STREAM_STATUS :
		event->kind == PRESENCE_EVENT_BROADCAST ? PRESENCE_STREAM_BROADCAST :
		PRESENCE_STREAM_CHANGED;
}

/* The names of the streams. */
static const char *const stream_names[PRESENCE_NSTREAMS] = {
	"presence_changed", "presence_status", "presence_broadcast"
};

/* The NOTIFY channel of a stream. */
static const char *
channel_of(PresenceNotifyStream stream)
{
	return stream == PRESENCE_STREAM_CHANGED ? presence_notify_channel : stream_names[stream];
}

/* Find a stream by its name; false if there is none. */
bool
presence_notify_find_stream(const char *name, PresenceNotifyStream *stream)
{
	for (int i = 0; i < PRESENCE_NSTREAMS; i++)
	{
		if (strcmp(stream_names[i], name) != 0)
			continue;
		*stream = i;
		return true;
	}
	return false;
}

/* Write an event, with the next sequence number of its stream. */
static void
format_event(StringInfo buf, PresenceStamp *stamp, const PresenceEvent *event)
{
	stamp->seq[stream_of(event)]++;
	switch (event->kind)
	{
		case PRESENCE_EVENT_BULK:
			format_bulk(buf, stamp, event);
			break;
		case PRESENCE_EVENT_RESYNC:
			format_resync(buf, stamp, PRESENCE_STREAM_CHANGED, event->room, event->announce);
			break;
		case PRESENCE_EVENT_COUNTS:
			format_counts(buf, stamp, event);
			break;
		case PRESENCE_EVENT_STATUS:
			format_status(buf, stamp, event->person);
			break;
		case PRESENCE_EVENT_BROADCAST:
			format_broadcast(buf, stamp, event->payload);
			break;
		default:
			format_change(buf, stamp, event);
	}
}

/*
 * Write the payload to send for an event; false if there is none.  A payload
 * can only be too long if it has names that no function would have accepted.
 * On the stream of changes it is replaced by a resync of all rooms; on others
 * it is skipped, and listeners notice the missing sequence number.
 */
static bool
write_event(StringInfo buf, PresenceStamp *stamp, const PresenceEvent *event)
{
	resetStringInfo(buf);
	format_event(buf, stamp, event);
	if (buf->len > PRESENCE_MAX_PAYLOAD)
	{
		if (stream_of(event) != PRESENCE_STREAM_CHANGED)
			return false;
		resetStringInfo(buf);
		format_resync(buf, stamp, PRESENCE_STREAM_CHANGED, NULL, PRESENCE_ANNOUNCE_DEFAULT);
	}
	presence_json_mend(buf->data);
	return true;
}

/*
 * Remove the short-lived state of users whose last connection left, but not
 * what another connection has set since.
 */
static void
forget_states(const PresenceEvent *event)
{
	ListCell   *lc;

	foreach(lc, event->folded)
		forget_states(lfirst(lc));
	if (event->user_left && !event->user_back)
		presence_state_user_left(event->room, presence_event_leaver(event),
								 event->left_at);
}

/*
 * Keep what was sent for listeners that resume.  A resync of all rooms says
 * that statuses and broadcasts may be lost, too.
 */
static void
keep_event(const PresenceEvent *event, const PresenceStamp *stamp, StringInfo buf,
		   bool written)
{
	PresenceNotifyStream stream = stream_of(event);

	presence_replay_note(stream, stamp->seq[stream], buf->data, written ? buf->len : 0);
	if (event->kind != PRESENCE_EVENT_RESYNC || event->room != NULL)
		return;
	for (int i = 0; i < PRESENCE_NSTREAMS; i++)
		if (i != stream)
			presence_replay_note_loss(i, stamp->seq[i]);
}

/* Send an event, and keep it for listeners that resume. */
static void
send_event(StringInfo buf, PresenceStamp *stamp, const PresenceEvent *event)
{
	PresenceDatabase *database = presence_my_database();
	bool		written = write_event(buf, stamp, event);

	if (written)
		Async_Notify(channel_of(stream_of(event)), buf->data);
	if (stamp->numbered)
		keep_event(event, stamp, buf, written);
	presence_database_add(database, PRESENCE_EVENTS, 1);
	if (event->kind == PRESENCE_EVENT_BULK)
		presence_database_add(database, PRESENCE_BULK_EVENTS, 1);
	if (event->kind == PRESENCE_EVENT_RESYNC)
		presence_database_add(database, PRESENCE_RESYNCS, 1);
}

/* Send events, numbering them from the stamp on. */
void
presence_notify_events(List *events, PresenceStamp *stamp)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, events)
	{
		PresenceEvent *event = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (event->kind != PRESENCE_EVENT_QUIET)
			send_event(&buf, stamp, event);
		if (presence_shmem_ready())
			forget_states(event);
	}
	pfree(buf.data);
}

/* A resync of all rooms, as it would be sent on a stream. */
char *
presence_notify_format_resync(const PresenceStamp *stamp, PresenceNotifyStream stream)
{
	StringInfoData buf;

	initStringInfo(&buf);
	format_resync(&buf, stamp, stream, NULL, PRESENCE_ANNOUNCE_DEFAULT);
	return buf.data;
}

/* Send a resync of all rooms. */
void
presence_notify_resync(PresenceStamp *stamp)
{
	PresenceEvent event = {PRESENCE_EVENT_RESYNC};

	presence_notify_events(list_make1(&event), stamp);
}
