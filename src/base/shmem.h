/*-------------------------------------------------------------------------
 *
 * shmem.h
 *		Areas of shared memory, one per module.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_SHMEM_H
#define PRESENCE_SHMEM_H

#include "postgres.h"

#include "storage/lwlock.h"

/* An area of shared memory: its name, size, initialization and cleanup. */
typedef struct PresenceShmemArea
{
	const char *name;
	Size		(*size) (void);
	void		(*init) (void *area, bool found);
	const char *tranche;		/* of the module's LWLocks, or NULL */
	int			nlocks;
	void		(*clear) (Oid database);	/* frees what it holds, or NULL */
} PresenceShmemArea;

extern void presence_shmem_install(const PresenceShmemArea *areas, int nareas);
extern bool presence_shmem_ready(void);
extern void presence_shmem_clear(Oid database);

#endif							/* PRESENCE_SHMEM_H */
