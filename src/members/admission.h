/*-------------------------------------------------------------------------
 *
 * admission.h
 *		The rules of who may be in a room.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_ADMISSION_H
#define PRESENCE_ADMISSION_H

#include "postgres.h"

#include "tables/store_rooms.h"
#include "utils/relcache.h"

#define PRESENCE_ERRCODE_ROOM_FULL		MAKE_SQLSTATE('P', 'R', '0', '0', '1')
#define PRESENCE_ERRCODE_BANNED			MAKE_SQLSTATE('P', 'R', '0', '0', '2')
#define PRESENCE_ERRCODE_RATE_LIMITED	MAKE_SQLSTATE('P', 'R', '0', '0', '3')
#define PRESENCE_ERRCODE_PRIVATE		MAKE_SQLSTATE('P', 'R', '0', '0', '4')

/* How a user gets into a room by a row. */
typedef enum PresenceEntrance
{
	PRESENCE_ENTRANCE_USER,		/* present already, as another user */
	PRESENCE_ENTRANCE_EXPIRED,	/* joins, and is not counted as live yet */
	PRESENCE_ENTRANCE_LIVE		/* joins, and is counted as live already */
} PresenceEntrance;

/* Which rules apply to a user who joins. */
typedef struct PresenceAdmission
{
	PresenceRoomRules rules;
	bool		bans;			/* there may be bans of the user */
	bool		rate;			/* admissions are counted */
} PresenceAdmission;

extern uint64 presence_admission_rules(void);
extern void presence_admission_begin_ban(text *user);
extern void presence_admission_note_room_deleted(Relation rooms, text *room);
extern bool presence_admission_prepare(PresenceAdmission *admission,
									   PresenceRoomRules rules, text *user);
extern void presence_admission_lock(const PresenceAdmission *admission,
									text *room, text *user);
extern void presence_admission_check(const PresenceAdmission *admission,
									 text *room, text *user,
									 PresenceEntrance entrance);
extern bool presence_admission_admits_all(PresenceRoomRules rules, text *room,
										  Datum users, text *some);
extern uint64 presence_admission_admit_row(text *room, text *user,
										   PresenceEntrance entrance,
										   bool anybody);

#endif							/* PRESENCE_ADMISSION_H */
