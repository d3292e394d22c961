/*-------------------------------------------------------------------------
 *
 * announce_turn.h
 *		The state of one announcement, shared by announce*.c only.
 *
 * A turn is one announcement: it takes hints and makes events of them.  It
 * is allocated in the memory context that was current when it began.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_ANNOUNCE_TURN_H
#define PRESENCE_ANNOUNCE_TURN_H

#include "postgres.h"

#include "base/hint.h"
#include "events/backlog.h"
#include "events/event.h"
#include "events/roster.h"
#include "nodes/pg_list.h"
#include "shared/registry.h"
#include "tables/store_presences.h"
#include "utils/snapshot.h"

/* How many presences one statement looks up. */
#define PRESENCE_LOOK_UP_BATCH 10000

/* A room in this turn. */
typedef struct PresenceTurnRoom
{
	const char *name;			/* key */
	char		status;			/* for simplehash */
	uint32		hash;			/* same */
	PresenceRosterRoom *room;	/* NULL: not on the roster yet */
	bool		self_announced; /* a transaction announced changes itself */
	bool		ordered;		/* in the turn's order */
	bool		loaded;			/* put on the roster in this turn */
	bool		says;			/* it says that it is announced otherwise ... */
	PresenceAnnounce said;		/* ... than it said before */
	bool		unsure;			/* how it was announced is not known */
	bool		owed;			/* its counts are due */
	bool		switched;		/* it is announced otherwise from now on */
	List	   *events;
} PresenceTurnRoom;

#define SH_PREFIX turnrooms
#define SH_ELEMENT_TYPE PresenceTurnRoom
#define SH_KEY_TYPE const char *
#define SH_KEY name
#define SH_HASH_KEY(tb, key) presence_hint_hash(key)
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* A user in this turn. */
typedef struct PresenceTurnUser
{
	const char *name;
	int64		change;			/* connections announced as joined less left */
	bool		chose;			/* the chosen status or message changed */
	const char *chosen_before;	/* status before, if "chose" */
	const char *message_before;
	bool		left;			/* a connection has left, announced or not */
	TimestampTz last_seen;		/* newest heartbeat of those that left */
} PresenceTurnUser;

typedef struct PresenceTurnUserEntry
{
	const char *name;			/* key */
	char		status;			/* for simplehash */
	uint32		hash;			/* same */
	PresenceTurnUser *user;
} PresenceTurnUserEntry;

#define SH_PREFIX turnusers
#define SH_ELEMENT_TYPE PresenceTurnUserEntry
#define SH_KEY_TYPE const char *
#define SH_KEY name
#define SH_HASH_KEY(tb, key) presence_hint_hash(key)
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* One announcement. */
typedef struct PresenceTurn
{
	PresenceRoster *roster;
	PresenceBacklog *backlog;
	Snapshot	snapshot;
	PresenceCutoff cutoff;		/* who has expired; {0}: count all */
	bool		worker;			/* announces, not a transaction itself */
	turnrooms_hash *rooms;
	turnusers_hash *users;
	List	   *named;			/* PresenceTurnUser, in the order of hints */
	List	   *subjects;		/* PresenceSubject of this turn */
	List	   *order;			/* rooms with events, by their first one */
} PresenceTurn;

/* Whether two users, either of which may be NULL, are the same. */
static inline bool
presence_turn_same_user(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return strcmp(a, b) == 0;
}

/* announce_turn.c: collect rooms, users and events */
extern void presence_turn_touch(PresenceTurn *turn, PresenceSubject *subject);
extern PresenceTurnRoom *presence_turn_room(PresenceTurn *turn, const char *name);
extern PresenceTurnUser *presence_turn_user(PresenceTurn *turn, const char *name);
extern void presence_turn_count_user(PresenceTurn *turn, const char *name,
									 int change);
extern void presence_turn_see_user(PresenceTurn *turn, const PresenceHint *hint);
extern PresenceEvent *presence_turn_add_event(PresenceTurn *turn,
											  PresenceTurnRoom *room,
											  PresenceEventKind kind,
											  PresenceRow *row);
extern PresenceRow *presence_turn_row_of(const PresenceHint *hint);
extern Datum presence_turn_text_array(List *strings);

/* announce_load.c: load rooms, look up presences */
extern void presence_turn_load_rooms(PresenceTurn *turn);
extern void presence_turn_look_up_rows(PresenceTurn *turn,
									   PresenceWaiting *const *now, int nhints);
extern void presence_turn_note_gone(PresenceTurn *turn);

/* announce_room.c: events of rooms */
extern void presence_turn_announce_hints(PresenceTurn *turn,
										 PresenceWaiting *const *now, int nhints);

/* announce_mode.c: rooms whose changes are not announced one by one */
extern void presence_turn_note_announce(PresenceTurn *turn, const PresenceHint *hint);
extern void presence_turn_add_owed(PresenceTurn *turn);
extern void presence_turn_read_announce(PresenceTurn *turn);
extern List *presence_turn_fold(PresenceTurn *turn, PresenceTurnRoom *room);

/* announce_status.c: events of users */
extern List *presence_turn_collect_statuses(PresenceTurn *turn, List **gone);

#endif							/* PRESENCE_ANNOUNCE_TURN_H */
