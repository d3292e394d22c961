/*-------------------------------------------------------------------------
 *
 * intent.c
 *		Remembers why a function of the extension writes rows.
 *
 * The row trigger sees a row, but not why it is written.  So a function pushes
 * an intent around its statements: the reason of the leaves for rows that it
 * deletes, and a ticket for the presences that it adds.  Intents nest.  One
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
	PresenceTicket *ticket;		/* the presences being added, or NULL */
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

/* Set the ticket of the presences being added; it must live until the pop. */
void
presence_intent_push_ticket(PresenceTicket *ticket)
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

/* The ticket of the presences being added, or NULL. */
PresenceTicket *
presence_intent_ticket(void)
{
	return nintents > 0 ? intents[nintents - 1].ticket : NULL;
}

/* Compare a channel with another one by their bytes, as the table does. */
int
presence_intent_compare(const text *channel, const char *data, int length)
{
	int			mine = VARSIZE_ANY_EXHDR(channel);
	int			result = memcmp(VARDATA_ANY(channel), data, Min(mine, length));

	return result != 0 ? result : (mine > length) - (mine < length);
}

/* Find a channel among the entrants of a ticket, or NULL. */
static PresenceEntrant *
find_entrant(PresenceTicket *ticket, const char *channel, int length)
{
	int			low = 0;
	int			high = ticket->count;

	while (low < high)
	{
		int			middle = (low + high) / 2;
		int			result = presence_intent_compare(ticket->entrants[middle].channel,
													 channel, length);

		if (result == 0)
			return &ticket->entrants[middle];
		if (result < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* The same for a channel as a text. */
PresenceEntrant *
presence_intent_find(PresenceTicket *ticket, const text *channel)
{
	return find_entrant(ticket, VARDATA_ANY(channel), VARSIZE_ANY_EXHDR(channel));
}

/*
 * The entrant of a ticket that a row is for, or NULL.  Rows are written in the
 * order of the entrants, so it is usually the next one.
 */
PresenceEntrant *
presence_intent_entrant(PresenceTicket *ticket, const PresenceValue *room,
						const PresenceValue *channel)
{
	PresenceEntrant *entrant;

	if (presence_intent_compare(ticket->room, room->data, room->length) != 0)
		return NULL;
	entrant = ticket->next < ticket->count ? &ticket->entrants[ticket->next] : NULL;
	if (entrant == NULL ||
		presence_intent_compare(entrant->channel, channel->data, channel->length) != 0)
		entrant = find_entrant(ticket, channel->data, channel->length);
	if (entrant)
		ticket->next = entrant - ticket->entrants + 1;
	return entrant;
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
