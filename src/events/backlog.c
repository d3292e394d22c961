/*-------------------------------------------------------------------------
 *
 * backlog.c
 *		Keeps pending hints, indexed by presence, room and user.
 *
 * The worker reads each hint from the queue once and keeps a copy here, in the
 * order of the queue, until it is announced.  Once a snapshot shows the
 * transaction of a hint, the hint is known: it is indexed under its presence,
 * and that under its room, and its change of the connections of a user is
 * added to the sum of that user.  So the cost of a turn depends on the hints
 * that it announces, not on how many others are pending.
 *
 * A hint that has been announced along with another one is covered: it keeps
 * its place in the order, but is no longer indexed.
 *
 * The memory of hints is freed as they are announced, that of large tables
 * when nothing is pending.  It is private memory of the announcing process: no
 * locks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "events/backlog.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* Initial number of hints that there is space for. */
#define SMALL_TABLE 1024

/* Tables with space for more than this are recreated once they are empty. */
#define LARGE_TABLE 8192

/* The presences of one room with pending hints. */
typedef struct BacklogRoom
{
	dlist_head	subjects;
	char	   *name;
} BacklogRoom;

/* Hints that were appended together. */
typedef struct BacklogChunk
{
	int			nhints;			/* not dropped yet */
	char	   *data;			/* copies of the hints, if they were copied */
	PresenceWaiting hints[FLEXIBLE_ARRAY_MEMBER];
} BacklogChunk;

typedef struct RoomEntry
{
	const char *name;			/* key: the room's own name */
	char		status;			/* for simplehash */
	uint32		hash;			/* same */
	BacklogRoom *room;
} RoomEntry;

#define SH_PREFIX rooms
#define SH_ELEMENT_TYPE RoomEntry
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

typedef struct SubjectEntry
{
	PresenceSubjectKey key;		/* the subject's own strings */
	char		status;			/* for simplehash */
	uint32		hash;			/* same */
	PresenceSubject *subject;
} SubjectEntry;

static inline uint32
hash_key(PresenceSubjectKey key)
{
	return hash_combine(murmurhash32((uint32) key.id ^ (uint32) (key.id >> 32)),
						presence_hint_hash(key.channel));
}

static inline bool
same_key(PresenceSubjectKey a, PresenceSubjectKey b)
{
	return a.id == b.id && strcmp(a.channel, b.channel) == 0 &&
		strcmp(a.room, b.room) == 0;
}

#define SH_PREFIX subjects
#define SH_ELEMENT_TYPE SubjectEntry
#define SH_KEY_TYPE PresenceSubjectKey
#define SH_KEY key
#define SH_HASH_KEY(tb, key) hash_key(key)
#define SH_EQUAL(tb, a, b) same_key(a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* The sum of pending changes of one user. */
typedef struct UserEntry
{
	const char *name;			/* key; of a hint of the user, unless "owned" */
	char		status;			/* for simplehash */
	bool		owned;			/* it is our own copy */
	uint32		hash;			/* for simplehash */
	int			nhints;
	int64		change;			/* connections that join less those that leave */
} UserEntry;

#define SH_PREFIX users
#define SH_ELEMENT_TYPE UserEntry
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

struct PresenceBacklog
{
	MemoryContext context;		/* everything but this struct */
	PresenceWaiting **order;	/* as in the queue, from "first" on */
	Size		first;
	Size		end;
	Size		capacity;
	uint64		number;			/* of the next hint */
	uint64		unreliable;		/* hints before it may not be the last of
								 * their presences */
	dlist_head	unknown;		/* not known yet */
	dlist_head	resyncs;		/* known ones of kind RESYNC */
	dlist_head	covered;		/* in this turn */
	rooms_hash *rooms;
	subjects_hash *subjects;
	users_hash *users;
};

/* Make an empty backlog in a memory context. */
PresenceBacklog *
presence_backlog_create(MemoryContext parent)
{
	PresenceBacklog *backlog = MemoryContextAllocZero(parent, sizeof(PresenceBacklog));

	backlog->context = AllocSetContextCreate(parent, "presence backlog",
											 ALLOCSET_DEFAULT_SIZES);
	presence_backlog_clear(backlog);
	return backlog;
}

