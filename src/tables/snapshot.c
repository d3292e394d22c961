/*-------------------------------------------------------------------------
 *
 * snapshot.c
 *		Reads a whole room as one JSON object.
 *
 * The rows are read by a statement, as the caller, and kept as they come from
 * the executor, but packed.  When all are known they are put in order and
 * written as jsonb, straight into the result.  Memory that is touched for the
 * first time is what a large room costs most, so neither rows nor JsonbValues
 * are kept: memory is that of the result, the bytes of names and meta, 40 bytes
 * for each member, and a table of the users.  Of a room with more members than
 * are asked for, the first ones by channel are kept, and of the others no more
 * than the names of their users: all are counted.
 *
 * What is written here is the format of jsonb, as utils/jsonb.h documents it:
 * an array or object, here a node, is a header, the JEntries of its children,
 * and what they contain.  A JEntry says what the child is and how long, or, one
 * in JB_OFFSET_STRIDE, where it ends.  Numbers and nodes begin at multiples of
 * four bytes; the bytes before them belong to their length.  The children of
 * an object are its keys, by length and then bytes, and then their values.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/json.h"
#include "base/name.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "shared/liveness.h"
#include "tables/snapshot.h"
#include "tables/store.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/*
 * Whether a presence is live is asked here, once for each row, and not by
 * presence.members, which looks into the registry twice.  These are the
 * columns of the table in their order, so the executor need not form rows.
 */
static PresenceStatement snapshot_room = {
	"SELECT p.id, p.room, p.channel_name, p.user_id, p.meta, p.joined_at, p.last_seen"
	" FROM presence.presences p WHERE p.room " SQL_EQ " $1",
	1, {TEXTOID}
};

/* The same in the order of the primary key, which no other index has. */
static PresenceStatement snapshot_ordered = {
	"SELECT p.id, p.room, p.channel_name, p.user_id, p.meta, p.joined_at, p.last_seen"
	" FROM presence.presences p WHERE p.room " SQL_GE " $1"
	" AND p.room OPERATOR(pg_catalog.<=) $1 ORDER BY p.room, p.channel_name",
	1, {TEXTOID},
	.few = true
};

/* Columns of these statements. */
enum
{
	COLUMN_ID,
	COLUMN_ROOM,
	COLUMN_CHANNEL,
	COLUMN_USER,
	COLUMN_META,
	COLUMN_JOINED_AT,
	COLUMN_LAST_SEEN
};

/* Keys of a member and of the snapshot, in the order of jsonb. */
static const char *const member_keys[] = {
	"id", "meta", "user_id", "joined_at", "last_seen", "channel_name"
};
static const char *const snapshot_keys[] = {
	"seq", "room", "epoch", "users", "members", "anonymous", "connections"
};
static const char *const truncated_keys[] = {
	"seq", "room", "epoch", "users", "members", "anonymous", "truncated", "connections"
};

/* A jsonb array or object that is being written; places count from "start". */
typedef struct JsonbNode
{
	int			start;			/* in the buffer */
	int			entry;			/* of the next child: its JEntry ... */
	int			child;			/* ... and what it contains */
	int			children;		/* what the first child contains */
	uint32		nchildren;
} JsonbNode;

/*
 * A member of the room; members are in the order of the first two fields.  The
 * bytes of meta, user and channel follow each other in RoomSnapshot.bytes.
 */
typedef struct SnapshotMember
{
	TimestampTz joined_at;
	int64		id;
	TimestampTz last_seen;
	int			start;			/* of these bytes */
	int			meta;			/* how many; -1: null */
	int			user;			/* the same */
	int			channel;
} SnapshotMember;

/* The name of a user, in RoomSnapshot.bytes. */
typedef struct SnapshotName
{
	uint32		hash;
	int			start;
	int			length;
} SnapshotName;

/* A user of the room. */
typedef struct SnapshotUser
{
	SnapshotName name;			/* key */
	char		status;			/* for simplehash */
} SnapshotUser;

/* Whether two names are equal. */
static inline bool
is_same_name(const StringInfoData *bytes, SnapshotName a, SnapshotName b)
{
	return a.hash == b.hash && a.length == b.length &&
		memcmp(bytes->data + a.start, bytes->data + b.start, a.length) == 0;
}

