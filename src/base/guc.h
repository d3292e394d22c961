/*-------------------------------------------------------------------------
 *
 * guc.h
 *		The settings, which README.md describes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_GUC_H
#define PRESENCE_GUC_H

#include "postgres.h"

typedef enum PresenceNotifyMode
{
	PRESENCE_NOTIFY_AUTO,
	PRESENCE_NOTIFY_TRANSACTION,
	PRESENCE_NOTIFY_OFF
} PresenceNotifyMode;

extern PGDLLIMPORT int presence_max_age;	/* ms */
extern PGDLLIMPORT int presence_hold_grace; /* ms */
extern PGDLLIMPORT int presence_max_channels;
extern PGDLLIMPORT int presence_queue_size; /* kB */
extern PGDLLIMPORT int presence_replay_size;	/* kB; 0: none */
extern PGDLLIMPORT int presence_notify; /* PresenceNotifyMode */
extern PGDLLIMPORT char *presence_notify_channel;
extern PGDLLIMPORT int presence_notify_interval;	/* ms */
extern PGDLLIMPORT bool presence_notify_meta;
extern PGDLLIMPORT int presence_bulk_threshold;
extern PGDLLIMPORT int presence_counts_interval;	/* ms */
extern PGDLLIMPORT int presence_announce_max;	/* connections; 0: off */
extern PGDLLIMPORT int presence_prune_rooms_interval;	/* s; 0: never */
extern PGDLLIMPORT int presence_worker_idle_timeout;	/* s; 0: never */
extern PGDLLIMPORT int presence_roster_memory;	/* kB */
extern PGDLLIMPORT int presence_keep_last_seen; /* s; 0: for ever */
extern PGDLLIMPORT int presence_keep_visits;	/* s; 0: none */
extern PGDLLIMPORT int presence_cursor_timeout; /* ms */
extern PGDLLIMPORT int presence_state_interval; /* ms */
extern PGDLLIMPORT int presence_max_state_size; /* bytes */
extern PGDLLIMPORT int presence_state_memory;	/* kB */
extern PGDLLIMPORT int presence_join_rate;	/* adds; 0: off */
extern PGDLLIMPORT int presence_join_rate_window;	/* s */

extern void presence_guc_define(void);

#endif							/* PRESENCE_GUC_H */
