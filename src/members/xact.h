/*-------------------------------------------------------------------------
 *
 * xact.h
 *		What the running transaction does to presences, until it ends.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_XACT_H
#define PRESENCE_XACT_H

#include "postgres.h"

#include "base/hint.h"
#include "members/pins.h"
#include "shared/registry.h"

extern void presence_xact_install(void);

extern bool presence_xact_is_active(void);
extern bool presence_xact_worker_announces(void);
extern PresenceHint *presence_xact_make_hint(PresenceHintKind kind, int64 id,
											 const PresenceValue *fields);
extern void presence_xact_note(PresenceHint *hint, PresencePin *pin);
extern int	presence_xact_begin_places(void);
extern bool presence_xact_has_uncounted(void);
extern uint32 presence_xact_set_adding(uint32 presence);
extern void presence_xact_note_creation(void);
extern void presence_xact_note_late_touch(PresenceTime expiry);
extern void presence_xact_reserve_expiry(void);
extern int	presence_xact_add_expiry(const PresenceExpireMark *mark);
extern void presence_xact_set_rowless(int expiry);

#endif							/* PRESENCE_XACT_H */
