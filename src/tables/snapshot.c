/*-------------------------------------------------------------------------
 *
 * snapshot.c
 *		Reads a whole room as one JSON object.
 *
 * The rows are read by a statement, as the caller, and put together here: with
 * a function of SQL for each member, each time and each list, a room of
 * 100,000 takes several times as long.  Memory is that of the rows and of the
 * members as JsonbValues, until the object is serialized.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/json.h"
#include "base/name.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "tables/snapshot.h"
#include "tables/store.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

static PresenceStatement snapshot_room = {
	"SELECT m.id, m.channel_name, m.user_id, m.meta, m.joined_at, m.last_seen"
	" FROM presence.members m WHERE m.room " SQL_EQ " $1",
	1, {TEXTOID}
};

/* Columns of that statement. */
enum
{
	MEMBER_ID = 1,
	MEMBER_CHANNEL,
	MEMBER_USER,
	MEMBER_META,
	MEMBER_JOINED_AT,
	MEMBER_LAST_SEEN
};

/* A member of the room; members are in the order of the first two fields. */
typedef struct SnapshotMember
{
	TimestampTz joined_at;
	int64		id;
	HeapTuple	tuple;
} SnapshotMember;

/* A user of the room. */
typedef struct SnapshotUser
{
	PresenceName name;			/* key; points into a row */
	char		status;			/* for simplehash */
} SnapshotUser;

#define SH_PREFIX snapusers
#define SH_ELEMENT_TYPE SnapshotUser
#define SH_KEY_TYPE PresenceName
#define SH_KEY name
#define SH_HASH_KEY(tb, key) (key).hash
#define SH_EQUAL(tb, a, b) presence_name_equal(&(a), &(b))
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* A snapshot that is being built. */
typedef struct RoomSnapshot
{
	JsonbParseState *state;
	TupleDesc	desc;
	SnapshotMember *members;
	uint64		nmembers;
	snapusers_hash *users;
	int64		anonymous;
} RoomSnapshot;

/* Order members. */
static int
compare_members(const void *a, const void *b)
{
	const SnapshotMember *left = a;
	const SnapshotMember *right = b;

	CHECK_FOR_INTERRUPTS();
	if (left->joined_at != right->joined_at)
		return left->joined_at < right->joined_at ? -1 : 1;
	return (left->id > right->id) - (left->id < right->id);
}

/* A column of a row; 0 for NULL. */
static Datum
get_column(const RoomSnapshot *room, HeapTuple tuple, int column)
{
	bool		isnull;
	Datum		datum = SPI_getbinval(tuple, room->desc, column, &isnull);

	return isnull ? (Datum) 0 : datum;
}

/* Take the rows of the result, in order. */
static void
take_members(RoomSnapshot *room, uint64 count)
{
	room->desc = SPI_tuptable->tupdesc;
	room->nmembers = count;
	room->members = MemoryContextAllocHuge(CurrentMemoryContext,
										   Max(count, 1) * sizeof(SnapshotMember));
	for (uint64 i = 0; i < count; i++)
	{
		SnapshotMember *member = &room->members[i];

		CHECK_FOR_INTERRUPTS();
		member->tuple = SPI_tuptable->vals[i];
		member->joined_at = DatumGetTimestampTz(get_column(room, member->tuple, MEMBER_JOINED_AT));
		member->id = DatumGetInt64(get_column(room, member->tuple, MEMBER_ID));
	}
	qsort(room->members, count, sizeof(SnapshotMember), compare_members);
}

/* Make a string value of bytes that stay where they are. */
static JsonbValue
string_value(const char *data, int length)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, data);
	value.val.string.len = length;
	return value;
}

/* Add a key. */
static void
push_key(RoomSnapshot *room, const char *key)
{
	JsonbValue	value = string_value(key, strlen(key));

	(void) pushJsonbValue(&room->state, WJB_KEY, &value);
}

/* Add a key and its value. */
static void
push(RoomSnapshot *room, const char *key, JsonbValue value)
{
	push_key(room, key);
	(void) pushJsonbValue(&room->state, WJB_VALUE, &value);
}

/* The same for a number. */
static void
push_number(RoomSnapshot *room, const char *key, int64 number)
{
	JsonbValue	value;

	value.type = jbvNumeric;
	value.val.numeric = int64_to_numeric(number);
	push(room, key, value);
}

