/*-------------------------------------------------------------------------
 *
 * registry.h
 *		Heartbeats of channels, in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_REGISTRY_H
#define PRESENCE_REGISTRY_H

#include "postgres.h"

#include "clock.h"
#include "database.h"
#include "name.h"

/* What the registry knows of a channel. */
typedef enum PresenceLife
{
	PRESENCE_LIFE_ABSENT,		/* nothing */
	PRESENCE_LIFE_FULL,			/* nothing, and it has no room */
	PRESENCE_LIFE_UNSURE,		/* beats, but its rows are not known committed */
	PRESENCE_LIFE_ALIVE,		/* beats, and has committed rows */
	PRESENCE_LIFE_DEAD			/* silent for too long, or being removed */
} PresenceLife;

/* What the registry knows of a channel at one moment. */
typedef struct PresenceEntryView
{
	PresenceLife life;
	PresenceTime seen;			/* newest sign of life; 0: none */
	bool		revived;		/* from death, by a running transaction */
} PresenceEntryView;

/* An entry, and which of its successive owners is meant. */
typedef struct PresenceEntryRef
{
	uint32		index;
	uint32		generation;
} PresenceEntryRef;

/* What a transaction has done to a channel. */
typedef struct PresenceDeed
{
	bool		pinned;			/* it holds a pin */
	PresenceEntryRef ref;		/* without: the entry before the commit */
	bool		joined;			/* rows were added */
	bool		changed;		/* or removed */
	int			change;			/* rows added less rows removed */
} PresenceDeed;

/* A sentence of death: on which entry, and its last sign of life. */
typedef struct PresenceVerdict
{
	PresenceEntryRef ref;
	PresenceTime seen;
} PresenceVerdict;

typedef void (*PresenceScanFunc) (void *arg, PresenceEntryRef ref,
								  PresenceTime seen);

extern bool presence_registry_is_complete(PresenceDatabase *database);
extern PresenceLife presence_registry_touch(const PresenceName *name,
											PresenceTime now,
											PresenceTime cutoff);
extern PresenceEntryView presence_registry_look(const PresenceName *name,
												PresenceTime cutoff);
extern PresenceLife presence_registry_begin(const PresenceName *name,
											PresenceTime now,
											PresenceTime cutoff, bool pin);
extern PresenceEntryRef presence_registry_find(const PresenceName *name);
extern void presence_registry_end(const PresenceName *name,
								  const PresenceDeed *deed, bool committed);
extern PresenceLife presence_registry_load(const PresenceName *name,
										   PresenceTime seen,
										   PresenceTime cutoff, uint32 *changes);
extern bool presence_registry_confirm(const PresenceName *name,
									  PresenceTime seen, uint32 changes);
extern void presence_registry_forget(const PresenceName *name, uint32 changes);
extern void presence_registry_doubt(Oid database);
extern void presence_registry_clear(Oid database);

extern bool presence_registry_condemn(const PresenceName *name,
									  uint32 own_pins, PresenceTime cutoff,
									  PresenceVerdict *verdict, bool *counted);
extern bool presence_registry_condemned(const PresenceVerdict *verdict);
extern void presence_registry_release(const PresenceVerdict *verdict, bool bury);

extern void presence_registry_scan(PresenceScanFunc visit, void *arg);
extern char *presence_registry_read(PresenceEntryRef ref, PresenceTime *seen);
extern uint64 presence_registry_count(Oid database);

#endif							/* PRESENCE_REGISTRY_H */
