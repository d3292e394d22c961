/*-------------------------------------------------------------------------
 *
 * admission.c
 *		Decides who may join a room.
 *
 * Only new presences are checked; a present one is checked again only if its
 * user changes.  A room without rules costs little here: its rules were read
 * with its name, and a table of bans without pages is known to be empty.
 * Rules are checked as the owner of the extension, past row-level security,
 * because the result must not depend on what the caller sees.
 *
 * Locking.  Rules that count are exact under concurrency because an add takes
 * a lock first, then counts in the latest snapshot, and keeps the lock until
 * it commits.  Such a lock stands for a room, or for a user in a room, by its
 * hash, so a transaction never holds more than LOCK_SLOTS of either kind;
 * two that share one only wait for each other.
 *
 * A ban, or the deletion of a room, and a concurrent add do not see each
 * other.  If a worker announces, neither waits: the worker gets the hints of
 * both, and when it handles the second one it finds the other in the table
 * (enforce.c).  To limit how many adds it checks, each hint carries the number
 * of the rules that admitted it, read before they were checked; a ban raises
 * that number once it is visible.  Without a worker an add of a user holds ROW
 * EXCLUSIVE on the table of bans, and a ban takes SHARE ROW EXCLUSIVE, so that
 * it waits, for a limited time, until such transactions have ended.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/guc.h"
#include "base/hash.h"
#include "base/shmem.h"
#include "commands/trigger.h"
#include "members/admission.h"
#include "members/xact.h"
#include "miscadmin.h"
#include "shared/database.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "tables/extension.h"
#include "tables/store.h"
#include "tables/store_presences.h"
#include "tables/store_rooms.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

/* Number of locks of each kind. */
#define LOCK_SLOTS 128

/*
 * How long a ban without a worker waits for adds, in addition to
 * deadlock_timeout, after which an autovacuum of the table is canceled;
 * milliseconds.
 */
#define BAN_LOCK_TIMEOUT 1000

/* The kinds of locks, distinguished by their sub-object number. */
enum
{
	LOCK_ROOM = 1,
	LOCK_USER
};

/* The number of the rules that apply to checks from now on. */
uint64
presence_admission_rules(void)
{
	PresenceDatabase *database = presence_my_database();

	return database ? pg_atomic_read_u64(&database->rules) : 0;
}

/* Note a change of the rules as a hint with one text. */
static void
note_rule(PresenceHintKind kind, PresenceHintField field, text *value)
{
	PresenceValue fields[PRESENCE_NFIELDS] = {0};

	fields[field].data = VARDATA_ANY(value);
	fields[field].length = VARSIZE_ANY_EXHDR(value);
	presence_xact_note(presence_xact_make_hint(kind, 0, fields), NULL);
}

/* Set lock_timeout until the GUC nest level ends. */
static void
limit_lock_waits(int timeout_ms)
{
	char		value[32];

	snprintf(value, sizeof(value), "%d", timeout_ms);
	(void) set_config_option("lock_timeout", value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* How long a ban waits for its lock; milliseconds. */
static int
ban_timeout(void)
{
	if (LockTimeout > 0 && LockTimeout < DeadlockTimeout + BAN_LOCK_TIMEOUT)
		return LockTimeout;
	return DeadlockTimeout + BAN_LOCK_TIMEOUT;
}

/*
 * Wait until all transactions that are adding users have ended, and block
 * others until this one ends.  Raises an error if that takes too long; the end
 * of the (sub)transaction then restores the setting.
 */
static void
lock_bans(void)
{
	Oid			bans = presence_extension_table("bans");
	MemoryContext context = CurrentMemoryContext;
	int			timeout = ban_timeout();
	int			level = NewGUCNestLevel();

	limit_lock_waits(timeout);
	PG_TRY();
	{
		LockRelationOid(bans, ShareRowExclusiveLock);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not ban the user now"),
				 errdetail("A transaction that adds presences has been open for more than %d ms.",
						   timeout),
				 errhint("Repeat the call; keep transactions that add presences short.")));
	}
	PG_END_TRY();
	AtEOXact_GUC(true, level);
}

/*
 * A user is about to be banned.  Concurrent adds are found by the worker or,
 * without one, waited for; error 55P03 if that takes too long.
 */
void
presence_admission_begin_ban(text *user)
{
	if (presence_xact_worker_announces())
		note_rule(PRESENCE_HINT_BAN, PRESENCE_FIELD_USER, user);
	else
		lock_bans();
}

/*
 * A room is being deleted.  If a presence is added concurrently, the worker or
 * prune_rooms() restores the room.  prune_rooms() itself deletes rooms under a
 * lock that excludes adds, so it needs no hint.
 */
void
presence_admission_note_room_deleted(Relation rooms, text *room)
{
	if (presence_shmem_ready() &&
		!CheckRelationLockedByMe(rooms, ShareRowExclusiveLock, true))
		note_rule(PRESENCE_HINT_ROOM_DELETED, PRESENCE_FIELD_ROOM, room);
}

/* Whether there may be bans; the lock blocks lock_bans() until commit. */
static bool
bans_exist(void)
{
	return presence_extension_blocks("bans", RowExclusiveLock) > 0;
}

