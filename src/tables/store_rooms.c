/*-------------------------------------------------------------------------
 *
 * store_rooms.c
 *		Statements on rooms, and on bans, invitations and admissions.
 *
 * A transaction that enters a room holds ROW EXCLUSIVE on presence.rooms until
 * its end; one that removes empty rooms holds SHARE ROW EXCLUSIVE.  So a room
 * cannot be removed as empty while a transaction is entering it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "tables/extension.h"
#include "tables/store.h"
#include "tables/store_rooms.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"

/* Columns of presence.rooms. */
enum
{
	ROOM_NAME = 1,
	ROOM_META,
	ROOM_MAX_MEMBERS,
	ROOM_PRIVATE,
	ROOM_PERSISTENT,
	ROOM_ANNOUNCE
};

/* The values of the last one. */
static const char *const announce_names[] = {
	[PRESENCE_ANNOUNCE_ALL] = "all",
	[PRESENCE_ANNOUNCE_COUNTS] = "counts",
	[PRESENCE_ANNOUNCE_NONE] = "none"
};

/* Rooms that are kept though empty: their rules would end with them. */
#define SQL_ENDS(r) \
	"NOT " r ".persistent AND NOT " r ".private AND " r ".announce IS NULL"


static PresenceStatement insert_room = {
	"INSERT INTO presence.rooms (name) VALUES ($1) ON CONFLICT DO NOTHING",
	1, {TEXTOID}
};

/* Of the next rooms by name: the last name, and those that may be removed. */
static PresenceStatement next_rooms = {
	"SELECT pg_catalog.max(r.name), pg_catalog.array_agg(r.name) FILTER (WHERE r.ends)"
	" FROM (SELECT x.name, " SQL_ENDS("x") " AS ends"
	" FROM presence.rooms x WHERE x.name " SQL_GT " $1"
	" ORDER BY x.name LIMIT $2) r",
	2, {TEXTOID, INT8OID}
};

/* OFFSET 0 keeps the planner from scanning all presences. */
static PresenceStatement empty_among = {
	"SELECT pg_catalog.array_agg(r.name) FROM pg_catalog.unnest($1) AS r (name)"
	" WHERE NOT EXISTS (SELECT FROM presence.presences p WHERE p.room " SQL_EQ " r.name OFFSET 0)",
	1, {TEXTARRAYOID}
};

static PresenceStatement delete_rooms = {
	"DELETE FROM presence.rooms r WHERE r.name " SQL_EQ " ANY ($1)"
	" AND " SQL_ENDS("r"),
	1, {TEXTARRAYOID}
};

static PresenceStatement shows_room = {
	"SELECT 1 FROM presence.rooms r WHERE r.name " SQL_EQ " $1",
	1, {TEXTOID}
};

/* Rows written with triggers disabled may have invalid room names. */
#define NAMES_A_ROOM \
	" AND pg_catalog.char_length(n.name) " SQL_GT " 0" \
	" AND pg_catalog.char_length(n.name) OPERATOR(pg_catalog.<=) 255"

/* Inserts rooms that have presences, but were deleted concurrently. */
static PresenceStatement restore_rooms = {
	"INSERT INTO presence.rooms (name) SELECT n.name"
	" FROM (SELECT DISTINCT u.name FROM pg_catalog.unnest($1) AS u (name)) n"
	" WHERE NOT EXISTS (SELECT FROM presence.rooms r WHERE r.name " SQL_EQ " n.name)"
	" AND EXISTS (SELECT FROM presence.presences p WHERE p.room " SQL_EQ " n.name)"
	NAMES_A_ROOM " ON CONFLICT DO NOTHING",
	1, {TEXTARRAYOID}
};

/* The same for all rooms; a loose index scan finds their names. */
static PresenceStatement restore_all_rooms = {
	"WITH RECURSIVE n (name) AS ("
	"SELECT pg_catalog.min(p.room) FROM presence.presences p UNION ALL"
	" SELECT (SELECT pg_catalog.min(p.room) FROM presence.presences p"
	" WHERE p.room " SQL_GT " n.name) FROM n WHERE n.name IS NOT NULL)"
	" INSERT INTO presence.rooms (name) SELECT n.name FROM n WHERE n.name IS NOT NULL"
	" AND NOT EXISTS (SELECT FROM presence.rooms r WHERE r.name " SQL_EQ " n.name)"
	NAMES_A_ROOM " ON CONFLICT DO NOTHING",
	0
};

