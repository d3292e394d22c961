/*-------------------------------------------------------------------------
 *
 * membership.c
 *		Adds channels to rooms, keeping table and registry consistent.
 *
 * An add first checks the rules (admission.c), then removes expired rows of
 * the channel (removal.c), pins the channel in the registry (pins.c) and
 * writes the row.  Writing is retried while others add and remove the same
 * presence, but not forever, because the obstacle may be a policy or a
 * trigger.  The locks are those of these modules, in this order.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/shmem.h"
#include "members/admission.h"
#include "members/heartbeat.h"
#include "members/intent.h"
#include "members/membership.h"
#include "members/pins.h"
#include "members/removal.h"
#include "members/xact.h"
#include "miscadmin.h"
#include "shared/backend.h"
#include "shared/liveness.h"
#include "storage/lmgr.h"
#include "tables/extension.h"
#include "tables/permission.h"
#include "tables/scan.h"
#include "tables/store_presences.h"
#include "tables/store_rooms.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/*
 * How often to try a change while others add and remove the same presence;
 * less often if row-level security or a trigger may be the obstacle.
 */
#define MAX_ATTEMPTS 1000
#define MAX_HINDERED_ATTEMPTS 10

/* How long to wait for another process to write a row; microseconds. */
#define SAME_LIMIT (1000 * 1000)

/* Whether an add has another user than the stored row. */
static bool
user_differs(const PresenceEntrant *entrant, const PresenceRow *row)
{
	return entrant->user &&
		(row->user == NULL ||
		 strlen(row->user) != VARSIZE_ANY_EXHDR(entrant->user) ||
		 memcmp(row->user, VARDATA_ANY(entrant->user), strlen(row->user)) != 0);
}

/* Whether an add changes the stored row. */
static bool
differs(const PresenceEntrant *entrant, const PresenceRow *row)
{
	if (user_differs(entrant, row))
		return true;
	if (entrant->meta == NULL)
		return false;
	return row->meta == NULL ||
		compareJsonbContainers(&row->meta->root, &entrant->meta->root) != 0;
}

/* Whether the presence exists, even if the caller cannot see it. */
static bool
is_present(text *room, const PresenceEntrant *entrant)
{
	PresenceSession caller = presence_extension_become_owner();
	PresenceRow row;
	bool		found;

	found = presence_store_find(PointerGetDatum(room),
								PointerGetDatum(entrant->channel), &row);
	presence_extension_become_caller(caller);
	return found;
}

/* An add has not succeeded: report the policy, trigger or concurrency. */
static void
give_up(text *room, const PresenceEntrant *entrant, int attempts)
{
	char	   *channel = text_to_cstring(entrant->channel);
	bool		present = is_present(room, entrant);
	char	   *suppressor = presence_extension_suppressor("presences", !present);

	if (present && !presence_permission_may_update(room, entrant->channel))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for channel \"%s\" in room \"%s\"",
						channel, text_to_cstring(room)),
				 errdetail("It is present, and the row-level security of presence.presences does not let role \"%s\" update it.",
						   GetUserNameFromId(GetUserId(), false)),
				 errhint("Use another channel name, or change the policies.")));
	if (suppressor)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("could not add channel \"%s\" to room \"%s\"",
						channel, text_to_cstring(room)),
				 errdetail("Trigger \"%s\" of presence.presences, or another one, suppressed the %s of its row.",
						   suppressor, present ? "update" : "insertion"),
				 errhint("Have the trigger return the row, or raise an error that says why it refuses it.")));
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not add channel \"%s\" to room \"%s\"",
					channel, text_to_cstring(room)),
			 errdetail("Other transactions added and removed it %d times meanwhile.",
					   attempts),
			 errhint("Repeat the call.")));
}

/* Whether policies or triggers may keep an add from succeeding. */
static bool
may_be_hindered(void)
{
	return !presence_permission_touch_is_free() ||
		presence_extension_suppressor("presences", true) ||
		presence_extension_suppressor("presences", false);
}

/*
 * Update an existing presence; false if it is gone, or the caller may not
 * update it.  That permission is required even if nothing differs.
 */
static bool
find_and_replace(text *room, const PresenceEntrant *entrant, const char *nulls,
				 PresenceRow *row)
{
	Datum		channel = PointerGetDatum(entrant->channel);

	if (!presence_store_find(PointerGetDatum(room), channel, row))
		return false;
	if (!differs(entrant, row))
		return presence_permission_may_update(room, entrant->channel);
	return presence_store_replace(PointerGetDatum(room), channel, PointerGetDatum(entrant->user),
								  PointerGetDatum(entrant->meta), nulls, row);
}

/*
 * Insert a presence, unless it exists; whether it was inserted.  The row
 * trigger describes it in "row", unless it was disabled.
 */
static bool
insert(text *room, PresenceEntrant *entrant, const char *nulls, TimestampTz now,
	   PresenceRow *row)
{
	entrant->row = row;
	entrant->context = CurrentMemoryContext;
	if (!presence_store_insert(PointerGetDatum(room), PointerGetDatum(entrant->channel),
							   PointerGetDatum(entrant->user),
							   PointerGetDatum(entrant->meta), nulls, now))
		return false;
	entrant->row = NULL;
	if (!entrant->inserted &&
		!presence_store_find(PointerGetDatum(room), PointerGetDatum(entrant->channel), row))
		give_up(room, entrant, 1);
	return true;
}

