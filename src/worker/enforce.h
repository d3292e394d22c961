/*-------------------------------------------------------------------------
 *
 * enforce.h
 *		Bans and deletions of rooms concurrent with adds.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_ENFORCE_H
#define PRESENCE_ENFORCE_H

#include "postgres.h"

#include "base/clock.h"
#include "base/hint.h"

extern void presence_enforce_note(const PresenceHint *hint);
extern void presence_enforce_all(void);
extern void presence_enforce_apply(PresenceTime now);
extern PresenceTime presence_enforce_next(PresenceTime now);

#endif							/* PRESENCE_ENFORCE_H */
