/*-------------------------------------------------------------------------
 *
 * notify.h
 *		Send events with NOTIFY.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_NOTIFY_H
#define PRESENCE_NOTIFY_H

#include "postgres.h"

#include "events/event.h"
#include "shared/database.h"

/* The epoch of the server, and the last sequence number of each stream. */
typedef struct PresenceStamp
{
	bool		numbered;		/* else payloads have null epoch and seq */
	uint64		epoch;
	uint64		seq[PRESENCE_NSTREAMS]; /* of the last event sent */
} PresenceStamp;

extern void presence_notify_events(List *events, PresenceStamp *stamp);
extern void presence_notify_resync(PresenceStamp *stamp);
extern char *presence_notify_epoch_text(uint64 epoch);
extern char *presence_notify_format_resync(const PresenceStamp *stamp,
										   PresenceNotifyStream stream);
extern bool presence_notify_find_stream(const char *name, PresenceNotifyStream *stream);
extern double presence_notify_queue_usage(void);

#endif							/* PRESENCE_NOTIFY_H */
