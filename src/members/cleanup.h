/*-------------------------------------------------------------------------
 *
 * cleanup.h
 *		What is no longer needed goes: old rows, empty rooms.
 *
 * All functions expect SPI to be connected.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_CLEANUP_H
#define PRESENCE_CLEANUP_H

#include "postgres.h"

#include "storage/block.h"

/* Rooms that are looked at at once, to remove the empty ones. */
#define PRESENCE_ROOMS_AT_ONCE 1000

/* Tables whose old rows are removed. */
typedef enum PresencePast
{
	PRESENCE_PAST_LAST_SEEN,
	PRESENCE_PAST_ADMISSIONS,
	PRESENCE_NPASTS
} PresencePast;

extern BlockNumber presence_cleanup_forget(PresencePast past, BlockNumber from);
extern uint64 presence_cleanup_rooms(void);

#endif							/* PRESENCE_CLEANUP_H */
