/*-------------------------------------------------------------------------
 *
 * store.c
 *		Holds the SQL statements that C sends to the tables, but for those of the
 *		reading functions (reader.c).
 *
 * Statements are prepared once in a session and kept.  They run as whoever
 * calls: its grants and row-level security decide.  Only the announcement of
 * events reads as the owner of the extension, between
 * presence_extension_become_owner() and presence_extension_become_caller(), because
 * events tell what is, not what the caller may see.
 *
 * Names and operators are qualified, so the caller's search_path means
 * nothing here.  Rows are locked by channel, then room, whoever removes them
 * or adds many channels to a room, so nobody waits for another in a circle.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/spi.h"
#include "extension.h"
#include "hint.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "optimizer/cost.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "store.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#define EQ "OPERATOR(pg_catalog.=)"
#define LT "OPERATOR(pg_catalog.<)"
#define GE "OPERATOR(pg_catalog.>=)"

/* Every statement that locks more than one presence does so in this order. */
#define LOCK_ORDER "p.channel_name, p.room"

#define ROW_COLUMNS \
	"p.id, p.room, p.channel_name, p.user_id, p.meta, p.joined_at, p.last_seen, p.ctid"

#define MAX_ARGUMENTS 8

/* Columns of presence.rooms. */
enum
{
	ROOM_NAME = 1,
	ROOM_META,
	ROOM_MAX_MEMBERS,
	ROOM_PRIVATE
};

/* A statement, prepared at its first use in a session. */
typedef struct Statement
{
	const char *sql;
	int			nargs;
	Oid			types[MAX_ARGUMENTS];
	SPIPlanPtr	plan;
	CachedPlanSource *source;	/* of that plan */
	int			generation;		/* of what make_plan() made of it */
	bool		past_policies;	/* as which it was: InNoForceRLSOperation() */
	bool		whole;			/* reads a whole table */
	bool		few;			/* stops after a few of many: makes no bitmap */
} Statement;

static Statement insert_room = {
	"INSERT INTO presence.rooms (name) VALUES ($1) ON CONFLICT DO NOTHING",
	1, {TEXTOID}
};

/* The next rooms by name, the last one of them all, and those that may end. */
static Statement next_rooms = {
	"SELECT pg_catalog.max(r.name), pg_catalog.array_agg(r.name) FILTER (WHERE r.ends)"
	" FROM (SELECT x.name, NOT x.persistent AND NOT x.private AS ends"
	" FROM presence.rooms x WHERE x.name OPERATOR(pg_catalog.>) $1"
	" ORDER BY x.name LIMIT $2) r",
	2, {TEXTOID, INT8OID}
};

/* OFFSET 0 keeps it from becoming a look at all presences. */
static Statement empty_among = {
	"SELECT pg_catalog.array_agg(r.name) FROM pg_catalog.unnest($1) AS r (name)"
	" WHERE NOT EXISTS (SELECT FROM presence.presences p WHERE p.room " EQ " r.name OFFSET 0)",
	1, {TEXTARRAYOID}
};

static Statement delete_rooms = {
	"DELETE FROM presence.rooms r WHERE r.name " EQ " ANY ($1)"
	" AND NOT r.persistent AND NOT r.private",
	1, {TEXTARRAYOID}
};

static Statement insert_presence = {
	"INSERT INTO presence.presences AS p"
	" (room, channel_name, user_id, meta, joined_at, last_seen)"
	" VALUES ($1, $2, $3, $4, $5, $5)"
	" ON CONFLICT (room, channel_name) DO NOTHING RETURNING " ROW_COLUMNS,
	5, {TEXTOID, TEXTOID, TEXTOID, JSONBOID, TIMESTAMPTZOID}
};

static Statement find_presence = {
	"SELECT " ROW_COLUMNS " FROM presence.presences p"
	" WHERE p.room " EQ " $1 AND p.channel_name " EQ " $2",
	2, {TEXTOID, TEXTOID}
};

static Statement replace_presence = {
	"UPDATE presence.presences AS p"
	" SET user_id = COALESCE($3, p.user_id), meta = COALESCE($4, p.meta)"
	" WHERE p.room " EQ " $1 AND p.channel_name " EQ " $2"
	" RETURNING " ROW_COLUMNS,
	4, {TEXTOID, TEXTOID, TEXTOID, JSONBOID}
};

/* The keys that the patch sets to null go; the others are laid over. */
#define MERGED_META \
	"((COALESCE(p.meta, '{}') OPERATOR(pg_catalog.||) $3) OPERATOR(pg_catalog.-)" \
	" ARRAY(SELECT e.key FROM pg_catalog.jsonb_each($3) e" \
	" WHERE pg_catalog.jsonb_typeof(e.value) " EQ " 'null'))"

static Statement merge_meta = {
	"UPDATE presence.presences AS p SET meta = " MERGED_META
	" WHERE p.room " EQ " $1 AND p.channel_name " EQ " $2"
	" AND NOT COALESCE(p.meta, '{}') " EQ " " MERGED_META,
	3, {TEXTOID, TEXTOID, JSONBOID}
};

/* Whether such a patch would change nothing. */
static Statement has_meta = {
	"SELECT 1 FROM presence.presences p"
	" WHERE p.room " EQ " $1 AND p.channel_name " EQ " $2"
	" AND COALESCE(p.meta, '{}') " EQ " " MERGED_META,
	3, {TEXTOID, TEXTOID, JSONBOID}
};

static Statement lock_presence = {
	"SELECT " ROW_COLUMNS " FROM presence.presences p"
	" WHERE p.room " EQ " $1 AND p.channel_name " EQ " $2 FOR UPDATE",
	2, {TEXTOID, TEXTOID}
};

static Statement lock_channels = {
	"SELECT " ROW_COLUMNS " FROM presence.presences p"
	" WHERE p.channel_name " EQ " ANY ($1) ORDER BY " LOCK_ORDER " FOR UPDATE",
	1, {TEXTARRAYOID}
};

static Statement lock_channels_skip = {
	"SELECT " ROW_COLUMNS " FROM presence.presences p"
	" WHERE p.channel_name " EQ " ANY ($1) ORDER BY " LOCK_ORDER " FOR UPDATE SKIP LOCKED",
	1, {TEXTARRAYOID}
};

static Statement delete_rows = {
	"DELETE FROM presence.presences p WHERE p.ctid " EQ " ANY ($1)",
	1, {TIDARRAYOID}
};

static Statement shows_room = {
	"SELECT 1 FROM presence.rooms r WHERE r.name " EQ " $1",
	1, {TEXTOID}
};

static Statement has_channel = {
	"SELECT 1 FROM presence.presences p"
	" WHERE p.channel_name " EQ " $1 AND p.last_seen " GE " $2",
	2, {TEXTOID, TIMESTAMPTZOID}
};

