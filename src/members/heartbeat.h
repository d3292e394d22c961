/*-------------------------------------------------------------------------
 *
 * heartbeat.h
 *		Store heartbeats of channels.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_HEARTBEAT_H
#define PRESENCE_HEARTBEAT_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "shared/registry.h"

extern PresenceEntryStatus presence_heartbeat_touch_fastpath(text *channel, uint32 ttl);
extern bool presence_heartbeat_touch(text *channel, uint32 ttl);
extern bool presence_heartbeat_touch_slowpath(text *channel, uint32 ttl);
extern PresenceEntryStatus presence_heartbeat_say_goodbye(text *channel, uint32 grace);
extern PresenceEntryRef presence_heartbeat_entry(text *channel);
extern uint64 presence_heartbeat_write(Datum channel, TimestampTz wall,
									   TimestampTz since);
extern void presence_heartbeat_write_many(Datum channels, TimestampTz wall);

#endif							/* PRESENCE_HEARTBEAT_H */
