/*-------------------------------------------------------------------------
 *
 * queue.c
 *		Carries hints from committing transactions to the worker of their
 *		database.
 *
 * Memory of fixed size, presence.queue_size, cut into blocks.  A queue is a
 * list of blocks, one queue for each database slot: committing transactions
 * append to the last block, the worker reads from the first and gives blocks
 * back once what they told has been announced.
 *
 * Locking.  Each queue has an LWLock for its list and flags; the list of free
 * blocks has a spinlock, taken last.  Nobody holds the lock for longer than a
 * slice of hints or a block takes.  A transaction appends its hints by memcpy:
 * nothing there can fail.
 *
 * When its database may take no more blocks (share.h) the queue is cut:
 * everything in it is thrown away and "resync" says so.  The worker announces
 * that rooms are to be read again, so nothing that was thrown away is missed.
 * The queues of other databases stay as they are.
 *
 * An open queue promises that a worker will read it.  The worker opens it
 * when ready and closes it when it leaves with nothing left; the launcher
 * closes it by force when it cannot start a worker.  While it is closed,
 * transactions announce their changes themselves.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/guc.h"
#include "base/share.h"
#include "shared/queue.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"

#define BLOCK_SIZE PRESENCE_QUEUE_READ_SIZE
#define BLOCK_DATA (BLOCK_SIZE - MAXALIGN(sizeof(QueueBlockHeader)))

/* Hints appended or marked under one hold of the lock. */
#define SLICE 256

typedef struct QueueBlockHeader
{
	uint32		next;			/* block + 1; 0: last of its list */
	uint32		used;			/* bytes of data */
} QueueBlockHeader;

StaticAssertDecl(PRESENCE_HINT_MAX_SIZE <=
				 BLOCK_SIZE - MAXALIGN(sizeof(QueueBlockHeader)),
				 "the longest hint must fit into a block");

typedef struct PresenceQueue
{
	LWLock		lock;			/* guards all below */
	bool		open;
	bool		resync;			/* events were lost; not announced yet */
	uint32		lost_count;			/* how often that happened */
	uint32		cuts;			/* how often everything was thrown away */
	uint32		first;			/* block + 1; 0: empty */
	uint32		last;
	uint32		held;			/* blocks */
	uint32		start;			/* bytes of the first block already read */
	uint64		bytes;			/* waiting */
	uint64		appended;		/* bytes, ever */
} PresenceQueue;

typedef struct PresenceQueues
{
	slock_t		mutex;			/* guards both */
	uint32		free;			/* block + 1; 0: none */
	uint32		unused;			/* free blocks */
	PresenceQueue queues[PRESENCE_MAX_DATABASES];
} PresenceQueues;

static PresenceQueues *queues;
static char *blocks;

/* How many blocks presence.queue_size makes. */
static int
count_blocks(void)
{
	return Max((Size) presence_queue_size * 1024 / BLOCK_SIZE, 4);
}

/* A block by its number, counted from 1. */
static QueueBlockHeader *
get_block(uint32 number)
{
	return (QueueBlockHeader *) (blocks + (Size) (number - 1) * BLOCK_SIZE);
}

/* The data of a block. */
static char *
block_data(QueueBlockHeader *block)
{
	return (char *) block + MAXALIGN(sizeof(QueueBlockHeader));
}

/* Bytes of shared memory that the queues need. */
Size
presence_queue_shmem_size(void)
{
	return add_size(MAXALIGN(sizeof(PresenceQueues)),
					mul_size(count_blocks(), BLOCK_SIZE));
}

/* Attach to the queues, emptying them when new. */
void
presence_queue_shmem_init(void *area, bool found)
{
	int			tranche = GetNamedLWLockTranche("presence_queue")->lock.tranche;

	queues = area;
	blocks = (char *) area + MAXALIGN(sizeof(PresenceQueues));
	if (found)
		return;
	SpinLockInit(&queues->mutex);
	queues->free = 1;
	queues->unused = count_blocks();
	for (int i = 1; i <= count_blocks(); i++)
		get_block(i)->next = (i < count_blocks()) ? i + 1 : 0;
	for (int i = 0; i < PRESENCE_MAX_DATABASES; i++)
	{
		PresenceQueue *queue = &queues->queues[i];

		memset(queue, 0, sizeof(*queue));
		LWLockInitialize(&queue->lock, tranche);
	}
}

/* The queue of a database. */
static PresenceQueue *
get_queue(PresenceDatabase *database)
{
	return &queues->queues[presence_database_index(database)];
}

/* Take a free block; 0: there is none for this queue.  The caller holds the lock. */
static uint32
take_block(PresenceQueue *queue)
{
	uint32		total = count_blocks();
	uint32		number = 0;

	SpinLockAcquire(&queues->mutex);
	if (presence_share_allows(total, queues->unused, queue->held, 1))
	{
		number = queues->free;
		queues->free = get_block(number)->next;
		queues->unused--;
	}
	SpinLockRelease(&queues->mutex);
	if (number != 0)
		queue->held++;
	return number;
}

