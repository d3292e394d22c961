/*-------------------------------------------------------------------------
 *
 * store_presences.h
 *		Presences, each a channel in a room.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_STORE_PRESENCES_H
#define PRESENCE_STORE_PRESENCES_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "storage/itemptr.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"

/* A presence, in the memory context that was current before the call. */
typedef struct PresenceRow
{
	int64		id;
	char	   *room;
	char	   *channel;
	char	   *user;			/* NULL: anonymous */
	Jsonb	   *meta;			/* NULL: none, or too large: see truncated */
	bool		truncated;
	TimestampTz joined_at;
	TimestampTz last_seen;		/* as the row has it */
} PresenceRow;

/* A presence that the transaction has locked in order to remove it. */
typedef struct PresenceLocked
{
	ItemPointerData tid;
	TimestampTz last_seen;		/* as the row has it */
	int			length;			/* of the channel, in bytes */
	char		channel[FLEXIBLE_ARRAY_MEMBER]; /* not terminated */
} PresenceLocked;

/* Presences of a room: arrays of the same length, by channel. */
typedef struct PresenceArrays
{
	Datum		channels;		/* text[] */
	Datum		users;			/* text[], with nulls */
	Datum		metas;			/* jsonb[], with nulls */
} PresenceArrays;

/* Called with a presence, without meta and joined_at; valid during the call. */
typedef void (*PresenceRowVisitor) (void *arg, const PresenceRow *row);

/* One presence, by its room and channel. */
extern bool presence_store_insert(Datum room, Datum channel, Datum user,
								  Datum meta, const char *nulls,
								  TimestampTz now);
extern bool presence_store_find(Datum room, Datum channel, PresenceRow *row);
extern bool presence_store_replace(Datum room, Datum channel, Datum user,
								   Datum meta, const char *nulls,
								   PresenceRow *row);
extern bool presence_store_merge_meta(Datum room, Datum channel, Datum meta);
extern bool presence_store_has_meta(Datum room, Datum channel, Datum meta);

/* Many presences of one room. */
extern void presence_store_insert_many(Datum room, const PresenceArrays *arrays,
									   TimestampTz now);
extern int64 *presence_store_find_same(Datum room, const PresenceArrays *arrays,
									   uint64 *count);

/* Removal of presences: they are locked (PresenceLocked), then deleted. */
extern List *presence_store_lock_presence(Datum room, Datum channel);
extern List *presence_store_lock_channels(Datum channels, bool skip_locked);
extern List *presence_store_lock_members(Datum room, Datum user, Datum channel,
										 const char *nulls);
extern List *presence_store_lock_banned(Datum users, int limit);
extern bool presence_store_banned_exist(Datum users);
extern uint64 presence_store_delete(List *rows);

/* What a snapshot shows. */
extern void presence_store_each_member(List *rooms, Snapshot snapshot,
									   PresenceRowVisitor visit, void *arg);
extern List *presence_store_look_up(Datum rooms, Datum channels,
									Snapshot snapshot);
extern bool presence_store_has_user(const char *room, const char *user,
									Snapshot snapshot);

/* A room as a whole. */
extern uint64 presence_store_count_live(Datum room, int64 limit);

#endif							/* PRESENCE_STORE_PRESENCES_H */
