/*-------------------------------------------------------------------------
 *
 * places.h
 *		Places in rooms that the running transaction has reserved.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_PLACES_H
#define PRESENCE_PLACES_H

#include "postgres.h"

#include "base/hint.h"
#include "shared/occupancy.h"

extern bool presence_places_is_active(void);
extern void presence_places_begin(PresenceHint **hints, int nhints);
extern void presence_places_note(const PresenceHint *hint, int count);

extern PresenceOccupancyAnswer presence_places_reserve(const PresenceName *room,
													   PresenceOccupancyRequest *request,
													   int places, bool later,
													   int savepoint);
extern void presence_places_use(const PresenceName *room);
extern void presence_places_return(const PresenceName *room, int places,
								   int savepoint);
extern int64 presence_places_held(const PresenceName *room);

extern int	presence_places_savepoint(void);
extern void presence_places_roll_back(int savepoint);
extern void presence_places_settle(bool committed, PresenceHint **hints, int nhints);

#endif							/* PRESENCE_PLACES_H */
