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

#include "base/clock.h"
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
		pg_atomic_uint32 adding;	/* hash of a presence that has a place,
									 * but no row yet; 0: none */
		pg_atomic_uint32 announcing;	/* with "xid": the transaction has
										 * announced its changes itself */
	};
	char		line[PG_CACHE_LINE_SIZE];
} PresenceBackend;

extern Size presence_backend_shmem_size(void);
extern void presence_backend_shmem_init(void *area, bool found);

extern void presence_backend_count_touches(uint64 touches);
extern uint64 presence_backend_touches(Oid database);
extern void presence_backend_reset_touches(Oid database);
extern void presence_backend_advertise_xid(TransactionId xid, bool announcing);
extern void presence_backend_withdraw_xid(void);
extern void presence_backend_set_adding(uint32 presence);
extern bool presence_backend_is_adding(uint32 presence);
extern bool presence_backend_any_announcing(Oid database);
extern bool presence_backend_late(Oid database, Snapshot snapshot);
extern bool presence_backend_await(Snapshot snapshot, PresenceTime limit);

#endif							/* PRESENCE_BACKEND_H */
