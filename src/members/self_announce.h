/*-------------------------------------------------------------------------
 *
 * self_announce.h
 *		A transaction announces its own changes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_SELF_ANNOUNCE_H
#define PRESENCE_SELF_ANNOUNCE_H

#include "postgres.h"

#include "base/hint.h"

extern bool presence_self_announce(PresenceHint *const *hints, int nhints,
								   bool resync);

#endif							/* PRESENCE_SELF_ANNOUNCE_H */