/* Forget everything. */
void
presence_backlog_clear(PresenceBacklog *backlog)
{
	MemoryContextReset(backlog->context);
	backlog->first = backlog->end = 0;
	backlog->capacity = SMALL_TABLE;
	backlog->order = MemoryContextAlloc(backlog->context,
										backlog->capacity * sizeof(PresenceWaiting *));
	dlist_init(&backlog->unknown);
	dlist_init(&backlog->resyncs);
	dlist_init(&backlog->covered);
	backlog->rooms = rooms_create(backlog->context, 64, NULL);
	backlog->subjects = subjects_create(backlog->context, 64, NULL);
	backlog->users = users_create(backlog->context, 64, NULL);
}

/* Whether a hint is a change of a presence that is not covered. */
static bool
is_change(const PresenceHint *hint)
{
	return !hint->covered &&
		(hint->kind == PRESENCE_HINT_JOIN ||
		 hint->kind == PRESENCE_HINT_LEAVE ||
		 hint->kind == PRESENCE_HINT_UPDATE);
}

/* Ensure space for nhints more hints in the order. */
static void
reserve_order(PresenceBacklog *backlog, int nhints)
{
	Size		waiting = backlog->end - backlog->first;

	if (backlog->first >= waiting)
	{
		memmove(backlog->order, backlog->order + backlog->first,
				waiting * sizeof(PresenceWaiting *));
		backlog->first = 0;
		backlog->end = waiting;
	}
	if (backlog->end + nhints <= backlog->capacity)
		return;
	backlog->capacity = Max(backlog->capacity * 2, backlog->end + nhints);
	backlog->order = repalloc_huge(backlog->order,
								   backlog->capacity * sizeof(PresenceWaiting *));
}

/* Make a chunk for nhints hints, with size bytes for copies of them. */
static BacklogChunk *
make_chunk(PresenceBacklog *backlog, int nhints, Size size)
{
	Size		head = MAXALIGN(offsetof(BacklogChunk, hints) +
								nhints * sizeof(PresenceWaiting));
	BacklogChunk *chunk = MemoryContextAllocHuge(backlog->context, head + size);

	chunk->nhints = 0;
	chunk->data = (char *) chunk + head;
	return chunk;
}

/* Put a hint at the end of the order. */
static PresenceWaiting *
put_hint(PresenceBacklog *backlog, BacklogChunk *chunk, PresenceHint *hint)
{
	PresenceWaiting *waiting = &chunk->hints[chunk->nhints++];

	waiting->hint = hint;
	waiting->queued = NULL;
	waiting->number = backlog->number++;
	waiting->known = false;
	waiting->now = false;
	waiting->subject = NULL;
	waiting->chunk = chunk;
	backlog->order[backlog->end++] = waiting;
	return waiting;
}

/*
 * Append a run of hints, at most a block of the queue.  It is a copy of the
 * hints at "queued" in the queue.
 */
void
presence_backlog_append(PresenceBacklog *backlog, const char *hints, Size size,
						PresenceHint *queued)
{
	BacklogChunk *chunk;
	int			nhints = 0;

	for (Size done = 0; done < size; nhints++)
		done += ((const PresenceHint *) (hints + done))->size;
	reserve_order(backlog, nhints);
	chunk = make_chunk(backlog, nhints, size);
	memcpy(chunk->data, hints, size);
	for (Size done = 0; done < size;)
	{
		PresenceHint *hint = (PresenceHint *) (chunk->data + done);
		PresenceWaiting *waiting = put_hint(backlog, chunk, hint);

		waiting->queued = (PresenceHint *) ((char *) queued + done);
		dlist_push_tail(&backlog->unknown, &waiting->link);
		done += hint->size;
	}
}

/* ----------------------------------------------------------------- the index */

