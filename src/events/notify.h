/*-------------------------------------------------------------------------
 *
 * notify.h
 *		From events to NOTIFY.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_NOTIFY_H
#define PRESENCE_NOTIFY_H

#include "postgres.h"

#include "events/event.h"
#include "shared/database.h"

/* Which run of the server and which number an event gets; 0: none. */
typedef struct PresenceStamp
{
	bool		numbered;		/* else epoch and seq are null */
	uint64		epoch;
	uint64		seq[PRESENCE_NSTREAMS];	/* of the last events so far */
} PresenceStamp;

extern void presence_notify_events(List *events, PresenceStamp *stamp);
extern void presence_notify_resync(PresenceStamp *stamp);
extern char *presence_notify_epoch_text(uint64 epoch);
extern double presence_notify_queue_usage(void);

#endif							/* PRESENCE_NOTIFY_H */