/* The same for a text, 0 for null. */
static void
push_text(RoomSnapshot *room, const char *key, Datum datum)
{
	JsonbValue	value = {.type = jbvNull};

	if (datum)
	{
		text	   *txt = DatumGetTextPP(datum);

		value = string_value(VARDATA_ANY(txt), VARSIZE_ANY_EXHDR(txt));
	}
	push(room, key, value);
}

/* The same for a time; null if it is infinite. */
static void
push_time(RoomSnapshot *room, const char *key, TimestampTz time)
{
	JsonbValue	value = {.type = jbvNull};
	char		buffer[PRESENCE_JSON_TIME_SIZE];
	int			length = presence_json_format_time(buffer, time);

	if (length > 0)
		value = string_value(pnstrdup(buffer, length), length);
	push(room, key, value);
}

/* The same for JSON, 0 for null. */
static void
push_jsonb(RoomSnapshot *room, const char *key, Datum datum)
{
	JsonbValue	value = {.type = jbvNull};

	if (datum)
	{
		Jsonb	   *jsonb = DatumGetJsonbP(datum);

		value.type = jbvBinary;
		value.val.binary.data = &jsonb->root;
		value.val.binary.len = VARSIZE(jsonb) - VARHDRSZ;
	}
	push(room, key, value);
}

/* Count the user of a member. */
static void
count_user(RoomSnapshot *room, Datum user)
{
	bool		found;

	if (user == 0)
		room->anonymous++;
	else
		(void) snapusers_insert(room->users,
								presence_name_of_text(DatumGetTextPP(user)), &found);
}

/* Add a member. */
static void
push_member(RoomSnapshot *room, const SnapshotMember *member)
{
	HeapTuple	tuple = member->tuple;
	Datum		user = get_column(room, tuple, MEMBER_USER);

	count_user(room, user);
	(void) pushJsonbValue(&room->state, WJB_BEGIN_OBJECT, NULL);
	push_number(room, "id", member->id);
	push_text(room, "channel_name", get_column(room, tuple, MEMBER_CHANNEL));
	push_text(room, "user_id", user);
	push_jsonb(room, "meta", get_column(room, tuple, MEMBER_META));
	push_time(room, "joined_at", member->joined_at);
	push_time(room, "last_seen",
			  DatumGetTimestampTz(get_column(room, tuple, MEMBER_LAST_SEEN)));
	(void) pushJsonbValue(&room->state, WJB_END_OBJECT, NULL);
}

/* Add the list of members. */
static void
push_members(RoomSnapshot *room)
{
	push_key(room, "members");
	(void) pushJsonbValue(&room->state, WJB_BEGIN_ARRAY, NULL);
	for (uint64 i = 0; i < room->nmembers; i++)
	{
		CHECK_FOR_INTERRUPTS();
		push_member(room, &room->members[i]);
	}
	(void) pushJsonbValue(&room->state, WJB_END_ARRAY, NULL);
}

/*
 * What presence_snapshot() returns: "epoch" and "seq", if "has_seq", are those
 * of the last event before the room is read.  The room is read in a new
 * snapshot where the isolation level allows one.
 */
Jsonb *
presence_snapshot_read(Datum name, const char *epoch, int64 seq, bool has_seq)
{
	RoomSnapshot room = {NULL};
	uint64		count = presence_store_run(&snapshot_room, &name, NULL);
	JsonbValue	null = {.type = jbvNull};
	Jsonb	   *result;

	take_members(&room, count);
	room.users = snapusers_create(CurrentMemoryContext, 64, NULL);
	(void) pushJsonbValue(&room.state, WJB_BEGIN_OBJECT, NULL);
	push_text(&room, "room", name);
	push(&room, "epoch", epoch ? string_value(epoch, strlen(epoch)) : null);
	if (has_seq)
		push_number(&room, "seq", seq);
	else
		push(&room, "seq", null);
	push_members(&room);
	push_number(&room, "connections", room.nmembers);
	push_number(&room, "users", room.users->members);
	push_number(&room, "anonymous", room.anonymous);
	result = JsonbValueToJsonb(pushJsonbValue(&room.state, WJB_END_OBJECT, NULL));
	SPI_freetuptable(SPI_tuptable);
	return result;
}
