/*-------------------------------------------------------------------------
 *
 * pins.h
 *		Registry entries that the running transaction pins and updates.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_PINS_H
#define PRESENCE_PINS_H

#include "postgres.h"

#include "base/name.h"
#include "shared/registry.h"

/* A channel of the running transaction; valid until the transaction ends. */
typedef struct PresencePin PresencePin;

extern PresencePin *presence_pins_get(const char *channel, int length);
extern PresenceEntryStatus presence_pins_enter(PresencePin *pin, const PresenceCutoff *cutoff,
											   bool rowless);
extern PresenceEntryStatus presence_pins_begin(PresencePin *pin, const PresenceCutoff *cutoff,
											   bool beat);
extern PresenceTime presence_pins_seen(PresencePin *pin);
extern bool presence_pins_has(const PresenceName *name);
extern bool presence_pins_expire(const PresenceName *name);

extern bool presence_pins_is_active(void);
extern void presence_pins_count(PresencePin *pin, bool joins);
extern void presence_pins_settle(bool committed);

#endif							/* PRESENCE_PINS_H */
