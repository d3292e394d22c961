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
 * Rooms with max_members.  An add reserves a place in the room's occupancy
 * (occupancy.c), and nobody waits.  That counts all members.  Only if the room
 * is full, those who have expired without having been removed yet are counted
 * as well, and their places are free; if there are none, they are not looked
 * for again before LOOK_PAUSE times as long has passed.  If the occupancy of a
 * room is not known, the add counts its members, under the lock of the room.
 * If it cannot be known (without shared memory, without space there, or if the
 * transaction itself has truncated the table), the add counts those who are
 * live in the latest snapshot, and keeps the lock until it commits.
 *
 * Locking.  The limit of joins is exact under concurrency because an add takes
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
#include "shared/backend.h"
#include "shared/database.h"
#include "shared/liveness.h"
#include "shared/occupancy.h"
#include "shared/places.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "tables/extension.h"
#include "tables/scan.h"
#include "tables/store.h"
#include "tables/store_presences.h"
#include "tables/store_rooms.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Number of locks of each kind. */
#define LOCK_SLOTS 128

/*
 * How long a ban without a worker waits for adds, in addition to
 * deadlock_timeout, after which an autovacuum of the table is canceled;
 * milliseconds.
 */
#define BAN_LOCK_TIMEOUT 1000

/*
 * How often to begin to count the members of a room, if its members change at
 * the very moment, and how long to wait for commits then; microseconds.
 */
#define COUNT_ATTEMPTS 100
#define SETTLE_LIMIT (1000 * 1000)

/* How often to look for expired members, if members leave meanwhile. */
#define LOOK_ATTEMPTS 5

/*
 * How long to wait until members who have expired are looked for again, in
 * multiples of the time that it took; microseconds at most.
 */
#define LOOK_PAUSE 10
#define MAX_LOOK_PAUSE (1000 * 1000)

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
	admission->contested = false;
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

/* Take the lock of a room until the transaction ends. */
static void
lock_room(text *room)
{
	lock_slot(LOCK_ROOM, hash_text(room));
}

/* Release it before that; another one that is held stays. */
static void
unlock_room(text *room)
{
	UnlockDatabaseObject(presence_extension_table("rooms"),
						 hash_text(room) % LOCK_SLOTS, LOCK_ROOM, ExclusiveLock);
}

/* Whether the occupancy of rooms can be known to this transaction. */
static bool
knows_occupancy(void)
{
	return presence_my_database() && !presence_xact_has_uncounted();
}

/*
 * Take the locks under which the rules are checked, until the transaction ends;
 * before rows are written, so that these are locked in a fixed order.
 */
void
presence_admission_lock(const PresenceAdmission *admission, text *room,
						text *user)
{
	if (admission->rules.max_members > 0 && !knows_occupancy())
		lock_room(room);
	if (admission->rate)
		lock_slot(LOCK_USER, hash_combine(hash_text(room), hash_text(user)));
}

/* Begin to count a room as a snapshot shows it; true if nothing changed. */
static bool
begin_count(const PresenceName *name, Snapshot snapshot, uint64 settled)
{
	return presence_backend_await(snapshot, SETTLE_LIMIT) &&
		presence_occupancy_begin(name, settled);
}

/*
 * Count the members of a room, whose lock is held, if nobody has done so; false
 * if that is not possible.  The snapshot does not show what this transaction
 * has changed, which it settles itself.
 */
static bool
count_members(const PresenceName *name, text *room)
{
	bool		known = false;
	bool		counted = false;
	uint64		settled;

	for (int attempt = 0; attempt < COUNT_ATTEMPTS && !counted; attempt++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!presence_occupancy_open(name, &settled, &known))
			return false;
		if (known)
			return true;
		PushCopiedSnapshot(GetLatestSnapshot());
		GetActiveSnapshot()->curcid = FirstCommandId;
		if (begin_count(name, GetActiveSnapshot(), settled))
			counted = presence_occupancy_finish(name,
												presence_scan_count(PointerGetDatum(room),
																	GetActiveSnapshot()));
		PopActiveSnapshot();
	}
	return counted;
}

/*
 * Make the occupancy of a room known; false if that is not possible.  Then the
 * lock of the room is held.
 */
static bool
make_known(const PresenceName *name, text *room)
{
	presence_scan_lock();		/* first: who truncates may wait for the room */
	lock_room(room);
	if (!count_members(name, room))
		return false;
	unlock_room(room);
	return true;
}

/*
 * A room is full: have those deducted who have expired.  The lock on the table
 * may have to be waited for; after that the room may not be full any more.
 */
static void
deduct_expired(const PresenceName *name, text *room,
			   PresenceOccupancyRequest *request)
{
	PresenceTime start = presence_clock_now();
	PresenceCutoff cutoff;

	presence_scan_lock();
	if (start < request->look_at)
		return;
	cutoff = presence_liveness_cutoff();
	request->since = request->left;
	CommandCounterIncrement();	/* who was removed by this command is gone */
	PushCopiedSnapshot(GetLatestSnapshot());
	request->expired = presence_scan_count_expired(PointerGetDatum(room),
												   GetActiveSnapshot(), &cutoff);
	PopActiveSnapshot();
	if (request->expired > 0 &&
		presence_liveness_checked_cutoff(PRESENCE_OWN_AGE).grace_start != cutoff.grace_start)
		request->expired = 0;
	if (request->expired == 0)
		presence_occupancy_put_off(name, start +
								   Min((presence_clock_now() - start) * LOOK_PAUSE,
									   MAX_LOOK_PAUSE));
}

