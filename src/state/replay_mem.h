/*-------------------------------------------------------------------------
 *
 * replay_mem.h
 *		Shared memory for payloads that were sent.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_REPLAY_MEM_H
#define PRESENCE_REPLAY_MEM_H

#include "postgres.h"

#include "shared/database.h"

/* Bytes that are copied out at a time; at least one entry. */
#define PRESENCE_REPLAY_READ_SIZE (16 * 1024)

/* A payload to be stored; the next one follows, MAXALIGNed. */
typedef struct PresenceReplayEntry
{
	uint64		seq;
	uint32		stream;			/* PresenceNotifyStream */
	uint32		length;			/* 0: the number was skipped */
	char		payload[FLEXIBLE_ARRAY_MEMBER];
} PresenceReplayEntry;

/* How far a caller has read a stream. */
typedef struct PresenceReplayPosition
{
	PresenceNotifyStream stream;
	uint64		next;			/* number of the next payload */
	uint64		last;			/* number of the last one to read */
	uint64		generation;		/* of the database's memory */
	uint32		block;
	uint32		offset;			/* of the next payload in the block */
} PresenceReplayPosition;

/* Payloads that were copied out. */
typedef struct PresenceReplayChunk
{
	uint32		size;
	uint32		at;				/* bytes of it already taken */
	char		data[PRESENCE_REPLAY_READ_SIZE];
} PresenceReplayChunk;

extern Size presence_replay_mem_shmem_size(void);
extern void presence_replay_mem_shmem_init(void *area, bool found);

extern void presence_replay_mem_append(PresenceDatabase *database,
									   const char *entries, Size size);
extern bool presence_replay_mem_seek(PresenceDatabase *database,
									 PresenceReplayPosition *position);
extern bool presence_replay_mem_read(PresenceDatabase *database,
									 PresenceReplayPosition *position,
									 PresenceReplayChunk *chunk);
extern const char *presence_replay_mem_take(PresenceReplayPosition *position,
											PresenceReplayChunk *chunk,
											uint32 *length);
extern void presence_replay_mem_clear(Oid database);
extern uint64 presence_replay_mem_bytes(PresenceDatabase *database);
extern void presence_replay_mem_await_unpaused(void);

#endif							/* PRESENCE_REPLAY_MEM_H */
