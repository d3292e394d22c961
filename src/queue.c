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
 * blocks has a spinlock, taken last.  A transaction appends all its hints
 * under one hold of the lock, by memcpy: nothing there can fail.
 *
 * When no block is free the queue is cut: everything in it is thrown away and
 * "resync" says so.  The worker announces that rooms are to be read again, so
 * nothing that was thrown away is missed.
 *
 * An open queue promises that a worker will read it.  The worker opens it
 * when ready and closes it when it leaves with nothing left; the launcher
 * closes it by force when it cannot start a worker.  While it is closed,
 * transactions announce their changes themselves.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "guc.h"
#include "queue.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"

#define BLOCK_SIZE (16 * 1024)
#define BLOCK_DATA (BLOCK_SIZE - MAXALIGN(sizeof(QueueBlockHeader)))

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
	uint32		losses;			/* how often that happened */
	uint32		cuts;			/* how often everything was thrown away */
	uint32		first;			/* block + 1; 0: empty */
	uint32		last;
	uint32		start;			/* bytes of the first block already read */
	uint64		bytes;			/* waiting */
} PresenceQueue;

typedef struct PresenceQueues
{
	slock_t		mutex;			/* guards free */
	uint32		free;			/* block + 1; 0: none */
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

/* Take a free block; 0: none. */
static uint32
take_block(void)
{
	uint32		number;

	SpinLockAcquire(&queues->mutex);
	number = queues->free;
	if (number != 0)
		queues->free = get_block(number)->next;
	SpinLockRelease(&queues->mutex);
	return number;
}

/* Give a list of blocks back. */
static void
give_blocks(uint32 first, uint32 last)
{
	SpinLockAcquire(&queues->mutex);
	get_block(last)->next = queues->free;
	queues->free = first;
	SpinLockRelease(&queues->mutex);
}

/* Throw everything away.  The caller holds the lock. */
static void
empty_queue(PresenceQueue *queue)
{
	if (queue->first != 0)
		give_blocks(queue->first, queue->last);
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
	queue->losses++;
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
		uint32		number = take_block();

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
	return true;
}

/*
 * Append the hints of a transaction that has just committed.  Cannot fail:
 * without room the queue is cut and a resync is owed.  Whether the worker has
 * to be told: it knows of a queue that was not empty.
 *
 * What the transaction has announced itself is worth telling to a worker that
 * counts who was announced, and to nobody else.
 */
bool
presence_queue_push(PresenceDatabase *database, PresenceHint *const *hints,
					int nhints, TransactionId xid, bool announced)
{
	PresenceQueue *queue = get_queue(database);
	bool		news;

	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	if (announced && !queue->open)
		nhints = 0;
	news = nhints > 0 && queue->first == 0;
	for (int i = 0; i < nhints; i++)
	{
		if (append_hint(queue, hints[i], xid, announced))
			continue;
		cut_queue(queue);
		break;
	}
	LWLockRelease(&queue->lock);
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
presence_queue_owe_resync(PresenceDatabase *database)
{
	PresenceQueue *queue = get_queue(database);

	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	queue->resync = true;
	queue->losses++;
	LWLockRelease(&queue->lock);
}

/* Whether events were lost and nobody has said so; after how many losses. */
bool
presence_queue_owes_resync(PresenceDatabase *database, uint32 *losses)
{
	PresenceQueue *queue = get_queue(database);
	bool		owed;

	LWLockAcquire(&queue->lock, LW_SHARED);
	owed = queue->resync;
	*losses = queue->losses;
	LWLockRelease(&queue->lock);
	return owed;
}

/* Bytes that wait. */
uint64
presence_queue_bytes(PresenceDatabase *database)
{
	return get_queue(database)->bytes;
}

/* Copy all blocks of a queue behind each other; "size" gets the bytes. */
static char *
copy_blocks(PresenceQueue *queue, char *target, Size *size)
{
	uint32		start = queue->start;
	Size		filled = 0;

	for (uint32 i = queue->first; i != 0; i = get_block(i)->next)
	{
		QueueBlockHeader *block = get_block(i);

		memcpy(target + filled, block_data(block) + start, block->used - start);
		filled += block->used - start;
		start = 0;
	}
	*size = filled;
	return target;
}

/* Point to every hint in a run of hints. */
static void
index_hints(PresenceBatch *batch, char *data, Size size)
{
	int			room = 64;

	batch->hints = palloc(room * sizeof(PresenceHint *));
	for (Size done = 0; done < size;)
	{
		PresenceHint *hint = (PresenceHint *) (data + done);

		if (batch->nhints == room)
		{
			room *= 2;
			batch->hints = repalloc_huge(batch->hints,
										 room * sizeof(PresenceHint *));
		}
		batch->hints[batch->nhints++] = hint;
		done += hint->size;
	}
}

/* Copy what waits, into the current memory context, leaving it where it is. */
PresenceBatch *
presence_queue_peek(PresenceDatabase *database)
{
	PresenceQueue *queue = get_queue(database);
	PresenceBatch *batch = palloc0(sizeof(PresenceBatch));
	uint64		room = 0;
	Size		size = 0;
	char	   *data = NULL;

	/* Memory is allocated without the lock: the queue may grow meanwhile. */
	LWLockAcquire(&queue->lock, LW_SHARED);
	while (queue->bytes > room)
	{
		room = queue->bytes + BLOCK_SIZE;
		LWLockRelease(&queue->lock);
		if (data)
			pfree(data);
		data = MemoryContextAllocHuge(CurrentMemoryContext, room);
		LWLockAcquire(&queue->lock, LW_SHARED);
	}
	batch->resync = queue->resync;
	batch->losses = queue->losses;
	batch->cuts = queue->cuts;
	if (data)
		copy_blocks(queue, data, &size);
	LWLockRelease(&queue->lock);

	batch->data = data;
	batch->size = size;
	index_hints(batch, data, size);
	return batch;
}

/* Drop the first hint of a queue.  The caller holds the lock. */
static void
drop_hint(PresenceQueue *queue)
{
	uint32		number = queue->first;
	QueueBlockHeader *block = get_block(number);
	PresenceHint *hint = (PresenceHint *) (block_data(block) + queue->start);

	queue->start += hint->size;
	queue->bytes -= hint->size;
	if (queue->start < block->used)
		return;
	queue->first = block->next;
	queue->start = 0;
	if (queue->first == 0)
		queue->last = 0;
	give_blocks(number, number);
}

/*
 * Mark those of the waiting hints that are covered in the batch, from an
 * offset of it on.  The caller holds the lock.
 */
static void
mark_covered(PresenceQueue *queue, const PresenceBatch *batch, Size done)
{
	uint32		number = queue->first;
	Size		offset = queue->start;

	while (done < batch->size)
	{
		const PresenceHint *seen = (const PresenceHint *) (batch->data + done);
		QueueBlockHeader *block = get_block(number);

		((PresenceHint *) (block_data(block) + offset))->covered = seen->covered;
		done += seen->size;
		offset += seen->size;
		if (offset < block->used)
			continue;
		number = block->next;
		offset = 0;
	}
}

/*
 * The first hints of a batch have been announced: drop them, and mark those
 * behind them that were covered, unless the queue was cut meanwhile.  Called by
 * the one worker of the database only.
 */
void
presence_queue_consume(PresenceDatabase *database, const PresenceBatch *batch,
					   int nhints)
{
	PresenceQueue *queue = get_queue(database);
	Size		done = 0;

	for (int i = 0; i < nhints; i++)
		done += ((const PresenceHint *) (batch->data + done))->size;
	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	if (queue->cuts == batch->cuts)
	{
		for (int i = 0; i < nhints; i++)
			drop_hint(queue);
		if (batch->covers)
			mark_covered(queue, batch, done);
	}
	LWLockRelease(&queue->lock);
}

/* The resync owed after so many losses has been announced. */
void
presence_queue_resynced(PresenceDatabase *database, uint32 losses)
{
	PresenceQueue *queue = get_queue(database);

	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	if (queue->losses == losses)
		queue->resync = false;
	LWLockRelease(&queue->lock);
}

/* What waits is not to be told any more: listeners read again instead. */
void
presence_queue_cut(PresenceDatabase *database)
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