/* Find or make a room. */
static BacklogRoom *
get_room(PresenceBacklog *backlog, const char *name)
{
	bool		found;
	RoomEntry  *entry = rooms_insert(backlog->rooms, name, &found);

	if (!found)
	{
		BacklogRoom *room = MemoryContextAlloc(backlog->context, sizeof(BacklogRoom));

		room->name = MemoryContextStrdup(backlog->context, name);
		dlist_init(&room->subjects);
		entry->name = room->name;
		entry->room = room;
	}
	return entry->room;
}

/* Find or make the presence of a hint. */
static PresenceSubject *
get_subject(PresenceBacklog *backlog, const PresenceHint *hint)
{
	const char *channel = presence_hint_text(hint, PRESENCE_FIELD_CHANNEL);
	PresenceSubjectKey key = {hint->id, presence_hint_text(hint, PRESENCE_FIELD_ROOM), channel};
	bool		found;
	SubjectEntry *entry = subjects_insert(backlog->subjects, key, &found);
	PresenceSubject *subject;

	if (found)
		return entry->subject;
	subject = MemoryContextAllocZero(backlog->context, sizeof(PresenceSubject));
	subject->room = get_room(backlog, key.room);
	subject->key.id = hint->id;
	subject->key.room = subject->room->name;
	subject->key.channel = channel;
	dlist_init(&subject->hints);
	dlist_push_tail(&subject->room->subjects, &subject->link);
	entry->key = subject->key;
	entry->subject = subject;
	return subject;
}

/*
 * A hint of a presence is no longer pending, but others are: if the presence
 * has its channel's name from that hint, take it from another one.
 */
static void
keep_channel(PresenceBacklog *backlog, PresenceSubject *subject,
			 const PresenceHint *hint)
{
	SubjectEntry *entry;

	if (subject->key.channel != presence_hint_text(hint, PRESENCE_FIELD_CHANNEL))
		return;
	entry = subjects_lookup(backlog->subjects, subject->key);
	hint = dlist_head_element(PresenceWaiting, link, &subject->hints)->hint;
	subject->key.channel = presence_hint_text(hint, PRESENCE_FIELD_CHANNEL);
	entry->key = subject->key;
}

/* Free a presence without pending hints, and its room if empty. */
static void
free_subject(PresenceBacklog *backlog, PresenceSubject *subject)
{
	BacklogRoom *room = subject->room;

	(void) subjects_delete(backlog->subjects, subject->key);
	dlist_delete(&subject->link);
	if (dlist_is_empty(&room->subjects))
	{
		(void) rooms_delete(backlog->rooms, room->name);
		pfree(room->name);
		pfree(room);
	}
	pfree(subject);
}

/*
 * Add or remove the change that a hint makes to the connections of a user.  The
 * entry of a user has the name from a hint that is pending, or a copy of it.
 */
static void
count_user(PresenceBacklog *backlog, const char *name, int change, int nhints)
{
	UserEntry  *user;
	char	   *copy = NULL;
	bool		found;

	if (name == NULL)
		return;
	user = users_insert(backlog->users, name, &found);
	Assert(found || nhints > 0);
	if (!found)
	{
		user->owned = false;
		user->nhints = 0;
		user->change = 0;
	}
	user->nhints += nhints;
	user->change += change * nhints;
	if (user->nhints > 0)
	{
		if (nhints > 0 || user->name != name)
			return;
		user->name = MemoryContextStrdup(backlog->context, name);
		user->owned = true;
		return;
	}
	if (user->owned)
		copy = unconstify(char *, user->name);
	users_delete_item(backlog->users, user);
	if (copy)
		pfree(copy);
}

/*
 * The same for all users of a hint.  In whatever order the hints of a presence
 * arrive, their sum is the difference between what the table shows and what
 * has been announced.  A hint that its transaction announced makes no
 * difference.
 */
static void
count_users(PresenceBacklog *backlog, const PresenceHint *hint, int nhints)
{
	const char *user = presence_hint_text(hint, PRESENCE_FIELD_USER);

	if (hint->announced)
		return;
	count_user(backlog, user, hint->kind == PRESENCE_HINT_LEAVE ? -1 : 1, nhints);
	if (hint->kind == PRESENCE_HINT_UPDATE)
		count_user(backlog, presence_hint_text(hint, PRESENCE_FIELD_PREVIOUS),
				   -1, nhints);
}

