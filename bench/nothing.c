/*-------------------------------------------------------------------------
 *
 * nothing.c
 *		A function of one argument that does nothing: the least that a
 *		heartbeat, a function of one argument too, could cost.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(nothing);

/* Answer that the channel is present, whatever it is. */
Datum
nothing(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(true);
}
