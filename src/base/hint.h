/*-------------------------------------------------------------------------
 *
 * hint.h
 *		A note of one change, as it travels from commit to announcement.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_HINT_H
#define PRESENCE_HINT_H

#include "postgres.h"

#include "base/clock.h"
#include "base/hash.h"
#include "datatype/timestamp.h"
#include "utils/jsonb.h"

typedef enum PresenceHintKind
{
	PRESENCE_HINT_JOIN,			/* room, channel: look the row up */
	PRESENCE_HINT_LEAVE,		/* all of the row, for it is gone */
	PRESENCE_HINT_UPDATE,		/* room, channel; user now and before */
	PRESENCE_HINT_RESYNC,		/* everything changed: see "stands_for" */
	PRESENCE_HINT_STATUS,		/* user; chosen status and message before */
	PRESENCE_HINT_BROADCAST,	/* room; payload: to be sent as it is */
	PRESENCE_HINT_BAN,			/* user: look for presences that came in beside */
	PRESENCE_HINT_ROOM_DELETED	/* room: the same */
} PresenceHintKind;

typedef enum PresenceReason
{
	PRESENCE_REASON_LEAVE,
	PRESENCE_REASON_EXPIRED,
	PRESENCE_REASON_KICKED,
	PRESENCE_REASON_BANNED,
	PRESENCE_REASON_ROOM_DELETED
} PresenceReason;

/* The texts that a hint may carry, in this order. */
typedef enum PresenceHintField
{
	PRESENCE_FIELD_ROOM,
	PRESENCE_FIELD_CHANNEL,
	PRESENCE_FIELD_USER,
	PRESENCE_FIELD_PREVIOUS,	/* user, or chosen status, before an update */
	PRESENCE_FIELD_PAYLOAD,		/* of a broadcast; message before an update */
	PRESENCE_FIELD_META,		/* jsonb, not text */
	PRESENCE_NFIELDS
} PresenceHintField;

/* One value of a hint while it is put together; data NULL: SQL NULL. */
typedef struct PresenceValue
{
	const char *data;
	int			length;
} PresenceValue;

/*
 * Position independent, so that it can be copied into the queue and out of
 * it.  "size" counts the whole hint and is a multiple of MAXIMUM_ALIGNOF.
 * Each field is followed by a zero byte, so a text can be used in place.
 */
typedef struct PresenceHint
{
	uint32		size;
	TransactionId xid;			/* the top transaction that made the change */
	uint64		ticket;			/* drawn before it committed */
	PresenceTime noted;			/* when the change was made */
	int64		id;				/* of the presence */
	uint64		rules;			/* which state of the rules let it in: see
								 * PresenceDatabase */
	TimestampTz joined_at;		/* of a LEAVE */
	TimestampTz last_seen;		/* of a LEAVE, or a user's: sign of life */
	uint8		kind;			/* PresenceHintKind */
	uint8		reason;			/* PresenceReason, of a LEAVE */
	uint8		stands_for;		/* the kind of change: of a RESYNC, the one
								 * whose names are too long to be told */
	bool		truncated;		/* the meta was too large to carry */
	bool		announced;		/* its transaction has told it itself */
	bool		covered;		/* told by the worker, with another hint */
	uint32		offset[PRESENCE_NFIELDS];	/* from the start; 0: NULL */
} PresenceHint;

/* Metas above this many bytes are not carried: no payload could hold them. */
#define PRESENCE_HINT_MAX_META 7800

/* No hint is longer, whatever is in the tables: presence_hint_make() sees to it. */
#define PRESENCE_HINT_MAX_SIZE (16 * 1024 - 64)

/* The hash of a name, for tables of what hints speak of. */
static inline uint32
presence_hint_hash(const char *name)
{
	return presence_hash(name, strlen(name));
}

extern PresenceHint *presence_hint_make(PresenceHintKind kind, int64 id,
										const PresenceValue *fields);
extern const char *presence_hint_text(const PresenceHint *hint,
									  PresenceHintField field);
extern Jsonb *presence_hint_meta(const PresenceHint *hint);
extern const char *presence_hint_leaver(const PresenceHint *hint);
extern const char *presence_hint_reason_name(PresenceReason reason);

#endif							/* PRESENCE_HINT_H */
