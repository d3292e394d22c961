/*-------------------------------------------------------------------------
 *
 * queue.h
 *		Queues of hints from committing transactions to the worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_QUEUE_H
#define PRESENCE_QUEUE_H

#include "postgres.h"

#include "base/hint.h"
#include "nodes/pg_list.h"
#include "shared/database.h"

/* Maximum number of bytes that are read at a time. */
#define PRESENCE_QUEUE_READ_SIZE (16 * 1024)

/* State of a queue. */
typedef struct PresenceQueueState
{
	bool		resync;			/* events were lost, not yet announced */
	uint32		lost_count;		/* changes when more events are lost */
	uint32		cuts;			/* changes when the queue is discarded */
	uint64		appended;		/* bytes, ever */
} PresenceQueueState;

/* How far the worker has read a queue. */
typedef struct PresenceQueuePosition
{
	uint32		cuts;			/* of the queue when reading began */
	uint32		block;			/* 0: before the first pending hint */
	uint32		offset;			/* bytes of the block already read */
	uint64		read;			/* bytes, of those ever appended */
} PresenceQueuePosition;

extern Size presence_queue_shmem_size(void);
extern void presence_queue_shmem_init(void *area, bool found);

extern bool presence_queue_is_open(PresenceDatabase *database);
extern void presence_queue_open(PresenceDatabase *database);
extern bool presence_queue_close(PresenceDatabase *database, bool force);
extern bool presence_queue_push(PresenceDatabase *database,
								PresenceHint *const *hints, int nhints,
								TransactionId xid, bool announced);
extern bool presence_queue_is_empty(PresenceDatabase *database);
extern PresenceQueueState presence_queue_look(PresenceDatabase *database);
extern void presence_queue_begin(PresenceDatabase *database,
								 PresenceQueuePosition *position);
extern Size presence_queue_read(PresenceDatabase *database,
								PresenceQueuePosition *position,
								char *target, PresenceHint **queued);
extern void presence_queue_consume(PresenceDatabase *database,
								   PresenceQueuePosition *position, Size bytes);
extern void presence_queue_cover(PresenceDatabase *database,
								 const PresenceQueuePosition *position,
								 List *queued);
extern void presence_queue_resynced(PresenceDatabase *database, uint32 lost_count);
extern void presence_queue_set_resync_pending(PresenceDatabase *database);
extern bool presence_queue_is_resync_pending(PresenceDatabase *database,
											 uint32 *lost_count);
extern void presence_queue_discard_all(PresenceDatabase *database);
extern void presence_queue_reset(PresenceDatabase *database);
extern uint64 presence_queue_bytes(PresenceDatabase *database);

#endif							/* PRESENCE_QUEUE_H */