/*
 * Later changes of the presences of all hints so far may have no hints,
 * because they were lost or the table was truncated.
 */
void
presence_backlog_note_loss(PresenceBacklog *backlog)
{
	backlog->unreliable = backlog->number;
}

/* Whether that is so of a hint. */
bool
presence_backlog_is_unreliable(const PresenceBacklog *backlog,
							   const PresenceWaiting *waiting)
{
	return waiting->number < backlog->unreliable;
}

/* A hint has become known: index it. */
static void
index_hint(PresenceBacklog *backlog, PresenceWaiting *waiting)
{
	PresenceHint *hint = waiting->hint;
	PresenceSubject *subject;

	waiting->known = true;
	if (hint->kind == PRESENCE_HINT_RESYNC)
	{
		presence_backlog_note_loss(backlog);
		if (!hint->covered)
			dlist_push_tail(&backlog->resyncs, &waiting->link);
	}
	if (!is_change(hint))
		return;
	subject = get_subject(backlog, hint);
	waiting->subject = subject;
	dlist_push_tail(&subject->hints, &waiting->link);
	subject->nhints++;
	if (hint->kind == PRESENCE_HINT_JOIN)
	{
		subject->change++;
		subject->join = waiting;
	}
	else if (hint->kind == PRESENCE_HINT_LEAVE)
	{
		subject->change--;
		subject->leave = waiting;
	}
	count_users(backlog, hint, 1);
}

/* Remove a hint from the index. */
static void
unindex_hint(PresenceBacklog *backlog, PresenceWaiting *waiting)
{
	PresenceHint *hint = waiting->hint;
	PresenceSubject *subject = waiting->subject;

	if (subject == NULL)
		return;
	waiting->subject = NULL;
	dlist_delete(&waiting->link);
	if (subject->join == waiting)
		subject->join = NULL;
	if (subject->leave == waiting)
		subject->leave = NULL;
	subject->change -= hint->kind == PRESENCE_HINT_JOIN ? 1 :
		hint->kind == PRESENCE_HINT_LEAVE ? -1 : 0;
	count_users(backlog, hint, -1);
	if (--subject->nhints == 0)
		free_subject(backlog, subject);
	else
		keep_channel(backlog, subject, hint);
}

/* Append hints of the running transaction as known; they are not copied. */
void
presence_backlog_append_known(PresenceBacklog *backlog,
							  PresenceHint *const *hints, int nhints)
{
	BacklogChunk *chunk = make_chunk(backlog, nhints, 0);

	reserve_order(backlog, nhints);
	for (int i = 0; i < nhints; i++)
	{
		CHECK_FOR_INTERRUPTS();
		index_hint(backlog, put_hint(backlog, chunk, hints[i]));
	}
}

/* Make the hints of transactions that a snapshot shows known. */
void
presence_backlog_know(PresenceBacklog *backlog, Snapshot snapshot)
{
	TransactionId last = InvalidTransactionId;
	bool		shown = false;
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &backlog->unknown)
	{
		PresenceWaiting *waiting = dlist_container(PresenceWaiting, link, iter.cur);

		CHECK_FOR_INTERRUPTS();
		if (waiting->hint->xid != last)
			shown = !XidInMVCCSnapshot(waiting->hint->xid, snapshot);
		last = waiting->hint->xid;
		if (!shown)
			continue;
		dlist_delete(&waiting->link);
		index_hint(backlog, waiting);
	}
}

/* ------------------------------------------------------------------ the turn */

/*
 * The hints to announce in this turn: up to the first one that is not known,
 * because they leave the queue in order, or until they reach "limit" bytes.
 * "bytes" gets their size.
 */
