/*-------------------------------------------------------------------------
 *
 * admission.c
 *		Decides who may enter a room.
 *
 * Only new presences are asked; who is in already stays in, but has to be
 * let in anew as another user.  A room without rules costs nothing here: its
 * rules came with its name, and a table of bans that has no pages is known to
 * be empty.  The owner of the extension looks, past row-level security: a
 * room is as full as it is, not as the caller sees it.
 *
 * Locking.  Rules that count are exact under concurrency because those who
 * want in take a lock first, then count in the newest snapshot, and keep the
 * lock until they commit.  Such a lock stands for a room, or for a user in a
 * room, by its hash, so that a transaction never holds more than LOCK_SLOTS
 * of either kind; two that share one only wait for each other.
 *
 * An add of a user holds the weak lock of a writer on the table of bans; a
 * ban waits, bounded, until such transactions have ended (api_rooms.c).  So
 * an add either sees the ban, or is seen by it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "admission.h"
#include "common/hashfn.h"
#include "compat.h"
#include "guc.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

/* How many locks of one kind there are. */
#define LOCK_SLOTS 128

/* The kinds of locks, told apart by their sub-object number. */
enum
{
	LOCK_ROOM = 1,
	LOCK_USER
};

/* Whether there may be any bans; keeps new ones waiting for this transaction. */
static bool
bans_exist(void)
{
	Relation	bans = table_open(presence_store_table("bans"), RowExclusiveLock);
	bool		exist = RelationGetNumberOfBlocks(bans) > 0;

	table_close(bans, NoLock);
	return exist;
}

/*
 * Find out which rules somebody who enters has to pass; false: none.  "user"
 * may be NULL.
 */
bool
presence_admission_prepare(PresenceAdmission *admission,
						   PresenceRoomRules rules, text *user)
{
	admission->rules = rules;
	admission->bans = user && bans_exist();
	admission->rate = user && presence_join_rate > 0;
	return rules.max_members > 0 || rules.private ||
		admission->bans || admission->rate;
}

/* Take one of the locks of a kind until the transaction ends. */
static void
lock_slot(int kind, uint32 hash)
{
	LockDatabaseObject(presence_store_table("rooms"), hash % LOCK_SLOTS, kind,
					   ExclusiveLock);
}

/* Hash a text. */
static uint32
hash_text(text *value)
{
	return hash_bytes((const unsigned char *) VARDATA_ANY(value),
					  VARSIZE_ANY_EXHDR(value));
}

/* Keep others out until what is counted here is decided and committed. */
void
presence_admission_lock(const PresenceAdmission *admission, text *room,
						text *user)
{
	if (admission->rules.max_members > 0)
		lock_slot(LOCK_ROOM, hash_text(room));
	if (admission->rate)
		lock_slot(LOCK_USER, hash_combine(hash_text(room), hash_text(user)));
}

/* Raise the error for somebody who may not enter. */
static void
refuse(int code, const char *message, const char *hint, text *room, text *user,
	   const char *limit)
{
	ereport(ERROR,
			(errcode(code),
			 errmsg("%s", message),
			 errdetail("room: %s; user: %s; limit: %s", text_to_cstring(room),
					   user ? text_to_cstring(user) : "anonymous", limit),
			 errhint("%s", hint)));
}

/* Refuse whoever enters too often; note the others. */
static void
check_rate(text *room, text *user)
{
	TimestampTz since = GetCurrentTimestamp() -
		(int64) presence_join_rate_window * USECS_PER_SEC;

	if (presence_store_count_admissions(PointerGetDatum(room),
										PointerGetDatum(user), since) >= presence_join_rate)
		refuse(PRESENCE_ERRCODE_RATE_LIMITED, "too many joins",
			   "Wait, or raise presence.join_rate.", room, user,
			   psprintf("%d in %d seconds", presence_join_rate,
						presence_join_rate_window));
	presence_store_note_admission(PointerGetDatum(room), PointerGetDatum(user));
}

/* Refuse who must not be in a room. */
static void
check_user(const PresenceAdmission *admission, text *room, text *user)
{
	if (admission->bans &&
		presence_store_is_banned(PointerGetDatum(room), PointerGetDatum(user)))
		refuse(PRESENCE_ERRCODE_BANNED, "user is banned",
			   "See presence.bans for the end of the ban and its reason.",
			   room, user, "none");
	if (admission->rules.private &&
		(user == NULL ||
		 !presence_store_is_invited(PointerGetDatum(room), PointerGetDatum(user))))
		refuse(PRESENCE_ERRCODE_PRIVATE, "room is private",
			   "Call presence_invite() for the user first.", room, user, "none");
}

/* Refuse who takes a place that is not there, or takes places too often. */
static void
check_place(const PresenceAdmission *admission, text *room, text *user)
{
	int			max_members = admission->rules.max_members;

	if (max_members > 0 &&
		presence_store_count_live(PointerGetDatum(room), max_members) >= max_members)
		refuse(PRESENCE_ERRCODE_ROOM_FULL, "room is full",
			   "Try again when somebody has left, or raise max_members by presence_configure_room().",
			   room, user, psprintf("%d", max_members));
	if (admission->rate)
		check_rate(room, user);
}

/*
 * Raise an error unless a user, NULL for an anonymous one, may enter a room.
 * Who "is_in" already, as another user, needs no place.
 * presence_admission_lock() was called before.
 */
void
presence_admission_check(const PresenceAdmission *admission, text *room,
						 text *user, bool is_in)
{
	PresenceSession caller = presence_store_become_owner();

	check_user(admission, room, user);
	if (!is_in)
		check_place(admission, room, user);
	presence_store_become_caller(caller);
}
