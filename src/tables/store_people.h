/*-------------------------------------------------------------------------
 *
 * store_people.h
 *		Users: their statuses, and when they were last seen.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_STORE_PEOPLE_H
#define PRESENCE_STORE_PEOPLE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "storage/block.h"
#include "storage/itemptr.h"
#include "utils/snapshot.h"

/* A user, as announced to listeners. */
typedef struct PresencePerson
{
	const char *user;
	const char *status;			/* effective; the announcer fills it in */
	char	   *chosen_status;	/* NULL: none */
	char	   *custom_message; /* NULL: none */
	int64		connections;	/* rows, in all rooms, counted up to a limit */
	int64		living;			/* same, of live channels only */
	TimestampTz last_seen;		/* when the status was chosen, DT_NOBEGIN: no
								 * choice; the announcer fills it in for
								 * others than invisible users */
} PresencePerson;

/* Users that are being read. */
typedef struct PresencePeople PresencePeople;

/* A user of whom a connection has ended, and its last heartbeat. */
typedef struct PresenceLastSeen
{
	const char *user;
	TimestampTz last_seen;
	bool		looked_up;		/* "row" says what is stored */
	ItemPointerData row;		/* with the newest time; invalid: none */
} PresenceLastSeen;

extern PresencePeople *presence_store_people_begin(Snapshot snapshot);
extern PresencePerson *presence_store_people_read(PresencePeople *people,
												  const char *user, int64 most,
												  int64 living);
extern TimestampTz presence_store_people_last_seen(PresencePeople *people,
												   const char *user, ItemPointer row);
extern void presence_store_people_end(PresencePeople *people);

/* Lists of PresenceLastSeen. */
extern void presence_store_add_last_seen(List *seen);
extern void presence_store_write_last_seen(List *seen);
extern void presence_store_forget_last_seen(BlockNumber from, BlockNumber to,
											TimestampTz before);

#endif							/* PRESENCE_STORE_PEOPLE_H */
