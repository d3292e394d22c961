/*-------------------------------------------------------------------------
 *
 * cleanup.c
 *		Removes what nobody needs any more from the tables beside the presences.
 *
 * Old rows go block by block, those that somebody has locked excepted.  Empty rooms
 * are found without a lock, and looked at once more under one that keeps everybody
 * out, which is tried for only for a moment.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/guc.h"
#include "members/cleanup.h"
#include "members/xact.h"
#include "miscadmin.h"
#include "tables/extension.h"
#include "tables/store_people.h"
#include "tables/store_rooms.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* How long prune_rooms tries to find a moment without anybody entering; ms. */
#define ROOMS_LOCK_TIMEOUT 20

/* Rooms that it removes while it keeps those who enter out. */
#define MAX_ROOMS_A_CALL 10000

/* Blocks of a table from which old rows are removed at once. */
#define BLOCKS_AT_ONCE 32

/* Since when the rows of a table of the past are kept. */
static TimestampTz
oldest_kept(PresencePast past)
{
	int			seconds = past == PRESENCE_PAST_ADMISSIONS ?
		presence_join_rate_window : presence_keep_last_seen;

	if (past == PRESENCE_PAST_LAST_SEEN && seconds == 0)
		return DT_NOBEGIN;
	return GetCurrentTimestamp() - (int64) seconds * USECS_PER_SEC;
}

/*
 * Remove old rows from a part of a table, which begins with a block; where the
 * next part begins, 0: this was the last.
 */
BlockNumber
presence_cleanup_forget(PresencePast past, BlockNumber from)
{
	bool		admissions = past == PRESENCE_PAST_ADMISSIONS;
	BlockNumber blocks = presence_extension_blocks(admissions ? "admissions" : "user_last_seen");
	BlockNumber to = from + BLOCKS_AT_ONCE;

	if (from < blocks && admissions)
		presence_store_forget_admissions(from, to, oldest_kept(past));
	else if (from < blocks)
		presence_store_forget_last_seen(from, to, oldest_kept(past));
	return to < blocks ? to : 0;
}

/* Remove old rows from all tables of the past. */
static void
forget_all(void)
{
	for (PresencePast past = 0; past < PRESENCE_NPASTS; past++)
	{
		BlockNumber from = 0;

		do
		{
			from = presence_cleanup_forget(past, from);
			CHECK_FOR_INTERRUPTS();
		} while (from != 0);
	}
}

/* Arrays (text[]) of empty rooms, no more of them than one call removes. */
static List *
find_empty_rooms(void)
{
	List	   *found = NIL;
	text	   *after = cstring_to_text("");
	int			count = 0;

	while (after && count < MAX_ROOMS_A_CALL)
	{
		ArrayType  *rooms = presence_store_empty_rooms(after,
													   Min(PRESENCE_ROOMS_AT_ONCE, MAX_ROOMS_A_CALL - count),
													   &after);

		if (rooms)
		{
			found = lappend(found, rooms);
			count += ArrayGetNItems(ARR_NDIM(rooms), ARR_DIMS(rooms));
		}
		CHECK_FOR_INTERRUPTS();
	}
	return found;
}

/*
 * Remove empty rooms, as many as may be while others are kept out until the
 * transaction ends, and what is old; how many rooms.  None while somebody stays
 * in the way.
 */
uint64
presence_cleanup_rooms(void)
{
	List	   *found;
	ListCell   *lc;
	int			wait = ROOMS_LOCK_TIMEOUT;
	uint64		count = 0;

	forget_all();
	if (!presence_xact_worker_announces())
		presence_store_restore_rooms((Datum) 0);
	found = find_empty_rooms();
	if (found == NIL ||
		!presence_extension_try_lock("rooms", ShareRowExclusiveLock, &wait))
		return 0;
	foreach(lc, found)
		count += presence_store_delete_empty_rooms(lfirst(lc));
	return count;
}
