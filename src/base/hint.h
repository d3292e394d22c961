/*-------------------------------------------------------------------------
 *
 * hint.h
 *		A hint: the description of one change, from commit to announcement.
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
	PRESENCE_HINT_JOIN,			/* room, channel, user; the rest is in the
								 * table, unless "whole" */
	PRESENCE_HINT_LEAVE,		/* the whole row, because it is gone */
	PRESENCE_HINT_UPDATE,		/* room, channel; user, and the one before */
	PRESENCE_HINT_RESYNC,		/* everything changed: see "stands_for" */
	PRESENCE_HINT_STATUS,		/* user; chosen status and message before */
	PRESENCE_HINT_BROADCAST,	/* room; payload, to be sent unchanged */
	PRESENCE_HINT_BAN,			/* user: remove presences added concurrently */
	PRESENCE_HINT_ROOM_DELETED, /* room: the same */
	PRESENCE_HINT_ANNOUNCE		/* room; how it was to be announced before */
} PresenceHintKind;

typedef enum PresenceReason
{
	PRESENCE_REASON_LEAVE,
	PRESENCE_REASON_EXPIRED,
	PRESENCE_REASON_KICKED,
	PRESENCE_REASON_BANNED,
	PRESENCE_REASON_ROOM_DELETED,
	PRESENCE_REASON_DISCONNECTED,
	PRESENCE_NREASONS
} PresenceReason;

/* The fields that a hint may have, in this order. */
typedef enum PresenceHintField
{
	PRESENCE_FIELD_ROOM,
	PRESENCE_FIELD_CHANNEL,
	PRESENCE_FIELD_USER,
	PRESENCE_FIELD_PREVIOUS,	/* user, chosen status or announce, before an
								 * update */
	PRESENCE_FIELD_PAYLOAD,		/* of a broadcast; message before an update */
	PRESENCE_FIELD_META,		/* jsonb, not text */
	PRESENCE_NFIELDS
} PresenceHintField;

/* One field of a hint to be made; data NULL: SQL NULL. */
typedef struct PresenceValue
{
	const char *data;
	int			length;
} PresenceValue;

/*
 * A hint contains no pointers, so it can be copied into the queue and out of
 * it.  "size" is that of the whole hint and a multiple of MAXIMUM_ALIGNOF.
 * Each field is followed by a zero byte, so texts can be used in place.
 */
typedef struct PresenceHint
{
	uint32		size;
	TransactionId xid;			/* the top transaction that made the change */
	uint64		ticket;			/* drawn by that transaction before commit */
	PresenceTime noted;			/* when the change was made */
	int64		id;				/* of the presence */
	uint64		rules;			/* PresenceDatabase.rules, read before the
								 * rules were checked; 0: not checked */
	TimestampTz joined_at;		/* of a JOIN or LEAVE */
	TimestampTz last_seen;		/* of a LEAVE, or a user's: sign of life */
	uint8		kind;			/* PresenceHintKind */
	uint8		reason;			/* PresenceReason, of a LEAVE */
	uint8		stands_for;		/* same as kind, but for a RESYNC the kind of
								 * the change that could not be announced */
	bool		truncated;		/* the meta was too large and left out */
	bool		whole;			/* a JOIN with the meta of the row, if any */
	bool		announced;		/* by the transaction itself */
	bool		covered;		/* announced by the worker with another hint */
	uint32		offset[PRESENCE_NFIELDS];	/* from the start; 0: NULL */
} PresenceHint;

/* A larger meta, in bytes, is left out: it would not fit into a payload. */
#define PRESENCE_HINT_MAX_META 7800

/* A JOIN leaves a larger meta to the table, to keep the queue short. */
#define PRESENCE_HINT_MAX_JOIN_META 256

/* Maximum size of a hint; presence_hint_make() enforces it. */
#define PRESENCE_HINT_MAX_SIZE (16 * 1024 - 64)

/* Hash a name in a hint. */
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