static PresenceStatement is_banned = {
	"SELECT 1 FROM presence.bans b WHERE b.user_id " SQL_EQ " $2"
	" AND (b.room " SQL_EQ " $1 OR b.room IS NULL)"
	" AND b.until " SQL_GT " pg_catalog.clock_timestamp()",
	2, {TEXTOID, TEXTOID}
};

/* Whether a room bans any of the users. */
static PresenceStatement bans_any = {
	"SELECT 1 FROM presence.bans b WHERE b.user_id " SQL_EQ " ANY ($2)"
	" AND (b.room " SQL_EQ " $1 OR b.room IS NULL)"
	" AND b.until " SQL_GT " pg_catalog.clock_timestamp() LIMIT 1",
	2, {TEXTOID, TEXTARRAYOID},
	.few = true
};

/* Whether a room invites any of the users not; OFFSET 0: by the index. */
static PresenceStatement misses_any = {
	"SELECT 1 FROM pg_catalog.unnest($2) AS u (id)"
	" WHERE NOT EXISTS (SELECT FROM presence.invitations i"
	" WHERE i.room " SQL_EQ " $1 AND i.user_id " SQL_EQ " u.id OFFSET 0) LIMIT 1",
	2, {TEXTOID, TEXTARRAYOID}
};

static PresenceStatement ban = {
	"INSERT INTO presence.bans (room, user_id, until, reason) VALUES ($1, $2, $3, $4)"
	" ON CONFLICT (user_id, room) DO UPDATE"
	" SET until = excluded.until, reason = excluded.reason",
	4, {TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID}
};

static PresenceStatement unban = {
	"DELETE FROM presence.bans b WHERE b.user_id " SQL_EQ " $2"
	" AND (b.room " SQL_EQ " $1 OR (b.room IS NULL AND $1 IS NULL))",
	2, {TEXTOID, TEXTOID}
};

static PresenceStatement is_invited = {
	"SELECT 1 FROM presence.invitations i"
	" WHERE i.room " SQL_EQ " $1 AND i.user_id " SQL_EQ " $2",
	2, {TEXTOID, TEXTOID}
};

static PresenceStatement invite = {
	"INSERT INTO presence.invitations (room, user_id) VALUES ($1, $2)"
	" ON CONFLICT DO NOTHING",
	2, {TEXTOID, TEXTOID}
};

static PresenceStatement uninvite = {
	"DELETE FROM presence.invitations i"
	" WHERE i.room " SQL_EQ " $1 AND i.user_id " SQL_EQ " $2",
	2, {TEXTOID, TEXTOID}
};

static PresenceStatement count_admissions = {
	"SELECT pg_catalog.count(*) FROM presence.admissions a"
	" WHERE a.user_id " SQL_EQ " $2 AND a.room " SQL_EQ " $1 AND a.admitted_at " SQL_GE " $3",
	3, {TEXTOID, TEXTOID, TIMESTAMPTZOID}
};

static PresenceStatement note_admission = {
	"INSERT INTO presence.admissions (room, user_id, admitted_at)"
	" VALUES ($1, $2, pg_catalog.clock_timestamp())",
	2, {TEXTOID, TEXTOID}
};

static PresenceStatement forget_admissions = {
	"DELETE FROM presence.admissions a USING ("
	"SELECT x.ctid AS tid FROM presence.admissions x WHERE " SQL_IN_BLOCKS("x")
	" AND x.admitted_at " SQL_LT " $3 FOR UPDATE SKIP LOCKED) l WHERE a.ctid " SQL_EQ " l.tid",
	3, {TIDOID, TIDOID, TIMESTAMPTZOID}
};

/*
 * Read a room's current rules; false if there is no such room.  No privileges
 * or policies apply: hiding a room must not lift its rules.
 */