static Statement has_older = {
	"SELECT 1 FROM presence.presences p"
	" WHERE p.channel_name " EQ " $1 AND p.last_seen " LT " $2",
	2, {TEXTOID, TIMESTAMPTZOID}
};

/*
 * Finds the rows that the caller may update, by the policies of an UPDATE,
 * and updates none: presence.note_touchable() answers false.
 */
#define PROBE_UPDATE \
	"UPDATE presence.presences AS p SET last_seen = p.last_seen" \
	" WHERE p.channel_name " EQ " $1 AND presence.note_touchable(p.channel_name, $2)"

static Statement probe_update = {
	PROBE_UPDATE,
	2, {TEXTOID, INT8OID}
};

static Statement probe_pair = {
	PROBE_UPDATE " AND p.room " EQ " $3",
	3, {TEXTOID, INT8OID, TEXTOID}
};

/*
 * A heartbeat waits for nobody: a row that is locked is being changed, or
 * beaten for, by another transaction.
 */
static Statement beat = {
	"UPDATE presence.presences AS p SET last_seen = $2"
	" FROM (SELECT q.ctid AS tid, q.last_seen FROM presence.presences q"
	" WHERE q.channel_name " EQ " $1 AND q.last_seen " GE " $3 AND q.last_seen " LT " $4"
	" FOR NO KEY UPDATE SKIP LOCKED) l"
	" WHERE p.ctid " EQ " l.tid RETURNING l.last_seen",
	4, {TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

static Statement remaining = {
	"SELECT pg_catalog.array_agg(DISTINCT p.channel_name) FROM presence.presences p"
	" WHERE p.channel_name " EQ " ANY ($1)",
	1, {TEXTARRAYOID}
};

static Statement older = {
	"SELECT pg_catalog.array_agg(DISTINCT p.channel_name) FROM presence.presences p"
	" WHERE presence.is_older(p.channel_name, p.last_seen, $1)",
	1, {INT8OID},
	.whole = true
};

/* Nobody was seen in the future: who is said to have been is seen now. */
static Statement pull_back = {
	"UPDATE presence.presences AS p SET last_seen = $1"
	" FROM (SELECT q.ctid AS tid FROM presence.presences q"
	" WHERE q.last_seen OPERATOR(pg_catalog.>) $2 FOR NO KEY UPDATE SKIP LOCKED) l"
	" WHERE p.ctid " EQ " l.tid",
	2, {TIMESTAMPTZOID, TIMESTAMPTZOID},
	.whole = true
};

static Statement each_older = {
	"SELECT p.channel_name, p.last_seen FROM presence.presences p"
	" WHERE presence.is_older(p.channel_name, p.last_seen, $1)",
	1, {INT8OID},
	.whole = true
};

static Statement older_among = {
	"SELECT pg_catalog.array_agg(DISTINCT p.channel_name) FROM presence.presences p"
	" WHERE p.channel_name " EQ " ANY ($1)"
	" AND presence.is_older(p.channel_name, p.last_seen, $2)",
	2, {TEXTARRAYOID, INT8OID}
};

static Statement each_channel = {
	"SELECT p.channel_name, pg_catalog.max(p.last_seen) FROM presence.presences p"
	" GROUP BY p.channel_name",
	0,
	.whole = true
};

static Statement oldest_living = {
	"SELECT pg_catalog.min(p.last_seen) FROM presence.presences p"
	" WHERE NOT presence.is_older(p.channel_name, p.last_seen, $1)",
	1, {INT8OID},
	.whole = true
};

static Statement members_of = {
	"SELECT p.id, p.room, p.channel_name, p.user_id, p.last_seen"
	" FROM presence.presences p WHERE p.room " EQ " ANY ($1)",
	1, {TEXTARRAYOID}
};

/* OFFSET 0 keeps it one look into the index a pair, and no other join. */
static Statement look_up = {
	"SELECT " ROW_COLUMNS
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS k (room, channel),"
	" LATERAL (SELECT " ROW_COLUMNS " FROM presence.presences p"
	" WHERE p.room " EQ " k.room AND p.channel_name " EQ " k.channel OFFSET 0) p",
	2, {TEXTARRAYOID, TEXTARRAYOID}
};

/* OFFSET 0 has the user's connections looked up, not the room's. */
static Statement has_user = {
	"SELECT 1 FROM (SELECT q.room FROM presence.presences q"
	" WHERE q.user_id " EQ " $2 OFFSET 0) p WHERE p.room " EQ " $1",
	2, {TEXTOID, TEXTOID}
};

static Statement people = {
	"SELECT u.user_id, pe.chosen_status, pe.custom_message,"
	" CASE WHEN pe.chosen_status " EQ " 'offline' THEN pe.chosen_at"
	" ELSE (SELECT pg_catalog.max(s.last_seen) FROM presence.user_last_seen s"
	" WHERE s.user_id " EQ " u.user_id) END,"
	" (SELECT pg_catalog.count(*) FROM (SELECT FROM presence.presences p"
	" WHERE p.user_id " EQ " u.user_id LIMIT u.most) c),"
	" (SELECT pg_catalog.count(*) FROM (SELECT FROM presence.presences p"
	" WHERE p.user_id " EQ " u.user_id"
	" AND presence.is_live(p.channel_name, p.last_seen) LIMIT u.living) l)"
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3))"
	" AS u (user_id, most, living)"
	" LEFT JOIN LATERAL (SELECT pe.chosen_status, pe.custom_message, pe.chosen_at"
	" FROM presence.people pe WHERE pe.user_id " EQ " u.user_id OFFSET 0) pe ON true",
	3, {TEXTARRAYOID, INT8ARRAYOID, INT8ARRAYOID},
	.few = true
};

#define NEWEST_OF_EACH \
	"SELECT t.user_id, pg_catalog.max(t.last_seen) AS last_seen" \
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS t (user_id, last_seen)" \
	" GROUP BY t.user_id"

static Statement add_last_seen = {
	"INSERT INTO presence.user_last_seen (user_id, last_seen) " NEWEST_OF_EACH,
	2, {TEXTARRAYOID, TIMESTAMPTZARRAYOID}
};

/* Brings a row of each user up to date; adds one where none is, or is free. */
static Statement merge_last_seen = {
	"WITH t AS MATERIALIZED (" NEWEST_OF_EACH "),"
	" l AS MATERIALIZED (SELECT o.tid, t.user_id, t.last_seen FROM t"
	" LEFT JOIN LATERAL (SELECT s.ctid AS tid FROM presence.user_last_seen s"
	" WHERE s.user_id " EQ " t.user_id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) o ON true),"
	" u AS (UPDATE presence.user_last_seen AS s"
	" SET last_seen = GREATEST(s.last_seen, l.last_seen) FROM l WHERE s.ctid " EQ " l.tid)"
	" INSERT INTO presence.user_last_seen (user_id, last_seen)"
	" SELECT l.user_id, l.last_seen FROM l WHERE l.tid IS NULL",
	2, {TEXTARRAYOID, TIMESTAMPTZARRAYOID}
};

