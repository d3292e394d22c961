/*-------------------------------------------------------------------------
 *
 * share.h
 *		How much of a pool one database may use.
 *
 * Databases share pools of fixed size.  So that no database can use up a pool,
 * the last eighth of it is reserved for databases that hold no more than a
 * sixteenth.  A database that may take no more has to do without; nothing is
 * taken from the others.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_SHARE_H
#define PRESENCE_SHARE_H

#include "postgres.h"

#define PRESENCE_SHARE_KEPT 8	/* one in so many units is reserved */
#define PRESENCE_SHARE_SMALL 16 /* for holders of at most one in so many */

/* Size of a pool from which one database alone can take so many units. */
static inline uint32
presence_share_total(uint32 wanted)
{
	return wanted + (wanted + PRESENCE_SHARE_KEPT - 2) / (PRESENCE_SHARE_KEPT - 1);
}

/*
 * Whether a database that holds "held" of the "total" units of a pool may take
 * "wanted" of the "unused" ones.
 */
static inline bool
presence_share_allows(uint32 total, uint32 unused, uint32 held, uint32 wanted)
{
	uint32		kept = (total + PRESENCE_SHARE_KEPT - 1) / PRESENCE_SHARE_KEPT;
	uint32		small = Max(total / PRESENCE_SHARE_SMALL, 1);

	if (wanted > unused)
		return false;
	return unused - wanted >= kept || held + wanted <= small;
}

#endif							/* PRESENCE_SHARE_H */