#define SH_PREFIX snapusers
#define SH_ELEMENT_TYPE SnapshotUser
#define SH_KEY_TYPE SnapshotName
#define SH_KEY name
#define SH_HASH_KEY(tb, key) (key).hash
#define SH_EQUAL(tb, a, b) is_same_name((tb)->private_data, a, b)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* A snapshot that is being built; receives the rows. */
typedef struct RoomSnapshot
{
	DestReceiver receiver;
	PresenceCutoff cutoff;		/* who has expired */
	int64		wall_offset;	/* wall time minus PresenceTime */
	MemoryContext row;			/* reset for each row */
	StringInfoData bytes;		/* of the members */
	SnapshotMember *members;
	uint32		nmembers;
	uint32		maxmembers;		/* allocated */
	int64		limit;			/* how many members to keep */
	int64		others;			/* members who are only counted */
	snapusers_hash *users;
	int64		anonymous;
	StringInfoData keys;		/* a member's jsonb up to the first value */
	JsonbNode	keys_node;		/* its node */
} RoomSnapshot;

/* Append zeros up to a multiple of four bytes. */
static void
align(StringInfo out)
{
	static const char zeros[sizeof(int)] = {0};

	appendBinaryStringInfo(out, zeros, INTALIGN(out->len) - out->len);
}

/*
 * Begin an array or object, as "flags" say, of "count" elements or pairs, with
 * space for the JEntries of its children.
 */
static void
begin_node(JsonbNode *node, StringInfo out, uint32 flags, uint32 count)
{
	uint32		header = flags | count;
	uint32		nchildren = flags == JB_FOBJECT ? count * 2 : count;

	align(out);
	node->start = out->len;
	node->nchildren = 0;
	node->entry = sizeof(header);
	node->children = node->child = sizeof(header) + nchildren * sizeof(JEntry);
	enlargeStringInfo(out, node->children);
	memcpy(out->data + out->len, &header, sizeof(header));
	out->len += node->children;
}

/* What was appended since the last child is one, of this type. */
static void
end_child(JsonbNode *node, StringInfo out, JEntry type)
{
	int			end = out->len - node->start;
	JEntry		entry;

	if (node->nchildren++ % JB_OFFSET_STRIDE == 0)
		entry = type | JENTRY_HAS_OFF | (end - node->children);
	else
		entry = type | (end - node->child);
	memcpy(out->data + node->start + node->entry, &entry, sizeof(entry));
	node->entry += sizeof(entry);
	node->child = end;
}

/* Append a child that is a string of so many bytes; -1: null. */
static void
append_string(JsonbNode *node, StringInfo out, const char *data, int length)
{
	if (length >= 0)
		appendBinaryStringInfo(out, data, length);
	end_child(node, out, length >= 0 ? JENTRY_ISSTRING : JENTRY_ISNULL);
}

/* The same for the keys of an object. */
static void
append_keys(JsonbNode *node, StringInfo out, const char *const *keys, int count)
{
	for (int i = 0; i < count; i++)
		append_string(node, out, keys[i], strlen(keys[i]));
}

/* Begin an object that has these keys. */
static void
begin_object(JsonbNode *node, StringInfo out, const char *const *keys, int count)
{
	begin_node(node, out, JB_FOBJECT, count);
	append_keys(node, out, keys, count);
}

/* Append a child that is a number. */
static void
append_number(JsonbNode *node, StringInfo out, int64 number)
{
	Numeric numeric = int64_to_numeric(number);

	align(out);
	appendBinaryStringInfo(out, (char *) numeric, VARSIZE(numeric));
	end_child(node, out, JENTRY_ISNUMERIC);
	pfree(numeric);
}

/* The same for a time; null if it is infinite. */
static void
append_time(JsonbNode *node, StringInfo out, TimestampTz time)
{
	char		buffer[PRESENCE_JSON_TIME_SIZE];
	int			length = presence_json_format_time(buffer, time);

	append_string(node, out, buffer, length > 0 ? length : -1);
}

/*
 * Append a child that is a jsonb of so many bytes, which need not be aligned;
 * -1: null.  A scalar is stored as an array of one, and is none as a child.
 */
static void
append_jsonb(JsonbNode *node, StringInfo out, const char *data, int length)
{
	uint32		header;
	JEntry		type = JENTRY_ISCONTAINER;

	if (length < 0)
	{
		end_child(node, out, JENTRY_ISNULL);
		return;
	}
	memcpy(&header, data, sizeof(header));
	if (header & JB_FSCALAR)
	{
		memcpy(&type, data + sizeof(header), sizeof(type));
		type &= JENTRY_TYPEMASK;
		data += sizeof(header) + sizeof(type);
		length -= sizeof(header) + sizeof(type);
	}
	if (type == JENTRY_ISCONTAINER || type == JENTRY_ISNUMERIC)
		align(out);
	appendBinaryStringInfo(out, data, length);
	end_child(node, out, type);
}