/* The rows of some blocks of a table. */
#define IN_BLOCKS(alias) \
	alias ".ctid " GE " $1 AND " alias ".ctid " LT " $2"

/*
 * Removes, of the rows in some blocks, all that are too old and all but the
 * newest of each user, except those that somebody has locked.
 */
static Statement forget_last_seen = {
	"DELETE FROM presence.user_last_seen s USING ("
	"SELECT x.ctid AS tid FROM presence.user_last_seen x WHERE " IN_BLOCKS("x")
	" AND (x.last_seen " LT " $3 OR EXISTS ("
	"SELECT FROM presence.user_last_seen y WHERE y.user_id " EQ " x.user_id"
	" AND ROW(y.last_seen, y.ctid) OPERATOR(pg_catalog.>) ROW(x.last_seen, x.ctid) OFFSET 0))"
	" FOR UPDATE SKIP LOCKED) l WHERE s.ctid " EQ " l.tid",
	3, {TIDOID, TIDOID, TIMESTAMPTZOID}
};

static Statement is_banned = {
	"SELECT 1 FROM presence.bans b WHERE b.user_id " EQ " $2"
	" AND (b.room " EQ " $1 OR b.room IS NULL)"
	" AND b.until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()",
	2, {TEXTOID, TEXTOID}
};

static Statement is_invited = {
	"SELECT 1 FROM presence.invitations i"
	" WHERE i.room " EQ " $1 AND i.user_id " EQ " $2",
	2, {TEXTOID, TEXTOID}
};

/* Presences that a ban is against, of some users or of all. */
#define BANNED_PRESENCES \
	" FROM presence.bans b JOIN presence.presences p ON p.user_id " EQ " b.user_id" \
	" WHERE (b.room IS NULL OR b.room " EQ " p.room)" \
	" AND b.until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()"

static Statement lock_banned = {
	"SELECT " ROW_COLUMNS BANNED_PRESENCES " AND b.user_id " EQ " ANY ($1)"
	" ORDER BY " LOCK_ORDER " LIMIT $2 FOR UPDATE OF p SKIP LOCKED",
	2, {TEXTARRAYOID, INT8OID}
};

static Statement lock_all_banned = {
	"SELECT " ROW_COLUMNS BANNED_PRESENCES
	" ORDER BY " LOCK_ORDER " LIMIT $1 FOR UPDATE OF p SKIP LOCKED",
	1, {INT8OID}
};

static Statement banned_exist = {
	"SELECT 1" BANNED_PRESENCES " AND ($1 IS NULL OR b.user_id " EQ " ANY ($1)) LIMIT 1",
	1, {TEXTARRAYOID}
};

/* Rows that were written with triggers disabled may name what is no room. */
#define NAMES_A_ROOM \
	" AND pg_catalog.char_length(n.name) OPERATOR(pg_catalog.>) 0" \
	" AND pg_catalog.char_length(n.name) OPERATOR(pg_catalog.<=) 255"

/* Gives presences a room whose room has been deleted while they entered. */
static Statement restore_rooms = {
	"INSERT INTO presence.rooms (name) SELECT n.name"
	" FROM (SELECT DISTINCT u.name FROM pg_catalog.unnest($1) AS u (name)) n"
	" WHERE NOT EXISTS (SELECT FROM presence.rooms r WHERE r.name " EQ " n.name)"
	" AND EXISTS (SELECT FROM presence.presences p WHERE p.room " EQ " n.name)"
	NAMES_A_ROOM " ON CONFLICT DO NOTHING",
	1, {TEXTARRAYOID}
};

/* The same for all; walks the index from one room to the next. */
static Statement restore_all_rooms = {
	"WITH RECURSIVE n (name) AS ("
	"SELECT pg_catalog.min(p.room) FROM presence.presences p UNION ALL"
	" SELECT (SELECT pg_catalog.min(p.room) FROM presence.presences p"
	" WHERE p.room OPERATOR(pg_catalog.>) n.name) FROM n WHERE n.name IS NOT NULL)"
	" INSERT INTO presence.rooms (name) SELECT n.name FROM n WHERE n.name IS NOT NULL"
	" AND NOT EXISTS (SELECT FROM presence.rooms r WHERE r.name " EQ " n.name)"
	NAMES_A_ROOM " ON CONFLICT DO NOTHING",
	0
};

static Statement count_live = {
	"SELECT pg_catalog.count(*) FROM (SELECT FROM presence.presences p"
	" WHERE p.room " EQ " $1 AND presence.is_live(p.channel_name, p.last_seen) LIMIT $2) l",
	2, {TEXTOID, INT8OID}
};

static Statement count_admissions = {
	"SELECT pg_catalog.count(*) FROM presence.admissions a"
	" WHERE a.user_id " EQ " $2 AND a.room " EQ " $1 AND a.admitted_at " GE " $3",
	3, {TEXTOID, TEXTOID, TIMESTAMPTZOID}
};

static Statement note_admission = {
	"INSERT INTO presence.admissions (room, user_id, admitted_at)"
	" VALUES ($1, $2, pg_catalog.clock_timestamp())",
	2, {TEXTOID, TEXTOID}
};

static Statement forget_admissions = {
	"DELETE FROM presence.admissions a USING ("
	"SELECT x.ctid AS tid FROM presence.admissions x WHERE " IN_BLOCKS("x")
	" AND x.admitted_at " LT " $3 FOR UPDATE SKIP LOCKED) l WHERE a.ctid " EQ " l.tid",
	3, {TIDOID, TIDOID, TIMESTAMPTZOID}
};

static Statement invite = {
	"INSERT INTO presence.invitations (room, user_id) VALUES ($1, $2)"
	" ON CONFLICT DO NOTHING",
	2, {TEXTOID, TEXTOID}
};

static Statement uninvite = {
	"DELETE FROM presence.invitations i"
	" WHERE i.room " EQ " $1 AND i.user_id " EQ " $2",
	2, {TEXTOID, TEXTOID}
};

static Statement ban = {
	"INSERT INTO presence.bans (room, user_id, until, reason) VALUES ($1, $2, $3, $4)"
	" ON CONFLICT (user_id, room) DO UPDATE"
	" SET until = excluded.until, reason = excluded.reason",
	4, {TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID}
};

static Statement unban = {
	"DELETE FROM presence.bans b WHERE b.user_id " EQ " $2"
	" AND (b.room " EQ " $1 OR (b.room IS NULL AND $1 IS NULL))",
	2, {TEXTOID, TEXTOID}
};

/* One statement for each way to ask: each has an index of its own. */
#define LOCK_MEMBERS(more) \
	"SELECT " ROW_COLUMNS " FROM presence.presences p" \
	" WHERE p.room " EQ " $1" more " ORDER BY " LOCK_ORDER " FOR UPDATE"

