/*-------------------------------------------------------------------------
 *
 * store_rooms.h
 *		Rooms, bans, invitations and admissions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_STORE_ROOMS_H
#define PRESENCE_STORE_ROOMS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "storage/block.h"
#include "utils/array.h"

/* Rules for entering a room. */
typedef struct PresenceRoomRules
{
	int			max_members;	/* 0: unlimited */
	bool		private;
} PresenceRoomRules;

/* Rooms. */
extern bool presence_store_find_room(Datum room, PresenceRoomRules *rules);
extern PresenceRoomRules presence_store_enter_room(Datum room);
extern bool presence_store_shows_room(Datum room);
extern void presence_store_lock_rooms(void);
extern ArrayType *presence_store_empty_rooms(text *after, int limit, text **last);
extern uint64 presence_store_delete_empty_rooms(ArrayType *rooms);
extern void presence_store_restore_rooms(Datum rooms);

/* Bans. */
extern bool presence_store_is_banned(Datum room, Datum user);
extern void presence_store_ban(Datum room, Datum user, Datum until,
							   Datum reason, bool all_rooms, bool has_reason);
extern bool presence_store_unban(Datum room, Datum user, bool all_rooms);

/* Invitations. */
extern bool presence_store_is_invited(Datum room, Datum user);
extern bool presence_store_bans_any(Datum room, Datum users);
extern bool presence_store_misses_any(Datum room, Datum users);
extern bool presence_store_invite(Datum room, Datum user);
extern bool presence_store_uninvite(Datum room, Datum user);

/* Admissions. */
extern uint64 presence_store_count_admissions(Datum room, Datum user,
											  TimestampTz since);
extern void presence_store_note_admission(Datum room, Datum user);
extern void presence_store_forget_admissions(BlockNumber from, BlockNumber to,
											 TimestampTz before);

#endif							/* PRESENCE_STORE_ROOMS_H */
