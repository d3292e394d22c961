/*-------------------------------------------------------------------------
 *
 * copy.h
 *		One listener's copy of every room.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CONVERGE_COPY_H
#define CONVERGE_COPY_H

#include "json.h"
#include "names.h"

/* Values of Member.version that are not versions. */
#define NO_VERSION		(-1)	/* no meta */
#define UNTOLD_VERSION	(-2)	/* an event left the meta out */

typedef struct Member
{
	long long	id;				/* 0: not present */
	int			user;			/* -1: anonymous */
	long long	version;		/* of the meta */
} Member;

typedef struct Room
{
	Member	   *members;		/* by channel */
	int			size;
	long long	seq;			/* of its snapshot; for the report */
	bool		stale;			/* to be read again */
	bool		compared;		/* not read since it was compared */

	/*
	 * Was equal to the table at a quiet point and has followed only events
	 * since, so the next event must fit exactly.
	 */
	bool		exact;
} Room;

typedef struct Copy
{
	Room		rooms[ALL_ROOMS];
	char		epoch[32];		/* empty: none yet */
	long long	seq;			/* of the last event; -1: none yet */
	long long	events;
	long long	bulks;
	long long	resyncs;
	long long	unnumbered;
	long long	checked;		/* events that had to fit exactly */
} Copy;

/* Called for each presence that differs. */
typedef void (*CopyTell) (void *arg, int room, int channel,
						  const Member *copy, const Member *truth);

extern void copy_init(Copy *copy);
extern void copy_clear_room(Room *room);
extern void copy_reset(Copy *copy);
extern void copy_make_stale(Copy *copy);
extern void copy_set_exact(Copy *copy);
extern bool copy_apply(Copy *copy, const char *payload, char *trouble, int size);
extern bool copy_has(const Copy *copy, const char *payload);
extern void copy_restart(Copy *copy, const char *resync);
extern bool copy_load(Copy *copy, int room, const char *snapshot);
extern int	copy_differences(Copy *copy, const Copy *truth, CopyTell tell,
							 void *arg);

#endif							/* CONVERGE_COPY_H */
