/*-------------------------------------------------------------------------
 *
 * backend.c
 *		Publishes the state of each server process.
 *
 * There is one slot for every process that the server may have.  A process
 * writes only its own slot, and all fields are atomic, so there are no locks;
 * readers accept slightly stale values.
 *
 * A slot outlives its process.  Its touches belong to the database stored in
 * it, until a process of another database takes the slot over and passes the
 * old count to presence_database_add().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "miscadmin.h"
#include "shared/backend.h"
#include "shared/database.h"
#include "storage/shmem.h"
#include "utils/snapmgr.h"

static PresenceBackend *backends;
static PresenceBackend *my_backend;

/* Number of processes that the server may have. */
static int
count_backends(void)
{
	return MaxBackends + NUM_AUXILIARY_PROCS;
}

/* Bytes of shared memory that the slots need. */
Size
presence_backend_shmem_size(void)
{
	return mul_size(count_backends() + 1, sizeof(PresenceBackend));
}

/* Attach to the slots, initializing them when new. */
void
presence_backend_shmem_init(void *area, bool found)
{
	backends = (PresenceBackend *) CACHELINEALIGN(area);
	if (found)
		return;
	for (int i = 0; i < count_backends(); i++)
	{
		pg_atomic_init_u32(&backends[i].xid, InvalidTransactionId);
		pg_atomic_init_u32(&backends[i].database, InvalidOid);
		pg_atomic_init_u64(&backends[i].touches, 0);
		pg_atomic_init_u32(&backends[i].adding, 0);
		pg_atomic_init_u32(&backends[i].announcing, 0);
	}
}

/* Take over this process's slot from the process that had it before. */
static PresenceBackend *
attach_backend(void)
{
	PresenceBackend *slot = &backends[presence_compat_proc_index()];
	Oid			owner = pg_atomic_read_u32(&slot->database);

	if (owner != MyDatabaseId)
	{
		if (OidIsValid(owner))
			presence_database_add(presence_database_find(owner),
								  PRESENCE_TOUCHES,
								  pg_atomic_read_u64(&slot->touches));
		pg_atomic_write_u64(&slot->touches, 0);
		pg_atomic_write_u32(&slot->database, MyDatabaseId);
	}
	my_backend = slot;
	return slot;
}

/* This process's slot. */
static inline PresenceBackend *
get_backend(void)
{
	return my_backend ? my_backend : attach_backend();
}

/* Count heartbeats of this process, if there is shared memory. */
void
presence_backend_count_touches(uint64 touches)
{
	PresenceBackend *slot;

	if (backends == NULL)
		return;
	slot = get_backend();
	pg_atomic_write_u64(&slot->touches,
						pg_atomic_read_u64(&slot->touches) + touches);
}

/* Sum of the heartbeats in the slots of a database. */
uint64
presence_backend_touches(Oid database)
{
	uint64		sum = 0;

	for (int i = 0; i < count_backends(); i++)
		if (pg_atomic_read_u32(&backends[i].database) == database)
			sum += pg_atomic_read_u64(&backends[i].touches);
	return sum;
}

/* Set the heartbeats in the slots of a database to zero. */
void
presence_backend_reset_touches(Oid database)
{
	for (int i = 0; i < count_backends(); i++)
		if (pg_atomic_read_u32(&backends[i].database) == database)
			pg_atomic_write_u64(&backends[i].touches, 0);
}

/*
 * Publish that this transaction is about to commit and will queue events;
 * "announcing": it has announced them itself, or they are not announced.
 */
void
presence_backend_advertise_xid(TransactionId xid, bool announcing)
{
	pg_atomic_write_u32(&get_backend()->announcing, announcing);
	pg_atomic_write_u32(&get_backend()->xid, xid);
	pg_memory_barrier();
}

/* The events of this transaction have been queued, or there will be none. */
void
presence_backend_withdraw_xid(void)
{
	pg_memory_barrier();
	pg_atomic_write_u32(&get_backend()->xid, InvalidTransactionId);
	pg_atomic_write_u32(&get_backend()->announcing, false);
}

/*
 * Publish that this process is about to add a presence, given by a hash; 0: it
 * has written the row, or will not.
 */
void
presence_backend_set_adding(uint32 presence)
{
	pg_atomic_write_u32(&get_backend()->adding, presence);
	pg_memory_barrier();
}

/* Whether another process is about to add a presence, given by a hash. */
bool
presence_backend_is_adding(uint32 presence)
{
	PresenceBackend *mine = get_backend();

	pg_memory_barrier();
	for (int i = 0; i < count_backends(); i++)
		if (&backends[i] != mine &&
			pg_atomic_read_u32(&backends[i].adding) == presence)
			return true;
	return false;
}

/* Whether a transaction of the database that announces itself is committing. */
bool
presence_backend_any_announcing(Oid database)
{
	bool		any = false;

	pg_memory_barrier();
	for (int i = 0; i < count_backends() && !any; i++)
		any = pg_atomic_read_u32(&backends[i].announcing) != 0 &&
			pg_atomic_read_u32(&backends[i].database) == database;
	pg_memory_barrier();
	return any;
}

/*
 * Whether the snapshot sees a transaction of the database as ended whose
 * events are not in the queue yet.
 */
bool
presence_backend_late(Oid database, Snapshot snapshot)
{
	pg_memory_barrier();
	for (int i = 0; i < count_backends(); i++)
	{
		TransactionId xid;

		if (pg_atomic_read_u32(&backends[i].database) != database)
			continue;
		xid = pg_atomic_read_u32(&backends[i].xid);
		if (TransactionIdIsValid(xid) && !XidInMVCCSnapshot(xid, snapshot))
			return true;
	}
	return false;
}

/*
 * Wait until presence_backend_late() returns false for this process's database,
 * for at most so many microseconds; false: it has not.
 */
bool
presence_backend_await(Snapshot snapshot, PresenceTime limit)
{
	PresenceTime start = presence_clock_now();

	while (presence_backend_late(MyDatabaseId, snapshot))
	{
		PresenceTime waited = presence_clock_now() - start;

		if (waited > limit)
			return false;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(waited < 200 ? 10 : 500);
	}
	return true;
}