static Statement lock_room = {
	LOCK_MEMBERS(""),
	1, {TEXTOID}
};

static Statement lock_room_user = {
	LOCK_MEMBERS(" AND p.user_id " EQ " $2"),
	2, {TEXTOID, TEXTOID}
};

static Statement lock_room_channel = {
	LOCK_MEMBERS(" AND p.channel_name " EQ " $3"),
	3, {TEXTOID, TEXTOID, TEXTOID}
};

static Statement lock_room_user_channel = {
	LOCK_MEMBERS(" AND p.user_id " EQ " $2 AND p.channel_name " EQ " $3"),
	3, {TEXTOID, TEXTOID, TEXTOID}
};

static Statement lock_user = {
	"SELECT " ROW_COLUMNS " FROM presence.presences p"
	" WHERE p.user_id " EQ " $1 ORDER BY " LOCK_ORDER " FOR UPDATE",
	1, {TEXTOID}
};

/* A time as events write it, whatever the session's TimeZone. */
#define UTC(time) \
	"pg_catalog.to_char(pg_catalog.timezone('UTC', " time ")," \
	" 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"')"

static Statement snapshot_room = {
	"SELECT pg_catalog.jsonb_build_object("
	"'room', $1, 'epoch', $2, 'seq', $3,"
	" 'connections', pg_catalog.count(*),"
	" 'users', pg_catalog.count(DISTINCT m.user_id),"
	" 'anonymous', pg_catalog.count(*) FILTER (WHERE m.user_id IS NULL),"
	" 'members', COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object("
	"'id', m.id, 'channel_name', m.channel_name, 'user_id', m.user_id, 'meta', m.meta,"
	" 'joined_at', " UTC("m.joined_at") ", 'last_seen', " UTC("m.last_seen") ")"
	" ORDER BY m.joined_at, m.id), '[]'))"
	" FROM presence.members m WHERE m.room " EQ " $1",
	3, {TEXTOID, TEXTOID, INT8OID}
};

/*
 * Open SPI, which a trigger may do within a statement that runs here.  The
 * memory context stays as it is: every function below makes its results in the
 * one that is current when it is called, so nothing has to be given back when
 * an error passes.
 */
void
presence_store_connect(void)
{
	MemoryContext context = CurrentMemoryContext;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(context);
}

/* Close SPI. */
void
presence_store_finish(void)
{
	SPI_finish();
}

/* What the planner may use. */
typedef struct PlannerSwitches
{
	bool		seqscan;
	bool		hashjoin;
	bool		mergejoin;
	bool		indexscan;
	bool		bitmapscan;
	bool		nestloop;
	bool		jit;
} PlannerSwitches;

/*
 * As if reading all were forbidden.  Before PostgreSQL 18 what is forbidden
 * counts as so expensive that it would be worth compiling.
 */
static const PlannerSwitches index_switches = {
	.indexscan = true,
	.bitmapscan = true,
	.nestloop = true
};

/* The same for who stops early, before a bitmap of all would be of use. */
static const PlannerSwitches few_switches = {
	.indexscan = true,
	.nestloop = true
};

/* What the planner may use now. */
static PlannerSwitches
get_switches(void)
{
	PlannerSwitches now = {
		.seqscan = enable_seqscan,
		.hashjoin = enable_hashjoin,
		.mergejoin = enable_mergejoin,
		.indexscan = enable_indexscan,
		.bitmapscan = enable_bitmapscan,
		.nestloop = enable_nestloop,
		.jit = jit_enabled
	};

	return now;
}

/* Say what the planner may use. */
static void
set_switches(const PlannerSwitches *switches)
{
	enable_seqscan = switches->seqscan;
	enable_hashjoin = switches->hashjoin;
	enable_mergejoin = switches->mergejoin;
	enable_indexscan = switches->indexscan;
	enable_bitmapscan = switches->bitmapscan;
	enable_nestloop = switches->nestloop;
	jit_enabled = switches->jit;
}

/* Prepare a statement for the rest of the session, if it is not yet. */
static SPIPlanPtr
get_plan(Statement *statement)
{
	if (statement->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare_cursor(statement->sql, statement->nargs,
											  statement->types,
											  CURSOR_OPT_GENERIC_PLAN);

		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed for \"%s\": %s", statement->sql,
				 SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		statement->plan = plan;
		statement->source = linitial(SPI_plan_get_plan_sources(plan));
	}
	return statement->plan;
}

/*
 * Whether the plan that a statement keeps is ours and will be used as it is.
 * Asks what GetCachedPlan() does, and less; it is asked at each execution.
 */
static bool
has_plan(const Statement *statement)
{
	CachedPlanSource *source = statement->source;
	CachedPlan *plan = source ? source->gplan : NULL;

	return plan && source->is_valid && plan->is_valid &&
		plan->generation == statement->generation &&
		!TransactionIdIsValid(plan->saved_xmin) &&
		(!plan->dependsOnRole || plan->planRoleId == GetUserId()) &&
		(!source->dependsOnRLS || (source->rewriteRoleId == GetUserId() &&
								   source->rewriteRowSecurity == row_security &&
								   statement->past_policies == InNoForceRLSOperation())) &&
		presence_compat_search_path_matches(source->search_path);
}

/*
 * Plan a statement as if reading all were forbidden, unless it wants to, and
 * whatever the session has set: a plan made while a table was empty would read
 * the whole table, however large it becomes, for nothing is cheaper than
 * reading nothing.
 *
 * It runs under the session's own settings: triggers that it fires plan, and
 * keep, queries of their own.  The locks that are taken here stay, so nothing
 * makes the plan invalid before it runs.
 */
static void
make_plan(Statement *statement)
{
	SPIPlanPtr	plan = get_plan(statement);
	CachedPlanSource *source = statement->source;
	PlannerSwitches before = get_switches();

	/* PostgreSQL does not ask whether the policies of an owner are forced. */
	if (source->dependsOnRLS && statement->past_policies != InNoForceRLSOperation())
		source->is_valid = false;
	statement->past_policies = InNoForceRLSOperation();
	/* Made without us, after others changed a table in a bad moment. */
	if (source->gplan && source->gplan->generation != statement->generation)
		source->gplan->is_valid = false;
	PG_TRY();
	{
		if (!statement->whole)
			set_switches(statement->few ? &few_switches : &index_switches);
		ReleaseCachedPlan(SPI_plan_get_cached_plan(plan), CurrentResourceOwner);
	}
	PG_FINALLY();
	{
		set_switches(&before);
	}
	PG_END_TRY();
	statement->generation = source->gplan->generation;
}