static bool
look_up_room(Oid table, Datum room, PresenceRoomRules *rules)
{
	Relation	relation = table_open(table, NoLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;
	bool		isnull;

	list_free(RelationGetIndexList(relation));	/* finds rd_pkindex */
	ScanKeyInit(&key, ROOM_NAME, BTEqualStrategyNumber, F_TEXTEQ, room);
	scan = systable_beginscan(relation, relation->rd_pkindex,
							  OidIsValid(relation->rd_pkindex), snapshot, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		TupleDesc	desc = RelationGetDescr(relation);
		Datum		max_members = heap_getattr(tuple, ROOM_MAX_MEMBERS, desc, &isnull);

		rules->max_members = isnull ? 0 : DatumGetInt32(max_members);
		rules->private = DatumGetBool(heap_getattr(tuple, ROOM_PRIVATE, desc, &isnull));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(relation, NoLock);
	return found;
}

/*
 * Find a room and its rules; false if there is no such room.  The lock keeps
 * it from being removed as empty until the transaction ends.  Needs no SPI.
 */
bool
presence_store_find_room(Datum room, PresenceRoomRules *rules)
{
	Oid			table = presence_extension_table("rooms");

	LockRelationOid(table, RowExclusiveLock);
	return look_up_room(table, room, rules);
}

/* How a value says that a room is announced; NULL: it does not. */
PresenceAnnounce
presence_store_parse_announce(const char *name)
{
	for (int i = PRESENCE_ANNOUNCE_ALL; name && i < lengthof(announce_names); i++)
		if (strcmp(name, announce_names[i]) == 0)
			return i;
	return PRESENCE_ANNOUNCE_DEFAULT;
}

/* The value for that. */
const char *
presence_store_announce_name(PresenceAnnounce announce)
{
	return announce_names[announce];
}

/* Begin to read how rooms are announced, in the active snapshot. */
PresenceReader
presence_store_rooms_open(void)
{
	return presence_scan_open("rooms", "rooms_pkey", ROOM_NAME);
}

/* How a room says that it is announced. */
PresenceAnnounce
presence_store_rooms_announce(PresenceReader *rooms, const char *name)
{
	char	   *value = NULL;

	presence_scan_seek(rooms, name);
	if (presence_scan_next(rooms))
		value = presence_scan_string(rooms, ROOM_ANNOUNCE);
	presence_scan_rest(rooms);
	return presence_store_parse_announce(value);
}

/* Raise the error for a room whose row was not inserted. */
static void
reject_room(Datum room)
{
	char	   *suppressor = presence_extension_suppressor("rooms", true);

	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
			 errmsg("could not make room \"%s\"", TextDatumGetCString(room)),
			 suppressor ?
			 errdetail("Trigger \"%s\" of presence.rooms, or another one, suppressed its row.",
					   suppressor) :
			 errdetail("The statement that inserts its row into presence.rooms had no effect."),
			 errhint("Have the trigger return the row, or raise an error that says why it refuses it.")));
}

/*
 * Make sure that a room exists, and is not removed as empty until the
 * transaction ends; returns its rules.  A missing room is inserted as the
 * caller.  A new room has no rules; if its row was not inserted, because of a
 * concurrent insert or a trigger, look again.
 */
PresenceRoomRules
presence_store_enter_room(Datum room)
{
	PresenceRoomRules rules = {0};

	if (!presence_store_find_room(room, &rules) &&
		presence_store_run(&insert_room, &room, NULL) == 0 &&
		!presence_store_find_room(room, &rules))
		reject_room(room);
	return rules;
}

/* Whether there is a room that the caller may see. */
bool
presence_store_shows_room(Datum room)
{
	return presence_store_finds(&shows_room, &room);
}

/* Block transactions that enter rooms, after waiting for current ones. */
void
presence_store_lock_rooms(void)
{
	LockRelationOid(presence_extension_table("rooms"), ShareRowExclusiveLock);
}

/* Those of the rooms (text[]) that are empty, as seen by the owner, or NULL. */
static ArrayType *
find_empty(Datum rooms)
{
	PresenceSession caller = presence_extension_become_owner();
	ArrayType  *empty;

	(void) presence_store_run_newest(&empty_among, &rooms, NULL);
	empty = presence_store_array();
	presence_extension_become_caller(caller);
	return empty;
}

/*
 * Find empty rooms (text[], or NULL) among the next "limit" rooms after a name
 * that the caller can see.  Takes no lock that keeps them empty.  *last is set
 * to the last room examined, or to NULL if there are no more.
 */
