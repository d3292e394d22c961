/*-------------------------------------------------------------------------
 *
 * membership_many.h
 *		Add many channels to a room.
 *
 * Expects SPI to be connected.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_MEMBERSHIP_MANY_H
#define PRESENCE_MEMBERSHIP_MANY_H

#include "postgres.h"

#include "members/intent.h"

extern int64 presence_membership_add_many(text *room, PresenceEntrant *entrants, int count);

#endif							/* PRESENCE_MEMBERSHIP_MANY_H */
