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
#include "shared/liveness.h"
#include "utils/memutils.h"

/* A channel whose entry the end of this transaction updates. */
struct PresencePin
{
	PresenceName name;
	PresenceTime seen;			/* newest sign of life that this transaction
								 * has stored; 0: none, or not to be relied on */
	bool		noted;			/* delta.ref has been set */
	PresenceEntryDelta delta;	/* PRE_COMMIT fills in the changes */
	char		data[FLEXIBLE_ARRAY_MEMBER];	/* the name */
};

/* How to find it. */
typedef struct ChannelPin
{
	const PresenceName *name;	/* key, in the pin */
	PresencePin *pin;
	char		status;			/* for simplehash */
} ChannelPin;

#define SH_PREFIX channels
#define SH_ELEMENT_TYPE ChannelPin
#define SH_KEY_TYPE const PresenceName *
#define SH_KEY name
#define SH_HASH_KEY(tb, key) (key)->hash
#define SH_EQUAL(tb, a, b) presence_name_equal(a, b)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/*
 * An add this soon after the transaction's last sign of life for the channel
 * stores no other one: within that part of max_age, and that many microseconds.
 */
#define SEEN_PARTS 64
#define SEEN_AT_MOST (100 * 1000)

/* Channels of the running transaction, or NULL. */
static channels_hash *channels;

/* Find the pin of a channel, or NULL. */
static PresencePin *
find_pin(const PresenceName *name)
{
	ChannelPin *found = channels ? channels_lookup(channels, name) : NULL;

	return found ? found->pin : NULL;
}

/* Make the pin of a channel, which has none. */
static PresencePin *
make_pin(const PresenceName *name)
{
	PresencePin *pin = MemoryContextAlloc(channels->ctx,
										  offsetof(PresencePin, data) + name->length);
	bool		found;

	memset(pin, 0, offsetof(PresencePin, data));
	pin->name = *name;
	pin->name.data = pin->data;
	memcpy(pin->data, name->data, name->length);
	channels_insert(channels, &pin->name, &found)->pin = pin;
	return pin;
}

/*
 * The pin of a channel in this transaction; NULL without shared memory, and for
 * a name that is too long for the registry.  It pins nothing yet.
 */
PresencePin *
presence_pins_get(const char *channel, int length)
{
	PresenceName name;
	PresencePin *pin;

	if (!presence_shmem_ready() || length > PRESENCE_MAX_NAME_BYTES)
		return NULL;
	if (channels == NULL)
		channels = channels_create(AllocSetContextCreate(TopTransactionContext,
														 "presence xact pins",
														 ALLOCSET_DEFAULT_SIZES),
								   16, NULL);
	name = presence_name_make(channel, length);
	pin = find_pin(&name);
	return pin ? pin : make_pin(&name);
}

/* A pin was taken, or not; "status" is that before. */
static PresenceEntryStatus
take_pin(PresencePin *pin, PresenceEntryStatus status, PresenceTime now)
{
	pin->delta.pinned = pin->noted = status != PRESENCE_ENTRY_NO_SPACE;
	if (status == PRESENCE_ENTRY_ABSENT || status == PRESENCE_ENTRY_EXPIRED)
		pin->seen = now;
	return status;
}

/* Revive a pinned entry that has expired. */
static void
revive(PresencePin *pin, const PresenceCutoff *cutoff)
{
	PresenceEntryRef ref;

	(void) presence_registry_begin(&pin->name, cutoff, false, &ref);
	pin->seen = cutoff->now;
}

/*
 * Pin a channel that is about to be added to a room, if it has no old rows: if
 * it may have some, nothing is done, and EXPIRED returned.  "rowless" says
 * that it has none if the registry does not know it.  Else returns what
 * presence_registry_begin() does; NO_SPACE without a pin.
 */
