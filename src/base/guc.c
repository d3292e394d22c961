/*-------------------------------------------------------------------------
 *
 * guc.c
 *		Defines the settings of the extension.
 *
 * Settings with context postmaster set the size of shared memory.  They are
 * defined only if the library is preloaded; PostgreSQL rejects them otherwise.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "base/guc.h"
#include "miscadmin.h"
#include "utils/guc.h"

int			presence_max_age = 60 * 1000;
int			presence_hold_grace = 5 * 1000;
int			presence_max_channels = 65536;
int			presence_queue_size = 8 * 1024;
int			presence_replay_size = 4 * 1024;
int			presence_notify = PRESENCE_NOTIFY_AUTO;
char	   *presence_notify_channel = NULL;
int			presence_notify_interval = 10;
bool		presence_notify_meta = true;
int			presence_bulk_threshold = 50;
int			presence_counts_interval = 1000;
int			presence_announce_max = 0;
int			presence_prune_rooms_interval = 3600;
int			presence_worker_idle_timeout = 300;
int			presence_roster_memory = 64 * 1024;
int			presence_keep_last_seen = 30 * 24 * 3600;
int			presence_keep_visits = 0;
int			presence_cursor_timeout = 10 * 1000;
int			presence_state_interval = 50;
int			presence_max_state_size = 2 * 1024;
int			presence_state_memory = 16 * 1024;
int			presence_join_rate = 0;
int			presence_join_rate_window = 3600;

static const struct config_enum_entry notify_modes[] = {
	{"auto", PRESENCE_NOTIFY_AUTO, false},
	{"transaction", PRESENCE_NOTIFY_TRANSACTION, false},
	{"off", PRESENCE_NOTIFY_OFF, false},
	{NULL, 0, false}
};

/* Accept a valid name of a NOTIFY channel: 1 to NAMEDATALEN - 1 bytes. */
static bool
check_notify_channel(char **newval, void **extra, GucSource source)
{
	size_t		len = strlen(*newval);

	if (len > 0 && len < NAMEDATALEN)
		return true;
	GUC_check_errdetail("The channel name has %zu bytes.", len);
	GUC_check_errhint("Choose a name of 1 to %d bytes.", NAMEDATALEN - 1);
	return false;
}

