/*-------------------------------------------------------------------------
 *
 * queue.h
 *		The way of hints from committing transactions to the worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_QUEUE_H
#define PRESENCE_QUEUE_H

#include "postgres.h"

#include "database.h"
#include "hint.h"

/* A copy of what waits in the queue. */
typedef struct PresenceBatch
{
	PresenceHint **hints;
	int			nhints;
	char	   *data;			/* the hints behind each other, as queued */
	Size		size;
	bool		covers;			/* some were marked as covered since */
	bool		resync;			/* events were lost before these */
	uint32		losses;			/* tells whether more were lost since */
	uint32		cuts;			/* tells whether the queue was cut since */
} PresenceBatch;

extern Size presence_queue_shmem_size(void);
extern void presence_queue_shmem_init(void *area, bool found);

extern bool presence_queue_is_open(PresenceDatabase *database);
extern void presence_queue_open(PresenceDatabase *database);
extern bool presence_queue_close(PresenceDatabase *database, bool force);
extern bool presence_queue_push(PresenceDatabase *database,
								PresenceHint *const *hints, int nhints,
								TransactionId xid, bool announced);
extern bool presence_queue_is_empty(PresenceDatabase *database);
extern PresenceBatch *presence_queue_peek(PresenceDatabase *database);
extern void presence_queue_consume(PresenceDatabase *database,
								   const PresenceBatch *batch, int nhints);
extern void presence_queue_resynced(PresenceDatabase *database, uint32 losses);
extern void presence_queue_owe_resync(PresenceDatabase *database);
extern bool presence_queue_owes_resync(PresenceDatabase *database,
									   uint32 *losses);
extern void presence_queue_cut(PresenceDatabase *database);
extern void presence_queue_reset(PresenceDatabase *database);
extern uint64 presence_queue_bytes(PresenceDatabase *database);

#endif							/* PRESENCE_QUEUE_H */
