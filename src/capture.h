/*-------------------------------------------------------------------------
 *
 * capture.h
 *		What the running transaction has changed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_CAPTURE_H
#define PRESENCE_CAPTURE_H

#include "postgres.h"

#include "hint.h"
#include "registry.h"

/*
 * Announces hints from within the transaction, before it commits; a resync of
 * all rooms first, where one is owed.  false: nothing was announced.  Either
 * way it remembers when users whose presences go were last seen.
 */
typedef bool (*PresenceAnnounceFunc) (PresenceHint *const *hints, int nhints,
									  bool resync);

/* How somebody gets into a room by a row that has been written. */
typedef enum PresenceEntrance
{
	PRESENCE_ENTRANCE_USER,		/* was in, as another user */
	PRESENCE_ENTRANCE_DEAD,		/* enters, and does not count as alive */
	PRESENCE_ENTRANCE_LIVE		/* enters, and counts already */
} PresenceEntrance;

/*
 * Decides whether a user, NULL for an anonymous one, may be in a room by such a
 * row, and raises an error if not.  "anybody": the owner is asked, too.  Returns
 * which state of the rules let him in; 0: none was asked.
 */
typedef uint64 (*PresenceAdmitFunc) (text *room, text *user,
									 PresenceEntrance entrance, bool anybody);

/* What has been asked already of who enters. */
typedef enum PresenceAsked
{
	PRESENCE_ASKED_NOTHING,
	PRESENCE_ASKED_USER,		/* may such a user be there? */
	PRESENCE_ASKED_ALL			/* is there a place, too? */
} PresenceAsked;

/* Whom a function of the extension is letting in. */
typedef struct PresenceTicket
{
	text	   *room;
	text	   *channel;
	text	   *user;			/* NULL: anonymous */
	PresenceAsked asked;
	uint64		rules;			/* the state of the rules that was asked */
} PresenceTicket;

extern void presence_capture_install(PresenceAnnounceFunc announce,
									 PresenceAdmitFunc admit);

extern bool presence_capture_is_active(void);
extern void presence_capture_push_reason(PresenceReason reason);
extern void presence_capture_push_ticket(const PresenceTicket *ticket);
extern void presence_capture_pop(void);
extern PresenceLife presence_capture_begin(const char *channel, int length,
										   PresenceTime now,
										   PresenceTime cutoff, bool beat);
extern bool presence_capture_has_pinned(const PresenceName *name);
extern void presence_capture_reserve_death(void);
extern int	presence_capture_condemned(const PresenceVerdict *verdict);
extern void presence_capture_bury(int death);
extern void presence_capture_note(PresenceHint *hint);
extern void presence_capture_put_off_death(PresenceTime death);

#endif							/* PRESENCE_CAPTURE_H */
