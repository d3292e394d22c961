/*-------------------------------------------------------------------------
 *
 * crowd.h
 *		Add many channels to a room.
 *
 * Expects SPI to be connected.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_CROWD_H
#define PRESENCE_CROWD_H

#include "postgres.h"

#include "members/intent.h"

extern int64 presence_crowd_add(text *room, PresenceEntrant *entrants, int count);

#endif							/* PRESENCE_CROWD_H */
