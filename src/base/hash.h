/*-------------------------------------------------------------------------
 *
 * hash.h
 *		Hashes of names, with a secret seed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_HASH_H
#define PRESENCE_HASH_H

#include "postgres.h"

#include "common/hashfn.h"

extern Size presence_hash_shmem_size(void);
extern void presence_hash_shmem_init(void *area, bool found);

extern uint64 presence_hash_seed(void);
extern uint64 presence_hash_shared_seed(void);

/* Hash a name, for tables in shared memory or local to this process. */
static inline uint32
presence_hash(const char *data, int length)
{
	return (uint32) hash_bytes_extended((const unsigned char *) data, length,
										presence_hash_seed());
}

/* Hash a name within an outer scope, given by a hash or an oid. */
static inline uint32
presence_hash_within(uint32 outer, const char *data, int length)
{
	return (uint32) hash_bytes_extended((const unsigned char *) data, length,
										presence_hash_seed() + outer);
}

/* Hash a name such that all processes of the server agree. */
static inline uint32
presence_hash_shared(const char *data, int length)
{
	return (uint32) hash_bytes_extended((const unsigned char *) data, length,
										presence_hash_shared_seed());
}

#endif							/* PRESENCE_HASH_H */
