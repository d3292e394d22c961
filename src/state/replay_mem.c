/*-------------------------------------------------------------------------
 *
 * replay_mem.c
 *		Stores the payloads that were sent last, by database and stream.
 *
 * The memory has a fixed size, presence.replay_size, and is divided into
 * blocks.  The payloads of one stream of a database are in a list of blocks,
 * without a gap in their numbers; each block says which number it begins with.
 * So a reader walks back from the newest block, as far as it will read, and not
 * through what it has.
 *
 * If a database may take no more blocks (share.h), its oldest ones make room,
 * those of the stream that has most.  If no block is left at all for a
 * database that holds less than its share, the database that holds most loses
 * its oldest one instead.
 *
 * Locking.  One LWLock, presence_replay, protects everything.  The worker that
 * stores payloads holds it for one slice of them, a reader shared, for the
 * walk to where it begins and then for 16 kB at a time, while it spends far
 * more time on what it does with them; so a thousand readers hardly delay the
 * worker.  Nothing under it allocates memory, waits, or fails.  A payload never
 * moves; a reader that was overtaken, because the block was taken away between
 * two pieces, notices by the number with which the stream now begins.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/guc.h"
#include "base/share.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "state/replay_mem.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

PG_FUNCTION_INFO_V1(presence_test_pause_publication);

/* A block is larger if there would be more of them, so lists stay short. */
#define MIN_BLOCK_SIZE (16 * 1024)
#define MAX_BLOCKS 4096

/* Maximum number of payloads stored while holding the lock. */
#define SLICE 64

/* How long a test may delay a worker; microseconds. */
#define MAX_PAUSE (60 * 1000 * 1000)

typedef struct ReplayBlock
{
	uint64		begins;			/* number of the first payload */
	uint32		next;			/* block + 1; 0: the newest, or last free one */
	uint32		previous;		/* 0: the oldest */
	uint32		used;			/* bytes of data */
	char		data[FLEXIBLE_ARRAY_MEMBER];
} ReplayBlock;

/* The payloads of one stream. */
typedef struct ReplayStream
{
	uint32		first;			/* block + 1, the oldest; 0: there is none */
	uint32		last;
	uint32		held;			/* number of blocks */
	uint64		begins;			/* number of the first payload, if any */
	uint64		ends;			/* and of the last one */
} ReplayStream;

/* What a database holds; same index as its record. */
typedef struct ReplayHolder
{
	Oid			oid;			/* of the database when it was stored */
	uint32		held;			/* number of blocks */
	uint64		bytes;			/* used in them */
	uint64		generation;		/* incremented when all is forgotten */
	ReplayStream streams[PRESENCE_NSTREAMS];
} ReplayHolder;

typedef struct Replay
{
	pg_atomic_uint32 paused;	/* by a test */
	uint32		free;			/* block + 1; 0: none */
	uint32		unused;			/* number of free blocks */
	ReplayHolder holders[PRESENCE_MAX_DATABASES];
} Replay;

static Replay *replay;
static char *blocks;
static LWLock *replay_lock;

/* Bytes of a block. */
static Size
block_size(void)
{
	Size		size = (Size) presence_replay_size * 1024 / MAX_BLOCKS;

	return Max(MIN_BLOCK_SIZE, TYPEALIGN(1024, size));
}

/* Number of blocks in presence.replay_size. */
static uint32
count_blocks(void)
{
	return (Size) presence_replay_size * 1024 / block_size();
}

/* The block with a number, counted from 1. */
static ReplayBlock *
get_block(uint32 number)
{
	return (ReplayBlock *) (blocks + (number - 1) * block_size());
}

/* Bytes of shared memory that the payloads need. */
Size
presence_replay_mem_shmem_size(void)
{
	return add_size(MAXALIGN(sizeof(Replay)), mul_size(count_blocks(), block_size()));
}

/* Attach to the payloads, initializing their memory when new. */
void
presence_replay_mem_shmem_init(void *area, bool found)
{
	replay = area;
	blocks = (char *) area + MAXALIGN(sizeof(Replay));
	replay_lock = &GetNamedLWLockTranche("presence_replay")->lock;
	if (found)
		return;
	memset(replay, 0, sizeof(Replay));
	pg_atomic_init_u32(&replay->paused, 0);
	replay->unused = count_blocks();
	replay->free = count_blocks() > 0 ? 1 : 0;
	for (uint32 i = 1; i <= count_blocks(); i++)
		get_block(i)->next = i < count_blocks() ? i + 1 : 0;
}

/* ------------------------------------- blocks; the caller holds the lock */

/* Free the oldest block of a stream. */
static void
drop_block(ReplayHolder *holder, ReplayStream *stream)
{
	uint32		number = stream->first;
	ReplayBlock *block = get_block(number);

	Assert(stream->held > 0 && holder->held > 0);
	holder->bytes -= block->used;
	holder->held--;
	stream->held--;
	stream->first = block->next;
	if (stream->first == 0)
		stream->last = 0;
	else
	{
		get_block(stream->first)->previous = 0;
		stream->begins = get_block(stream->first)->begins;
	}
	block->next = replay->free;
	replay->free = number;
	replay->unused++;
}

