-- 5. Reads ----------------------------------------------------------------

CREATE FUNCTION presence.is_live(channel_name text, last_seen timestamptz)
	RETURNS boolean
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'presence_is_live';
COMMENT ON FUNCTION presence.is_live(text, timestamptz) IS
	'whether the presence whose row has this last_seen is alive';

CREATE FUNCTION presence.effective_last_seen(channel_name text, last_seen timestamptz)
	RETURNS timestamptz
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'presence_effective_last_seen';
COMMENT ON FUNCTION presence.effective_last_seen(text, timestamptz) IS
	'newest sign of life of the channel whose row has this last_seen';

CREATE FUNCTION presence.check_name(value text, argument text)
	RETURNS text
	LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'presence_check_name';
COMMENT ON FUNCTION presence.check_name(text, text) IS
	'returns the value of an argument if it is a valid name, else raises an error that names the argument';

CREATE VIEW presence.members WITH (security_invoker = true) AS
	SELECT p.id, p.room, p.channel_name, p.user_id, p.meta, p.joined_at,
		   presence.effective_last_seen(p.channel_name, p.last_seen) AS last_seen
	FROM presence.presences p
	WHERE presence.is_live(p.channel_name, p.last_seen);
COMMENT ON VIEW presence.members IS 'every live presence, with the newest sign of life of its channel';

-- The reads are C, which runs statements on presence.members, or its table, by
-- indexes alone: plans that ask statistics read the whole table for a small room
-- beside a large one.  Their cost is that of such a statement.

CREATE FUNCTION presence_list(room text)
	RETURNS SETOF presence.member
	LANGUAGE c STABLE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_list(text) IS 'the live presences of a room, by joined_at and id';

CREATE FUNCTION presence_page(room text, max_rows integer DEFAULT 100, after_channel text DEFAULT NULL)
	RETURNS SETOF presence.member
	LANGUAGE c STABLE PARALLEL RESTRICTED COST 100 ROWS 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_page(text, integer, text) IS
	'the first max_rows live presences of a room after a channel, by channel_name; pass the last one''s for the next page';

CREATE FUNCTION presence_users(room text)
	RETURNS TABLE (user_id text, connections bigint, joined_at timestamptz, last_seen timestamptz, meta jsonb)
	LANGUAGE c STABLE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_users(text) IS
	'the distinct users of a room: connections, earliest joined_at, latest last_seen, meta of the newest connection';

CREATE FUNCTION presence_count(room text)
	RETURNS bigint
	LANGUAGE c STABLE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_count(text) IS 'how many live connections a room has';

CREATE FUNCTION presence_anonymous_count(room text)
	RETURNS bigint
	LANGUAGE c STABLE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_anonymous_count(text) IS 'how many live connections without a user a room has';

CREATE FUNCTION presence_counts(room text, OUT connections bigint, OUT users bigint, OUT anonymous bigint)
	RETURNS record
	LANGUAGE c STABLE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_counts(text) IS 'live connections, distinct users and anonymous connections of a room';

CREATE VIEW presence.room_list WITH (security_invoker = true) AS
	SELECT r.name AS room, r.meta, r.persistent, r.max_members, r.announce, r.created_at,
		   c.connections, c.users, c.anonymous
	FROM presence.rooms r
	CROSS JOIN LATERAL presence_counts(r.name) c;
COMMENT ON VIEW presence.room_list IS 'every room with its settings and how many are in it';

CREATE FUNCTION presence_rooms(channel_name text)
	RETURNS SETOF text
	LANGUAGE c STABLE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_rooms(text) IS 'the rooms that a channel is in';

CREATE FUNCTION presence_user_rooms(user_id text)
	RETURNS SETOF text
	LANGUAGE c STABLE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_user_rooms(text) IS 'the distinct rooms that a user is in';

CREATE FUNCTION presence_is_online(user_id text)
	RETURNS boolean
	LANGUAGE c STABLE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_is_online(text) IS 'whether a user has a live connection anywhere; looks no further than the first';

CREATE FUNCTION presence_online(user_ids text[])
	RETURNS TABLE (user_id text, connections bigint, last_seen timestamptz)
	LANGUAGE c STABLE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_online(text[]) IS
	'those of the users that are online, with their live connections (channels, each counted once) and newest sign of life';

CREATE FUNCTION presence_snapshot(room text, max_members integer DEFAULT NULL)
	RETURNS jsonb
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_snapshot(text, integer) IS
	'what a listener loads after LISTEN: room, epoch, seq, counts and members, the first max_members by channel_name where there are more; events with a higher seq came later';

CREATE FUNCTION presence_since(epoch text, seq bigint, stream text DEFAULT 'presence_changed')
	RETURNS SETOF jsonb
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 ROWS 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_since(text, bigint, text) IS
	'the events after seq, in order, for a listener that was cut off and listens again; one resync if they are not all known';

CREATE FUNCTION presence.is_older(channel_name text, last_seen timestamptz, age bigint)
	RETURNS boolean
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'presence_is_older';
COMMENT ON FUNCTION presence.is_older(text, timestamptz, bigint) IS
	'whether the presence whose row has this last_seen has been silent for more than so many microseconds';

CREATE FUNCTION presence.note_touchable(channel_name text, probe bigint)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'presence_note_touchable';
COMMENT ON FUNCTION presence.note_touchable(text, bigint) IS
	'notes, for a heartbeat, that the policies let a row pass; always false, so that nothing is updated';