/* Run a statement; returns how many rows it found or changed. */
static uint64
run(Statement *statement, Datum *values, const char *nulls, Snapshot snapshot,
	long limit)
{
	MemoryContext context = CurrentMemoryContext;
	int			result;

	if (!has_plan(statement))
		make_plan(statement);
	result = SPI_execute_snapshot(statement->plan, values, nulls, snapshot,
								  InvalidSnapshot, false, true, limit);
	MemoryContextSwitchTo(context); /* SPI leaves its own behind */
	if (result < 0)
		elog(ERROR, "SPI failed for \"%s\": %s", statement->sql,
			 SPI_result_code_string(result));
	return SPI_processed;
}

/*
 * Run a statement in the newest snapshot, whatever the isolation level: who
 * decides after taking a lock must see all that was committed before it.
 */
static uint64
run_newest(Statement *statement, Datum *values, const char *nulls)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	uint64		count = run(statement, values, nulls, snapshot, 0);

	UnregisterSnapshot(snapshot);
	return count;
}

/* Whether a result has rows; frees it. */
static bool
any_rows(uint64 count)
{
	SPI_freetuptable(SPI_tuptable);
	return count > 0;
}

/* A text column of a result as a string of the caller's, or NULL. */
static char *
result_text(HeapTuple tuple, int column)
{
	bool		isnull;
	Datum		datum = SPI_getbinval(tuple, SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(datum);
}

/*
 * Read one row of ROW_COLUMNS; the current memory context gets the parts.
 * Unless "whole", a meta that no payload could carry is left out.
 */
static void
read_row(HeapTuple tuple, PresenceRow *row, bool whole)
{
	TupleDesc	desc = SPI_tuptable->tupdesc;
	bool		isnull;
	Datum		meta;

	row->id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	row->room = result_text(tuple, 2);
	row->channel = result_text(tuple, 3);
	row->user = result_text(tuple, 4);
	meta = SPI_getbinval(tuple, desc, 5, &isnull);
	row->meta = NULL;
	row->truncated = !isnull &&
		toast_raw_datum_size(meta) > PRESENCE_HINT_MAX_META;
	if (!isnull && (whole || !row->truncated))
		row->meta = (Jsonb *) PG_DETOAST_DATUM_COPY(meta);
	row->joined_at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 6, &isnull));
	row->last_seen = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 7, &isnull));
	row->tid = *(ItemPointer) DatumGetPointer(SPI_getbinval(tuple, desc, 8, &isnull));
}

/* Read the first row of a result, if there is one. */
static bool
first_row(uint64 count, PresenceRow *row)
{
	if (count > 0)
		read_row(SPI_tuptable->vals[0], row, true);
	SPI_freetuptable(SPI_tuptable);
	return count > 0;
}

/* Read all rows of a result. */
static List *
all_rows(uint64 count)
{
	List	   *rows = NIL;

	for (uint64 i = 0; i < count; i++)
	{
		PresenceRow *row = palloc(sizeof(PresenceRow));

		CHECK_FOR_INTERRUPTS();
		read_row(SPI_tuptable->vals[i], row, false);
		rows = lappend(rows, row);
	}
	SPI_freetuptable(SPI_tuptable);
	return rows;
}

/* Read the one array that a statement answers; NULL when it is NULL. */
static ArrayType *
one_array(void)
{
	bool		isnull;
	Datum		datum = SPI_getbinval(SPI_tuptable->vals[0],
									  SPI_tuptable->tupdesc, 1, &isnull);
	ArrayType  *array = NULL;

	if (!isnull)
		array = DatumGetArrayTypePCopy(datum);
	SPI_freetuptable(SPI_tuptable);
	return array;
}

/* Keep those who enter out until the transaction ends, waiting for the others. */
void
presence_store_lock_rooms(void)
{
	LockRelationOid(presence_extension_table("rooms"), ShareRowExclusiveLock);
}

/*
 * Read a room's rules as they are now, whoever asks: policies may hide a room,
 * but not what it asks of those who enter.  false: no such room.
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
 * Find a room, which then stays until the transaction ends, and what it asks of
 * those who enter; false: no such room.  Needs no SPI.
 */
bool
presence_store_find_room(Datum room, PresenceRoomRules *rules)
{
	Oid			table = presence_extension_table("rooms");

	LockRelationOid(table, RowExclusiveLock);
	return look_up_room(table, room, rules);
}

/* Raise the error for a room that a trigger does not let come into being. */
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
 * Make sure that a room exists and stays until the transaction ends; what it
 * asks of those who enter.  RowExclusiveLock keeps prune_rooms away.  The caller
 * makes it, where it is not there, and a room just made asks for nothing unless
 * somebody else, or a trigger, was faster.
 */
PresenceRoomRules
presence_store_enter_room(Datum room)
{
	PresenceRoomRules rules = {0};

	if (!presence_store_find_room(room, &rules) &&
		run(&insert_room, &room, NULL, InvalidSnapshot, 0) == 0 &&
		!presence_store_find_room(room, &rules))
		reject_room(room);
	return rules;
}

/* Those of the rooms (text[]) that nobody is in, whoever asks; NULL: none. */
static ArrayType *
find_empty(Datum rooms)
{
	PresenceSession caller = presence_extension_become_owner();
	ArrayType  *empty;

	(void) run_newest(&empty_among, &rooms, NULL);
	empty = one_array();
	presence_extension_become_caller(caller);
	return empty;
}

/*
 * Look at the rooms that follow a name, at most so many of those that the caller
 * sees, without a lock: those that are empty (text[], or NULL).  "last" gets the
 * last one looked at; NULL: there are no more.
 */
ArrayType *
presence_store_empty_rooms(text *after, int limit, text **last)
{
	Datum		values[] = {PointerGetDatum(after), Int64GetDatum(limit)};
	bool		none;
	bool		isnull;
	Datum		name;
	Datum		rooms;

	(void) run_newest(&next_rooms, values, NULL);
	name = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	*last = isnull ? NULL : DatumGetTextPCopy(name);
	rooms = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &none);
	if (!none)
		rooms = PointerGetDatum(DatumGetArrayTypePCopy(rooms));
	SPI_freetuptable(SPI_tuptable);
	return none ? NULL : find_empty(rooms);
}

/*
 * Remove those of the rooms (text[]) that are empty and the caller may delete;
 * how many.  The caller holds the lock that keeps others out; the newest
 * snapshot is used even where the transaction has an older one.
 */
uint64
presence_store_delete_empty_rooms(ArrayType *rooms)
{
	ArrayType  *empty = find_empty(PointerGetDatum(rooms));
	Datum		value = PointerGetDatum(empty);

	return empty ? run_newest(&delete_rooms, &value, NULL) : 0;
}

/* Insert a presence; false: the pair exists.  "nulls" speaks of user, meta. */
bool
presence_store_insert(Datum room, Datum channel, Datum user, Datum meta,
					  const char *nulls, TimestampTz now, PresenceRow *row)
{
	Datum		values[] = {room, channel, user, meta, TimestampTzGetDatum(now)};
	char		all_nulls[] = {' ', ' ', nulls[0], nulls[1], ' '};

	return first_row(run(&insert_presence, values, all_nulls,
						 InvalidSnapshot, 0), row);
}