/* Raise an error if a snapshot has become larger than a jsonb can be. */
static void
check_size(const RoomSnapshot *room, int64 size)
{
	if (size > JENTRY_OFFLENMASK)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("total size of jsonb array elements exceeds the maximum of %u bytes",
						JENTRY_OFFLENMASK),
				 errdetail("The room has %u members or more.", room->nmembers),
				 errhint("Pass \"max_members\", or read the room with presence_page().")));
}

/* Make space for one more member, and return it. */
static SnapshotMember *
new_member(RoomSnapshot *room)
{
	if (room->nmembers == room->maxmembers)
	{
		room->maxmembers *= 2;
		room->members = repalloc(room->members,
								 room->maxmembers * sizeof(SnapshotMember));
	}
	return &room->members[room->nmembers++];
}

/* A column of a row; 0: null. */
static Datum
get_column(const TupleTableSlot *row, int column)
{
	return row->tts_isnull[column] ? (Datum) 0 : row->tts_values[column];
}

/* Keep the bytes of a column; returns how many, -1 if it is null. */
static int
keep_bytes(RoomSnapshot *room, Datum datum)
{
	struct varlena *value;

	if (datum == 0)
		return -1;
	value = PG_DETOAST_DATUM_PACKED(datum);
	appendBinaryStringInfo(&room->bytes, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
	return VARSIZE_ANY_EXHDR(value);
}

/*
 * Count the user whose name is the last of the bytes; of length -1: anonymous.
 * Returns whether the name is needed for that from now on.
 */
static bool
count_user(RoomSnapshot *room, int length)
{
	SnapshotName name = {.start = room->bytes.len - length,.length = length};
	bool		found;

	if (length < 0)
	{
		room->anonymous++;
		return false;
	}
	name.hash = presence_name_make(room->bytes.data + name.start, length).hash;
	(void) snapusers_insert(room->users, name, &found);
	return !found;
}

/* Keep the member of a row. */
static void
keep_member(RoomSnapshot *room, const TupleTableSlot *row, TimestampTz last_seen)
{
	SnapshotMember *member = new_member(room);

	member->joined_at = DatumGetTimestampTz(get_column(row, COLUMN_JOINED_AT));
	member->id = DatumGetInt64(get_column(row, COLUMN_ID));
	member->last_seen = last_seen;
	member->start = room->bytes.len;
	member->meta = keep_bytes(room, get_column(row, COLUMN_META));
	member->user = keep_bytes(room, get_column(row, COLUMN_USER));
	(void) count_user(room, member->user);
	member->channel = keep_bytes(room, get_column(row, COLUMN_CHANNEL));
	check_size(room, room->bytes.len + (int64) room->nmembers * room->keys.len);
}

/* Count the member of a row, and keep no more than the name of a new user. */
static void
count_member(RoomSnapshot *room, const TupleTableSlot *row)
{
	int			length = keep_bytes(room, get_column(row, COLUMN_USER));

	room->others++;
	if (!count_user(room, length))
		room->bytes.len -= Max(length, 0);
	check_size(room, room->bytes.len);
}

/* rStartup callback: the statement has its locks and its snapshot. */
static void
start_rows(DestReceiver *self, int operation, TupleDesc desc)
{
	RoomSnapshot *room = (RoomSnapshot *) self;

	room->cutoff = presence_liveness_cutoff();
	room->wall_offset = presence_clock_wall_offset();
}

/* receiveSlot callback: keep or count the member, if it is live. */
static bool
receive_row(TupleTableSlot *row, DestReceiver *self)
{
	RoomSnapshot *room = (RoomSnapshot *) self;
	MemoryContext before = MemoryContextSwitchTo(room->row);
	text	   *channel;
	PresenceTime seen;

	MemoryContextReset(room->row);
	slot_getallattrs(row);
	channel = DatumGetTextPP(get_column(row, COLUMN_CHANNEL));
	if (!presence_liveness_seen_since(VARDATA_ANY(channel), VARSIZE_ANY_EXHDR(channel),
									  DatumGetTimestampTz(get_column(row, COLUMN_LAST_SEEN)),
									  &room->cutoff, &seen))
		;						/* expired */
	else if (room->nmembers < room->limit)
		keep_member(room, row, seen + room->wall_offset);
	else
		count_member(room, row);
	MemoryContextSwitchTo(before);
	return true;
}

/* rShutdown and rDestroy callbacks. */
static void
end_rows(DestReceiver *self)
{
}

/* Prepare a snapshot; all but the result is in the current memory context. */
static void
begin_snapshot(RoomSnapshot *room)
{
	room->receiver.receiveSlot = receive_row;
	room->receiver.rStartup = start_rows;
	room->receiver.rShutdown = end_rows;
	room->receiver.rDestroy = end_rows;
	room->receiver.mydest = DestNone;
	room->row = AllocSetContextCreate(CurrentMemoryContext, "presence snapshot row",
									  ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&room->bytes);
	room->maxmembers = 64;
	room->members = palloc(room->maxmembers * sizeof(SnapshotMember));
	room->users = snapusers_create(CurrentMemoryContext, 64, &room->bytes);
	initStringInfo(&room->keys);
	begin_object(&room->keys_node, &room->keys, member_keys, lengthof(member_keys));
}

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

/* Append an element that is a member. */
static void
append_member(const RoomSnapshot *room, const SnapshotMember *member,
			  JsonbNode *list, StringInfo out)
{
	const char *bytes = room->bytes.data + member->start;
	JsonbNode	node = room->keys_node;

	align(out);
	node.start = out->len;
	appendBinaryStringInfo(out, room->keys.data, room->keys.len);
	append_number(&node, out, member->id);
	append_jsonb(&node, out, bytes, member->meta);
	bytes += Max(member->meta, 0);
	append_string(&node, out, bytes, member->user);
	bytes += Max(member->user, 0);
	append_time(&node, out, member->joined_at);
	append_time(&node, out, member->last_seen);
	append_string(&node, out, bytes, member->channel);
	end_child(list, out, JENTRY_ISCONTAINER);
}

/* Append the list of members. */
static void
append_members(RoomSnapshot *room, JsonbNode *node, StringInfo out)
{
	JsonbNode	list;

	begin_node(&list, out, JB_FARRAY, room->nmembers);
	for (uint32 i = 0; i < room->nmembers; i++)
	{
		CHECK_FOR_INTERRUPTS();
		append_member(room, &room->members[i], &list, out);
		check_size(room, out->len);
	}
	end_child(node, out, JENTRY_ISCONTAINER);
}

/* Most that the jsonb of a member needs beside its keys, meta and names. */
#define MEMBER_OVERHEAD 96

/* Prepare the buffer that becomes the result: as large as that, or larger. */
static void
begin_result(const RoomSnapshot *room, StringInfo out)
{
	Size		members = room->nmembers * (room->keys.len + MEMBER_OVERHEAD);

	initStringInfo(out);
	out->maxlen += room->bytes.len + members;
	out->data = repalloc(out->data, out->maxlen);
	out->len = VARHDRSZ;
}

/* Write the object; see presence_snapshot_read(). */
static Jsonb *
write_snapshot(RoomSnapshot *room, const text *name, const char *epoch,
			   int64 seq, bool has_seq)
{
	StringInfoData out;
	JsonbNode	node;

	begin_result(room, &out);
	if (room->others > 0)
		begin_object(&node, &out, truncated_keys, lengthof(truncated_keys));
	else
		begin_object(&node, &out, snapshot_keys, lengthof(snapshot_keys));
	if (has_seq)
		append_number(&node, &out, seq);
	else
		append_string(&node, &out, NULL, -1);
	append_string(&node, &out, VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	append_string(&node, &out, epoch, epoch ? strlen(epoch) : -1);
	append_number(&node, &out, room->users->members);
	append_members(room, &node, &out);
	append_number(&node, &out, room->anonymous);
	if (room->others > 0)
		end_child(&node, &out, JENTRY_ISBOOL_TRUE);
	append_number(&node, &out, room->nmembers + room->others);
	check_size(room, out.len);
	SET_VARSIZE(out.data, out.len);
	return (Jsonb *) out.data;
}

/*
 * What presence_snapshot() returns: "epoch" and "seq", if "has_seq", are those
 * of the last event before the room is read.  The room is read in a new
 * snapshot where the isolation level allows one.  Of a room with more than
 * "limit" members (-1: any number) the first ones are returned, in the order of
 * their channels, where presence_page() goes on.
 */
Jsonb *
presence_snapshot_read(Datum name, int limit, const char *epoch, int64 seq,
					   bool has_seq)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "presence snapshot",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	RoomSnapshot room = {0};
	Jsonb	   *result;

	begin_snapshot(&room);
	room.limit = limit < 0 ? PG_INT64_MAX : limit;
	presence_store_run_into(limit < 0 ? &snapshot_room : &snapshot_ordered,
							&name, &room.receiver);
	if (room.others == 0)
		qsort(room.members, room.nmembers, sizeof(SnapshotMember), compare_members);
	MemoryContextSwitchTo(caller);
	result = write_snapshot(&room, DatumGetTextPP(name), epoch, seq, has_seq);
	MemoryContextDelete(context);
	return result;
}
