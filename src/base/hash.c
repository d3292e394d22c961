/*-------------------------------------------------------------------------
 *
 * hash.c
 *		Keeps the secret seed for the hashes of names.
 *
 * Users choose the names of rooms, channels and users.  If they could compute
 * the hashes, they could choose thousands of names that collide, and turn a
 * hash table into a list.  So the hash function is seeded with a random
 * number that is drawn when shared memory is created.  Mixing it into a
 * finished hash would not help: equal hashes would stay equal.
 *
 * If the library is not preloaded, each process draws its own seed, because
 * no table is shared then.  Hashes on which all processes must agree, such as
 * lock numbers, use the seed in shared memory, or 0 if there is none.  Names
 * that collide there only wait for each other, which may happen by chance as
 * well.
 *
 * The seed never changes while it is in use, so there are no locks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/hash.h"
#include "miscadmin.h"

static const uint64 *shared_seed;	/* NULL: no shared memory */

/* Draw a seed, which is not 0; use the time if there are no random numbers. */
static uint64
draw_seed(void)
{
	uint64		seed;

	if (!pg_strong_random(&seed, sizeof(seed)))
		seed = (uint64) presence_clock_machine() ^ ((uint64) MyProcPid << 40);
	return seed != 0 ? seed : 1;
}

/* Bytes of shared memory that the seed needs. */
Size
presence_hash_shmem_size(void)
{
	return sizeof(uint64);
}

/* Attach to the seed, drawing it when new. */
void
presence_hash_shmem_init(void *area, bool found)
{
	if (!found)
		*(uint64 *) area = draw_seed();
	shared_seed = area;
}

/* The seed of this process; with shared memory, that of all processes. */
uint64
presence_hash_seed(void)
{
	static uint64 own_seed = 0;

	if (shared_seed)
		return *shared_seed;
	if (own_seed == 0)
		own_seed = draw_seed();
	return own_seed;
}

/* The seed of all processes; 0 without shared memory. */
uint64
presence_hash_shared_seed(void)
{
	return shared_seed ? *shared_seed : 0;
}
