/*-------------------------------------------------------------------------
 *
 * visits.c
 *		Collects the presences that statements remove, and writes them as
 *		visits.
 *
 * The row trigger notes each presence that leaves (members/triggers.c); the
 * statement trigger, which fires after it, writes what was noted by one INSERT.
 * A statement that removes more than MAX_BATCH rows writes that many at a time,
 * which bounds the memory.  What no statement trigger has written, because the
 * statement named another table of which presence.presences is a child, or the
 * trigger is disabled, is written before the commit.
 *
 * Visits are written by the subtransaction that removed their presences: those
 * that an outer one has noted must not be undone by the rollback of an inner
 * one, in which a user's trigger removes others.  So each batch belongs to a
 * subtransaction.  Its memory does, too: a rollback frees it.
 *
 * It is private memory of the transaction: no locks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/guc.h"
#include "commands/trigger.h"
#include "tables/extension.h"
#include "tables/store.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "visits/visit_store.h"
#include "visits/visits.h"

/* Visits written by one INSERT, at most. */
#define MAX_BATCH 1000

/* Visits that a subtransaction has to write. */
typedef struct Batch
{
	struct Batch *outer;		/* of the same subtransaction or an outer one */
	MemoryContext context;		/* child of CurTransactionContext */
	int			level;			/* nesting level of the subtransaction */
	int			count;
	int			max;
	PresenceVisit *visits;
} Batch;

/* The innermost batch of the running transaction. */
static Batch *batches;

/*
 * Whether presences that leave become visits.  What replication removes is a
 * visit at its origin, which may be replicated as well.
 */
bool
presence_visits_are_kept(void)
{
	return presence_keep_visits > 0 &&
		SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA;
}

/* The batch of the running subtransaction. */
static Batch *
get_batch(void)
{
	int			level = GetCurrentTransactionNestLevel();
	MemoryContext context;
	Batch	   *batch;

	if (batches && batches->level == level)
		return batches;
	context = AllocSetContextCreate(CurTransactionContext, "presence visits",
									ALLOCSET_SMALL_SIZES);
	batch = MemoryContextAllocZero(context, sizeof(Batch));
	batch->context = context;
	batch->level = level;
	batch->max = 4;
	batch->visits = MemoryContextAlloc(context, batch->max * sizeof(PresenceVisit));
	batch->outer = batches;
	batches = batch;
	return batch;
}

/* Write the visits of the innermost batch, which is removed first. */
static void
write_batch(void)
{
	Batch	   *batch = batches;
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	PresenceSession caller;

	batches = batch->outer;
	presence_store_connect();
	caller = presence_extension_become_owner();
	presence_visit_store_add(batch->visits, batch->count);
	presence_extension_become_caller(caller);
	presence_store_finish();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(batch->context);
}

/* A value as a text datum. */
static Datum
value_datum(const PresenceValue *value)
{
	return PointerGetDatum(cstring_to_text_with_len(value->data, value->length));
}

/*
 * Note that a presence leaves now, with its room, channel and user as
 * "fields" has them.
 */
void
presence_visits_note(const PresenceValue *fields, TimestampTz joined_at,
					 PresenceReason reason)
{
	Batch	   *batch = get_batch();
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	PresenceVisit *visit;

	if (batch->count == batch->max)
	{
		batch->visits = repalloc(batch->visits, batch->max * 2 * sizeof(PresenceVisit));
		batch->max *= 2;
	}
	visit = &batch->visits[batch->count];
	visit->room = value_datum(&fields[PRESENCE_FIELD_ROOM]);
	visit->channel = value_datum(&fields[PRESENCE_FIELD_CHANNEL]);
	visit->anonymous = fields[PRESENCE_FIELD_USER].data == NULL;
	visit->user = visit->anonymous ? (Datum) 0 : value_datum(&fields[PRESENCE_FIELD_USER]);
	visit->joined_at = joined_at;
	visit->left_at = presence_clock_wall();
	visit->reason = reason;
	batch->count++;
	MemoryContextSwitchTo(old);
	if (batch->count == MAX_BATCH)
		write_batch();
}

/* Write what the running subtransaction has noted. */
void
presence_visits_write(void)
{
	while (batches && batches->level >= GetCurrentTransactionNestLevel())
		write_batch();
}

/* The transaction is about to commit: write what is left. */
void
presence_visits_write_all(void)
{
	if (batches == NULL || !presence_extension_exists())
		return;
	PushActiveSnapshot(GetTransactionSnapshot());
	presence_visits_write();
	PopActiveSnapshot();
}

/* A subtransaction has been released: its parent inherits its visits. */
void
presence_visits_release(int level)
{
	for (Batch *batch = batches; batch && batch->level >= level; batch = batch->outer)
		batch->level = level - 1;
}

/* A subtransaction has been rolled back: drop its visits. */
void
presence_visits_roll_back(int level)
{
	while (batches && batches->level >= level)
		batches = batches->outer;
}

/* The transaction has ended, which frees the memory. */
void
presence_visits_forget(void)
{
	batches = NULL;
}