/* Insert a presence, or update the existing one; whether it was inserted. */
static bool
insert_or_replace(text *room, PresenceEntrant *entrant, TimestampTz now,
				  bool known, PresenceRow *row)
{
	char		nulls[] = {entrant->user ? ' ' : 'n', entrant->meta ? ' ' : 'n'};
	bool		is_free = presence_permission_touch_is_free();
	int			attempts = MAX_ATTEMPTS;

	for (int attempt = 0; attempt < attempts; attempt++)
	{
		/* The add of a live channel most likely repeats an earlier one. */
		if (!(known && is_free && attempt == 0) &&
			insert(room, entrant, nulls, now, row))
			return true;
		if (find_and_replace(room, entrant, nulls, row))
			return false;
		if (attempt == MAX_HINDERED_ATTEMPTS - 1 && may_be_hindered())
			attempts = MAX_HINDERED_ATTEMPTS;
		CHECK_FOR_INTERRUPTS();
	}
	give_up(room, entrant, attempts);
	return false;
}

/* Whether an entrant is present already, and live; "row" gets the presence. */
static bool
is_in(text *room, const PresenceEntrant *entrant, PresenceRow *row)
{
	PresenceCutoff cutoff = presence_liveness_cutoff();

	return presence_store_find(PointerGetDatum(room),
							   PointerGetDatum(entrant->channel), row) &&
		presence_liveness_is_live(row->channel, strlen(row->channel),
								  row->last_seen, &cutoff);
}

/* Whether the registry says that a channel is in no room. */
static bool
is_nowhere(text *channel)
{
	PresenceCutoff cutoff = presence_liveness_cutoff();
	PresenceName name;

	if (!presence_registry_is_complete(presence_my_database()))
		return false;
	name = presence_name_of_text(channel);
	return presence_registry_look(&name, &cutoff).status == PRESENCE_ENTRY_ABSENT;
}

/* The hash by which a presence is published, or, with no channel, a batch. */
static uint32
adding_hash(text *room, const text *channel)
{
	PresenceName name = presence_name_of_text(room);

	return channel ? presence_hash_within(name.hash, VARDATA_ANY(channel),
										  VARSIZE_ANY_EXHDR(channel)) :
		presence_hash_within(name.hash, "", 0);
}

/*
 * Publish that a presence, or a batch of them (no channel), is about to be added
 * to a room with max_members, until the rows are written.
 */
void
presence_membership_set_adding(const PresenceAdmission *admission, text *room,
							   const text *channel)
{
	if (admission->rules.max_members > 0 && presence_shmem_ready())
		(void) presence_xact_set_adding(adding_hash(room, channel));
}

/*
 * Whether another process is adding the presence whose hash this is, 0 if that
 * cannot be known, or a batch to the room, which it may be in.
 */
static bool
is_being_added(text *room, uint32 presence)
{
	return presence && (presence_backend_is_adding(presence) ||
						presence_backend_is_adding(adding_hash(room, NULL)));
}

/*
 * There is no place for an entrant.  If another process is adding the same
 * presence, wait until it has, or has not; false if there is none.  It publishes
 * the presence until the row is there, which shows its transaction.  A process
 * that adds a batch publishes the room alone, so wait for its rows to see.
 */
static bool
waits_for_same(text *room, const PresenceEntrant *entrant)
{
	uint32		presence = presence_xact_set_adding(0);
	PresenceTime start = presence_clock_now();
	bool		waited = false;

	presence_scan_lock();
	for (;;)
	{
		bool		adding = is_being_added(room, presence);
		TransactionId other = presence_scan_inserting(PointerGetDatum(room),
													  PointerGetDatum(entrant->channel));

		if (TransactionIdIsValid(other))
			XactLockTableWait(other, NULL, NULL, XLTW_None);
		if (TransactionIdIsValid(other) || !adding ||
			presence_clock_now() - start > SAME_LIMIT)
			return waited || TransactionIdIsValid(other);
		waited = true;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(50);
	}
}

/*
 * Reserve a place for an entrant; false if it has come in meanwhile.  Raises an
 * error if the room is full.
 */
static bool
take_place(PresenceAdmission *admission, text *room,
		   const PresenceEntrant *entrant, PresenceRow *row)
{
	for (int attempt = 1;; attempt++)
	{
		bool		waited;

		presence_membership_set_adding(admission, room, entrant->channel);
		if (presence_admission_reserve(admission, room, 1, PRESENCE_ENTRANCE_JOIN))
			break;
		waited = waits_for_same(room, entrant);
		if (is_in(room, entrant, row))
			return false;
		if (!waited || attempt == MAX_HINDERED_ATTEMPTS)
			presence_admission_refuse(admission, room, entrant->user);
	}
	presence_admission_count_join(admission, room, entrant->user);
	return true;
}