PresenceWaiting **
presence_backlog_take(PresenceBacklog *backlog, Size limit, int *nhints,
					  Size *bytes)
{
	PresenceWaiting **now = backlog->order + backlog->first;
	Size		waiting = backlog->end - backlog->first;
	PresenceWaiting **copy;
	int			n = 0;

	*bytes = 0;
	while (n < waiting && *bytes < limit && now[n]->known)
	{
		now[n]->now = true;
		*bytes += now[n++]->hint->size;
	}
	*nhints = n;
	copy = MemoryContextAllocHuge(CurrentMemoryContext,
								  Max(n, 1) * sizeof(PresenceWaiting *));
	memcpy(copy, now, n * sizeof(PresenceWaiting *));
	return copy;
}

/* A hint pending for a later turn is announced in this one. */
void
presence_backlog_cover(PresenceBacklog *backlog, PresenceWaiting *waiting)
{
	waiting->hint->covered = true;
	unindex_hint(backlog, waiting);
	dlist_push_tail(&backlog->covered, &waiting->link);
}

/* Whether known hints ask for a resync; these become covered. */
bool
presence_backlog_take_resyncs(PresenceBacklog *backlog)
{
	bool		asks = !dlist_is_empty(&backlog->resyncs);

	while (!dlist_is_empty(&backlog->resyncs))
	{
		PresenceWaiting *waiting = dlist_container(PresenceWaiting, link,
												   dlist_pop_head_node(&backlog->resyncs));

		CHECK_FOR_INTERRUPTS();
		waiting->hint->covered = true;
		dlist_push_tail(&backlog->covered, &waiting->link);
	}
	return asks;
}

/* End a turn: its hints have become events. */
void
presence_backlog_end_turn(PresenceBacklog *backlog,
						  PresenceWaiting *const *now, int nhints)
{
	for (int i = 0; i < nhints; i++)
	{
		CHECK_FOR_INTERRUPTS();
		unindex_hint(backlog, now[i]);
	}
}

/*
 * The originals in the queue of the hints for later turns that were covered in
 * this one, as PresenceHint *, in the current memory context.
 */
List *
presence_backlog_covered(PresenceBacklog *backlog)
{
	List	   *covered = NIL;

	while (!dlist_is_empty(&backlog->covered))
	{
		PresenceWaiting *waiting = dlist_container(PresenceWaiting, link,
												   dlist_pop_head_node(&backlog->covered));

		if (!waiting->now && waiting->queued)
			covered = lappend(covered, waiting->queued);
	}
	return covered;
}

/* Drop the first hints, which have been announced. */
void
presence_backlog_drop(PresenceBacklog *backlog, int nhints)
{
	for (int i = 0; i < nhints; i++)
	{
		PresenceWaiting *waiting = backlog->order[backlog->first++];
		BacklogChunk *chunk = waiting->chunk;

		if (--chunk->nhints == 0)
			pfree(chunk);
	}
	if (backlog->first == backlog->end &&
		(backlog->capacity > LARGE_TABLE || backlog->subjects->size > LARGE_TABLE ||
		 backlog->users->size > LARGE_TABLE || backlog->rooms->size > LARGE_TABLE))
		presence_backlog_clear(backlog);
}

/* Find a presence with pending hints, or NULL. */
PresenceSubject *
presence_backlog_find(PresenceBacklog *backlog, int64 id, const char *room,
					  const char *channel)
{
	PresenceSubjectKey key = {id, room, channel};
	SubjectEntry *entry = subjects_lookup(backlog->subjects, key);

	return entry ? entry->subject : NULL;
}

/* The presences of a room with pending hints, or NULL. */
dlist_head *
presence_backlog_of_room(PresenceBacklog *backlog, const char *room)
{
	RoomEntry  *entry = rooms_lookup(backlog->rooms, room);

	return entry ? &entry->room->subjects : NULL;
}

/*
 * By how much the pending hints change the number of connections of a user:
 * those that join less those that leave.
 */
int64
presence_backlog_of_user(PresenceBacklog *backlog, const char *user)
{
	UserEntry  *entry = users_lookup(backlog->users, user);

	return entry ? entry->change : 0;
}
