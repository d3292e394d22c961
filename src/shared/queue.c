/*-------------------------------------------------------------------------
 *
 * queue.c
 *		Carries hints from committing transactions to the worker of their
 *		database.
 *
 * The memory has a fixed size, presence.queue_size, and is divided into
 * blocks. There is one queue for each database record.  A queue is a list of
 * blocks: committing transactions append to the last one; the worker reads
 * from the first one and frees blocks once their hints have been announced.
 *
 * Locking.  Each queue has an LWLock for its list and flags.  The list of free
 * blocks has a spinlock, taken last.  The LWLock is held no longer than it
 * takes to process one slice of hints or one block.  A transaction appends its
 * hints by memcpy, which cannot fail.
 *
 * If its database may take no more blocks (share.h), the queue is discarded:
 * all its hints are dropped and "resync" is set.  The worker then announces
 * that rooms must be read again, so listeners miss nothing.  The queues of
 * other databases are not affected.
 *
 * A queue is open while a worker is going to read it.  The worker opens it
 * when ready, and closes it when it leaves with the queue empty; the launcher
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

/* Maximum number of hints appended or marked while holding the lock. */
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
	LWLock		lock;			/* protects all fields below */
	bool		open;
	bool		resync;			/* events were lost, not yet announced */
	uint32		lost_count;		/* how often that happened */
	uint32		cuts;			/* how often the queue was discarded */
	uint32		first;			/* block + 1; 0: empty */
	uint32		last;
	uint32		held;			/* number of blocks */
	uint32		start;			/* bytes of the first block already consumed */
	uint64		bytes;			/* pending */
	uint64		appended;		/* bytes, ever */
} PresenceQueue;

typedef struct PresenceQueues
{
	slock_t		mutex;			/* protects the next two fields */
	uint32		free;			/* block + 1; 0: none */
	uint32		unused;			/* number of free blocks */
	PresenceQueue queues[PRESENCE_MAX_DATABASES];
} PresenceQueues;

static PresenceQueues *queues;
static char *blocks;

/* Number of blocks in presence.queue_size. */
static int
count_blocks(void)
{
	return Max((Size) presence_queue_size * 1024 / BLOCK_SIZE, 4);
}

/* The block with a number, counted from 1. */
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

/* Attach to the queues, initializing them when new. */
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

/* Take a free block; 0 if it may have none.  The caller holds the lock. */
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

/* Free a list of blocks.  The caller holds the lock. */
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

/* Drop all hints.  The caller holds the lock. */
static void
empty_queue(PresenceQueue *queue)
{
	if (queue->first != 0)
		give_blocks(queue, queue->first, queue->last, queue->held);
	queue->first = queue->last = 0;
	queue->start = 0;
	queue->bytes = 0;
}

/* Drop all hints and set "resync".  The caller holds the lock. */
static void
discard_queue(PresenceQueue *queue)
{
	empty_queue(queue);
	queue->resync = true;
	queue->lost_count++;
	queue->cuts++;
}

/* Append a hint; false if there is no space.  The caller holds the lock. */
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

/* Append a slice of hints; false if no more are to be appended. */
static bool
push_slice(PresenceQueue *queue, PresenceHint *const *hints, int nhints,
		   TransactionId xid, bool announced, bool *was_empty)
{
	if (announced && !queue->open)
		return false;
	*was_empty |= queue->first == 0;
	for (int i = 0; i < nhints; i++)
	{
		if (append_hint(queue, hints[i], xid, announced))
			continue;
		discard_queue(queue);
		return false;
	}
	return true;
}

/*
 * Append the hints of a transaction that has just committed.  Must not fail:
 * if there is no space, the queue is discarded and "resync" is set.  Returns
 * whether the worker must be woken, that is, whether the queue was empty.
 *
 * The lock is released between slices.  Still the worker does not miss the
 * later ones, because it waits for transactions whose xid is advertised
 * (backend.c).
 *
 * Changes that the transaction has announced itself ("announced") are queued
 * only for a worker, which keeps track of what has been announced.
 */
