/*-------------------------------------------------------------------------
 *
 * sweep.h
 *		Removal of expired channels.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_SWEEP_H
#define PRESENCE_SWEEP_H

#include "postgres.h"

#include "base/clock.h"

extern void presence_sweep_init(void);
extern void presence_sweep_reload(void);

/* Steps of the worker's round. */
extern void presence_sweep_search(PresenceTime now);
extern void presence_sweep_expire(PresenceTime now);
extern void presence_sweep_audit(PresenceTime now);

extern bool presence_sweep_has_channels(void);
extern PresenceTime presence_sweep_next(void);

#endif							/* PRESENCE_SWEEP_H */
