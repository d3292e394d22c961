/*-------------------------------------------------------------------------
 *
 * visits.h
 *		Presences that left, on their way into presence.visits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_VISITS_H
#define PRESENCE_VISITS_H

#include "postgres.h"

#include "base/hint.h"

extern bool presence_visits_are_kept(void);
extern void presence_visits_note(const PresenceValue *fields,
								 TimestampTz joined_at, PresenceReason reason);
extern void presence_visits_write(void);
extern void presence_visits_write_all(void);

extern void presence_visits_release(int level);
extern void presence_visits_roll_back(int level);
extern void presence_visits_forget(void);

#endif							/* PRESENCE_VISITS_H */