ArrayType *
presence_store_empty_rooms(text *after, int limit, text **last)
{
	Datum		values[] = {PointerGetDatum(after), Int64GetDatum(limit)};
	bool		none;
	bool		isnull;
	Datum		name;
	Datum		rooms;

	(void) presence_store_run_newest(&next_rooms, values, NULL);
	name = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	*last = isnull ? NULL : DatumGetTextPCopy(name);
	rooms = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &none);
	if (!none)
		rooms = PointerGetDatum(DatumGetArrayTypePCopy(rooms));
	SPI_freetuptable(SPI_tuptable);
	return none ? NULL : find_empty(rooms);
}

/*
 * Remove those of the rooms (text[]) that are empty and that the caller may
 * delete; returns their number.  The caller must have called
 * presence_store_lock_rooms().  Uses the newest snapshot, even if the
 * transaction has an older one.
 */
uint64
presence_store_delete_empty_rooms(ArrayType *rooms)
{
	ArrayType  *empty = find_empty(PointerGetDatum(rooms));
	Datum		value = PointerGetDatum(empty);

	return empty ? presence_store_run_newest(&delete_rooms, &value, NULL) : 0;
}

/* As owner, insert rooms (text[]; 0: all) that have presences but no row. */
void
presence_store_restore_rooms(Datum rooms)
{
	PresenceSession caller = presence_extension_become_owner();

	if (rooms)
		(void) presence_store_run(&restore_rooms, &rooms, NULL);
	else
		(void) presence_store_run(&restore_all_rooms, NULL, NULL);
	presence_extension_become_caller(caller);
}

/* Whether a user is banned from a room, or from all rooms. */
bool
presence_store_is_banned(Datum room, Datum user)
{
	Datum		values[] = {room, user};

	return presence_store_any(presence_store_run_newest(&is_banned, values, NULL));
}

/* Whether any of the users (text[]) is banned from a room, or from all. */
bool
presence_store_bans_any(Datum room, Datum users)
{
	Datum		values[] = {room, users};

	return presence_store_any(presence_store_run_newest(&bans_any, values, NULL));
}

/* Whether any of the users (text[]) is not invited to a room; NULL never is. */
bool
presence_store_misses_any(Datum room, Datum users)
{
	Datum		values[] = {room, users};

	return presence_store_any(presence_store_run_newest(&misses_any, values, NULL));
}

/* Ban a user from a room, or from all rooms. */
void
presence_store_ban(Datum room, Datum user, Datum until, Datum reason,
				   bool all_rooms, bool has_reason)
{
	Datum		values[] = {room, user, until, reason};
	char		nulls[] = {all_rooms ? 'n' : ' ', ' ', ' ', has_reason ? ' ' : 'n'};

	(void) presence_store_run(&ban, values, nulls);
}

/* End a ban; false if there was none. */
bool
presence_store_unban(Datum room, Datum user, bool all_rooms)
{
	Datum		values[] = {room, user};
	char		nulls[] = {all_rooms ? 'n' : ' ', ' '};

	return presence_store_run(&unban, values, nulls) > 0;
}

/* Whether a user is invited to a room. */
bool
presence_store_is_invited(Datum room, Datum user)
{
	Datum		values[] = {room, user};

	return presence_store_any(presence_store_run_newest(&is_invited, values, NULL));
}

/* Invite a user to a room; false if invited already. */
bool
presence_store_invite(Datum room, Datum user)
{
	Datum		values[] = {room, user};

	return presence_store_run(&invite, values, NULL) > 0;
}

/* Revoke an invitation; false if there was none. */
bool
presence_store_uninvite(Datum room, Datum user)
{
	Datum		values[] = {room, user};

	return presence_store_run(&uninvite, values, NULL) > 0;
}

/* How often a user was admitted to a room since a time. */
uint64
presence_store_count_admissions(Datum room, Datum user, TimestampTz since)
{
	Datum		values[] = {room, user, TimestampTzGetDatum(since)};

	(void) presence_store_run_newest(&count_admissions, values, NULL);
	return presence_store_count();
}

/* Note that a user was admitted to a room. */
void
presence_store_note_admission(Datum room, Datum user)
{
	Datum		values[] = {room, user};

	(void) presence_store_run(&note_admission, values, NULL);
}

/* Remove admissions before a time from a range of blocks. */
void
presence_store_forget_admissions(BlockNumber from, BlockNumber to, TimestampTz before)
{
	presence_store_run_in_blocks(&forget_admissions, from, to, before);
}
