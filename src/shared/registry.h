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
#include "base/hint.h"
#include "base/name.h"
#include "shared/database.h"
#include "shared/registry_entry.h"

/* An entry as it was at one moment. */
typedef struct PresenceEntryView
{
	PresenceEntryStatus status;
	PresenceEntryRef ref;
	PresenceTime seen;			/* newest sign of life; 0: none */
	PresenceTime due;			/* when the worker has to look at it */
	bool		doubtful;		/* held, but maybe without rows */
	uint32		changes;		/* for presence_registry_confirm(), _forget() */
	bool		live;			/* by its signs of life alone */
	bool		revived;		/* by a running transaction */
	PresenceReason reason;		/* for which it leaves at its deadline */
} PresenceEntryView;

/*
 * An expire mark: the marked entry, its last sign of life, and why it leaves.
 */
typedef struct PresenceExpireMark
{
	PresenceEntryRef ref;
	PresenceTime seen;
	PresenceReason reason;
} PresenceExpireMark;

typedef void (*PresenceScanFunc) (void *arg, PresenceEntryRef ref,
								  PresenceTime deadline);

extern bool presence_registry_is_complete(PresenceDatabase *database);
extern PresenceEntryStatus presence_registry_touch(const PresenceName *name, uint32 ttl,
												   const PresenceCutoff *cutoff);
extern PresenceEntryStatus presence_registry_touch_pinned(const PresenceName *name,
														  PresenceEntryRef ref,
														  const PresenceCutoff *cutoff);
extern PresenceEntryStatus presence_registry_say_goodbye(const PresenceName *name,
														 uint32 grace,
														 const PresenceCutoff *cutoff);
extern PresenceEntryStatus presence_registry_hold(PresenceEntryRef ref, uint32 holder,
												  const PresenceCutoff *cutoff);
extern bool presence_registry_is_leaving(PresenceEntryRef ref);
extern bool presence_registry_release(PresenceEntryRef ref, uint32 holder,
									  const PresenceCutoff *cutoff);
extern bool presence_registry_disconnect(PresenceEntryRef ref, uint32 holder, uint32 grace,
										 const PresenceCutoff *cutoff);
extern PresenceEntryView presence_registry_look(const PresenceName *name,
												const PresenceCutoff *cutoff);
extern PresenceEntryStatus presence_registry_begin(const PresenceName *name,
												   const PresenceCutoff *cutoff, bool pin,
												   PresenceEntryRef *ref);
extern PresenceEntryStatus presence_registry_enter(const PresenceName *name,
												   const PresenceCutoff *cutoff,
												   bool rowless, PresenceEntryRef *ref);
extern void presence_registry_end(const PresenceName *name,
								  const PresenceEntryDelta *delta, bool committed);
extern PresenceEntryStatus presence_registry_load(const PresenceName *name,
												  PresenceTime seen,
												  const PresenceCutoff *cutoff,
												  uint32 *changes);
extern bool presence_registry_confirm(const PresenceName *name, uint32 changes);
extern void presence_registry_forget(const PresenceName *name, uint32 changes);
extern void presence_registry_invalidate(void);
extern void presence_registry_clear(Oid database);

extern bool presence_registry_mark_expiring(const PresenceName *name, uint32 own_pins,
											const PresenceCutoff *cutoff,
											PresenceExpireMark *mark, bool *counted);
extern bool presence_registry_is_marked(const PresenceExpireMark *mark);
extern void presence_registry_unmark(const PresenceExpireMark *mark, bool free);

extern void presence_registry_scan(const PresenceCutoff *cutoff, PresenceScanFunc visit,
								   void *arg);
extern char *presence_registry_read(PresenceEntryRef ref, const PresenceCutoff *cutoff,
									PresenceEntryView *view);
extern uint64 presence_registry_count(Oid database);
extern uint64 presence_registry_count_held(Oid database);

#endif							/* PRESENCE_REGISTRY_H */
