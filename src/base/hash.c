/*-------------------------------------------------------------------------
 *
 * hash.c
 *		Keeps the secret that goes into every hash of a name.
 *
 * Users choose the names of rooms, channels and users.  With a hash that they
 * can compute they could choose thousands that fall together, and make a table
 * of them a list.  So the hash begins with a seed that is drawn when shared
 * memory is made.  Mixed in afterwards it would leave equal hashes equal.
 *
 * Where the library is not preloaded each process draws a seed of its own: no
 * table is shared there.  What all processes must agree on, such as numbers of
 * locks, begins with the seed of shared memory, or with 0 where there is none.
 * Names that fall together there only wait for each other, as others do by
 * chance.
 *
 * The seed never changes while it is in use: no locks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/hash.h"
#include "miscadmin.h"

static const uint64 *shared_seed;	/* NULL: no shared memory */

/* Draw a seed, not 0; where there is no randomness the time has to do. */
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

/* The seed of this process, and of all where they share memory. */
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

/* The seed of all processes. */
uint64
presence_hash_shared_seed(void)
{
	return shared_seed ? *shared_seed : 0;
}
