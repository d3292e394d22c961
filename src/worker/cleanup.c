/*-------------------------------------------------------------------------
 *
 * cleanup.c
 *		Removes rows that are no longer needed from tables other than
 *		presences.
 *
 * Old rows are removed a range of blocks at a time, visits in the order of their
 * ids, skipping locked ones.
 *
 * Locking.  Empty rooms are found without a lock, and checked again under
 * SHARE ROW EXCLUSIVE on presence.rooms, which keeps adds out.  It is only
 * tried for, up to ROOMS_LOCK_TIMEOUT, and then held until the transaction
 * ends.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/guc.h"
#include "members/xact.h"
#include "miscadmin.h"
#include "tables/extension.h"
#include "tables/store_people.h"
#include "tables/store_rooms.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "visits/visit_store.h"
#include "worker/cleanup.h"

/* How long prune_rooms tries to lock the table of rooms; milliseconds. */
#define ROOMS_LOCK_TIMEOUT 20

/* How many rooms it removes under that lock. */
#define MAX_ROOMS_A_CALL 10000

/* Blocks of a table from which one statement removes old rows. */
#define BLOCKS_AT_ONCE 32

/* The time since which rows of a table are kept. */
static TimestampTz
oldest_kept(PresencePast past)
{
	int			seconds = past == PRESENCE_PAST_ADMISSIONS ? presence_join_rate_window :
		past == PRESENCE_PAST_VISITS ? presence_keep_visits : presence_keep_last_seen;

	if (past != PRESENCE_PAST_ADMISSIONS && seconds == 0)
		return DT_NOBEGIN;
	return GetCurrentTimestamp() - (int64) seconds * USECS_PER_SEC;
}

/* Remove old rows from a range of blocks, and return where the next one begins. */
static int64
forget_blocks(PresencePast past, BlockNumber from)
{
	bool		admissions = past == PRESENCE_PAST_ADMISSIONS;
	BlockNumber blocks = presence_extension_blocks(admissions ? "admissions" : "user_last_seen",
												   AccessShareLock);
	BlockNumber to = from + BLOCKS_AT_ONCE;

	if (from < blocks && admissions)
		presence_store_forget_admissions(from, to, oldest_kept(past));
	else if (from < blocks)
		presence_store_forget_last_seen(from, to, oldest_kept(past));
	return to < blocks ? to : 0;
}

/*
 * Remove old rows from a part of a table, which begins at "from" (0: the first
 * one).  Returns where the next part begins, or 0 after the last one.
 */
int64
presence_cleanup_forget(PresencePast past, int64 from)
{
	if (past == PRESENCE_PAST_VISITS)
		return presence_visit_store_forget(from, oldest_kept(past));
	return forget_blocks(past, (BlockNumber) from);
}

/* Remove old rows from all these tables. */
static void
forget_all(void)
{
	for (PresencePast past = 0; past < PRESENCE_NPASTS; past++)
	{
		int64		from = 0;

		if (past == PRESENCE_PAST_VISITS && presence_keep_visits == 0)
			continue;
		do
		{
			from = presence_cleanup_forget(past, from);
			CHECK_FOR_INTERRUPTS();
		} while (from != 0);
	}
}

/* Arrays (text[]) of empty rooms, up to MAX_ROOMS_A_CALL of them. */
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
 * Remove old rows, and up to MAX_ROOMS_A_CALL empty rooms; how many rooms.  If
 * the lock that keeps adds out until the transaction ends is not available, no
 * rooms are removed.
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
