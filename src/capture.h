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

extern void presence_capture_install(PresenceAnnounceFunc announce);

extern bool presence_capture_is_active(void);
extern void presence_capture_push_reason(PresenceReason reason);
extern void presence_capture_push_rules(uint64 rules);
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
