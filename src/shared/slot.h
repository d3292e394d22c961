/*-------------------------------------------------------------------------
 *
 * slot.h
 *		The worker slot of a database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_SLOT_H
#define PRESENCE_SLOT_H

#include "postgres.h"

#include "shared/database.h"

/* For the launcher. */
extern bool presence_slot_start(PresenceDatabase *database);
extern void presence_slot_abandon(PresenceDatabase *database);
extern void presence_slot_unwant(PresenceDatabase *database);

/* For the worker. */
extern bool presence_slot_claim(PresenceDatabase *database);
extern void presence_slot_leave(PresenceDatabase *database);
extern void presence_slot_note_success(PresenceDatabase *database);
extern bool presence_slot_extension_rechecked(PresenceDatabase *database);

/* For statements that need the database alone, or drop the extension. */
extern Oid	presence_slot_block_worker(PresenceDatabase *database);
extern void presence_slot_unblock_worker(PresenceDatabase *database, Oid oid);
extern void presence_slot_recheck_extension(PresenceDatabase *database);

/* Whether there is work for a worker, and cleaning up after a drop. */
extern bool presence_slot_is_empty(PresenceDatabase *database);
extern void presence_slot_forget(PresenceDatabase *database, Oid oid);

/* Without shared memory. */
extern bool presence_slot_claim_alone(Oid extension);
extern bool presence_slot_is_claimed_alone(void);

#endif							/* PRESENCE_SLOT_H */
