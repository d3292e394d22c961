/*-------------------------------------------------------------------------
 *
 * args.h
 *		Checks of the arguments of SQL functions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_ARGS_H
#define PRESENCE_ARGS_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/jsonb.h"

/* The elements of a text[] argument; NULLs only where they are allowed. */
typedef struct PresenceTexts
{
	Datum	   *datums;
	bool	   *nulls;
	int			count;
} PresenceTexts;

extern text *presence_args_name(FunctionCallInfo fcinfo, int n,
								const char *argument);
extern text *presence_args_optional_name(FunctionCallInfo fcinfo, int n,
										 const char *argument);
extern Jsonb *presence_args_object(FunctionCallInfo fcinfo, int n,
								   const char *argument);
extern Jsonb *presence_args_optional_object(FunctionCallInfo fcinfo, int n,
											const char *argument);
extern uint32 presence_args_milliseconds(FunctionCallInfo fcinfo, int n,
										 const char *argument, double least);
extern PresenceTexts presence_args_names(FunctionCallInfo fcinfo, int n,
										 const char *argument, bool nulls_allowed);
extern void presence_args_check_name(text *value, const char *argument);
extern void presence_args_check_object(Jsonb *value, const char *argument);
extern void presence_args_reject_null(const char *argument);

#endif							/* PRESENCE_ARGS_H */