/*
 * Create the room if need be, and raise an error if its rules do not admit an
 * entrant.  An entrant that is present already is only checked if its user
 * changes.  Returns which rules were checked; "row" is scratch space.
 */
static PresenceAsked
admit(PresenceAdmission *admission, text *room, const PresenceEntrant *entrant,
	  PresenceRow *row)
{
	bool		in;

	if (!presence_admission_prepare(admission,
									presence_store_enter_room(PointerGetDatum(room)),
									entrant->user))
		return PRESENCE_ASKED_ALL;
	presence_admission_lock(admission, room, entrant->user);
	in = !is_nowhere(entrant->channel) && is_in(room, entrant, row);
	if (!in || user_differs(entrant, row))
		presence_admission_check(admission, room, entrant->user);
	return !in && take_place(admission, room, entrant, row) ? PRESENCE_ASKED_ALL :
		PRESENCE_ASKED_USER;
}

/*
 * The same if policies apply to the caller.  They must be checked first, so
 * that errors of admission reveal nothing about rooms that the caller may not
 * enter.  So the trigger checks the rules once the row is written
 * (triggers.c); only the lock is taken now.
 */
static PresenceAsked
admit_later(PresenceAdmission *admission, text *room,
			const PresenceEntrant *entrant)
{
	PresenceRoomRules rules = {0};

	if (presence_store_find_room(PointerGetDatum(room), &rules) &&
		presence_admission_prepare(admission, rules, entrant->user))
		presence_admission_lock(admission, room, entrant->user);
	return PRESENCE_ASKED_NOTHING;
}

/* A channel that was present already gives a sign of life by an add. */
void
presence_membership_beat(const PresenceEntrant *entrant)
{
	PresenceCutoff cutoff = presence_liveness_cutoff();

	(void) presence_pins_begin(entrant->pin, &cutoff, true);
}

/*
 * Add a channel to a room; whether it was not present before.  "row" gets the
 * resulting presence.
 */
bool
presence_membership_add(text *room, PresenceEntrant *entrant, PresenceRow *row)
{
	TimestampTz wall = presence_clock_wall();
	PresenceTicket ticket = {room, entrant, 1};
	PresenceAdmission admission;
	PresenceEntryStatus status;
	bool		inserted;

	ticket.rules = presence_admission_rules();
	ticket.asked = presence_permission_touch_is_free() ?
		admit(&admission, room, entrant, row) : admit_later(&admission, room, entrant);
	entrant->pin = presence_pins_get(VARDATA_ANY(entrant->channel),
									 VARSIZE_ANY_EXHDR(entrant->channel));
	presence_intent_push_ticket(&ticket);
	status = presence_removal_enter(entrant->channel, entrant->pin);
	inserted = insert_or_replace(room, entrant, wall, status == PRESENCE_ENTRY_ALIVE, row);
	presence_intent_pop();
	(void) presence_xact_set_adding(0);
	if (!inserted && ticket.asked == PRESENCE_ASKED_ALL)
		presence_admission_return(&admission, room, 1);
	if (!inserted)
		presence_membership_beat(entrant);
	if (status == PRESENCE_ENTRY_NO_SPACE)
		(void) presence_heartbeat_write(PointerGetDatum(entrant->channel), wall, DT_NOBEGIN);
	row->last_seen = wall;
	return inserted;
}

/*
 * Merge keys into the meta of a presence; false if it is gone, or policies or
 * a trigger prevent that.  Others may change it between two statements, so
 * retry.
 */
static bool
merge_meta(text *room, text *channel, Jsonb *meta)
{
	Datum		room_datum = PointerGetDatum(room);
	Datum		channel_datum = PointerGetDatum(channel);
	Datum		meta_datum = PointerGetDatum(meta);

	for (int attempt = 0; attempt < MAX_HINDERED_ATTEMPTS; attempt++)
	{
		PresenceRow row;

		if (presence_store_merge_meta(room_datum, channel_datum, meta_datum))
			return true;
		if (presence_store_has_meta(room_datum, channel_datum, meta_datum))
			return presence_permission_may_update(room, channel);
		if (!presence_store_find(room_datum, channel_datum, &row))
			return false;
		CHECK_FOR_INTERRUPTS();
	}
	return false;
}

/*
 * Merge keys into the meta of a live presence; false if there is none, or it
 * cannot be changed.
 */
bool
presence_membership_update(text *room, text *channel, Jsonb *meta)
{
	PresenceRow row;
	PresenceCutoff cutoff = presence_liveness_cutoff();

	if (!presence_store_find(PointerGetDatum(room), PointerGetDatum(channel), &row) ||
		!presence_liveness_is_live(row.channel, strlen(row.channel),
								   row.last_seen, &cutoff) ||
		!presence_permission_may_touch(channel))
		return false;
	if (presence_heartbeat_touch_fastpath(channel, PRESENCE_SAME_TTL) != PRESENCE_ENTRY_ALIVE)
		(void) presence_heartbeat_touch_slowpath(channel, PRESENCE_SAME_TTL);
	return merge_meta(room, channel, meta);
}
