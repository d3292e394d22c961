/*-------------------------------------------------------------------------
 *
 * membership.h
 *		Add channels to rooms, and update their presences.
 *
 * All functions expect SPI to be connected.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_MEMBERSHIP_H
#define PRESENCE_MEMBERSHIP_H

#include "postgres.h"

#include "members/admission.h"
#include "members/intent.h"
#include "tables/store_presences.h"
#include "utils/jsonb.h"

extern bool presence_membership_add(text *room, PresenceEntrant *entrant,
									PresenceRow *row);
extern void presence_membership_set_adding(const PresenceAdmission *admission,
										   text *room, const text *channel);
extern void presence_membership_beat(const PresenceEntrant *entrant);
extern bool presence_membership_update(text *room, text *channel, Jsonb *meta);

#endif							/* PRESENCE_MEMBERSHIP_H */