/* Give a list of so many blocks back.  The caller holds the lock. */
static void
give_blocks(PresenceQueue *queue, uint32 first, uint32 last, uint32 count)
{
	Assert(count <= queue->held);
	queue->held -= count;
	SpinLockAcquire(&queues->mutex);
	get_block(last)->next = queues->free;
	queues->free = first;
	queues->unused += count;
	SpinLockRelease(&queues->mutex);
}

/* Throw everything away.  The caller holds the lock. */
static void
empty_queue(PresenceQueue *queue)
{
	if (queue->first != 0)
		give_blocks(queue, queue->first, queue->last, queue->held);
	queue->first = queue->last = 0;
	queue->start = 0;
	queue->bytes = 0;
}

/* Throw everything away and owe a resync.  The caller holds the lock. */
static void
cut_queue(PresenceQueue *queue)
{
	empty_queue(queue);
	queue->resync = true;
	queue->lost_count++;
	queue->cuts++;
}

/* Append a hint; false when there is no room.  The caller holds the lock. */
static bool
append_hint(PresenceQueue *queue, const PresenceHint *hint, TransactionId xid,
			bool announced)
{
	QueueBlockHeader *block = queue->last ? get_block(queue->last) : NULL;
	PresenceHint *copy;

	if (block == NULL || block->used + hint->size > BLOCK_DATA)
	{
		uint32		number = hint->size > BLOCK_DATA ? 0 : take_block(queue);

		if (number == 0)
			return false;
		if (block)
			block->next = number;
		else
			queue->first = number;
		queue->last = number;
		block = get_block(number);
		block->next = 0;
		block->used = 0;
	}
	copy = (PresenceHint *) (block_data(block) + block->used);
	memcpy(copy, hint, hint->size);
	copy->xid = xid;
	copy->announced = announced;
	block->used += hint->size;
	queue->bytes += hint->size;
	queue->appended += hint->size;
	return true;
}

/* Append a slice of hints; false: nothing more is to be appended. */
static bool
push_slice(PresenceQueue *queue, PresenceHint *const *hints, int nhints,
		   TransactionId xid, bool announced, bool *news)
{
	if (announced && !queue->open)
		return false;
	*news |= queue->first == 0;
	for (int i = 0; i < nhints; i++)
	{
		if (append_hint(queue, hints[i], xid, announced))
			continue;
		cut_queue(queue);
		return false;
	}
	return true;
}

/*
 * Append the hints of a transaction that has just committed.  Cannot fail:
 * without room the queue is cut and a resync is owed.  Whether the worker has
 * to be told: it knows of a queue that was not empty.
 *
 * The lock is held for a slice at a time.  The worker waits for the last one,
 * for it waits for transactions that show themselves (backend.c).
 *
 * What the transaction has announced itself is worth telling to a worker that
 * counts who was announced, and to nobody else.
 */
bool
presence_queue_push(PresenceDatabase *database, PresenceHint *const *hints,
					int nhints, TransactionId xid, bool announced)
{
	PresenceQueue *queue = get_queue(database);
	bool		news = false;
	bool		more = true;

	for (int i = 0; i < nhints && more; i += SLICE)
	{
		LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
		more = push_slice(queue, hints + i, Min(SLICE, nhints - i), xid,
						  announced, &news);
		LWLockRelease(&queue->lock);
	}
	return news;
}

/* Whether a worker has promised to read the queue. */
bool
presence_queue_is_open(PresenceDatabase *database)
{
	return get_queue(database)->open;
}

/* Promise to read the queue. */
void
presence_queue_open(PresenceDatabase *database)
{
	PresenceQueue *queue = get_queue(database);

	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	queue->open = true;
	LWLockRelease(&queue->lock);
}

/*
 * Withdraw the promise.  With something left in the queue that is refused,
 * unless forced: then it is cut and a resync is owed.
 */
bool
presence_queue_close(PresenceDatabase *database, bool force)
{
	PresenceQueue *queue = get_queue(database);
	bool		empty;

	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	empty = queue->first == 0 && !queue->resync;
	if (!empty && force)
		cut_queue(queue);
	if (empty || force)
		queue->open = false;
	LWLockRelease(&queue->lock);
	return empty || force;
}

/* Whether nothing waits, not even a resync. */
bool
presence_queue_is_empty(PresenceDatabase *database)
{
	PresenceQueue *queue = get_queue(database);

	return queue->first == 0 && !queue->resync;
}

/* Changes were made that nobody announces: a resync is owed. */
void
presence_queue_set_resync_pending(PresenceDatabase *database)
{
	PresenceQueue *queue = get_queue(database);

	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	queue->resync = true;
	queue->lost_count++;
	LWLockRelease(&queue->lock);
}

/* Whether events were lost and nobody has said so; after how many lost_count. */
bool
presence_queue_is_resync_pending(PresenceDatabase *database, uint32 *lost_count)
{
	PresenceQueue *queue = get_queue(database);
	bool		owed;

	LWLockAcquire(&queue->lock, LW_SHARED);
	owed = queue->resync;
	*lost_count = queue->lost_count;
	LWLockRelease(&queue->lock);
	return owed;
}