/* Define the settings for the size of shared memory. */
static void
define_memory_settings(void)
{
	DefineCustomIntVariable("presence.max_channels",
							"Number of channels whose heartbeats are kept in shared memory.",
							"Past it a touch falls back to the channel's row.",
							&presence_max_channels, 65536, 16, 16 * 1024 * 1024,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("presence.queue_size",
							"Shared memory for events between commit and the worker, in kilobytes.",
							"Past it rooms are re-read: listeners get a resync event.",
							&presence_queue_size, 8 * 1024, 64, 2 * 1024 * 1024,
							PGC_POSTMASTER, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("presence.replay_size",
							"Shared memory for the last events sent, which presence_since() returns, in kilobytes.",
							"Past it the oldest are forgotten: who missed them gets a resync. 0 keeps none.",
							&presence_replay_size, 4 * 1024, 0, 2 * 1024 * 1024,
							PGC_POSTMASTER, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("presence.state_memory",
							"Shared memory for cursors, typing and other short-lived state, in kilobytes.",
							"Past it the oldest states are evicted.",
							&presence_state_memory, 16 * 1024, 64, 2 * 1024 * 1024,
							PGC_POSTMASTER, GUC_UNIT_KB, NULL, NULL, NULL);
}

/* Define the settings of expiry and of the worker. */
static void
define_worker_settings(void)
{
	DefineCustomIntVariable("presence.max_age",
							"Age at which a presence without a sign of life expires, in milliseconds.",
							NULL,
							&presence_max_age, 60 * 1000, 100, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("presence.hold_grace",
							"Time for which channels live on that a session held when it ended, in milliseconds.",
							"0 lets them leave at once.",
							&presence_hold_grace, 5 * 1000, 0, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("presence.prune_rooms_interval",
							"Time between two removals of empty rooms by the worker, in seconds.",
							"0 removes none.",
							&presence_prune_rooms_interval, 3600, 0, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("presence.roster_memory",
							"The worker's memory of who was announced in which room, in kilobytes.",
							"Past it the rooms that were quiet for longest are forgotten and read again when needed.",
							&presence_roster_memory, 64 * 1024, 64, MAX_KILOBYTES,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("presence.worker_idle_timeout",
							"Time after which a worker without channels and events leaves, in seconds.",
							"The next change starts it again. 0 keeps it.",
							&presence_worker_idle_timeout, 300, 0, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("presence.keep_last_seen",
							"Time for which it is remembered when users were last seen, in seconds.",
							"0 keeps it for ever.",
							&presence_keep_last_seen, 30 * 24 * 3600, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("presence.keep_visits",
							"Time for which it is kept who was in which room from when to when, in seconds.",
							"0 writes no visits, and removes none.",
							&presence_keep_visits, 0, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
}

/* Define the settings of notifications. */
static void
define_notify_settings(void)
{
	DefineCustomEnumVariable("presence.notify",
							 "How changes are announced.",
							 "auto: by the worker where it runs, else in the transaction; transaction; off.",
							 &presence_notify, PRESENCE_NOTIFY_AUTO, notify_modes,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("presence.notify_channel",
							   "NOTIFY channel on which changes of presence are announced.",
							   NULL,
							   &presence_notify_channel, "presence_changed",
							   PGC_SIGHUP, 0, check_notify_channel, NULL, NULL);
	DefineCustomIntVariable("presence.notify_interval",
							"Longest pause between two deliveries of events, in milliseconds.",
							"The pause is shorter if deliveries cost little; the first event after a pause goes at once.",
							&presence_notify_interval, 10, 0, 60 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable("presence.notify_meta",
							 "Whether notifications carry the meta of presences.",
							 "LISTEN has no access control: turn it off where meta is private.",
							 &presence_notify_meta, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("presence.bulk_threshold",
							"Number of changes of one room, delivered together, past which they collapse into one bulk event.",
							NULL,
							&presence_bulk_threshold, 50, 1, INT_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
}

/* Define the settings of how large rooms are announced. */
static void
define_large_room_settings(void)
{
	DefineCustomIntVariable("presence.counts_interval",
							"Shortest time between two events of a room that is announced by its counts, in milliseconds.",
							NULL,
							&presence_counts_interval, 1000, 10, 24 * 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("presence.announce_max",
							"Number of connections past which a room is announced by its counts.",
							"Unless the room says how it is announced. It is announced as before below 80 % of that. 0 sets no limit.",
							&presence_announce_max, 0, 0, INT_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
}

/* Define the settings of short-lived state and of admission. */
static void
define_room_settings(void)
{
	DefineCustomIntVariable("presence.cursor_timeout",
							"Time after its last update at which a cursor expires, in milliseconds.",
							NULL,
							&presence_cursor_timeout, 10 * 1000, 100, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("presence.state_interval",
							"Shortest time between two notifications of one room's short-lived state, in milliseconds.",
							NULL,
							&presence_state_interval, 50, 0, 60 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("presence.max_state_size",
							"Longest value of short-lived state, in bytes of its text.",
							NULL,
							&presence_max_state_size, 2 * 1024, 16, 7000,
							PGC_SIGHUP, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("presence.join_rate",
							"New presences that one user may add to one room within presence.join_rate_window.",
							"0 sets no limit.",
							&presence_join_rate, 0, 0, INT_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("presence.join_rate_window",
							"Time over which presence.join_rate counts, in seconds.",
							NULL,
							&presence_join_rate_window, 3600, 1, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
}

/* Define every setting; called once, when the library is loaded. */
void
presence_guc_define(void)
{
	if (process_shared_preload_libraries_in_progress)
		define_memory_settings();
	define_worker_settings();
	define_notify_settings();
	define_large_room_settings();
	define_room_settings();
	MarkGUCPrefixReserved("presence");
}
