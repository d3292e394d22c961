/*-------------------------------------------------------------------------
 *
 * peoplefuncs.c
 *		SQL functions for the statuses of users.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/args.h"
#include "base/compat.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "tables/reader.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(presence_check_status);
PG_FUNCTION_INFO_V1(presence_status);
PG_FUNCTION_INFO_V1(presence_statuses);

#define MAX_MESSAGE 100			/* characters */

/*
 * presence.check_status(status text, custom_message text) returns void
 */
Datum
presence_check_status(PG_FUNCTION_ARGS)
{
	static const char *const statuses[] = {"online", "away", "busy", "offline"};
	char	   *status;
	bool		known = false;
	int			length;

	if (PG_ARGISNULL(0))
		presence_args_reject_null("status");
	status = text_to_cstring(PG_GETARG_TEXT_PP(0));
	for (int i = 0; i < lengthof(statuses); i++)
		known |= strcmp(status, statuses[i]) == 0;
	if (!known)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"status\" must be online, away, busy or offline"),
				 errdetail("The value has %d characters.", pg_mbstrlen(status)),
				 errhint("Choose offline to be invisible.")));
	if (PG_ARGISNULL(1))
		PG_RETURN_VOID();
	length = pg_mbstrlen(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (length > MAX_MESSAGE)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("argument \"custom_message\" is too long"),
				 errdetail("The value has %d characters.", length),
				 errhint("Pass a message of at most %d characters.", MAX_MESSAGE)));
	PG_RETURN_VOID();
}

/*
 * presence_statuses(user_ids text[]) returns setof presence.person
 *
 * Returns one row for each given ID, in that order.
 */
Datum
presence_statuses(PG_FUNCTION_ARGS)
{
	(void) presence_args_names(fcinfo, 0, "user_ids", false);
	return presence_reader_return_rows(fcinfo, PRESENCE_READ_STATUSES,
									   PG_GETARG_DATUM(0), 0);
}

/*
 * presence_status(user_id text) returns presence.person
 */
Datum
presence_status(PG_FUNCTION_ARGS)
{
	Datum		user = PointerGetDatum(presence_args_name(fcinfo, 0, "user_id"));

	return presence_reader_return_row(fcinfo, PRESENCE_READ_STATUSES,
									  PointerGetDatum(construct_array(&user, 1, TEXTOID, -1, false,
																	  TYPALIGN_INT)));
}
