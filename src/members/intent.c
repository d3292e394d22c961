/*-------------------------------------------------------------------------
 *
 * intent.c
 *		Remembers what a function of the extension means by the rows that it
 *		writes.
 *
 * The row trigger sees a row, but not why it is written.  So a function says,
 * around its statements, why the rows that it deletes leave, and whom it is
 * letting in.  What it says nests.  It ends with presence_intent_pop(), or when
 * the subtransaction in which it was said is rolled back (xact.c), for an error
 * skips the pop.
 *
 * It is the transaction's own memory: no locks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "members/intent.h"
#include "utils/memutils.h"

/* What holds for the changes of a function of the extension. */
typedef struct Intent
{
	PresenceReason reason;		/* why rows that are deleted leave */
	const PresenceTicket *ticket;	/* who is being let in; may be NULL */
	int			level;			/* nesting level of its subtransaction */
} Intent;

/* What the running transaction has said, in TopTransactionContext. */
static Intent *intents;			/* the last holds now */
static int	nintents;
static int	maxintents;

/* What holds for changes that are made now. */
static Intent
current_intent(void)
{
	Intent		start = {.reason = PRESENCE_REASON_LEAVE};

	return nintents > 0 ? intents[nintents - 1] : start;
}

/* Have an intent hold from now on in the running subtransaction. */
static void
push(Intent intent)
{
	if (nintents == maxintents)
	{
		int			max = Max(maxintents * 2, 8);

		intents = intents ? repalloc_huge(intents, max * sizeof(Intent)) :
			MemoryContextAlloc(TopTransactionContext, max * sizeof(Intent));
		maxintents = max;
	}
	intent.level = GetCurrentTransactionNestLevel();
	intents[nintents++] = intent;
}

/* Say why rows that are deleted from now on leave. */
void
presence_intent_push_reason(PresenceReason reason)
{
	Intent		intent = current_intent();

	intent.reason = reason;
	push(intent);
}

/* Say who is being let in from now on; the ticket must stay until then. */
void
presence_intent_push_ticket(const PresenceTicket *ticket)
{
	Intent		intent = current_intent();

	intent.ticket = ticket;
	push(intent);
}

/* What held before holds again. */
void
presence_intent_pop(void)
{
	Assert(nintents > 0);
	nintents--;
}

/* Why rows that are deleted now leave. */
PresenceReason
presence_intent_reason(void)
{
	return current_intent().reason;
}

/* Who is being let in now; NULL: nobody in particular. */
const PresenceTicket *
presence_intent_ticket(void)
{
	return current_intent().ticket;
}

/* A subtransaction has been rolled back: what was said in it ends. */
void
presence_intent_roll_back(int level)
{
	while (nintents > 0 && intents[nintents - 1].level >= level)
		nintents--;
}

/* The transaction has ended; its memory goes with TopTransactionContext. */
void
presence_intent_forget(void)
{
	intents = NULL;
	nintents = maxintents = 0;
}
