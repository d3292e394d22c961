/*-------------------------------------------------------------------------
 *
 * registry.h
 *		Last heartbeat per channel, in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_REGISTRY_H
#define PRESENCE_REGISTRY_H

#include "postgres.h"

#include "base/clock.h"
#include "base/name.h"
#include "shared/database.h"

/* Status of a channel in the registry. */
typedef enum PresenceEntryStatus
{
	PRESENCE_ENTRY_ABSENT,		/* it has no entry */
	PRESENCE_ENTRY_NO_SPACE,	/* it has no entry and cannot have one */
	PRESENCE_ENTRY_UNVERIFIED,	/* live, but maybe without committed rows */
	PRESENCE_ENTRY_ALIVE,		/* live, with committed rows */
	PRESENCE_ENTRY_EXPIRED		/* no recent sign of life, or being removed */
} PresenceEntryStatus;

/* Reference to an entry: its first cell, and which use of that cell. */
typedef struct PresenceEntryRef
{
	uint32		index;			/* 0: no entry */
	uint32		generation;
} PresenceEntryRef;

/* An entry as it was at one moment. */
typedef struct PresenceEntryView
{
	PresenceEntryStatus status;
	PresenceEntryRef ref;
	PresenceTime seen;			/* newest sign of life; 0: none */
	bool		revived;		/* by a running transaction */
} PresenceEntryView;

/* What a transaction has done to a channel. */
typedef struct PresenceEntryDelta
{
	bool		pinned;			/* it holds a pin */
	PresenceEntryRef ref;		/* the pinned entry, or that before commit */
	bool		joined;			/* rows were added */
	bool		changed;		/* rows were added or removed */
	int			change;			/* rows added minus rows removed */
} PresenceEntryDelta;

/* An expire mark: the marked entry, and its last sign of life. */
typedef struct PresenceExpireMark
{
	PresenceEntryRef ref;
	PresenceTime seen;
} PresenceExpireMark;

typedef void (*PresenceScanFunc) (void *arg, PresenceEntryRef ref,
								  PresenceTime seen);

extern bool presence_registry_is_complete(PresenceDatabase *database);
extern PresenceEntryStatus presence_registry_touch(const PresenceName *name,
												   PresenceTime now,
												   PresenceTime cutoff);
extern PresenceEntryStatus presence_registry_touch_pinned(const PresenceName *name,
														  PresenceEntryRef ref,
														  PresenceTime now,
														  PresenceTime cutoff);
extern PresenceEntryView presence_registry_look(const PresenceName *name,
												PresenceTime cutoff);
extern PresenceEntryStatus presence_registry_begin(const PresenceName *name,
												   PresenceTime now,
												   PresenceTime cutoff, bool pin,
												   PresenceEntryRef *ref);
extern PresenceEntryStatus presence_registry_enter(const PresenceName *name,
												   PresenceTime now,
												   PresenceTime cutoff, bool rowless,
												   PresenceEntryRef *ref);
extern void presence_registry_end(const PresenceName *name,
								  const PresenceEntryDelta *delta, bool committed);
extern PresenceEntryStatus presence_registry_load(const PresenceName *name,
												  PresenceTime seen,
												  PresenceTime cutoff, uint32 *changes);
extern bool presence_registry_confirm(const PresenceName *name,
									  PresenceTime seen, uint32 changes);
extern void presence_registry_forget(const PresenceName *name, uint32 changes);
extern void presence_registry_invalidate(Oid database);
extern void presence_registry_clear(Oid database);

extern bool presence_registry_mark_expiring(const PresenceName *name,
											uint32 own_pins, PresenceTime cutoff,
											PresenceExpireMark *mark, bool *counted);
extern bool presence_registry_is_marked(const PresenceExpireMark *mark);
extern void presence_registry_unmark(const PresenceExpireMark *mark, bool free);

extern void presence_registry_scan(PresenceScanFunc visit, void *arg);
extern char *presence_registry_read(PresenceEntryRef ref, PresenceTime *seen);
extern uint64 presence_registry_count(Oid database);

#endif							/* PRESENCE_REGISTRY_H */
