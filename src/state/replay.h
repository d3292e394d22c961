/*-------------------------------------------------------------------------
 *
 * replay.h
 *		Resuming: which events a listener that was away has missed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_REPLAY_H
#define PRESENCE_REPLAY_H

#include "postgres.h"

#include "state/replay_mem.h"

/* Sets of streams. */
#define PRESENCE_STREAM_BIT(stream) (1 << (stream))
#define PRESENCE_ALL_STREAMS (PRESENCE_STREAM_BIT(PRESENCE_NSTREAMS) - 1)

extern void presence_replay_install(void);
extern void presence_replay_clear(Oid database);

extern void presence_replay_note(PresenceNotifyStream stream, uint64 seq,
								 const char *payload, uint32 length);
extern void presence_replay_note_loss(PresenceNotifyStream stream, uint64 seq);
extern void presence_replay_note_unnumbered(PresenceDatabase *database, int streams);

extern bool presence_replay_begin(PresenceDatabase *database,
								  PresenceNotifyStream stream, int64 seq,
								  PresenceReplayPosition *position);
extern void presence_replay_await(PresenceDatabase *database);

#endif							/* PRESENCE_REPLAY_H */
