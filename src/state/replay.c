/*-------------------------------------------------------------------------
 *
 * replay.c
 *		Publishes what a delivery sent, so that listeners can resume after it.
 *
 * Every event is either in the answer to a listener that resumes, or arrives
 * by NOTIFY if the listener has listened before it asked.  Whether PostgreSQL
 * skips a NOTIFY for a new listener is decided by whether its transaction was
 * running then.  So a delivery proceeds as follows:
 *
 *	before the commit	its transaction ID, and the numbers that it gives, are
 *						published in the database's record
 *	the commit ends it	new listeners skip what it sent from now on
 *	COMMIT callback		its payloads are stored, its numbers published and its
 *						transaction ID withdrawn; then its locks are released
 *
 * Who resumes waits for a delivery that is past the second step, by the lock of
 * its transaction ID.  One that is still running is not waited for: its NOTIFY
 * will arrive.  So the wait lasts for some memcpys of the worker, and nothing
 * that the worker could wait for meanwhile can be held by who waits.
 *
 * Transactions that announce themselves send without numbers, or not at all.
 * Nobody may resume from a number given before such a transaction committed.
 * Its COMMIT callback sets "resumable" past the last number given; between its
 * PRE_COMMIT and that it is advertised (backend.c), and nobody may resume.
 *
 * A resync of all rooms stands for lost statuses and broadcasts, too, which have
 * streams of their own: nobody may resume these from before it.
 *
 * Locking.  The fields of the record are atomics.  Numbers are written by the
 * worker only; "resumable" only rises.  What is about to be published is
 * private memory, in TopTransactionContext.  The payloads have their own lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "base/guc.h"
#include "lib/stringinfo.h"
#include "shared/backend.h"
#include "state/replay.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/memutils.h"

/* What the running transaction sends; all zero if that is nothing. */
static struct
{
	PresenceDatabase *database;
	StringInfoData entries;		/* of PresenceReplayEntry */
	uint64		seq[PRESENCE_NSTREAMS]; /* last number; 0: as before */
	uint64		resumable[PRESENCE_NSTREAMS];	/* 0: as before */
}			sending;

/* The running transaction has sent something. */
static void
begin_sending(void)
{
	MemoryContext old;

	if (sending.database)
		return;
	old = MemoryContextSwitchTo(TopTransactionContext);
	initStringInfo(&sending.entries);
	MemoryContextSwitchTo(old);
	sending.database = presence_my_database();
}

/*
 * The running transaction sends a payload; the payload is replayed once it has
 * committed.  Length 0: there is none, and nobody can resume from before it.
 */
void
presence_replay_note(PresenceNotifyStream stream, uint64 seq, const char *payload,
					 uint32 length)
{
	PresenceReplayEntry head = {.seq = seq,.stream = stream,.length = length};
	int			size = offsetof(PresenceReplayEntry, payload);
	int			padding = MAXALIGN(size + length) - size - length;

	begin_sending();
	enlargeStringInfo(&sending.entries, size + length + padding);
	appendBinaryStringInfo(&sending.entries, (const char *) &head, size);
	appendBinaryStringInfo(&sending.entries, payload, length);
	sending.entries.len += padding;
	sending.seq[stream] = seq;
	if (length == 0)
		sending.resumable[stream] = seq;
}

/*
 * The running transaction tells listeners that events may have been lost:
 * nobody may resume a stream from this number or before.
 */
void
presence_replay_note_loss(PresenceNotifyStream stream, uint64 seq)
{
	begin_sending();
	sending.resumable[stream] = seq + 1;
}

/* Let nobody resume a stream from before a number. */
static void
raise_resumable(PresenceDatabase *database, int stream, uint64 seq)
{
	uint64		before = pg_atomic_read_u64(&database->resumable[stream]);

	while (before < seq &&
		   !pg_atomic_compare_exchange_u64(&database->resumable[stream], &before, seq))
		continue;
}

/*
 * A transaction has committed that announced changes without numbers, or not
 * at all: nobody may resume these streams from before it.
 */
