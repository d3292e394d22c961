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
#include "utils/snapshot.h"

/* A user, as announced to listeners. */
typedef struct PresencePerson
{
	char	   *user;
	const char *status;			/* effective; the announcer fills it in */
	char	   *chosen_status;	/* NULL: none */
	char	   *custom_message; /* NULL: none */
	int64		connections;	/* rows, in all rooms, counted up to a limit */
	int64		living;			/* same, of live channels only */
	TimestampTz last_seen;		/* DT_NOBEGIN: not known; of an invisible
								 * user, when that status was set */
} PresencePerson;

/* A user of whom a connection has ended, and its last heartbeat. */
typedef struct PresenceLastSeen
{
	const char *user;
	TimestampTz last_seen;
} PresenceLastSeen;

extern List *presence_store_people(Datum users, Datum most, Datum living,
								   Snapshot snapshot);

/* Lists of PresenceLastSeen. */
extern void presence_store_add_last_seen(List *seen);
extern void presence_store_merge_last_seen(List *seen);
extern void presence_store_forget_last_seen(BlockNumber from, BlockNumber to,
											TimestampTz before);

#endif							/* PRESENCE_STORE_PEOPLE_H */
