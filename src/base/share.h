/*-------------------------------------------------------------------------
 *
 * share.h
 *		How much of a pool a database may take.
 *
 * Databases share pools of fixed size.  So that none of them can take a pool
 * from the others, its last eighth is kept for those that hold less than a
 * sixteenth of it.  Who may not take does without, at no other's expense.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_SHARE_H
#define PRESENCE_SHARE_H

#include "postgres.h"

#define PRESENCE_SHARE_KEPT 8	/* one part in ... is kept */
#define PRESENCE_SHARE_SMALL 16 /* for who holds one part in ... at most */

/* How many units a pool needs so that a database alone can take so many. */
static inline uint32
presence_share_total(uint32 wanted)
{
	return wanted + (wanted + PRESENCE_SHARE_KEPT - 2) / (PRESENCE_SHARE_KEPT - 1);
}

/*
 * Whether a database that holds so many units of a pool may take some more of
 * those that are unused.
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
