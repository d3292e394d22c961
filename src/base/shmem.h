/*-------------------------------------------------------------------------
 *
 * shmem.h
 *		The one coordinator of shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_SHMEM_H
#define PRESENCE_SHMEM_H

#include "postgres.h"

#include "storage/lwlock.h"

/* What a module tells the coordinator: its name, its size, how it starts. */
typedef struct PresenceShmemArea
{
	const char *name;
	Size		(*size) (void);
	void		(*init) (void *area, bool found);
	const char *tranche;		/* locks of its own, or NULL */
	int			nlocks;
} PresenceShmemArea;

extern void presence_shmem_install(const PresenceShmemArea *areas, int nareas);
extern bool presence_shmem_ready(void);

#endif							/* PRESENCE_SHMEM_H */