/* Find a presence. */
bool
presence_store_find(Datum room, Datum channel, PresenceRow *row)
{
	Datum		values[] = {room, channel};

	return first_row(run(&find_presence, values, NULL, InvalidSnapshot, 1), row);
}

/* Replace user and meta of a presence where they are not NULL. */
bool
presence_store_replace(Datum room, Datum channel, Datum user, Datum meta,
					   const char *nulls, PresenceRow *row)
{
	Datum		values[] = {room, channel, user, meta};
	char		all_nulls[] = {' ', ' ', nulls[0], nulls[1]};

	return first_row(run(&replace_presence, values, all_nulls,
						 InvalidSnapshot, 0), row);
}

/* Merge keys into the meta of a presence; whether that changed it. */
bool
presence_store_merge_meta(Datum room, Datum channel, Datum meta)
{
	Datum		values[] = {room, channel, meta};

	return run(&merge_meta, values, NULL, InvalidSnapshot, 0) > 0;
}

/* Whether there is a presence whose meta has such keys already. */
bool
presence_store_has_meta(Datum room, Datum channel, Datum meta)
{
	Datum		values[] = {room, channel, meta};

	return any_rows(run(&has_meta, values, NULL, InvalidSnapshot, 1));
}

/* Lock a presence for removal. */
List *
presence_store_lock_presence(Datum room, Datum channel)
{
	Datum		values[] = {room, channel};

	return all_rows(run(&lock_presence, values, NULL, InvalidSnapshot, 0));
}

/* Lock the presences of channels (text[]) for removal, in order. */
List *
presence_store_lock_channels(Datum channels, bool skip_locked)
{
	return all_rows(run(skip_locked ? &lock_channels_skip : &lock_channels,
						&channels, NULL, InvalidSnapshot, 0));
}

/* Delete presences that are locked; how many went. */
uint64
presence_store_delete(List *rows)
{
	Datum	   *tids = palloc(list_length(rows) * sizeof(Datum));
	ListCell   *lc;
	Datum		array;

	if (rows == NIL)
		return 0;
	foreach(lc, rows)
	{
		CHECK_FOR_INTERRUPTS();
		tids[foreach_current_index(lc)] =
			PointerGetDatum(&((PresenceRow *) lfirst(lc))->tid);
	}
	array = PointerGetDatum(construct_array(tids, list_length(rows), TIDOID,
											sizeof(ItemPointerData), false,
											TYPALIGN_SHORT));
	return run_newest(&delete_rows, &array, NULL);
}

/* Whether the caller may see a room, and there is one. */
bool
presence_store_shows_room(Datum room)
{
	return any_rows(run(&shows_room, &room, NULL, InvalidSnapshot, 1));
}

/* Whether a channel has rows with a last_seen since a time. */
bool
presence_store_has_channel(Datum channel, TimestampTz since)
{
	Datum		values[] = {channel, TimestampTzGetDatum(since)};

	return any_rows(run(&has_channel, values, NULL, InvalidSnapshot, 1));
}

/* Whether a channel has rows with a last_seen before a time. */
bool
presence_store_has_older(Datum channel, TimestampTz before)
{
	Datum		values[] = {channel, TimestampTzGetDatum(before)};

	return any_rows(run(&has_older, values, NULL, InvalidSnapshot, 1));
}

/*
 * Have presence.note_touchable() see the rows of a channel that the caller may
 * update, with the number of the probe.
 */
void
presence_store_probe_update(Datum channel, int64 probe)
{
	Datum		values[] = {channel, Int64GetDatum(probe)};

	(void) run(&probe_update, values, NULL, InvalidSnapshot, 0);
}

/* The same with the row of a room. */
void
presence_store_probe_pair(Datum room, Datum channel, int64 probe)
{
	Datum		values[] = {channel, Int64GetDatum(probe), room};

	(void) run(&probe_pair, values, NULL, InvalidSnapshot, 0);
}

/*
 * Write a sign of life into rows whose last_seen is in [since, before), except
 * those that somebody has locked; how many.  "oldest" gets the oldest that was
 * there, or infinity.
 */
uint64
presence_store_beat(Datum channel, TimestampTz now, TimestampTz since,
					TimestampTz before, TimestampTz *oldest)
{
	Datum		values[] = {channel, TimestampTzGetDatum(now),
	TimestampTzGetDatum(since), TimestampTzGetDatum(before)};
	uint64		count = run(&beat, values, NULL, InvalidSnapshot, 0);

	*oldest = DT_NOEND;
	for (uint64 i = 0; i < count; i++)
	{
		bool		isnull;
		Datum		last_seen = SPI_getbinval(SPI_tuptable->vals[i],
											  SPI_tuptable->tupdesc, 1, &isnull);

		CHECK_FOR_INTERRUPTS();
		*oldest = Min(*oldest, DatumGetTimestampTz(last_seen));
	}
	SPI_freetuptable(SPI_tuptable);
	return count;
}

/*
 * Those of the channels (text[]) that have rows, whoever asks, also ones that
 * are too new for the transaction's snapshot; NULL: none.
 */
ArrayType *
presence_store_remaining(Datum channels)
{
	PresenceSession caller = presence_extension_become_owner();
	ArrayType  *left;

	(void) run_newest(&remaining, &channels, NULL);
	left = one_array();
	presence_extension_become_caller(caller);
	return left;
}

/* Channels silent for longer than an age in microseconds; NULL: none. */
ArrayType *
presence_store_older(int64 age)
{
	Datum		value = Int64GetDatum(age);

	(void) run(&older, &value, NULL, InvalidSnapshot, 0);
	return one_array();
}

/* Let rows whose last_seen is after a limit be seen now. */
void
presence_store_pull_back(TimestampTz now, TimestampTz limit)
{
	Datum		values[] = {TimestampTzGetDatum(now), TimestampTzGetDatum(limit)};

	(void) run(&pull_back, values, NULL, InvalidSnapshot, 0);
}

/* Those of the channels (text[]) that have rows older than an age; NULL: none. */
ArrayType *
presence_store_older_among(ArrayType *channels, int64 age)
{
	Datum		values[] = {PointerGetDatum(channels), Int64GetDatum(age)};

	(void) run(&older_among, values, NULL, InvalidSnapshot, 0);
	return one_array();
}

/* Visit what was fetched from a portal; false: the visitor has had enough. */
static bool
visit_channels(PresenceChannelVisitor visit, void *arg)
{
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		text	   *channel = DatumGetTextPP(SPI_getbinval(tuple, desc, 1, &isnull));
		Datum		seen = SPI_getbinval(tuple, desc, 2, &isnull);

		if (!visit(arg, VARDATA_ANY(channel), VARSIZE_ANY_EXHDR(channel),
				   DatumGetTimestampTz(seen)))
			return false;
	}
	return true;
}

