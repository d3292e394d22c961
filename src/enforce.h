/*-------------------------------------------------------------------------
 *
 * enforce.h
 *		Rules of rooms that changed while somebody entered.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_ENFORCE_H
#define PRESENCE_ENFORCE_H

#include "postgres.h"

#include "hint.h"

extern void presence_enforce_note(const PresenceHint *hint);
extern void presence_enforce_all(void);
extern bool presence_enforce_is_wanted(void);
extern bool presence_enforce_bans(void);
extern void presence_enforce_rooms(void);
extern void presence_enforce_finish(void);

#endif							/* PRESENCE_ENFORCE_H */
