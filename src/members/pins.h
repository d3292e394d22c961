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

extern PresenceEntryStatus presence_pins_begin(const char *channel, int length,
											   PresenceTime now,
											   PresenceTime cutoff, bool beat);
extern bool presence_pins_has(const PresenceName *name);

extern bool presence_pins_is_active(void);
extern void presence_pins_count(const char *channel, bool joins);
extern void presence_pins_settle(bool committed);

#endif							/* PRESENCE_PINS_H */