/* Free all blocks of a stream. */
static void
drop_stream(ReplayHolder *holder, ReplayStream *stream)
{
	while (stream->held > 0)
		drop_block(holder, stream);
}

/* Forget what a database holds. */
static void
drop_holder(ReplayHolder *holder)
{
	for (int i = 0; i < PRESENCE_NSTREAMS; i++)
		drop_stream(holder, &holder->streams[i]);
	holder->generation++;
}

/* Free the oldest block of the stream that has most. */
static void
drop_oldest(ReplayHolder *holder)
{
	ReplayStream *most = &holder->streams[0];

	for (int i = 1; i < PRESENCE_NSTREAMS; i++)
		if (holder->streams[i].held > most->held)
			most = &holder->streams[i];
	drop_block(holder, most);
}

/* Which database loses a block for one that may take none. */
static ReplayHolder *
find_victim(ReplayHolder *holder)
{
	ReplayHolder *most = holder;

	if (holder->held >= Max(count_blocks() / PRESENCE_SHARE_SMALL, 1))
		return holder;
	for (int i = 0; i < PRESENCE_MAX_DATABASES; i++)
		if (replay->holders[i].held > most->held)
			most = &replay->holders[i];
	return most;
}

/* Add an empty block to a stream; false if there is none. */
static bool
add_block(ReplayHolder *holder, ReplayStream *stream, uint64 seq)
{
	uint32		number;
	ReplayBlock *block;

	if (count_blocks() == 0)
		return false;
	if (!presence_share_allows(count_blocks(), replay->unused, holder->held, 1))
		drop_oldest(find_victim(holder));
	number = replay->free;
	block = get_block(number);
	replay->free = block->next;
	replay->unused--;
	block->begins = seq;
	block->next = 0;
	block->previous = stream->last;
	block->used = 0;
	if (stream->last != 0)
		get_block(stream->last)->next = number;
	else
	{
		stream->first = number;
		stream->begins = seq;
	}
	stream->last = number;
	stream->held++;
	holder->held++;
	return true;
}

/* Bytes that a payload takes in a block, with its length before it. */
static inline uint32
stored_size(uint32 length)
{
	return INTALIGN(sizeof(uint32) + length);
}

/* Store a payload.  Numbers are dense, so one that is not stored ends them. */
static void
append_entry(ReplayHolder *holder, const PresenceReplayEntry *entry)
{
	ReplayStream *stream = &holder->streams[entry->stream];
	uint32		size = stored_size(entry->length);
	uint32		capacity = block_size() - offsetof(ReplayBlock, data);
	ReplayBlock *block;
	char	   *place;

	if (stream->ends + 1 != entry->seq)
		drop_stream(holder, stream);
	stream->ends = entry->seq;
	if ((stream->last == 0 || get_block(stream->last)->used + size > capacity) &&
		!add_block(holder, stream, entry->seq))
		return;
	block = get_block(stream->last);
	place = block->data + block->used;
	memcpy(place, &entry->length, sizeof(uint32));
	memcpy(place + sizeof(uint32), entry->payload, entry->length);
	block->used += size;
	holder->bytes += size;
}

/* ---------------------------------------------------------------- storing */

/* What a database holds; forgets what one that had the record before held. */
static ReplayHolder *
own_holder(PresenceDatabase *database)
{
	ReplayHolder *holder = &replay->holders[presence_database_index(database)];

	if (holder->oid != database->oid)
		drop_holder(holder);
	holder->oid = database->oid;
	return holder;
}

/* Store payloads, given as PresenceReplayEntry.  Must not fail. */
void
presence_replay_mem_append(PresenceDatabase *database, const char *entries, Size size)
{
	const char *end = entries + size;

	while (entries < end)
	{
		ReplayHolder *holder;

		LWLockAcquire(replay_lock, LW_EXCLUSIVE);
		holder = own_holder(database);
		for (int i = 0; i < SLICE && entries < end; i++)
		{
			const PresenceReplayEntry *entry = (const PresenceReplayEntry *) entries;

			append_entry(holder, entry);
			entries += MAXALIGN(offsetof(PresenceReplayEntry, payload) + entry->length);
		}
		LWLockRelease(replay_lock);
	}
}

/* Forget what a database that was dropped, or lost its extension, holds. */
void
presence_replay_mem_clear(Oid database)
{
	LWLockAcquire(replay_lock, LW_EXCLUSIVE);
	for (int i = 0; i < PRESENCE_MAX_DATABASES; i++)
		if (replay->holders[i].oid == database)
			drop_holder(&replay->holders[i]);
	LWLockRelease(replay_lock);
}