bool
presence_queue_push(PresenceDatabase *database, PresenceHint *const *hints,
					int nhints, TransactionId xid, bool announced)
{
	PresenceQueue *queue = get_queue(database);
	bool		was_empty = false;
	bool		more = true;

	for (int i = 0; i < nhints && more; i += SLICE)
	{
		LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
		more = push_slice(queue, hints + i, Min(SLICE, nhints - i), xid,
						  announced, &was_empty);
		LWLockRelease(&queue->lock);
	}
	return was_empty;
}

/* Whether a worker is going to read the queue. */
bool
presence_queue_is_open(PresenceDatabase *database)
{
	return get_queue(database)->open;
}

/* The calling worker is going to read the queue. */
void
presence_queue_open(PresenceDatabase *database)
{
	PresenceQueue *queue = get_queue(database);

	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	queue->open = true;
	LWLockRelease(&queue->lock);
}

/*
 * Close a queue.  Returns false, with the queue still open, if it is not
 * empty, unless forced: then it is discarded and "resync" is set.
 */
bool
presence_queue_close(PresenceDatabase *database, bool force)
{
	PresenceQueue *queue = get_queue(database);
	bool		empty;

	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	empty = queue->first == 0 && !queue->resync;
	if (!empty && force)
		discard_queue(queue);
	if (empty || force)
		queue->open = false;
	LWLockRelease(&queue->lock);
	return empty || force;
}

/* Whether nothing is pending, not even a resync. */
bool
presence_queue_is_empty(PresenceDatabase *database)
{
	PresenceQueue *queue = get_queue(database);

	return queue->first == 0 && !queue->resync;
}

/* Changes were made that will not be announced: set "resync". */
void
presence_queue_set_resync_pending(PresenceDatabase *database)
{
	PresenceQueue *queue = get_queue(database);

	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	queue->resync = true;
	queue->lost_count++;
	LWLockRelease(&queue->lock);
}

/* Whether a resync is to be announced, and the lost_count that it covers. */
bool
presence_queue_is_resync_pending(PresenceDatabase *database, uint32 *lost_count)
{
	PresenceQueue *queue = get_queue(database);
	bool		pending;

	LWLockAcquire(&queue->lock, LW_SHARED);
	pending = queue->resync;
	*lost_count = queue->lost_count;
	LWLockRelease(&queue->lock);
	return pending;
}

/* Number of pending bytes. */
uint64
presence_queue_bytes(PresenceDatabase *database)
{
	return get_queue(database)->bytes;
}

/* Return the state of a queue. */
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
 * Begin to read the pending hints.  The position is valid until the queue is
 * discarded.  Only the worker of the database may read, because it frees what
 * it has announced.
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
 * Copy the hints at a position, as many as are left of one block, and advance
 * the position.  Returns the number of bytes, at most
 * PRESENCE_QUEUE_READ_SIZE; 0 if there are no more or if the queue was
 * discarded.  "queued" is set to their address in the queue.
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

/* Drop the first hints, so many bytes.  The caller holds the lock. */
static void
drop_hints(PresenceQueue *queue, PresenceQueuePosition *position, Size bytes)
{
	uint32		first = queue->first;
	uint32		last = 0;		/* of the blocks to be freed */
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
			position->block = 0;	/* all that was read is consumed */
		queue->first = block->next;
		queue->start = 0;
	}
	if (queue->first == 0)
		queue->last = 0;
	if (last != 0)
		give_blocks(queue, first, last, count);
}

/*
 * The first pending hints, so many bytes, have been announced: drop them,
 * unless the queue was discarded meanwhile.  Called only by the worker of the
 * database.
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
 * Mark pending hints, given by their addresses in the queue, as covered,
 * unless the queue was discarded meanwhile.  This is for the next worker,
 * which may have to read them again.
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

/* A resync has been announced; it covers losses up to "lost_count". */
void
presence_queue_resynced(PresenceDatabase *database, uint32 lost_count)
{
	PresenceQueue *queue = get_queue(database);

	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	if (queue->lost_count == lost_count)
		queue->resync = false;
	LWLockRelease(&queue->lock);
}

/* Drop all pending hints; listeners will get a resync instead. */
void
presence_queue_discard_all(PresenceDatabase *database)
{
	PresenceQueue *queue = get_queue(database);

	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	discard_queue(queue);
	LWLockRelease(&queue->lock);
}

/* Close and empty a queue whose database or its extension was dropped. */
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
