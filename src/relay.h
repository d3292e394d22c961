/*-------------------------------------------------------------------------
 *
 * relay.h
 *		From changes of short-lived state to NOTIFY.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_RELAY_H
#define PRESENCE_RELAY_H

#include "postgres.h"

#include "ephemeral.h"

extern void presence_relay_send(PresenceStateRound *round);
extern void presence_relay_check_size(const PresenceStateName *name, int length);

#endif							/* PRESENCE_RELAY_H */
