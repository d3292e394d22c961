/*-------------------------------------------------------------------------
 *
 * cleanup.h
 *		Remove what is no longer needed: old rows, empty rooms.
 *
 * All functions expect SPI to be connected.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_CLEANUP_H
#define PRESENCE_CLEANUP_H

#include "postgres.h"

/* How many rooms one statement checks for being empty. */
#define PRESENCE_ROOMS_AT_ONCE 1000

/* Tables whose old rows are removed. */
typedef enum PresencePast
{
	PRESENCE_PAST_LAST_SEEN,
	PRESENCE_PAST_ADMISSIONS,
	PRESENCE_PAST_VISITS,
	PRESENCE_NPASTS
} PresencePast;

extern int64 presence_cleanup_forget(PresencePast past, int64 from);
extern uint64 presence_cleanup_rooms(void);

#endif							/* PRESENCE_CLEANUP_H */