/* Bytes that wait. */
uint64
presence_queue_bytes(PresenceDatabase *database)
{
	return get_queue(database)->bytes;
}

/* How a queue stands. */
PresenceQueueState
presence_queue_look(PresenceDatabase *database)
{
	PresenceQueue *queue = get_queue(database);
	PresenceQueueState state;

	LWLockAcquire(&queue->lock, LW_SHARED);
	state.resync = queue->resync;
	state.lost_count = queue->lost_count;
	state.cuts = queue->cuts;
	state.appended = queue->appended;
	LWLockRelease(&queue->lock);
	return state;
}

/*
 * Begin to read what waits.  A position is good until the queue is cut: the
 * one worker of the database reads on from it and gives back what it has told.
 */
void
presence_queue_begin(PresenceDatabase *database, PresenceQueuePosition *position)
{
	PresenceQueue *queue = get_queue(database);

	LWLockAcquire(&queue->lock, LW_SHARED);
	position->cuts = queue->cuts;
	position->read = queue->appended - queue->bytes;
	position->block = 0;
	position->offset = 0;
	LWLockRelease(&queue->lock);
}

/*
 * Copy the next hints from a position on, what is left of one block of at most
 * PRESENCE_QUEUE_READ_SIZE bytes; how many bytes, 0: none.  "queued" gets where
 * they lie.  Nothing is copied once the queue was cut.
 */
Size
presence_queue_read(PresenceDatabase *database, PresenceQueuePosition *position,
					char *target, PresenceHint **queued)
{
	PresenceQueue *queue = get_queue(database);
	Size		size = 0;

	LWLockAcquire(&queue->lock, LW_SHARED);
	if (queue->cuts == position->cuts && queue->appended > position->read)
	{
		QueueBlockHeader *block;

		if (position->block == 0)
		{
			position->block = queue->first;
			position->offset = queue->start;
		}
		block = get_block(position->block);
		if (position->offset == block->used)
		{
			position->block = block->next;
			position->offset = 0;
			block = get_block(position->block);
		}
		size = block->used - position->offset;
		*queued = (PresenceHint *) (block_data(block) + position->offset);
		memcpy(target, *queued, size);
		position->offset = block->used;
		position->read += size;
	}
	LWLockRelease(&queue->lock);
	return size;
}

/* Drop so many bytes of hints.  The caller holds the lock. */
static void
drop_hints(PresenceQueue *queue, PresenceQueuePosition *position, Size bytes)
{
	uint32		first = queue->first;
	uint32		last = 0;		/* of the blocks that are done with */
	uint32		count = 0;

	queue->bytes -= bytes;
	while (bytes > 0)
	{
		QueueBlockHeader *block = get_block(queue->first);
		Size		rest = block->used - queue->start;

		if (bytes < rest)
		{
			queue->start += bytes;
			break;
		}
		bytes -= rest;
		last = queue->first;
		count++;
		if (last == position->block)
			position->block = 0;	/* all that was read is told */
		queue->first = block->next;
		queue->start = 0;
	}
	if (queue->first == 0)
		queue->last = 0;
	if (last != 0)
		give_blocks(queue, first, last, count);
}

/*
 * So many bytes of hints, the first ones that wait, have been announced: drop
 * them, unless the queue was cut meanwhile.  Called by the one worker of the
 * database only.
 */
void
presence_queue_consume(PresenceDatabase *database,
					   PresenceQueuePosition *position, Size bytes)
{
	PresenceQueue *queue = get_queue(database);

	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	if (queue->cuts == position->cuts)
		drop_hints(queue, position, bytes);
	LWLockRelease(&queue->lock);
}

/*
 * Mark hints that wait, by where they lie, as covered, unless the queue was
 * cut meanwhile: for the worker that comes after this one.
 */
void
presence_queue_cover(PresenceDatabase *database,
					 const PresenceQueuePosition *position, List *queued)
{
	PresenceQueue *queue = get_queue(database);

	for (int i = 0; i < list_length(queued); i += SLICE)
	{
		int			end = Min(i + SLICE, list_length(queued));

		LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
		for (int k = i; k < end && queue->cuts == position->cuts; k++)
			((PresenceHint *) list_nth(queued, k))->covered = true;
		LWLockRelease(&queue->lock);
	}
}

/* The resync owed after so many lost_count has been announced. */
void
presence_queue_resynced(PresenceDatabase *database, uint32 lost_count)
{
	PresenceQueue *queue = get_queue(database);

	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	if (queue->lost_count == lost_count)
		queue->resync = false;
	LWLockRelease(&queue->lock);
}

/* What waits is not to be told any more: listeners read again instead. */
void
presence_queue_discard_all(PresenceDatabase *database)
{
	PresenceQueue *queue = get_queue(database);

	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	cut_queue(queue);
	LWLockRelease(&queue->lock);
}

/* Close and empty the queue of a database that has no use for it any more. */
void
presence_queue_reset(PresenceDatabase *database)
{
	PresenceQueue *queue = get_queue(database);

	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	empty_queue(queue);
	queue->cuts++;
	queue->open = false;
	queue->resync = false;
	LWLockRelease(&queue->lock);
}
