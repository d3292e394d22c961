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
 * A ban, or the deletion of a room, and an add that commit beside each other
 * do not see each other.  Where a worker announces, neither waits: the ban's
 * hint and the add's both come to the worker, and whichever comes second finds
 * the other in the table (enforce.c).  So that only few adds are looked at, each
 * carries the number of the rules that let it in, read before they were asked;
 * a ban raises that number once it can be seen.  Without a worker an add of a
 * user holds the weak lock of a writer on the table of bans, and a ban waits,
 * bounded, until such transactions have ended.
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

/* How many locks of one kind there are. */
#define LOCK_SLOTS 128

/*
 * How long a ban without a worker waits for those who add; milliseconds beyond
 * deadlock_timeout, after which an autovacuum of the table gives way.
 */
#define BAN_LOCK_TIMEOUT 1000

/* The kinds of locks, told apart by their sub-object number. */
enum
{
	LOCK_ROOM = 1,
	LOCK_USER
};

/* Which state of the rules lets in who is asked from now on. */
uint64
presence_admission_rules(void)
{
	PresenceDatabase *database = presence_my_database();

	return database ? pg_atomic_read_u64(&database->rules) : 0;
}

/* Note a change of the rules, which carries one text. */
static void
note_rule(PresenceHintKind kind, PresenceHintField field, text *value)
{
	PresenceValue fields[PRESENCE_NFIELDS] = {0};

	fields[field].data = VARDATA_ANY(value);
	fields[field].length = VARSIZE_ANY_EXHDR(value);
	presence_xact_note(presence_hint_make(kind, 0, fields));
}

/* Let waits for locks end in an error after so long, until the level ends. */
static void
limit_lock_waits(int timeout_ms)
{
	char		value[32];

	snprintf(value, sizeof(value), "%d", timeout_ms);
	(void) set_config_option("lock_timeout", value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* How long a ban waits; milliseconds. */
static int
ban_timeout(void)
{
	if (LockTimeout > 0 && LockTimeout < DeadlockTimeout + BAN_LOCK_TIMEOUT)
		return LockTimeout;
	return DeadlockTimeout + BAN_LOCK_TIMEOUT;
}

/*
 * Wait until all transactions that are adding users have ended, and keep others
 * out until this one ends.  Raises an error when that takes too long; the end of
 * the (sub)transaction then gives the setting back.
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
 * A user is about to be banned.  Who enters beside is found by the worker, or,
 * without one, waited for: 55P03 where that takes too long.
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
 * A room is being deleted.  Who enters it beside is given the room anew, by the
 * worker or by prune_rooms(); the latter deletes rooms only under a lock that
 * keeps everybody out.
 */
void
presence_admission_note_room_deleted(Relation rooms, text *room)
{
	if (presence_shmem_ready() &&
		!CheckRelationLockedByMe(rooms, ShareRowExclusiveLock, true))
		note_rule(PRESENCE_HINT_ROOM_DELETED, PRESENCE_FIELD_ROOM, room);
}

/* Whether there may be any bans; keeps new ones waiting for this transaction. */
static bool
bans_exist(void)
{
	LockRelationOid(presence_extension_table("bans"), RowExclusiveLock);
	return presence_extension_blocks("bans") > 0;
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
	LockDatabaseObject(presence_extension_table("rooms"), hash % LOCK_SLOTS, kind,
					   ExclusiveLock);
}

/* Hash a text, in all processes alike: the same lock has to be the same. */
static uint32
hash_text(text *value)
{
	return presence_hash_shared(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
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

/*
 * Refuse who takes a place that is not there, or takes places too often; it may
 * be that he "counts" already.
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
 * Raise an error unless a user, NULL for an anonymous one, may enter a room.
 * Who is in already, as another user, needs no place; for the others
 * presence_admission_lock() was called before.  Who has no row yet does not
 * count, as who has one and is dead.
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
 * Whether who writes rows by plain SQL is not bound by the rules: superusers, and
 * who may do as the owner of the extension.
 */
static bool
is_exempt(void)
{
	return superuser() || has_privs_of_role(GetUserId(), presence_extension_owner());
}

/* Ask the rules of a room about who has a row in it now. */
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
 * Admit a user, NULL for an anonymous one, who is in a room by a row that nobody
 * was asked about, or raise an error.  "anybody": the owner is asked, too.
 * Returns which state of the rules let him in; 0: none was asked.
 *
 * Makes the room, as the caller, where it is not there.  What replication applies
 * was admitted where it comes from: an error would stop it, and a room that is
 * made would be in the way of the one that follows.
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
