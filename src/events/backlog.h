/*-------------------------------------------------------------------------
 *
 * backlog.h
 *		Pending hints, by the presences, rooms and users they concern.
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

/* A pending hint. */
typedef struct PresenceWaiting
{
	PresenceHint *hint;
	PresenceHint *queued;		/* the original in the queue, or NULL */
	uint64		number;			/* ascending in the order of the queue */
	bool		known;			/* a snapshot has shown its transaction */
	bool		now;			/* to be announced in this turn */
	PresenceSubject *subject;	/* NULL: not a change, or covered */
	dlist_node	link;			/* in hints of its subject, unknown, resyncs
								 * or covered */
	struct BacklogChunk *chunk; /* its memory */
} PresenceWaiting;

/*
 * Identifies a presence.  The id is not enough: plain SQL may change the
 * channel or the room of a row, which is a leave and a join.
 */
typedef struct PresenceSubjectKey
{
	int64		id;
	const char *room;
	const char *channel;
} PresenceSubjectKey;

/*
 * A presence with known pending hints.  "turn" belongs to the announcer for
 * the length of a turn; it is zero at the beginning.
 */
struct PresenceSubject
{
	PresenceSubjectKey key;
	struct BacklogRoom *room;
	dlist_node	link;			/* in the subjects of its room */
	dlist_head	hints;			/* PresenceWaiting, as they became known */
	int			nhints;
	int			change;			/* joins less leaves */
	PresenceWaiting *join;		/* the hint of its join, or NULL */
	PresenceWaiting *leave;		/* the hint of its leave, or NULL */

	struct PresenceTurnFacts
	{
		bool		touched;	/* in the turn's subjects */
		bool		sought;		/* looked up in the table */
		bool		updated;	/* announced with its current row */
		bool		over;		/* nothing of it is left to announce */
		bool		brief;		/* joined and left between two turns */
		struct PresenceEvent *join_event;	/* its join in this turn, or NULL */
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
extern void presence_backlog_note_loss(PresenceBacklog *backlog);
extern bool presence_backlog_is_unreliable(const PresenceBacklog *backlog,
										   const PresenceWaiting *waiting);
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
