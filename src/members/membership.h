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

#include "tables/store_presences.h"
#include "utils/jsonb.h"

/* A presence to add; user and meta may be NULL. */
typedef struct PresenceEntrant
{
	text	   *room;
	text	   *channel;
	text	   *user;
	Jsonb	   *meta;
} PresenceEntrant;

extern bool presence_membership_add(const PresenceEntrant *entrant,
									PresenceRow *row);
extern bool presence_membership_update(text *room, text *channel, Jsonb *meta);

#endif							/* PRESENCE_MEMBERSHIP_H */
