/*-------------------------------------------------------------------------
 *
 * backlog.h
 *		Hints that wait to be told, and what they say of presences and users.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_BACKLOG_H
#define PRESENCE_BACKLOG_H

#include "postgres.h"

#include "base/hint.h"
#include "lib/ilist.h"
#include "tables/store_presences.h"
#include "utils/snapshot.h"

typedef struct PresenceBacklog PresenceBacklog;
typedef struct PresenceSubject PresenceSubject;

/* A hint that waits. */
typedef struct PresenceWaiting
{
	PresenceHint *hint;
	PresenceHint *queued;		/* where it lies in the queue, or NULL */
	uint64		number;			/* counted on in the order of the queue */
	bool		known;			/* belongs to what the snapshot shows */
	bool		now;			/* to be told in this turn */
	PresenceSubject *subject;	/* NULL: not a change, or has no news */
	dlist_node	link;			/* among those of its subject, or unknown, or
								 * resyncs */
	struct BacklogChunk *chunk; /* the memory of it */
} PresenceWaiting;

/*
 * Which presence is meant.  The id alone does not say it: plain SQL may rename
 * the channel or the room of a row, which then leaves and joins.
 */
typedef struct PresenceSubjectKey
{
	int64		id;
	const char *room;
	const char *channel;
} PresenceSubjectKey;

/*
 * A presence of which known hints wait.  The second part belongs to the
 * announcer, for the length of a turn; it begins as zero.
 */
struct PresenceSubject
{
	PresenceSubjectKey key;
	struct BacklogRoom *room;
	dlist_node	link;			/* among those of its room */
	dlist_head	hints;			/* PresenceWaiting, as they became known */
	int			nhints;
	int			change;			/* hints that it joined less hints that it
								 * left */
	PresenceWaiting *join;		/* the hint that says that it joined, or NULL */
	PresenceWaiting *leave;		/* the hint that says that it left, or NULL */

	struct PresenceTurnFacts
	{
		bool		touched;	/* among the turn's subjects */
		bool		sought;		/* looked up in the table */
		bool		updated;	/* told in this turn, as the row is now */
		bool		over;		/* what waits of it is told with this turn */
		bool		brief;		/* came and went between two turns */
		struct PresenceEvent *join_event; /* its join in this turn, or NULL */
		PresenceRow *row;		/* as the table shows it, or as it left, or
								 * NULL */
	}			turn;
};

extern PresenceBacklog *presence_backlog_create(MemoryContext parent);
extern void presence_backlog_clear(PresenceBacklog *backlog);

extern void presence_backlog_append(PresenceBacklog *backlog, const char *hints,
									Size size, PresenceHint *queued);
extern void presence_backlog_append_known(PresenceBacklog *backlog,
										  PresenceHint *const *hints, int nhints);
extern void presence_backlog_know(PresenceBacklog *backlog, Snapshot snapshot);
extern PresenceWaiting **presence_backlog_take(PresenceBacklog *backlog,
											   Size limit, int *nhints,
											   Size *bytes);
extern void presence_backlog_cover(PresenceBacklog *backlog,
								   PresenceWaiting *waiting);
extern bool presence_backlog_take_resyncs(PresenceBacklog *backlog);
extern void presence_backlog_end_turn(PresenceBacklog *backlog,
									  PresenceWaiting *const *now, int nhints);
extern List *presence_backlog_covered(PresenceBacklog *backlog);
extern void presence_backlog_drop(PresenceBacklog *backlog, int nhints);

extern PresenceSubject *presence_backlog_find(PresenceBacklog *backlog,
											  int64 id, const char *room,
											  const char *channel);
extern dlist_head *presence_backlog_of_room(PresenceBacklog *backlog,
											const char *room);
extern int64 presence_backlog_of_user(PresenceBacklog *backlog, const char *user);

#endif							/* PRESENCE_BACKLOG_H */