/* Reserve places in a room whose occupancy can be known; false if it cannot. */
static bool
reserve_known(text *room, PresenceOccupancyRequest *request, int places,
			  bool later, PresenceOccupancyAnswer *answer)
{
	PresenceName name = presence_name_of_text(room);
	int			savepoint = presence_xact_begin_places();
	int			looks = 0;

	for (;;)
	{
		uint64		left = request->left;

		CHECK_FOR_INTERRUPTS();
		*answer = presence_places_reserve(&name, request, places, later, savepoint);
		if (*answer == PRESENCE_OCCUPANCY_RESERVED)
			return true;
		if (*answer == PRESENCE_OCCUPANCY_UNKNOWN)
		{
			if (!make_known(&name, room))
				return false;
		}
		else if ((looks > 0 && request->left == left) || looks == LOOK_ATTEMPTS)
			return true;
		else
		{
			deduct_expired(&name, room, request);
			looks++;
		}
	}
}

/*
 * Whether a room has places, by counting the live members in it.  Its lock is
 * held until the transaction ends.
 */
static bool
has_places(text *room, const PresenceOccupancyRequest *request, int places)
{
	PresenceName name = presence_name_of_text(room);
	int64		most;

	lock_room(room);
	most = request->max_members + request->counted - places;
	if (presence_shmem_ready())
		most -= presence_occupancy_suspend(&name) - presence_places_held(&name);
	return most >= 0 &&
		presence_store_count_live(PointerGetDatum(room), most + 1) <= most;
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

/* Raise the error for a user for whom a room has no place. */
void
presence_admission_refuse(const PresenceAdmission *admission, text *room,
						  text *user)
{
	refuse(PRESENCE_ERRCODE_ROOM_FULL, "room is full",
		   admission->contested ?
		   "Try again: an open transaction may hold the place, and give it back." :
		   "Try again when somebody has left, or raise max_members by presence_configure_room().",
		   room, user, psprintf("%d", admission->rules.max_members));
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
 * Raise an error unless a user, NULL for an anonymous one, may be in a room.
 * One who joins needs a place, too.
 */
void
presence_admission_check(const PresenceAdmission *admission, text *room,
						 text *user)
{
	PresenceSession caller = presence_extension_become_owner();

	check_user(admission, room, user);
	presence_extension_become_caller(caller);
}

/*
 * Reserve places in a room until the transaction ends; false if it is full.
 *
 * For PRESENCE_ENTRANCE_JOIN, the trigger calls presence_places_use() for each
 * row that is written under a ticket, and the caller
 * presence_admission_return() for those that are not written after all.
 */
bool
presence_admission_reserve(PresenceAdmission *admission, text *room,
						   int places, PresenceEntrance entrance)
{
	PresenceSession caller;
	PresenceOccupancyRequest request = {.max_members = admission->rules.max_members};
	PresenceOccupancyAnswer answer = PRESENCE_OCCUPANCY_UNKNOWN;
	bool		granted;

	if (admission->rules.max_members <= 0)
		return true;
	request.counted = entrance == PRESENCE_ENTRANCE_REVIVED;
	if (knows_occupancy() &&
		reserve_known(room, &request, places, entrance == PRESENCE_ENTRANCE_JOIN, &answer))
	{
		admission->contested = request.contested;
		return answer == PRESENCE_OCCUPANCY_RESERVED;
	}
	request.counted = entrance >= PRESENCE_ENTRANCE_LIVE ? places : 0;
	caller = presence_extension_become_owner();
	granted = has_places(room, &request, places);
	presence_extension_become_caller(caller);
	return granted;
}

/* Give back places that were reserved for rows that were not written. */
void
presence_admission_return(const PresenceAdmission *admission, text *room,
						  int places)
{
	PresenceName name;

	if (admission->rules.max_members <= 0 || places == 0 ||
		!presence_places_is_active())
		return;
	name = presence_name_of_text(room);
	presence_places_return(&name, places, presence_xact_begin_places());
}

/* Raise an error if a user joins too often, else note the admission. */
void
presence_admission_count_join(const PresenceAdmission *admission, text *room,
							  text *user)
{
	PresenceSession caller;

	if (!admission->rate)
		return;
	caller = presence_extension_become_owner();
	check_rate(room, user);
	presence_extension_become_caller(caller);
}

/*
 * Whether a room that has these rules admits users (text[]), NULL for anonymous
 * ones, if it has places for them, without asking for each of them: if not,
 * some may have to be refused, or counted one by one.  "some" is one who is not
 * anonymous, or NULL.
 */
bool
presence_admission_admits_all(PresenceAdmission *admission, PresenceRoomRules rules,
							  text *room, Datum users, text *some)
{
	PresenceSession caller;
	bool		admitted;

	if (!presence_admission_prepare(admission, rules, some))
		return true;
	if (admission->rate)
		return false;
	if (!admission->bans && !rules.private)
		return true;
	caller = presence_extension_become_owner();
	admitted = !(admission->bans &&
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
	presence_admission_check(&admission, room, user);
	if (entrance != PRESENCE_ENTRANCE_USER)
	{
		if (!presence_admission_reserve(&admission, room, 1, entrance))
			presence_admission_refuse(&admission, room, user);
		presence_admission_count_join(&admission, room, user);
	}
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
