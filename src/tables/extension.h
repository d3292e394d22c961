/*-------------------------------------------------------------------------
 *
 * extension.h
 *		The extension in the catalogs: its owner and its tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_EXTENSION_H
#define PRESENCE_EXTENSION_H

#include "postgres.h"

#include "storage/block.h"
#include "storage/lockdefs.h"

/* Current user and security context of the process. */
typedef struct PresenceSession
{
	Oid			user;
	int			context;
} PresenceSession;

extern Oid	presence_extension_oid(void);
extern bool presence_extension_exists(void);
extern Oid	presence_extension_owner(void);
extern bool presence_extension_find(Oid *oid, Oid *owner);
extern PresenceSession presence_extension_become_owner(void);
extern PresenceSession presence_extension_become(Oid owner);
extern void presence_extension_become_caller(PresenceSession session);

extern Oid	presence_extension_table(const char *name);
extern bool presence_extension_try_lock(const char *name, LOCKMODE mode,
										int *wait);
extern BlockNumber presence_extension_blocks(const char *name,
											 LOCKMODE mode);
extern bool presence_extension_has_triggers(const char *name);
extern char *presence_extension_suppressor(const char *name, bool insert);
extern bool presence_extension_fires(const char *name, const char *trigger);

#endif							/* PRESENCE_EXTENSION_H */
