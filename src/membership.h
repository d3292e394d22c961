/*-------------------------------------------------------------------------
 *
 * membership.h
 *		How channels enter rooms, stay and leave.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_MEMBERSHIP_H
#define PRESENCE_MEMBERSHIP_H

#include "postgres.h"

#include "hint.h"
#include "registry.h"
#include "store_presences.h"
#include "utils/array.h"

/* Rooms that are looked at at once, to remove the empty ones. */
#define PRESENCE_ROOMS_AT_ONCE 1000

/* Tables whose old rows are removed. */
typedef enum PresencePast
{
	PRESENCE_PAST_LAST_SEEN,
	PRESENCE_PAST_ADMISSIONS,
	PRESENCE_NPASTS
} PresencePast;

/* Who wants to enter; user and meta may be NULL. */
typedef struct PresenceEntrant
{
	text	   *room;
	text	   *channel;
	text	   *user;
	Jsonb	   *meta;
} PresenceEntrant;

extern bool presence_membership_add(const PresenceEntrant *entrant,
									PresenceRow *row);
extern bool presence_membership_update(text *room, text *channel, Jsonb *meta);
extern uint64 presence_membership_remove(List *rows, PresenceReason reason);
extern PresenceLife presence_membership_beat(text *channel);
extern bool presence_membership_touch(text *channel);
extern uint64 presence_membership_expire(ArrayType *channels, int64 age);
extern void presence_membership_pull_back(void);
extern uint64 presence_membership_prune(int64 age);
extern BlockNumber presence_membership_forget(PresencePast past, BlockNumber from);
extern uint64 presence_membership_prune_rooms(void);

#endif							/* PRESENCE_MEMBERSHIP_H */
