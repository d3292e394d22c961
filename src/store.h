/*-------------------------------------------------------------------------
 *
 * store.h
 *		Every SQL statement that C sends to the tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_STORE_H
#define PRESENCE_STORE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "storage/block.h"
#include "storage/itemptr.h"
#include "storage/lockdefs.h"
#include "utils/array.h"
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
	ItemPointerData tid;
} PresenceRow;

/* A user whose connection went, and its last sign of life. */
typedef struct PresenceLastSeen
{
	const char *user;
	TimestampTz last_seen;
} PresenceLastSeen;

/* A user, as listeners get to know. */
typedef struct PresencePerson
{
	char	   *user;
	const char *status;			/* effective; the announcer fills it in */
	char	   *chosen_status;	/* NULL: none */
	char	   *custom_message; /* NULL: none */
	int64		connections;	/* rows, in all rooms, counted up to a limit */
	int64		living;			/* those of living channels, the same */
	TimestampTz last_seen;		/* DT_NOBEGIN: not known; of the invisible:
								 * when they chose to be */
} PresencePerson;

/* What a room asks of those who enter. */
typedef struct PresenceRoomRules
{
	int			max_members;	/* 0: unlimited */
	bool		private;
} PresenceRoomRules;

/* Looks at a channel with a last_seen; false: it has seen enough. */
typedef bool (*PresenceChannelVisitor) (void *arg, const char *channel,
										int length, TimestampTz last_seen);

extern void presence_store_connect(void);
extern void presence_store_finish(void);

extern bool presence_store_find_room(Datum room, PresenceRoomRules *rules);
extern PresenceRoomRules presence_store_enter_room(Datum room);
extern void presence_store_lock_rooms(void);
extern ArrayType *presence_store_empty_rooms(text *after, int limit, text **last);
extern uint64 presence_store_delete_empty_rooms(ArrayType *rooms);

extern bool presence_store_insert(Datum room, Datum channel, Datum user,
								  Datum meta, const char *nulls,
								  TimestampTz now, PresenceRow *row);
extern bool presence_store_find(Datum room, Datum channel, PresenceRow *row);
extern bool presence_store_replace(Datum room, Datum channel, Datum user,
								   Datum meta, const char *nulls,
								   PresenceRow *row);
extern bool presence_store_merge_meta(Datum room, Datum channel, Datum meta);
extern bool presence_store_has_meta(Datum room, Datum channel, Datum meta);
extern List *presence_store_lock_presence(Datum room, Datum channel);
extern List *presence_store_lock_channels(Datum channels, bool skip_locked);
extern uint64 presence_store_delete(List *rows);

extern bool presence_store_shows_room(Datum room);
extern bool presence_store_has_channel(Datum channel, TimestampTz since);
extern bool presence_store_has_older(Datum channel, TimestampTz before);
extern void presence_store_probe_update(Datum channel, int64 probe);
extern void presence_store_probe_pair(Datum room, Datum channel, int64 probe);
extern uint64 presence_store_beat(Datum channel, TimestampTz now,
								  TimestampTz since, TimestampTz before,
								  TimestampTz *oldest);
extern ArrayType *presence_store_remaining(Datum channels);
extern ArrayType *presence_store_older(int64 age);
extern void presence_store_pull_back(TimestampTz now, TimestampTz limit);
extern ArrayType *presence_store_older_among(ArrayType *channels, int64 age);
extern void presence_store_each_channel(PresenceChannelVisitor visit, void *arg);
extern bool presence_store_each_older(int64 age, PresenceChannelVisitor visit,
									  void *arg);
extern TimestampTz presence_store_oldest_living(int64 age);

extern void presence_store_each_member(Datum rooms, Snapshot snapshot,
									   void (*visit) (void *arg,
													  const PresenceRow *row),
									   void *arg);
extern List *presence_store_look_up(Datum rooms, Datum channels,
									Snapshot snapshot);
extern bool presence_store_has_user(const char *room, const char *user,
									Snapshot snapshot);
extern List *presence_store_people(Datum users, Datum most, Datum living,
								   Snapshot snapshot);
extern void presence_store_add_last_seen(List *seen);
extern void presence_store_merge_last_seen(List *seen);
extern void presence_store_check_constraints(void);
extern void presence_store_forget_last_seen(BlockNumber from, BlockNumber to,
											TimestampTz before);

extern bool presence_store_is_banned(Datum room, Datum user);
extern List *presence_store_lock_banned(Datum users, int limit);
extern bool presence_store_banned_exist(Datum users);
extern void presence_store_restore_rooms(Datum rooms);
extern bool presence_store_is_invited(Datum room, Datum user);
extern uint64 presence_store_count_live(Datum room, int64 limit);
extern uint64 presence_store_count_admissions(Datum room, Datum user,
											  TimestampTz since);
extern void presence_store_note_admission(Datum room, Datum user);
extern void presence_store_forget_admissions(BlockNumber from, BlockNumber to,
											 TimestampTz before);
extern bool presence_store_invite(Datum room, Datum user);
extern bool presence_store_uninvite(Datum room, Datum user);
extern void presence_store_ban(Datum room, Datum user, Datum until,
							   Datum reason, bool all_rooms, bool has_reason);
extern bool presence_store_unban(Datum room, Datum user, bool all_rooms);
extern List *presence_store_lock_members(Datum room, Datum user, Datum channel,
										 const char *nulls);

extern Jsonb *presence_store_snapshot(Datum room, const char *epoch,
									  int64 seq, bool has_seq);

#endif							/* PRESENCE_STORE_H */