PresenceEntryStatus
presence_pins_enter(PresencePin *pin, const PresenceCutoff *cutoff, bool rowless)
{
	PresenceEntryStatus status;

	if (pin == NULL)
		return rowless ? PRESENCE_ENTRY_NO_SPACE : PRESENCE_ENTRY_EXPIRED;
	if (pin->delta.pinned)
		return presence_registry_look(&pin->name, cutoff).status;
	status = presence_registry_enter(&pin->name, cutoff, rowless, &pin->delta.ref);
	return status == PRESENCE_ENTRY_EXPIRED ? status :
		take_pin(pin, status, cutoff->now);
}

/* Store a sign of life in a pinned entry. */
static PresenceEntryStatus
touch_pinned(PresencePin *pin, const PresenceCutoff *cutoff)
{
	PresenceTime soon = Min(presence_liveness_max_age() / SEEN_PARTS, SEEN_AT_MOST);
	PresenceEntryStatus status;

	if (pin->seen != 0 && cutoff->now - pin->seen < soon &&
		!presence_registry_is_leaving(pin->delta.ref))
		return PRESENCE_ENTRY_ALIVE;
	status = presence_registry_touch_pinned(&pin->name, pin->delta.ref, cutoff);
	if (status != PRESENCE_ENTRY_EXPIRED)
		pin->seen = cutoff->now;
	return status;
}

/*
 * Pin a channel in the registry, once for the transaction, which adds it.
 * "beat" says that the row has been written, which is a heartbeat.  Returns
 * what presence_registry_begin() does, and NO_SPACE without a pin.
 */
PresenceEntryStatus
presence_pins_begin(PresencePin *pin, const PresenceCutoff *cutoff, bool beat)
{
	PresenceEntryStatus status;

	if (pin == NULL)
		return PRESENCE_ENTRY_NO_SPACE;
	if (!pin->delta.pinned)
	{
		status = take_pin(pin,
						  presence_registry_begin(&pin->name, cutoff, true, &pin->delta.ref),
						  cutoff->now);
		if (!beat || !pin->delta.pinned)
			return status;
	}
	status = beat ? touch_pinned(pin, cutoff) :
		presence_registry_look(&pin->name, cutoff).status;
	if (status == PRESENCE_ENTRY_EXPIRED)
		revive(pin, cutoff);
	return status;
}

/*
 * The newest sign of life of a channel of which a row is removed; 0: none.
 * Notes its entry, if that is not pinned.
 */
PresenceTime
presence_pins_seen(PresencePin *pin)
{
	PresenceCutoff none = {0};
	PresenceEntryView view;

	if (pin == NULL)
		return 0;
	view = presence_registry_look(&pin->name, &none);
	if (!pin->noted)
		pin->delta.ref = view.ref;
	pin->noted = true;
	return view.seen;
}

/* Whether the transaction holds a pin on a channel. */
bool
presence_pins_has(const PresenceName *name)
{
	PresencePin *pin = find_pin(name);

	return pin && pin->delta.pinned;
}

/*
 * The same, before the channel is marked as expiring: the transaction's signs
 * of life for it do not count any more.
 */
bool
presence_pins_expire(const PresenceName *name)
{
	PresencePin *pin = find_pin(name);

	if (pin)
		pin->seen = 0;
	return pin && pin->delta.pinned;
}

/* Whether the transaction has pinned or counted any channel. */
bool
presence_pins_is_active(void)
{
	return channels != NULL;
}

/* Count a presence that joins or leaves when the transaction commits. */
void
presence_pins_count(PresencePin *pin, bool joins)
{
	if (!pin->noted)
		(void) presence_pins_seen(pin);
	pin->delta.changed = true;
	pin->delta.joined |= joins;
	pin->delta.change += joins ? 1 : -1;
}

/*
 * The transaction has ended: update the registry.  The memory is freed with
 * TopTransactionContext.
 */
void
presence_pins_settle(bool committed)
{
	channels_iterator iterator;
	ChannelPin *channel;

	if (channels == NULL)
		return;
	channels_start_iterate(channels, &iterator);
	while ((channel = channels_iterate(channels, &iterator)))
	{
		PresencePin *pin = channel->pin;

		if (pin->delta.pinned || pin->delta.changed)
			presence_registry_end(&pin->name, &pin->delta, committed);
	}
	channels = NULL;
}
