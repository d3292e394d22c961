/*-------------------------------------------------------------------------
 *
 * holdfuncs.c
 *		SQL functions by which a database session keeps channels alive.
 *
 * A channel that is held has no deadline (registry_entry.c).  The session keeps
 * a reference to each entry that it has held.  When it ends, or runs DISCARD
 * ALL, each channel that still names this process as its holder gets
 * presence.hold_grace to be heard of.  An exit callback does that, so a client
 * that is killed counts, and an administrator's command; after a crash of the
 * server there is no registry that could name a holder.
 *
 * References to entries that are gone stay until their cells are used again.
 * So there are at most as many as the registry has cells.
 *
 * The table of references is the session's own; the registry has its locks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/args.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/name.h"
#include "base/shmem.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "members/heartbeat.h"
#include "miscadmin.h"
#include "shared/liveness.h"
#include "storage/ipc.h"
#include "tables/store.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "worker/utility_hook.h"

PG_FUNCTION_INFO_V1(presence_hold);
PG_FUNCTION_INFO_V1(presence_hold_many);
PG_FUNCTION_INFO_V1(presence_release);
PG_FUNCTION_INFO_V1(presence_release_all);

/* An entry that this session has held, and may still hold. */
typedef struct Held
{
	uint32		index;			/* key: first cell of the entry */
	uint32		generation;
	char		status;			/* for simplehash */
} Held;

#define SH_PREFIX held
#define SH_ELEMENT_TYPE Held
#define SH_KEY_TYPE uint32
#define SH_KEY index
#define SH_HASH_KEY(tb, key) murmurhash32(key)
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* Entries to settle when the session ends; NULL before the first hold. */
static held_hash *held_entries = NULL;

/* By which this process is known as a holder; never 0. */
static uint32
my_number(void)
{
	return (uint32) presence_compat_proc_index() + 1;
}

/* End all holds of this session: what it holds leaves after the grace. */
static void
disconnect_all(void)
{
	PresenceCutoff cutoff;
	held_iterator iterator;
	Held	   *held;

	if (held_entries == NULL || held_entries->members == 0)
		return;
	cutoff = presence_liveness_cutoff();
	held_start_iterate(held_entries, &iterator);
	while ((held = held_iterate(held_entries, &iterator)))
	{
		PresenceEntryRef ref = {held->index, held->generation};

		(void) presence_registry_disconnect(ref, my_number(), presence_hold_grace, &cutoff);
	}
	held_reset(held_entries);
}

/* The same at exit. */
static void
disconnect_at_exit(int code, Datum arg)
{
	disconnect_all();
}

/* Make the table of entries, whose holds the end of the session ends. */
static void
prepare_holds(void)
{
	if (held_entries)
		return;
	held_entries = held_create(TopMemoryContext, 64, NULL);
	before_shmem_exit(disconnect_at_exit, (Datum) 0);
	presence_utility_hook_on_discard(disconnect_all);
}

/* Raise an error if holds cannot be kept. */
static void
check_memory(const char *function)
{
	PreventCommandDuringRecovery(function);
	if (!presence_shmem_ready())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s needs presence in shared memory", function),
				 errhint("Add presence to shared_preload_libraries and restart the server.")));
}

/* A hold found no space in the registry. */
static void
reject_full(text *channel)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("channel \"%s\" cannot be held", text_to_cstring(channel)),
			 errdetail("Shared memory has no space for its entry."),
			 errhint("Raise presence.max_channels and restart the server, or send heartbeats for this channel.")));
}

/*
 * Hold a channel; false if it is not present.  SPI is connected.  Its entry is
 * noted first, for nothing may fail once the registry names this session.
 */
static bool
hold(text *channel)
{
	while (presence_heartbeat_touch(channel, 0))
	{
		PresenceEntryRef ref = presence_heartbeat_entry(channel);
		PresenceCutoff cutoff = presence_liveness_cutoff();
		PresenceEntryStatus status;
		bool		found;

		if (ref.index == 0)
			reject_full(channel);
		held_insert(held_entries, ref.index, &found)->generation = ref.generation;
		status = presence_registry_hold(ref, my_number(), &cutoff);
		if (status == PRESENCE_ENTRY_ALIVE || status == PRESENCE_ENTRY_UNVERIFIED)
			return true;
		CHECK_FOR_INTERRUPTS(); /* it has left, or its entry is another now */
	}
	return false;
}

/*
 * presence_hold(channel_name text) returns boolean
 *
 * Returns whether the channel is present.
 */
Datum
presence_hold(PG_FUNCTION_ARGS)
{
	text	   *channel = presence_args_name(fcinfo, 0, "channel_name");
	bool		present;

	check_memory("presence_hold()");
	prepare_holds();
	presence_store_connect();
	present = hold(channel);
	presence_store_finish();
	PG_RETURN_BOOL(present);
}

/*
 * presence_hold_many(channel_names text[]) returns text[]
 *
 * Returns the channels that are not present.
 */
Datum
presence_hold_many(PG_FUNCTION_ARGS)
{
	PresenceTexts channels = presence_args_names(fcinfo, 0, "channel_names", false);
	int			nmissing = 0;

	check_memory("presence_hold_many()");
	prepare_holds();
	presence_store_connect();
	for (int i = 0; i < channels.count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!hold(DatumGetTextPP(channels.datums[i])))
			channels.datums[nmissing++] = channels.datums[i];
	}
	presence_store_finish();
	PG_RETURN_ARRAYTYPE_P(construct_array(channels.datums, nmissing, TEXTOID,
										  -1, false, TYPALIGN_INT));
}

/* Release an entry, if this session still holds it. */
static bool
release(PresenceEntryRef ref, const PresenceCutoff *cutoff)
{
	return presence_registry_release(ref, my_number(), cutoff);
}

/*
 * presence_release(channel_name text) returns boolean
 *
 * Returns whether this session held the channel.
 */
Datum
presence_release(PG_FUNCTION_ARGS)
{
	text	   *channel = presence_args_name(fcinfo, 0, "channel_name");
	PresenceName name = presence_name_of_text(channel);
	PresenceCutoff cutoff;
	PresenceEntryRef ref;
	Held	   *held;

	check_memory("presence_release()");
	if (held_entries == NULL)
		PG_RETURN_BOOL(false);
	cutoff = presence_liveness_cutoff();
	ref = presence_registry_look(&name, &cutoff).ref;
	held = held_lookup(held_entries, ref.index);
	if (held == NULL || held->generation != ref.generation)
		PG_RETURN_BOOL(false);
	held_delete_item(held_entries, held);
	PG_RETURN_BOOL(release(ref, &cutoff));
}

/*
 * presence_release_all() returns bigint
 *
 * Returns how many channels this session held.
 */
Datum
presence_release_all(PG_FUNCTION_ARGS)
{
	PresenceCutoff cutoff;
	held_iterator iterator;
	Held	   *held;
	int64		count = 0;

	check_memory("presence_release_all()");
	if (held_entries == NULL)
		PG_RETURN_INT64(0);
	cutoff = presence_liveness_cutoff();
	held_start_iterate(held_entries, &iterator);
	while ((held = held_iterate(held_entries, &iterator)))
	{
		PresenceEntryRef ref = {held->index, held->generation};

		CHECK_FOR_INTERRUPTS();
		count += release(ref, &cutoff);
	}
	held_reset(held_entries);
	PG_RETURN_INT64(count);
}
