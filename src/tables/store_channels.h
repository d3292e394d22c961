/*-------------------------------------------------------------------------
 *
 * store_channels.h
 *		Heartbeats of channels, as stored in the rows of presences.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_STORE_CHANNELS_H
#define PRESENCE_STORE_CHANNELS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/array.h"

/* Called with a channel and a last_seen; returns false to stop. */
typedef bool (*PresenceChannelVisitor) (void *arg, const char *channel,
										int length, TimestampTz last_seen);

/* How many presences a channel has. */
typedef struct PresenceChannelCount
{
	text	   *channel;
	int64		count;
} PresenceChannelCount;

/* One channel. */
extern bool presence_store_has_channel(Datum channel, TimestampTz since);
extern bool presence_store_has_older(Datum channel, TimestampTz before);
extern void presence_store_probe_update(Datum channel, int64 probe);
extern void presence_store_probe_pair(Datum room, Datum channel, int64 probe);
extern uint64 presence_store_touch(Datum channel, TimestampTz now,
								   TimestampTz since, TimestampTz before,
								   TimestampTz *oldest);

/* Many channels; ages are in microseconds, or PRESENCE_OWN_AGE. */
extern uint64 presence_store_touch_many(Datum channels, TimestampTz now,
										TimestampTz before, TimestampTz *oldest);
extern ArrayType *presence_store_older_channels(Datum channels, TimestampTz before);
extern ArrayType *presence_store_remaining(Datum channels);
extern ArrayType *presence_store_older(int64 age);
extern ArrayType *presence_store_older_among(ArrayType *channels, int64 age);
extern int	presence_store_count_channels(ArrayType *channels, PresenceChannelCount **found);
extern void presence_store_each_channel(PresenceChannelVisitor visit, void *arg);
extern bool presence_store_each_older(int64 age, PresenceChannelVisitor visit,
									  void *arg);
extern TimestampTz presence_store_oldest_living(int64 age);
extern void presence_store_pull_back(TimestampTz now, TimestampTz limit);

#endif							/* PRESENCE_STORE_CHANNELS_H */
