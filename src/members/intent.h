/*-------------------------------------------------------------------------
 *
 * intent.h
 *		Why a function of the extension writes rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_INTENT_H
#define PRESENCE_INTENT_H

#include "postgres.h"

#include "base/hint.h"

/* Which rules of admission have been checked already. */
typedef enum PresenceAsked
{
	PRESENCE_ASKED_NOTHING,
	PRESENCE_ASKED_USER,		/* whether the user may be in the room */
	PRESENCE_ASKED_ALL			/* also limits on members and joins */
} PresenceAsked;

/* A presence that a function of the extension adds. */
typedef struct PresenceTicket
{
	text	   *room;
	text	   *channel;
	text	   *user;			/* NULL: anonymous */
	PresenceAsked asked;
	uint64		rules;			/* number of the rules that were checked */
} PresenceTicket;

extern void presence_intent_push_reason(PresenceReason reason);
extern void presence_intent_push_ticket(const PresenceTicket *ticket);
extern void presence_intent_pop(void);
extern PresenceReason presence_intent_reason(void);
extern const PresenceTicket *presence_intent_ticket(void);

extern void presence_intent_roll_back(int level);
extern void presence_intent_forget(void);

#endif							/* PRESENCE_INTENT_H */
