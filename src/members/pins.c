/*-------------------------------------------------------------------------
 *
 * pins.c
 *		Keeps registry entries up to date with the channels that the running
 *		transaction adds and removes.
 *
 * A channel that the transaction adds is pinned in the registry from the first
 * add until the transaction ends, even if a savepoint rolls the add back.
 * Before the commit the remaining changes are counted by channel; the end of
 * the transaction passes the counts to the registry and releases the pins.
 *
 * Nothing may fail then, so the end allocates nothing.  The table is private
 * memory of the transaction: no locks but those that the registry takes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/name.h"
#include "base/shmem.h"
#include "members/pins.h"
#include "utils/memutils.h"

/* A channel whose entry the end of this transaction updates. */
typedef struct ChannelDelta
{
	PresenceName name;			/* key */
	char		status;			/* for simplehash */
	PresenceEntryDelta delta;	/* PRE_COMMIT fills in all but the pin */
} ChannelDelta;

#define SH_PREFIX channels
#define SH_ELEMENT_TYPE ChannelDelta
#define SH_KEY_TYPE PresenceName
#define SH_KEY name
#define SH_HASH_KEY(tb, key) (key).hash
#define SH_EQUAL(tb, a, b) presence_name_equal(&(a), &(b))
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* Channels of the running transaction, or NULL. */
static channels_hash *channels;

/* Find or make the entry of a channel in this table. */
static ChannelDelta *
get_channel(const PresenceName *name)
{
	PresenceName kept = *name;
	ChannelDelta *channel;
	char	   *copy;
	bool		found;

	if (channels == NULL)
		channels = channels_create(AllocSetContextCreate(TopTransactionContext,
														 "presence xact pins",
														 ALLOCSET_DEFAULT_SIZES),
								   16, NULL);
	channel = channels_lookup(channels, *name);
	if (channel)
		return channel;
	/* Copy first: if that fails, no key may point to the caller's memory. */
	copy = MemoryContextAlloc(channels->ctx, name->length);
	memcpy(copy, name->data, name->length);
	kept.data = copy;
	channel = channels_insert(channels, kept, &found);
	memset(&channel->delta, 0, sizeof(PresenceEntryDelta));
	return channel;
}

/*
 * Pin a channel in the registry, once for the transaction, which adds it.
 * "beat" says that the row has been written, which is a heartbeat.  Returns
 * what presence_registry_begin() does, and NO_SPACE without shared memory.
 */
PresenceEntryStatus
presence_pins_begin(const char *channel, int length, PresenceTime now,
					PresenceTime cutoff, bool beat)
{
	PresenceName name;
	ChannelDelta *mine;
	PresenceEntryStatus status;

	if (!presence_shmem_ready())
		return PRESENCE_ENTRY_NO_SPACE;
	name = presence_name_make(channel, length);
	mine = get_channel(&name);
	if (!mine->delta.pinned)
	{
		status = presence_registry_begin(&name, now, cutoff, true);
		mine->delta.pinned = status != PRESENCE_ENTRY_NO_SPACE;
		if (!beat || !mine->delta.pinned)
			return status;
	}
	status = beat ? presence_registry_touch(&name, now, cutoff) :
		presence_registry_look(&name, cutoff).status;
	if (status == PRESENCE_ENTRY_EXPIRED)
		(void) presence_registry_begin(&name, now, cutoff, false);
	return status;
}

/* Whether the transaction holds a pin on a channel. */
bool
presence_pins_has(const PresenceName *name)
{
	ChannelDelta *mine = channels ? channels_lookup(channels, *name) : NULL;

	return mine && mine->delta.pinned;
}

/* Whether the transaction has pinned or counted any channel. */
bool
presence_pins_is_active(void)
{
	return channels != NULL;
}

/* Count a presence that joins or leaves when the transaction commits. */
void
presence_pins_count(const char *channel, bool joins)
{
	PresenceName name = presence_name_make(channel, strlen(channel));
	ChannelDelta *mine = get_channel(&name);

	if (!mine->delta.changed && !mine->delta.pinned)
		mine->delta.ref = presence_registry_find(&name);
	mine->delta.changed = true;
	mine->delta.joined |= joins;
	mine->delta.change += joins ? 1 : -1;
}

/*
 * The transaction has ended: update the registry.  The memory is freed with
 * TopTransactionContext.
 */
void
presence_pins_settle(bool committed)
{
	channels_iterator iterator;
	ChannelDelta *channel;

	if (channels == NULL)
		return;
	channels_start_iterate(channels, &iterator);
	while ((channel = channels_iterate(channels, &iterator)))
		if (channel->delta.pinned || channel->delta.changed)
			presence_registry_end(&channel->name, &channel->delta, committed);
	channels = NULL;
}
