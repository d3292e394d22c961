/*-------------------------------------------------------------------------
 *
 * hash.h
 *		Hashes of names, which nobody outside can foretell.
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

/* The hash of a name, for tables in shared memory or of this process. */
static inline uint32
presence_hash(const char *data, int length)
{
	return (uint32) hash_bytes_extended((const unsigned char *) data, length,
										presence_hash_seed());
}

/* The hash of a name within something that has a hash itself. */
static inline uint32
presence_hash_within(uint32 outer, const char *data, int length)
{
	return (uint32) hash_bytes_extended((const unsigned char *) data, length,
										presence_hash_seed() + outer);
}

/* A hash that is the same in all processes of the server. */
static inline uint32
presence_hash_shared(const char *data, int length)
{
	return (uint32) hash_bytes_extended((const unsigned char *) data, length,
										presence_hash_shared_seed());
}

#endif							/* PRESENCE_HASH_H */
