/*-------------------------------------------------------------------------
 *
 * presence.c
 *		Loads the library and installs its modules.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/hash.h"
#include "base/shmem.h"
#include "fmgr.h"
#include "members/xact.h"
#include "miscadmin.h"
#include "shared/backend.h"
#include "shared/database.h"
#include "shared/liveness.h"
#include "shared/occupancy.h"
#include "shared/queue.h"
#include "shared/registry.h"
#include "shared/registry_mem.h"
#include "state/replay.h"
#include "state/replay_mem.h"
#include "state/state.h"
#include "state/state_entry.h"
#include "state/state_mem.h"
#include "worker/launcher.h"
#include "worker/utility_hook.h"

PRESENCE_MODULE_MAGIC("presence", PRESENCE_VERSION);

void		_PG_init(void);

/* Areas of shared memory, in order: each module may use those before it. */
static const PresenceShmemArea areas[] = {
	{"presence clock", presence_clock_shmem_size, presence_clock_shmem_init},
	{"presence hash", presence_hash_shmem_size, presence_hash_shmem_init},
	{"presence databases", presence_database_shmem_size,
	presence_database_shmem_init, "presence_control", 1},
	{"presence backends", presence_backend_shmem_size,
	presence_backend_shmem_init},
	{"presence registry", presence_registry_mem_shmem_size,
		presence_registry_mem_shmem_init, "presence_registry",
	PRESENCE_REGISTRY_LOCKS, presence_registry_clear},
	{"presence liveness", presence_liveness_shmem_size,
	presence_liveness_shmem_init},
	{"presence queues", presence_queue_shmem_size, presence_queue_shmem_init,
	"presence_queue", 1},
	{"presence occupancy", presence_occupancy_shmem_size,
		presence_occupancy_shmem_init, "presence_occupancy",
	PRESENCE_OCCUPANCY_LOCKS, presence_occupancy_forget},
	{"presence replay", presence_replay_mem_shmem_size,
		presence_replay_mem_shmem_init, "presence_replay", 1,
	presence_replay_clear},
	{"presence cells", presence_state_mem_shmem_size,
	presence_state_mem_shmem_init},
	{"presence entries", presence_state_entry_shmem_size,
	presence_state_entry_shmem_init, "presence_state", 1, presence_state_clear}
};

/* Called when the library is loaded, by the postmaster or by a session. */
void
_PG_init(void)
{
	presence_guc_define();
	presence_replay_install();
	presence_xact_install();
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	presence_shmem_install(areas, lengthof(areas));
	presence_utility_hook_install();
	presence_launcher_register();
}
