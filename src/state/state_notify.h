/*-------------------------------------------------------------------------
 *
 * state_notify.h
 *		Send changes of short-lived state with NOTIFY.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_STATE_NOTIFY_H
#define PRESENCE_STATE_NOTIFY_H

#include "postgres.h"

#include "state/state.h"

extern void presence_state_notify_send(PresenceStateRound *round);
extern void presence_state_notify_check_size(const PresenceStateName *name, int length);

#endif							/* PRESENCE_STATE_NOTIFY_H */
