/*-------------------------------------------------------------------------
 *
 * registry_entry.h
 *		What an entry of the registry says: until when its channel lives, and
 *		how many rows it has.
 *
 * Callers hold the lock of the entry's partition, exclusively to change it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_REGISTRY_ENTRY_H
#define PRESENCE_REGISTRY_ENTRY_H

#include "postgres.h"

#include "base/clock.h"
#include "base/hint.h"
#include "shared/database.h"

struct RegistryEntry;

/* A deadline that never comes. */
#define PRESENCE_NO_DEADLINE (PG_INT64_MAX / 2)

/* Instead of a time to live: that of the entry stays, but a goodbye ends. */
#define PRESENCE_SAME_TTL PG_UINT32_MAX

/*
 * Which signs of life still count.  A channel lives until its deadline, which
 * is its last sign of life, or the start of grace, plus max_age or its time to
 * live.  Where "by_age" is set only its last sign of life matters.
 */
typedef struct PresenceCutoff
{
	PresenceTime now;			/* 0: no channel has expired */
	PresenceTime grace_start;
	PresenceTime age;			/* max_age, or with "by_age" another age */
	PresenceTime time;			/* older signs of life do not count; 0: all do */
	bool		by_age;
} PresenceCutoff;

/* Status of a channel in the registry. */
typedef enum PresenceEntryStatus
{
	PRESENCE_ENTRY_ABSENT,		/* it has no entry */
	PRESENCE_ENTRY_NO_SPACE,	/* it has no entry and cannot have one */
	PRESENCE_ENTRY_UNVERIFIED,	/* live, but maybe without committed rows */
	PRESENCE_ENTRY_ALIVE,		/* live, with committed rows */
	PRESENCE_ENTRY_EXPIRED		/* no recent sign of life, or being removed */
} PresenceEntryStatus;

/* What a transaction has done to a channel. */
typedef struct PresenceEntryDelta
{
	bool		pinned;			/* it holds a pin */
	PresenceEntryRef ref;		/* the pinned entry, or that before commit */
	bool		joined;			/* rows were added */
	bool		changed;		/* rows were added or removed */
	int			change;			/* rows added minus rows removed */
} PresenceEntryDelta;

extern PresenceTime presence_registry_entry_deadline(const struct RegistryEntry *entry,
													 const PresenceCutoff *cutoff);
extern bool presence_registry_entry_is_live(const struct RegistryEntry *entry,
											const PresenceCutoff *cutoff);
extern PresenceEntryStatus presence_registry_entry_status(const struct RegistryEntry *entry,
														  const PresenceCutoff *cutoff);
extern PresenceTime presence_registry_entry_seen(const struct RegistryEntry *entry);
extern PresenceReason presence_registry_entry_reason(const struct RegistryEntry *entry);

extern bool presence_registry_entry_is_doubtful(const struct RegistryEntry *entry);
extern bool presence_registry_entry_is_leaving(const struct RegistryEntry *entry);
extern PresenceTime presence_registry_entry_due(const struct RegistryEntry *entry,
												const PresenceCutoff *cutoff);

extern bool presence_registry_entry_beat(struct RegistryEntry *entry, uint32 ttl,
										 const PresenceCutoff *cutoff);
extern bool presence_registry_entry_live_for(struct RegistryEntry *entry, uint32 ttl,
											 uint8 flag, const PresenceCutoff *cutoff);
extern void presence_registry_entry_extend(struct RegistryEntry *entry,
										   const PresenceCutoff *cutoff);
extern void presence_registry_entry_say_goodbye(struct RegistryEntry *entry, uint32 grace,
												const PresenceCutoff *cutoff);

extern void presence_registry_entry_invalidate(struct RegistryEntry *entry);
extern bool presence_registry_entry_settle(struct RegistryEntry *entry,
										   const PresenceEntryDelta *delta, bool committed);

#endif							/* PRESENCE_REGISTRY_ENTRY_H */