void
presence_replay_note_unnumbered(PresenceDatabase *database, int streams)
{
	for (int i = 0; i < PRESENCE_NSTREAMS; i++)
		if (streams & PRESENCE_STREAM_BIT(i))
			raise_resumable(database, i, pg_atomic_read_u64(&database->given[i]) + 1);
}

/*
 * The database or its extension was dropped, or has never been there: forget
 * what was sent.  Where nothing was, the record is to look unused.
 */
void
presence_replay_clear(Oid oid)
{
	PresenceDatabase *database = presence_database_find(oid);

	if (database && presence_database_has_announced(database))
		presence_replay_note_unnumbered(database, PRESENCE_ALL_STREAMS);
	presence_replay_mem_clear(oid);
}

/* ------------------------------------------------------------ transactions */

/* The transaction is about to commit. */
static void
before_commit(void)
{
	PresenceDatabase *database = sending.database;

	for (int i = 0; i < PRESENCE_NSTREAMS; i++)
		if (sending.seq[i] != 0)
			pg_atomic_write_u64(&database->given[i], sending.seq[i]);
	pg_write_barrier();
	pg_atomic_write_u32(&database->delivering, GetTopTransactionId());
}

/* It has committed.  Nothing here may fail. */
static void
after_commit(void)
{
	PresenceDatabase *database = sending.database;

	presence_replay_mem_await_unpaused();
	presence_replay_mem_append(database, sending.entries.data, sending.entries.len);
	for (int i = 0; i < PRESENCE_NSTREAMS; i++)
		if (sending.resumable[i] != 0)
			raise_resumable(database, i, sending.resumable[i]);
	pg_write_barrier();
	for (int i = 0; i < PRESENCE_NSTREAMS; i++)
		if (sending.seq[i] != 0)
			pg_atomic_write_u64(&database->seq[i], sending.seq[i]);
	pg_write_barrier();
	pg_atomic_write_u32(&database->delivering, InvalidTransactionId);
}

/* It was rolled back: the numbers that it gave will be given again. */
static void
after_abort(void)
{
	PresenceDatabase *database = sending.database;

	for (int i = 0; i < PRESENCE_NSTREAMS; i++)
		pg_atomic_write_u64(&database->given[i], pg_atomic_read_u64(&database->seq[i]));
	pg_write_barrier();
	pg_atomic_write_u32(&database->delivering, InvalidTransactionId);
}

/* Transaction callback. */
static void
follow_transaction(XactEvent event, void *arg)
{
	if (sending.database == NULL)
		return;
	if (event == XACT_EVENT_PRE_COMMIT)
		before_commit();
	else if (event == XACT_EVENT_COMMIT)
		after_commit();
	else if (event == XACT_EVENT_ABORT)
		after_abort();
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		memset(&sending, 0, sizeof(sending));
}

/* Register the callback; once, when the library is loaded. */
void
presence_replay_install(void)
{
	RegisterXactCallback(follow_transaction, NULL);
}

/* ---------------------------------------------------------------- resuming */

/*
 * Wait for a delivery whose transaction has ended, but whose numbers are not
 * published yet.  An error may end the wait, such as a cancel.
 */
void
presence_replay_await(PresenceDatabase *database)
{
	TransactionId xid = pg_atomic_read_u32(&database->delivering);

	if (!TransactionIdIsValid(xid) || TransactionIdIsInProgress(xid))
		return;
	XactLockTableWait(xid, NULL, NULL, XLTW_None);
	pg_read_barrier();
}

/*
 * Begin to read the events of a stream after a number, up to the last one
 * published; false if a listener that has seen this number cannot resume.  The
 * caller has waited as above.
 */
bool
presence_replay_begin(PresenceDatabase *database, PresenceNotifyStream stream,
					  int64 seq, PresenceReplayPosition *position)
{
	if (presence_replay_size == 0 || presence_backend_any_announcing(database->oid))
		return false;
	position->stream = stream;
	position->last = pg_atomic_read_u64(&database->seq[stream]);
	pg_read_barrier();
	if (seq < (int64) pg_atomic_read_u64(&database->resumable[stream]) ||
		seq > (int64) position->last)
		return false;
	position->next = seq + 1;
	return presence_replay_mem_seek(database, position);
}
