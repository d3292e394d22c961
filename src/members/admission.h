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

/* How a user gets into a room. */
typedef enum PresenceEntrance
{
	PRESENCE_ENTRANCE_JOIN,		/* joins, by a row that is not written yet */
	PRESENCE_ENTRANCE_USER,		/* by a row that was present as another user's */
	PRESENCE_ENTRANCE_EXPIRED,	/* by a new row, which is not live */
	PRESENCE_ENTRANCE_LIVE,		/* by a new row, which is live */
	PRESENCE_ENTRANCE_REVIVED	/* by a row that was not live before */
} PresenceEntrance;

/* Which rules apply to a user who joins. */
typedef struct PresenceAdmission
{
	PresenceRoomRules rules;
	bool		bans;			/* there may be bans of the user */
	bool		rate;			/* admissions are counted */
	bool		contested;		/* full because of places others reserved */
} PresenceAdmission;

extern uint64 presence_admission_rules(void);
extern void presence_admission_begin_ban(text *user);
extern void presence_admission_note_room_deleted(Relation rooms, text *room);
extern bool presence_admission_prepare(PresenceAdmission *admission,
									   PresenceRoomRules rules, text *user);
extern void presence_admission_lock(const PresenceAdmission *admission,
									text *room, text *user);
extern void presence_admission_check(const PresenceAdmission *admission,
									 text *room, text *user);
extern bool presence_admission_admits_all(PresenceAdmission *admission,
										  PresenceRoomRules rules, text *room,
										  Datum users, text *some);
extern bool presence_admission_reserve(PresenceAdmission *admission,
									   text *room, int places,
									   PresenceEntrance entrance);
extern void presence_admission_return(const PresenceAdmission *admission,
									  text *room, int places);
extern void presence_admission_refuse(const PresenceAdmission *admission,
									  text *room, text *user);
extern void presence_admission_count_join(const PresenceAdmission *admission,
										  text *room, text *user);
extern uint64 presence_admission_admit_row(text *room, text *user,
										   PresenceEntrance entrance,
										   bool anybody);

#endif							/* PRESENCE_ADMISSION_H */