/* Visit the channels that a statement finds; false: not to the end. */
static bool
each(Statement *statement, Datum *values, PresenceChannelVisitor visit, void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	Portal		portal = SPI_cursor_open(NULL, get_plan(statement),
										 values, NULL, true);
	bool		more = true;
	bool		goes_on = true;

	while (more && goes_on)
	{
		SPI_cursor_fetch(portal, true, 10000);
		more = SPI_processed > 0;
		goes_on = visit_channels(visit, arg);
		SPI_freetuptable(SPI_tuptable);
		CHECK_FOR_INTERRUPTS();
	}
	SPI_cursor_close(portal);
	MemoryContextSwitchTo(context);
	return goes_on;
}

/* Visit every channel with the newest last_seen of its rows. */
void
presence_store_each_channel(PresenceChannelVisitor visit, void *arg)
{
	(void) each(&each_channel, NULL, visit, arg);
}

/* Visit channels by their rows that are older than an age; false: not all. */
bool
presence_store_each_older(int64 age, PresenceChannelVisitor visit, void *arg)
{
	Datum		value = Int64GetDatum(age);

	return each(&each_older, &value, visit, arg);
}

/* The oldest last_seen of rows no older than an age; DT_NOEND: there is none. */
TimestampTz
presence_store_oldest_living(int64 age)
{
	Datum		value = Int64GetDatum(age);
	TimestampTz last_seen;
	bool		isnull;
	Datum		datum;

	(void) run(&oldest_living, &value, NULL, InvalidSnapshot, 0);
	datum = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	last_seen = isnull ? DT_NOEND : DatumGetTimestampTz(datum);
	SPI_freetuptable(SPI_tuptable);
	return last_seen;
}

/* Visit the members that were fetched; "scratch" gets what is read of them. */
static void
visit_members(void (*visit) (void *arg, const PresenceRow *row), void *arg,
			  MemoryContext scratch)
{
	MemoryContext context = MemoryContextSwitchTo(scratch);

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		PresenceRow row = {0};
		bool		isnull;

		row.id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
		row.room = result_text(tuple, 2);
		row.channel = result_text(tuple, 3);
		row.user = result_text(tuple, 4);
		row.last_seen = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 5, &isnull));
		visit(arg, &row);
	}
	SPI_freetuptable(SPI_tuptable);
	MemoryContextSwitchTo(context);
	MemoryContextReset(scratch);
}

/*
 * Visit all presences of rooms (text[]) in a snapshot, which also shows what
 * the running transaction has done so far.  A row that is visited has neither
 * meta nor joined_at, and is gone afterwards.
 */
void
presence_store_each_member(Datum rooms, Snapshot snapshot,
						   void (*visit) (void *arg, const PresenceRow *row),
						   void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(context, "presence members",
												  ALLOCSET_DEFAULT_SIZES);
	Portal		portal;

	if (!has_plan(&members_of))
		make_plan(&members_of);
	CommandCounterIncrement();
	PushCopiedSnapshot(snapshot);
	UpdateActiveSnapshotCommandId();
	portal = SPI_cursor_open(NULL, members_of.plan, &rooms, NULL, true);
	do
	{
		SPI_cursor_fetch(portal, true, 1000);
		visit_members(visit, arg, scratch);
		CHECK_FOR_INTERRUPTS();
	} while (SPI_processed > 0);
	SPI_cursor_close(portal);
	PopActiveSnapshot();
	MemoryContextSwitchTo(context);
	MemoryContextDelete(scratch);
}

/* The presences of pairs of room and channel (two text[]) in a snapshot. */
List *
presence_store_look_up(Datum rooms, Datum channels, Snapshot snapshot)
{
	Datum		values[] = {rooms, channels};

	return all_rows(run(&look_up, values, NULL, snapshot, 0));
}

/* Whether a user has a presence in a room, in a snapshot. */
bool
presence_store_has_user(const char *room, const char *user, Snapshot snapshot)
{
	Datum		values[] = {CStringGetTextDatum(room), CStringGetTextDatum(user)};
	uint64		count = run(&has_user, values, NULL, snapshot, 1);

	SPI_freetuptable(SPI_tuptable);
	return count > 0;
}

/*
 * The users (text[]), as a snapshot shows them; the connections of each are
 * counted up to the number in "most" (bigint[]) and no further, those that live
 * up to the number in "living".
 */
List *
presence_store_people(Datum users, Datum most, Datum living, Snapshot snapshot)
{
	Datum		values[] = {users, most, living};
	uint64		count = run(&people, values, NULL, snapshot, 0);
	List	   *result = NIL;

	for (uint64 i = 0; i < count; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		PresencePerson *person = palloc0(sizeof(PresencePerson));
		bool		isnull;
		Datum		last_seen = SPI_getbinval(tuple, desc, 4, &isnull);

		CHECK_FOR_INTERRUPTS();
		person->user = result_text(tuple, 1);
		person->chosen_status = result_text(tuple, 2);
		person->custom_message = result_text(tuple, 3);
		person->last_seen = isnull ? DT_NOBEGIN : DatumGetTimestampTz(last_seen);
		person->connections = DatumGetInt64(SPI_getbinval(tuple, desc, 5, &isnull));
		person->living = DatumGetInt64(SPI_getbinval(tuple, desc, 6, &isnull));
		result = lappend(result, person);
	}
	SPI_freetuptable(SPI_tuptable);
	return result;
}

