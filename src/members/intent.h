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
#include "members/pins.h"
#include "tables/store_presences.h"
#include "utils/jsonb.h"

/* Which rules of admission have been checked already. */
typedef enum PresenceAsked
{
	PRESENCE_ASKED_NOTHING,
	PRESENCE_ASKED_USER,		/* whether the user may be in the room */
	PRESENCE_ASKED_ALL			/* also limits on members and joins */
} PresenceAsked;

/* A channel that is added to a room; user and meta may be NULL. */
typedef struct PresenceEntrant
{
	text	   *channel;
	text	   *user;
	Jsonb	   *meta;
	int			position;		/* among the arguments of the call */
	PresencePin *pin;			/* of the channel, or NULL */
	bool		inserted;		/* set by the row trigger */
	PresenceRow *row;			/* if not NULL, the trigger fills it in */
	MemoryContext context;		/* of that row's fields */
} PresenceEntrant;

/* Presences that a function of the extension adds to a room. */
typedef struct PresenceTicket
{
	text	   *room;
	PresenceEntrant *entrants;	/* sorted by channel */
	int			count;
	int			next;			/* the one that is inserted next, probably */
	PresenceAsked asked;
	uint64		rules;			/* number of the rules that were checked */
} PresenceTicket;

extern int	presence_intent_compare(const text *a, const char *data, int length);
extern void presence_intent_push_reason(PresenceReason reason);
extern void presence_intent_push_ticket(PresenceTicket *ticket);
extern void presence_intent_pop(void);
extern PresenceReason presence_intent_reason(void);
extern PresenceTicket *presence_intent_ticket(void);
extern PresenceEntrant *presence_intent_find(PresenceTicket *ticket,
											 const text *channel);
extern PresenceEntrant *presence_intent_entrant(PresenceTicket *ticket,
												const PresenceValue *room,
												const PresenceValue *channel);

extern void presence_intent_roll_back(int level);
extern void presence_intent_forget(void);

#endif							/* PRESENCE_INTENT_H */
