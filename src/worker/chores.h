/*-------------------------------------------------------------------------
 *
 * chores.h
 *		The worker's periodic removal of old rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_CHORES_H
#define PRESENCE_CHORES_H

#include "postgres.h"

#include "base/clock.h"

extern void presence_chores_do(PresenceTime now);
extern void presence_chores_reload(void);
extern PresenceTime presence_chores_next(void);

#endif							/* PRESENCE_CHORES_H */
