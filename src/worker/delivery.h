/*-------------------------------------------------------------------------
 *
 * delivery.h
 *		Delivers queued changes to listeners.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_DELIVERY_H
#define PRESENCE_DELIVERY_H

#include "postgres.h"

#include "base/clock.h"

extern void presence_delivery_init(void);
extern void presence_delivery_begin(void);

/* Steps of the worker's round. */
extern void presence_delivery_follow_mode(PresenceTime now);
extern void presence_delivery_notice_revival(PresenceTime now);
extern void presence_delivery_notice_announce(PresenceTime now);
extern void presence_delivery_deliver(PresenceTime now);
extern void presence_delivery_send_state(PresenceTime now);

extern PresenceTime presence_delivery_next(PresenceTime now);
extern bool presence_delivery_owes(void);
extern PresenceTime presence_delivery_pause_end(void);

#endif							/* PRESENCE_DELIVERY_H */