/* Run a statement with the users of "seen" (text[]) and their times. */
static void
run_last_seen(Statement *statement, List *seen)
{
	int			count = list_length(seen);
	Datum	   *users = palloc(count * sizeof(Datum));
	Datum	   *times = palloc(count * sizeof(Datum));
	Datum		values[2];
	ListCell   *lc;

	foreach(lc, seen)
	{
		PresenceLastSeen *one = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		users[foreach_current_index(lc)] = CStringGetTextDatum(one->user);
		times[foreach_current_index(lc)] = TimestampTzGetDatum(one->last_seen);
	}
	values[0] = PointerGetDatum(construct_array(users, count, TEXTOID, -1,
												false, TYPALIGN_INT));
	values[1] = PointerGetDatum(construct_array(times, count, TIMESTAMPTZOID,
												sizeof(TimestampTz), FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	(void) run(statement, values, NULL, InvalidSnapshot, 0);
}

/*
 * Remember when users were last seen in new rows: waits for nobody, and fails
 * at no isolation level.
 */
void
presence_store_add_last_seen(List *seen)
{
	run_last_seen(&add_last_seen, seen);
}

/* Remember when users were last seen, in their rows where there are any. */
void
presence_store_merge_last_seen(List *seen)
{
	run_last_seen(&merge_last_seen, seen);
}

/*
 * Have deferred constraints and triggers fire now, while what they raise can be
 * caught, and not at the commit.
 */
void
presence_store_check_constraints(void)
{
	MemoryContext context = CurrentMemoryContext;

	if (SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0) < 0)
		elog(ERROR, "SPI failed for SET CONSTRAINTS: %s",
			 SPI_result_code_string(SPI_result));
	MemoryContextSwitchTo(context);
}

/* Run a statement on the rows of some blocks, with a time. */
static void
run_in_blocks(Statement *statement, BlockNumber from, BlockNumber to,
			  TimestampTz before)
{
	ItemPointerData first;
	ItemPointerData end;
	Datum		values[3];

	ItemPointerSet(&first, from, 0);
	ItemPointerSet(&end, to, 0);
	values[0] = PointerGetDatum(&first);
	values[1] = PointerGetDatum(&end);
	values[2] = TimestampTzGetDatum(before);
	(void) run(statement, values, NULL, InvalidSnapshot, 0);
}

/*
 * Remove rows that say when users were last seen from some blocks: those from
 * before a time, and those of users who have newer ones.
 */
void
presence_store_forget_last_seen(BlockNumber from, BlockNumber to, TimestampTz before)
{
	run_in_blocks(&forget_last_seen, from, to, before);
}

/* The one bigint that a statement answers. */
static uint64
one_count(void)
{
	bool		isnull;
	Datum		count = SPI_getbinval(SPI_tuptable->vals[0],
									  SPI_tuptable->tupdesc, 1, &isnull);

	SPI_freetuptable(SPI_tuptable);
	return (uint64) DatumGetInt64(count);
}

/* Whether a user is banned from a room, or from all. */
bool
presence_store_is_banned(Datum room, Datum user)
{
	Datum		values[] = {room, user};

	return any_rows(run_newest(&is_banned, values, NULL));
}

/*
 * Lock presences that a ban is against, at most so many, except those that
 * somebody has locked: of users (text[]), or of all where that is 0.
 */
List *
presence_store_lock_banned(Datum users, int limit)
{
	Datum		values[] = {users, Int64GetDatum(limit)};

	return all_rows(users ? run_newest(&lock_banned, values, NULL) :
					run_newest(&lock_all_banned, values + 1, NULL));
}

/* Whether there are presences that a ban is against; locked ones count. */
bool
presence_store_banned_exist(Datum users)
{
	uint64		count = run_newest(&banned_exist, &users, users ? " " : "n");

	SPI_freetuptable(SPI_tuptable);
	return count > 0;
}

/* Make rooms (text[]; 0: all) that have presences and no row, whoever asks. */
void
presence_store_restore_rooms(Datum rooms)
{
	PresenceSession caller = presence_extension_become_owner();

	if (rooms)
		(void) run(&restore_rooms, &rooms, NULL, InvalidSnapshot, 0);
	else
		(void) run(&restore_all_rooms, NULL, NULL, InvalidSnapshot, 0);
	presence_extension_become_caller(caller);
}

/* Whether a user is invited to a room. */
bool
presence_store_is_invited(Datum room, Datum user)
{
	Datum		values[] = {room, user};

	return any_rows(run_newest(&is_invited, values, NULL));
}

/* How many live presences a room has, counted up to a limit. */
uint64
presence_store_count_live(Datum room, int64 limit)
{
	Datum		values[] = {room, Int64GetDatum(limit)};

	(void) run_newest(&count_live, values, NULL);
	return one_count();
}

/* How often a user was admitted to a room since a time. */
uint64
presence_store_count_admissions(Datum room, Datum user, TimestampTz since)
{
	Datum		values[] = {room, user, TimestampTzGetDatum(since)};

	(void) run_newest(&count_admissions, values, NULL);
	return one_count();
}

/* Note that a user was admitted to a room. */
void
presence_store_note_admission(Datum room, Datum user)
{
	Datum		values[] = {room, user};

	(void) run(&note_admission, values, NULL, InvalidSnapshot, 0);
}

/* Remove admissions before a time from some blocks. */
void
presence_store_forget_admissions(BlockNumber from, BlockNumber to, TimestampTz before)
{
	run_in_blocks(&forget_admissions, from, to, before);
}

/* Invite a user to a room; false: invited already. */
bool
presence_store_invite(Datum room, Datum user)
{
	Datum		values[] = {room, user};

	return run(&invite, values, NULL, InvalidSnapshot, 0) > 0;
}

/* Take an invitation back; false: there was none. */
bool
presence_store_uninvite(Datum room, Datum user)
{
	Datum		values[] = {room, user};

	return run(&uninvite, values, NULL, InvalidSnapshot, 0) > 0;
}

/* Ban a user from a room, or from all. */
void
presence_store_ban(Datum room, Datum user, Datum until, Datum reason,
				   bool all_rooms, bool has_reason)
{
	Datum		values[] = {room, user, until, reason};
	char		nulls[] = {all_rooms ? 'n' : ' ', ' ', ' ', has_reason ? ' ' : 'n'};

	(void) run(&ban, values, nulls, InvalidSnapshot, 0);
}

/* End a ban; false: there was none. */
bool
presence_store_unban(Datum room, Datum user, bool all_rooms)
{
	Datum		values[] = {room, user};
	char		nulls[] = {all_rooms ? 'n' : ' ', ' '};

	return run(&unban, values, nulls, InvalidSnapshot, 0) > 0;
}

/*
 * Lock presences for removal: those of a room, of a user there, of a channel
 * there; without a room, those of a user anywhere.  "nulls" speaks of room,
 * user and channel.
 */
List *
presence_store_lock_members(Datum room, Datum user, Datum channel,
							const char *nulls)
{
	Datum		values[] = {room, user, channel};
	bool		any_user = nulls[1] == 'n';
	bool		any_channel = nulls[2] == 'n';
	Statement  *statement = any_user ?
		(any_channel ? &lock_room : &lock_room_channel) :
		(any_channel ? &lock_room_user : &lock_room_user_channel);

	if (nulls[0] == 'n')
		return all_rows(run_newest(&lock_user, &user, NULL));
	return all_rows(run_newest(statement, values, nulls));
}

/* What presence_snapshot() returns. */
Jsonb *
presence_store_snapshot(Datum room, const char *epoch, int64 seq, bool has_seq)
{
	Datum		values[3];
	char		nulls[] = {' ', epoch ? ' ' : 'n', has_seq ? ' ' : 'n'};
	Jsonb	   *snapshot;
	bool		isnull;
	Datum		datum;

	values[0] = room;
	values[1] = epoch ? CStringGetTextDatum(epoch) : (Datum) 0;
	values[2] = Int64GetDatum(seq);
	(void) run(&snapshot_room, values, nulls, InvalidSnapshot, 0);
	datum = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	snapshot = DatumGetJsonbPCopy(datum);
	SPI_freetuptable(SPI_tuptable);
	return snapshot;
}
