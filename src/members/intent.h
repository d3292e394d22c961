/*-------------------------------------------------------------------------
 *
 * intent.h
 *		What a function of the extension means by the rows that it writes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_INTENT_H
#define PRESENCE_INTENT_H

#include "postgres.h"

#include "base/hint.h"

/* What has been asked already of who enters. */
typedef enum PresenceAsked
{
	PRESENCE_ASKED_NOTHING,
	PRESENCE_ASKED_USER,		/* may such a user be there? */
	PRESENCE_ASKED_ALL			/* is there a place, too? */
} PresenceAsked;

/* Whom a function of the extension is letting in. */
typedef struct PresenceTicket
{
	text	   *room;
	text	   *channel;
	text	   *user;			/* NULL: anonymous */
	PresenceAsked asked;
	uint64		rules;			/* the state of the rules that was asked */
} PresenceTicket;

extern void presence_intent_push_reason(PresenceReason reason);
extern void presence_intent_push_ticket(const PresenceTicket *ticket);
extern void presence_intent_pop(void);
extern PresenceReason presence_intent_reason(void);
extern const PresenceTicket *presence_intent_ticket(void);

extern void presence_intent_roll_back(int level);
extern void presence_intent_forget(void);

#endif							/* PRESENCE_INTENT_H */
