/*-------------------------------------------------------------------------
 *
 * reader.h
 *		Statements of the SQL functions that read.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_READER_H
#define PRESENCE_READER_H

#include "postgres.h"

#include "access/htup.h"
#include "fmgr.h"

/* Each has the columns of the SQL function of its name. */
typedef enum PresenceRead
{
	PRESENCE_READ_LIST,			/* of a room */
	PRESENCE_READ_PAGE,			/* of a room; presence_reader_return_page() */
	PRESENCE_READ_USERS,		/* of a room, as the next ones */
	PRESENCE_READ_COUNT,
	PRESENCE_READ_ANONYMOUS_COUNT,
	PRESENCE_READ_COUNTS,
	PRESENCE_READ_ROOMS,		/* of a channel */
	PRESENCE_READ_USER_ROOMS,	/* of a user */
	PRESENCE_READ_IS_ONLINE,
	PRESENCE_READ_ONLINE,		/* of users (text[]) */
	PRESENCE_READ_STATUSES
} PresenceRead;

extern HeapTuple presence_reader_row(PresenceRead what, Datum argument);
extern Datum presence_reader_return_row(FunctionCallInfo fcinfo, PresenceRead what,
										Datum argument);
extern Datum presence_reader_return_rows(FunctionCallInfo fcinfo, PresenceRead what,
										 Datum argument, int flags);
extern Datum presence_reader_return_page(FunctionCallInfo fcinfo, Datum room,
										 Datum after, int max_rows);

#endif							/* PRESENCE_READER_H */
