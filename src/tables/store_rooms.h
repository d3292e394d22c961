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
#include "tables/scan.h"
#include "utils/array.h"

/* Rules for entering a room. */
typedef struct PresenceRoomRules
{
	int			max_members;	/* 0: unlimited */
	bool		private;
} PresenceRoomRules;

/* How the changes of a room are announced. */
typedef enum PresenceAnnounce
{
	PRESENCE_ANNOUNCE_DEFAULT,	/* the room does not say */
	PRESENCE_ANNOUNCE_ALL,		/* each change */
	PRESENCE_ANNOUNCE_COUNTS,	/* from time to time how many there are */
	PRESENCE_ANNOUNCE_NONE
} PresenceAnnounce;

/* Rooms. */
extern bool presence_store_find_room(Datum room, PresenceRoomRules *rules);
extern PresenceRoomRules presence_store_enter_room(Datum room);
extern bool presence_store_shows_room(Datum room);
extern void presence_store_lock_rooms(void);
extern ArrayType *presence_store_empty_rooms(text *after, int limit, text **last);
extern uint64 presence_store_delete_empty_rooms(ArrayType *rooms);
extern void presence_store_restore_rooms(Datum rooms);

/* How they are announced. */
extern PresenceReader presence_store_rooms_open(void);
extern PresenceAnnounce presence_store_rooms_announce(PresenceReader *rooms,
													  const char *name);
extern PresenceAnnounce presence_store_parse_announce(const char *name);
extern const char *presence_store_announce_name(PresenceAnnounce announce);

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
