/*-------------------------------------------------------------------------
 *
 * backend.h
 *		What each server process publishes for the others.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_BACKEND_H
#define PRESENCE_BACKEND_H

#include "postgres.h"

#include "port/atomics.h"
#include "utils/snapshot.h"

/* One cache line per process, written only by the process itself. */
typedef union PresenceBackend
{
	struct
	{
		pg_atomic_uint32 xid;	/* from PRE_COMMIT until events are queued */
		pg_atomic_uint32 database;	/* to which both others belong */
		pg_atomic_uint64 touches;	/* heartbeats not yet collected */
	};
	char		line[PG_CACHE_LINE_SIZE];
} PresenceBackend;

extern Size presence_backend_shmem_size(void);
extern void presence_backend_shmem_init(void *area, bool found);

extern void presence_backend_count_touches(uint64 touches);
extern uint64 presence_backend_touches(Oid database);
extern void presence_backend_reset_touches(Oid database);
extern void presence_backend_advertise_xid(TransactionId xid);
extern void presence_backend_withdraw_xid(void);
extern bool presence_backend_late(Oid database, Snapshot snapshot);

#endif							/* PRESENCE_BACKEND_H */
