/*-------------------------------------------------------------------------
 *
 * self_announce.h
 *		Announce the changes of a transaction from within it.
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