/*
 * Find out which rules apply to a user, NULL for an anonymous one, who joins;
 * false if none.
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
	LockDatabaseObject(presence_extension_table("rooms"), hash % LOCK_SLOTS, kind,
					   ExclusiveLock);
}

/* Hash a text for a lock; all processes must get the same hash. */
static uint32
hash_text(text *value)
{
	return presence_hash_shared(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

/* Take the locks under which the check counts, until the transaction ends. */
void
presence_admission_lock(const PresenceAdmission *admission, text *room,
						text *user)
{
	if (admission->rules.max_members > 0)
		lock_slot(LOCK_ROOM, hash_text(room));
	if (admission->rate)
		lock_slot(LOCK_USER, hash_combine(hash_text(room), hash_text(user)));
}

/* Raise the error for a user who is not admitted. */
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

/* Raise an error if a user joins too often, else note the admission. */
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

/* Raise an error if a user is banned, or not invited to a private room. */
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

/*
 * Raise an error if a room is full, or a user joins too often.  "counts" says
 * that the new presence is among the live ones already.
 */
static void
check_place(const PresenceAdmission *admission, text *room, text *user,
			bool counts)
{
	int			max_members = admission->rules.max_members;
	int64		full = (int64) max_members + counts;

	if (max_members > 0 &&
		presence_store_count_live(PointerGetDatum(room), full) >= full)
		refuse(PRESENCE_ERRCODE_ROOM_FULL, "room is full",
			   "Try again when somebody has left, or raise max_members by presence_configure_room().",
			   room, user, psprintf("%d", max_members));
	if (admission->rate)
		check_rate(room, user);
}

/*
 * Raise an error unless a user, NULL for an anonymous one, may be in a room.
 * PRESENCE_ENTRANCE_USER is not subject to the limits of members and joins;
 * for the others the caller has called presence_admission_lock().  A presence
 * whose row is not written yet is PRESENCE_ENTRANCE_EXPIRED, because it does
 * not count.
 */
void
presence_admission_check(const PresenceAdmission *admission, text *room,
						 text *user, PresenceEntrance entrance)
{
	PresenceSession caller = presence_extension_become_owner();

	check_user(admission, room, user);
	if (entrance != PRESENCE_ENTRANCE_USER)
		check_place(admission, room, user, entrance == PRESENCE_ENTRANCE_LIVE);
	presence_extension_become_caller(caller);
}

/*
 * Whether a room that has these rules admits users (text[]), NULL for anonymous
 * ones, without asking for each of them: if not, some may have to be refused,
 * or counted one by one.  "some" is one who is not anonymous, or NULL.
 */
bool
presence_admission_admits_all(PresenceRoomRules rules, text *room, Datum users,
							  text *some)
{
	PresenceAdmission admission;
	PresenceSession caller;
	bool		admitted;

	if (!presence_admission_prepare(&admission, rules, some))
		return true;
	if (rules.max_members > 0 || admission.rate)
		return false;
	caller = presence_extension_become_owner();
	admitted = !(admission.bans &&
				 presence_store_bans_any(PointerGetDatum(room), users)) &&
		!(rules.private && presence_store_misses_any(PointerGetDatum(room), users));
	presence_extension_become_caller(caller);
	return admitted;
}

/*
 * Whether the rules do not apply to rows that the current user writes by plain
 * SQL: a superuser, or a role with the privileges of the extension's owner.
 */
static bool
is_exempt(void)
{
	return superuser() || has_privs_of_role(GetUserId(), presence_extension_owner());
}

/* Check the rules of a room for a row that has been written. */
static void
check_row(PresenceRoomRules rules, text *room, text *user,
		  PresenceEntrance entrance)
{
	PresenceAdmission admission;

	if (!presence_admission_prepare(&admission, rules, user))
		return;
	presence_store_connect();
	if (entrance != PRESENCE_ENTRANCE_USER)
		presence_admission_lock(&admission, room, user);
	presence_admission_check(&admission, room, user, entrance);
	presence_store_finish();
}

/*
 * Check the rules for a row that has been written without a check, for a user,
 * NULL for an anonymous one; raises an error if they do not admit it.
 * "anybody" says that the rules apply to exempt roles, too, and to
 * replication.  Returns the number of the rules that admitted it, 0 if none
 * was checked.
 *
 * Creates the room, as the caller, if it does not exist.  Rows that
 * replication applies were admitted at their origin: an error would stop
 * replication, and a room created here would conflict with the replicated one.
 */
uint64
presence_admission_admit_row(text *room, text *user,
							 PresenceEntrance entrance, bool anybody)
{
	uint64		state = presence_admission_rules();
	PresenceRoomRules rules = {0};

	if (SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA && !anybody)
		return 0;
	if (!presence_store_find_room(PointerGetDatum(room), &rules) &&
		entrance != PRESENCE_ENTRANCE_USER)
	{
		presence_store_connect();
		rules = presence_store_enter_room(PointerGetDatum(room));
		presence_store_finish();
	}
	if (!anybody && is_exempt())
		return 0;
	check_row(rules, room, user, entrance);
	return state;
}
