/*-------------------------------------------------------------------------
 *
 * hint.c
 *		Packs the note of one change into a block that can be copied.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "hint.h"
#include "utils/memutils.h"

/*
 * Make a hint in the current memory context.  "fields" has PRESENCE_NFIELDS
 * values.
 */
PresenceHint *
presence_hint_make(PresenceHintKind kind, int64 id, const PresenceValue *fields)
{
	Size		size = MAXALIGN(sizeof(PresenceHint));
	uint32		offset = size;
	PresenceHint *hint;

	for (int i = 0; i < PRESENCE_NFIELDS; i++)
		if (fields[i].data)
			size += MAXALIGN(fields[i].length + 1);
	Assert(size <= PRESENCE_HINT_MAX_SIZE);

	hint = palloc0(size);
	hint->size = size;
	hint->kind = kind;
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

/* A text of a hint, or NULL. */
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
 * The user from whom a change takes a presence, because that leaves or gets
 * another user; NULL: nobody.
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

/* How a payload tells why a presence left. */
const char *
presence_hint_reason_name(PresenceReason reason)
{
	static const char *const names[] = {
		"leave", "expired", "kicked", "banned", "room_deleted"
	};

	return names[reason];
}
