/*-------------------------------------------------------------------------
 *
 * intent.c
 *		Remembers why a function of the extension writes rows.
 *
 * The row trigger sees a row, but not why it is written.  So a function pushes
 * an intent around its statements: the reason of the leaves for rows that it
 * deletes, and a ticket for the presence that it adds.  Intents nest.  One
 * ends with presence_intent_pop(), or with the rollback of its subtransaction
 * (xact.c), because an error skips the pop.
 *
 * It is private memory of the transaction: no locks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "members/intent.h"
#include "utils/memutils.h"

/* An intent. */
typedef struct Intent
{
	PresenceReason reason;		/* of leaves, for deleted rows */
	const PresenceTicket *ticket;	/* the presence being added, or NULL */
	int			level;			/* nesting level of its subtransaction */
} Intent;

/* The stack of the running transaction, in TopTransactionContext. */
static Intent *intents;			/* the last is in effect */
static int	nintents;
static int	maxintents;

/* The intent in effect, or the default. */
static Intent
current_intent(void)
{
	Intent		start = {.reason = PRESENCE_REASON_LEAVE};

	return nintents > 0 ? intents[nintents - 1] : start;
}

/* Push an intent, for the running subtransaction. */
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

/* Set the reason of leaves for rows deleted from now on. */
void
presence_intent_push_reason(PresenceReason reason)
{
	Intent		intent = current_intent();

	intent.reason = reason;
	push(intent);
}

/* Set the ticket of the presence being added; it must live until the pop. */
void
presence_intent_push_ticket(const PresenceTicket *ticket)
{
	Intent		intent = current_intent();

	intent.ticket = ticket;
	push(intent);
}

/* Restore the previous intent. */
void
presence_intent_pop(void)
{
	Assert(nintents > 0);
	nintents--;
}

/* The reason of leaves for rows deleted now. */
PresenceReason
presence_intent_reason(void)
{
	return current_intent().reason;
}

/* The ticket of the presence being added, or NULL. */
const PresenceTicket *
presence_intent_ticket(void)
{
	return current_intent().ticket;
}

/* A subtransaction has been rolled back: drop its intents. */
void
presence_intent_roll_back(int level)
{
	while (nintents > 0 && intents[nintents - 1].level >= level)
		nintents--;
}

/* The transaction has ended; TopTransactionContext frees the memory. */
void
presence_intent_forget(void)
{
	intents = NULL;
	nintents = maxintents = 0;
}
