/*-------------------------------------------------------------------------
 *
 * shmem.c
 *		Reserves shared memory for the modules and initializes it.
 *
 * There is shared memory only if the library is preloaded; otherwise
 * presence_shmem_ready() returns false and the modules fall back to rows.
 * After a crash of the server, initialization runs again, with found = false;
 * under EXEC_BACKEND it runs in every process, with found = true.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/shmem.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

static const PresenceShmemArea *shmem_areas;
static int	shmem_nareas;
static bool shmem_ready = false;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

/* Request the memory and locks of every module. */
static void
request_shmem(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	for (int i = 0; i < shmem_nareas; i++)
	{
		RequestAddinShmemSpace(MAXALIGN(shmem_areas[i].size()));
		if (shmem_areas[i].tranche)
			RequestNamedLWLockTranche(shmem_areas[i].tranche,
									  shmem_areas[i].nlocks);
	}
}

/* Have every module create its area, or attach to it. */
static void
start_shmem(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; i < shmem_nareas; i++)
	{
		bool		found;
		void	   *area = ShmemInitStruct(shmem_areas[i].name,
										   shmem_areas[i].size(), &found);

		shmem_areas[i].init(area, found);
	}
	LWLockRelease(AddinShmemInitLock);
	shmem_ready = true;
}

/* Install the hooks for the modules' areas; called once, at preload. */
void
presence_shmem_install(const PresenceShmemArea *areas, int nareas)
{
	shmem_areas = areas;
	shmem_nareas = nareas;
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = start_shmem;
}

/* Whether the library was preloaded, so that there is shared memory. */
bool
presence_shmem_ready(void)
{
	return shmem_ready;
}

/* Free what a dropped database, or extension, holds in the areas. */
void
presence_shmem_clear(Oid database)
{
	for (int i = 0; i < shmem_nareas; i++)
		if (shmem_areas[i].clear)
			shmem_areas[i].clear(database);
}