/* Bytes that the payloads of a database take. */
uint64
presence_replay_mem_bytes(PresenceDatabase *database)
{
	ReplayHolder *holder = &replay->holders[presence_database_index(database)];

	return holder->oid == database->oid ? holder->bytes : 0;
}

/* ---------------------------------------------------------------- reading */

/* Length of the payload at an offset of a block. */
static uint32
length_at(const char *data)
{
	uint32		length;

	memcpy(&length, data, sizeof(uint32));
	return length;
}

/* Find the next payload of a position.  The caller holds the lock. */
static void
find_block(const ReplayStream *stream, PresenceReplayPosition *position)
{
	ReplayBlock *block;

	position->block = stream->last;
	while ((block = get_block(position->block))->begins > position->next)
		position->block = block->previous;
	position->offset = 0;
	for (uint64 seq = block->begins; seq < position->next; seq++)
		position->offset += stored_size(length_at(block->data + position->offset));
}

/* The payloads of a stream if it still has a position's next one, or NULL. */
static ReplayStream *
stream_with(ReplayHolder *holder, Oid database, const PresenceReplayPosition *position)
{
	ReplayStream *stream = &holder->streams[position->stream];

	return holder->oid == database && stream->held > 0 &&
		stream->begins <= position->next && stream->ends >= position->last ? stream : NULL;
}

/*
 * Begin to read the payloads "next" to "last" of a stream, which were all sent;
 * false if they are not all there.
 */
bool
presence_replay_mem_seek(PresenceDatabase *database, PresenceReplayPosition *position)
{
	ReplayHolder *holder = &replay->holders[presence_database_index(database)];
	ReplayStream *stream;

	if (position->next > position->last)
		return true;
	LWLockAcquire(replay_lock, LW_SHARED);
	stream = stream_with(holder, database->oid, position);
	if (stream)
		find_block(stream, position);
	position->generation = holder->generation;
	LWLockRelease(replay_lock);
	return stream != NULL;
}

/*
 * The block that has a position's next payload.  The one before it, which the
 * position names once all of it has been read, may have been taken away; then
 * the stream begins with that payload.  The caller holds the lock.
 */
static ReplayBlock *
next_block(const ReplayStream *stream, PresenceReplayPosition *position)
{
	ReplayBlock *block = get_block(position->block);

	if (stream->begins == position->next)
		position->block = stream->first;
	else if (position->offset == block->used)
		position->block = block->next;
	else
		return block;
	position->offset = 0;
	return get_block(position->block);
}

/*
 * Copy the next payloads out, for presence_replay_mem_take(); false if they are
 * not there any more.
 */
bool
presence_replay_mem_read(PresenceDatabase *database, PresenceReplayPosition *position,
						 PresenceReplayChunk *chunk)
{
	ReplayHolder *holder = &replay->holders[presence_database_index(database)];
	ReplayStream *stream;
	bool		there;

	chunk->at = chunk->size = 0;
	LWLockAcquire(replay_lock, LW_SHARED);
	stream = stream_with(holder, database->oid, position);
	there = stream != NULL && holder->generation == position->generation;
	if (there)
	{
		ReplayBlock *block = next_block(stream, position);

		Assert(position->offset < block->used);
		chunk->size = Min(block->used - position->offset, PRESENCE_REPLAY_READ_SIZE);
		memcpy(chunk->data, block->data + position->offset, chunk->size);
	}
	LWLockRelease(replay_lock);
	return there;
}

/*
 * The next payload of those that were copied out, and its length; NULL: read
 * more, unless "next" is past "last".
 */
const char *
presence_replay_mem_take(PresenceReplayPosition *position, PresenceReplayChunk *chunk,
						 uint32 *length)
{
	const char *payload = chunk->data + chunk->at + sizeof(uint32);
	uint32		rest = chunk->size - chunk->at;

	if (position->next > position->last || rest < sizeof(uint32))
		return NULL;
	*length = length_at(chunk->data + chunk->at);
	if (stored_size(*length) > rest)
		return NULL;
	chunk->at += stored_size(*length);
	position->offset += stored_size(*length);
	position->next++;
	return payload;
}

/* ------------------------------------------------------------------- tests */

/* Wait while a test pauses publication; a test that died does not count. */
void
presence_replay_mem_await_unpaused(void)
{
	PresenceTime start;

	if (likely(pg_atomic_read_u32(&replay->paused) == 0))
		return;
	start = presence_clock_now();
	while (pg_atomic_read_u32(&replay->paused) != 0 &&
		   presence_clock_now() - start < MAX_PAUSE)
		pg_usleep(1000);
}

/*
 * presence_test_pause_publication(pause boolean) returns void
 *
 * Have workers wait between the commit of a delivery and the publication of
 * its numbers, for a minute at most, until called with false.  For tests, which
 * declare it.
 */
Datum
presence_test_pause_publication(PG_FUNCTION_ARGS)
{
	pg_atomic_write_u32(&replay->paused, PG_GETARG_BOOL(0));
	PG_RETURN_VOID();
}
