/*-------------------------------------------------------------------------
 *
 * hint.c
 *		Packs the description of one change into a block that can be copied.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/hint.h"
#include "base/name.h"
#include "utils/memutils.h"

/* Whether a field fits into a hint: names must have a valid length. */
static bool
fits(const PresenceValue *fields, PresenceHintField field)
{
	int			limit = field <= PRESENCE_FIELD_PREVIOUS ?
		PRESENCE_MAX_NAME_BYTES : PRESENCE_HINT_MAX_SIZE;

	return fields[field].data == NULL || fields[field].length <= limit;
}

/* Size of a hint with these fields. */
static Size
size_of(const PresenceValue *fields)
{
	Size		size = MAXALIGN(sizeof(PresenceHint));

	for (int i = 0; i < PRESENCE_NFIELDS; i++)
		if (fields[i].data)
			size += MAXALIGN(fields[i].length + 1);
	return size;
}

/*
 * Whether a change can be announced.  Rows that were written with triggers
 * disabled may have names of any length.
 */
static bool
can_be_announced(PresenceHintKind kind, const PresenceValue *fields)
{
	for (int i = 0; i < PRESENCE_NFIELDS; i++)
		if (!fits(fields, i))
			return false;
	if (kind <= PRESENCE_HINT_UPDATE &&
		(fields[PRESENCE_FIELD_ROOM].data == NULL ||
		 fields[PRESENCE_FIELD_CHANNEL].data == NULL))
		return false;
	return size_of(fields) <= PRESENCE_HINT_MAX_SIZE;
}

/* Make a hint with these fields. */
static PresenceHint *
pack(PresenceHintKind kind, int64 id, const PresenceValue *fields)
{
	Size		size = size_of(fields);
	uint32		offset = MAXALIGN(sizeof(PresenceHint));
	PresenceHint *hint = palloc0(size);

	hint->size = size;
	hint->kind = hint->stands_for = kind;
	hint->noted = presence_clock_now();
	hint->id = id;
	for (int i = 0; i < PRESENCE_NFIELDS; i++)
	{
		if (fields[i].data == NULL)
			continue;
		hint->offset[i] = offset;
		memcpy((char *) hint + offset, fields[i].data, fields[i].length);
		offset += MAXALIGN(fields[i].length + 1);
	}
	return hint;
}

/*
 * Make a hint in the current memory context.  "fields" has PRESENCE_NFIELDS
 * values.  A change that cannot be announced becomes a RESYNC, which contains
 * only the channel, if it fits, so that the channel's rows can be counted.
 */
PresenceHint *
presence_hint_make(PresenceHintKind kind, int64 id, const PresenceValue *fields)
{
	PresenceValue kept[PRESENCE_NFIELDS] = {0};
	PresenceHint *hint;

	if (can_be_announced(kind, fields))
		return pack(kind, id, fields);
	if (fits(fields, PRESENCE_FIELD_CHANNEL))
		kept[PRESENCE_FIELD_CHANNEL] = fields[PRESENCE_FIELD_CHANNEL];
	hint = pack(PRESENCE_HINT_RESYNC, id, kept);
	hint->stands_for = kind;
	return hint;
}

/* A text field of a hint, or NULL. */
const char *
presence_hint_text(const PresenceHint *hint, PresenceHintField field)
{
	return hint->offset[field] ?
		(const char *) hint + hint->offset[field] : NULL;
}

/* The meta of a hint, or NULL. */
Jsonb *
presence_hint_meta(const PresenceHint *hint)
{
	return hint->offset[PRESENCE_FIELD_META] ?
		(Jsonb *) ((char *) hint + hint->offset[PRESENCE_FIELD_META]) : NULL;
}

/*
 * The user who loses a presence by a change, because it leaves or gets another
 * user; NULL if there is none.
 */
const char *
presence_hint_leaver(const PresenceHint *hint)
{
	const char *user = presence_hint_text(hint, PRESENCE_FIELD_USER);
	const char *before = presence_hint_text(hint, PRESENCE_FIELD_PREVIOUS);

	if (hint->kind == PRESENCE_HINT_LEAVE)
		return user;
	if (hint->kind != PRESENCE_HINT_UPDATE || before == NULL ||
		(user && strcmp(user, before) == 0))
		return NULL;
	return before;
}

/* The name of a reason in payloads. */
const char *
presence_hint_reason_name(PresenceReason reason)
{
	static const char *const names[] = {
		"leave", "expired", "kicked", "banned", "room_deleted", "disconnected"
	};

	return names[reason];
}
