-- presence 1.0
-- Complain if this script is run by psql instead of CREATE EXTENSION.
\echo Use "CREATE EXTENSION presence" to load this file. \quit

-- The functions live in the schema that CREATE EXTENSION chose; everything
-- else lives in the schema "presence", made here unless it is that one.
DO $$
BEGIN
	IF '@extschema@' OPERATOR(pg_catalog.<>) 'presence' THEN
		CREATE SCHEMA presence;
		COMMENT ON SCHEMA presence IS 'tables, views and types of the extension presence';
	END IF;
END
$$;

-- 1. Tables ---------------------------------------------------------------

CREATE TABLE presence.rooms (
	name text COLLATE pg_catalog."C" PRIMARY KEY
		CHECK (pg_catalog.char_length(name) OPERATOR(pg_catalog.>=) 1
			   AND pg_catalog.char_length(name) OPERATOR(pg_catalog.<=) 255),
	meta jsonb CHECK (pg_catalog.jsonb_typeof(meta) OPERATOR(pg_catalog.=) 'object'),
	max_members integer CHECK (max_members OPERATOR(pg_catalog.>) 0),
	private boolean NOT NULL DEFAULT false,
	persistent boolean NOT NULL DEFAULT false,
	announce text COLLATE pg_catalog."C"
		CHECK (announce OPERATOR(pg_catalog.=) ANY ('{all,counts,none}'::pg_catalog.text[])),
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

COMMENT ON TABLE presence.rooms IS 'rooms: names that channels are present in, and who may enter';
COMMENT ON COLUMN presence.rooms.name IS 'name of the room, 1 to 255 characters';
COMMENT ON COLUMN presence.rooms.meta IS 'a JSON object of the application''s own, or NULL';
COMMENT ON COLUMN presence.rooms.max_members IS 'most connections the room admits; NULL: unlimited';
COMMENT ON COLUMN presence.rooms.private IS 'whether only invited users may enter';
COMMENT ON COLUMN presence.rooms.persistent IS 'whether the room survives prune_rooms while empty';
COMMENT ON COLUMN presence.rooms.announce IS 'how its changes are announced: all, counts or none; NULL: all, within presence.announce_max';
COMMENT ON COLUMN presence.rooms.created_at IS 'when the room was made';

-- No index on last_seen, no foreign key to rooms: both would tax every
-- heartbeat or every add.  The room is guarded by a table lock, see prune_rooms.
-- No check constraints either, which every statement would read anew: the
-- trigger below checks names and meta.
CREATE TABLE presence.presences (
	id bigint GENERATED ALWAYS AS IDENTITY,
	room text COLLATE pg_catalog."C" NOT NULL,
	channel_name text COLLATE pg_catalog."C" NOT NULL,
	user_id text COLLATE pg_catalog."C",
	meta jsonb,
	joined_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	last_seen timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (room, channel_name)
) WITH (fillfactor = 80,
		autovacuum_vacuum_scale_factor = 0.02,
		autovacuum_vacuum_insert_scale_factor = 0.2,
		autovacuum_analyze_scale_factor = 0.05);

CREATE INDEX presences_channel_name_idx ON presence.presences (channel_name);
CREATE INDEX presences_user_id_idx ON presence.presences (user_id) WHERE user_id IS NOT NULL;

COMMENT ON TABLE presence.presences IS 'presences: one channel in one room';
COMMENT ON COLUMN presence.presences.id IS 'number of the presence; one that joins again, or is moved, gets a new one';
COMMENT ON COLUMN presence.presences.room IS 'room the channel is present in';
COMMENT ON COLUMN presence.presences.channel_name IS 'one connection: a socket, a tab, a device; 1 to 255 characters';
COMMENT ON COLUMN presence.presences.user_id IS 'who is behind the connection, 1 to 255 characters; NULL: anonymous';
COMMENT ON COLUMN presence.presences.meta IS 'a JSON object of the application''s own, or NULL';
COMMENT ON COLUMN presence.presences.joined_at IS 'when the channel entered the room';
COMMENT ON COLUMN presence.presences.last_seen IS 'last sign of life that the row knows of; newer ones are in shared memory: read presence.members';
COMMENT ON INDEX presence.presences_channel_name_idx IS 'finds the rooms of a channel';
COMMENT ON INDEX presence.presences_user_id_idx IS 'finds the connections of a user';

-- Written by the triggers below when presences go, and only if
-- presence.keep_visits says so.  No index on left_at alone: old rows are removed
-- by their ids, which rise with it.
CREATE TABLE presence.visits (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	room text COLLATE pg_catalog."C" NOT NULL,
	channel_name text COLLATE pg_catalog."C" NOT NULL,
	user_id text COLLATE pg_catalog."C",
	joined_at timestamptz NOT NULL,
	left_at timestamptz NOT NULL,
	reason text COLLATE pg_catalog."C" NOT NULL
);

CREATE INDEX visits_room_left_at_idx ON presence.visits (room, left_at);
CREATE INDEX visits_user_id_left_at_idx ON presence.visits (user_id, left_at);

COMMENT ON TABLE presence.visits IS
	'presences that have left: who was in which room from when to when; kept for presence.keep_visits, which says whether any are written';
COMMENT ON COLUMN presence.visits.id IS 'number of the visit, rising in about the order in which they ended';
COMMENT ON COLUMN presence.visits.room IS 'room the channel was present in';
COMMENT ON COLUMN presence.visits.channel_name IS 'the connection';
COMMENT ON COLUMN presence.visits.user_id IS 'who was behind the connection in the end; NULL: anonymous';
COMMENT ON COLUMN presence.visits.joined_at IS 'when the channel entered the room';
COMMENT ON COLUMN presence.visits.left_at IS 'when the presence was removed, by the clock of the server; one that expired was last heard of earlier';
COMMENT ON COLUMN presence.visits.reason IS 'why it left, as the event leave says: leave, expired, disconnected, kicked, banned, room_deleted';
COMMENT ON INDEX presence.visits_room_left_at_idx IS 'finds who was in a room since some time';
COMMENT ON INDEX presence.visits_user_id_left_at_idx IS 'finds where a user was since some time';

-- Rooms that somebody configured are worth a dump; presences are the sockets
-- of this server and are not.
SELECT pg_catalog.pg_extension_config_dump('presence.rooms',
	'WHERE persistent OR private OR max_members IS NOT NULL OR meta IS NOT NULL OR announce IS NOT NULL');
SELECT pg_catalog.pg_extension_config_dump('presence.visits', '');
SELECT pg_catalog.pg_extension_config_dump('presence.visits_id_seq', '');

-- 2. Types ----------------------------------------------------------------

CREATE TYPE presence.member AS (
	id bigint,
	room text COLLATE pg_catalog."C",
	channel_name text COLLATE pg_catalog."C",
	user_id text COLLATE pg_catalog."C",
	meta jsonb,
	joined_at timestamptz,
	last_seen timestamptz
);
COMMENT ON TYPE presence.member IS 'a presence as the functions return it: last_seen is the newest sign of life of its channel';

CREATE TYPE presence.added AS (
	id bigint,
	room text COLLATE pg_catalog."C",
	channel_name text COLLATE pg_catalog."C",
	user_id text COLLATE pg_catalog."C",
	meta jsonb,
	joined_at timestamptz,
	last_seen timestamptz,
	created boolean
);
COMMENT ON TYPE presence.added IS 'a presence as presence_add leaves it: a presence.member, and whether the call made it';

-- 3. Capture: the one place where changes are seen ------------------------

CREATE FUNCTION presence.capture_row() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'presence_capture_row';
COMMENT ON FUNCTION presence.capture_row() IS 'notes inserted, changed and deleted presences for announcement at commit';

CREATE FUNCTION presence.renew_id() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'presence_renew_id';
COMMENT ON FUNCTION presence.renew_id() IS 'gives a presence that is moved to another room or channel a new id, and has it join now';

CREATE FUNCTION presence.write_visits() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'presence_write_visits';
COMMENT ON FUNCTION presence.write_visits() IS 'writes presences that a statement removed or moved into presence.visits';

CREATE FUNCTION presence.capture_truncate() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'presence_capture_truncate';
COMMENT ON FUNCTION presence.capture_truncate() IS 'notes that all presences are gone, for announcement at commit';

CREATE TRIGGER presence_capture_row
	AFTER INSERT OR UPDATE OR DELETE ON presence.presences
	FOR EACH ROW EXECUTE FUNCTION presence.capture_row();
ALTER TABLE presence.presences ENABLE ALWAYS TRIGGER presence_capture_row;
COMMENT ON TRIGGER presence_capture_row ON presence.presences IS 'captures changes, also those of replication';

-- Replication brings the new id along.
CREATE TRIGGER presence_renew_id
	BEFORE UPDATE OF room, channel_name ON presence.presences
	FOR EACH ROW EXECUTE FUNCTION presence.renew_id();
COMMENT ON TRIGGER presence_renew_id ON presence.presences IS 'makes who is moved leave and join as another presence';

-- After presence_capture_row, which has noted the rows.  What replication
-- removes became a visit at its origin.
CREATE TRIGGER presence_write_visits
	AFTER DELETE OR UPDATE OF room, channel_name ON presence.presences
	FOR EACH STATEMENT EXECUTE FUNCTION presence.write_visits();
COMMENT ON TRIGGER presence_write_visits ON presence.presences IS 'keeps who was in which room from when to when';

CREATE TRIGGER presence_capture_truncate
	AFTER TRUNCATE ON presence.presences
	FOR EACH STATEMENT EXECUTE FUNCTION presence.capture_truncate();
ALTER TABLE presence.presences ENABLE ALWAYS TRIGGER presence_capture_truncate;
COMMENT ON TRIGGER presence_capture_truncate ON presence.presences IS 'captures TRUNCATE, also that of replication';

-- Heartbeats of a presences table that was here before mean nothing any more.
TRUNCATE presence.presences;
-- 4. The core: who enters, beats and leaves -------------------------------

CREATE FUNCTION presence_add(room text, channel_name text, user_id text DEFAULT NULL, meta jsonb DEFAULT NULL)
	RETURNS presence.added
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_add(text, text, text, jsonb) IS
	'adds a channel to a room, making both as needed; a sign of life where it is present already, as "created" tells';

CREATE FUNCTION presence_add_many(room text, channel_names text[], user_ids text[] DEFAULT NULL, metas jsonb[] DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_add_many(text, text[], text[], jsonb[]) IS
	'adds many channels to a room, or none where one is refused; of equal names the last counts; returns how many were new';

CREATE FUNCTION presence_update(room text, channel_name text, meta jsonb)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_update(text, text, jsonb) IS
	'merges top-level keys into the meta of a presence, null deletes a key; false: no such presence';

CREATE FUNCTION presence_remove(room text, channel_name text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_remove(text, text) IS
	'removes a channel from one room; false: it was not there';

CREATE FUNCTION presence_touch(channel_name text, ttl_in_seconds double precision DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_touch(text, double precision) IS
	'heartbeat of a channel in all its rooms: it lives for so many seconds, by default presence.max_age; false: it is not present, add it again';

CREATE FUNCTION presence_touch_many(channel_names text[], ttl_in_seconds double precision DEFAULT NULL)
	RETURNS text[]
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_touch_many(text[], double precision) IS
	'heartbeats of many channels, each as by presence_touch; returns those that are not present';

CREATE FUNCTION presence_receive(channel_name text, message text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_receive(text, text) IS
	'heartbeat for a message that came in; false when the message is the JSON literal "heartbeat", which needs no more work';

CREATE FUNCTION presence_hold(channel_name text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_hold(text) IS
	'keeps a channel alive for as long as this database session lasts, without heartbeats; false: it is not present';

CREATE FUNCTION presence_hold_many(channel_names text[])
	RETURNS text[]
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_hold_many(text[]) IS
	'holds many channels, each as by presence_hold; returns those that are not present';

CREATE FUNCTION presence_release(channel_name text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_release(text) IS
	'ends a hold of this session: from now on the channel needs heartbeats; false: this session did not hold it';

CREATE FUNCTION presence_release_all()
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_release_all() IS
	'ends all holds of this session, each as by presence_release; returns how many';

CREATE FUNCTION presence_leave_all(channel_name text, grace_in_seconds double precision DEFAULT 0)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_leave_all(text, double precision) IS
	'removes a channel from every room, after so many seconds without a sign of life; returns from how many';

CREATE FUNCTION presence_leave_all_many(channel_names text[], grace_in_seconds double precision DEFAULT 0)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_leave_all_many(text[], double precision) IS
	'removes many channels from every room, each as by presence_leave_all; returns how many presences go';

CREATE FUNCTION prune_presences(age_in_seconds double precision DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION prune_presences(double precision) IS
	'removes presences without a sign of life for so many seconds, by default those that have expired; returns how many';

CREATE FUNCTION prune_rooms()
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION prune_rooms() IS
	'removes empty rooms that are not persistent, at most 10,000 of them, and what presence.keep_last_seen lets go; returns how many rooms';
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
-- 6. People: chosen statuses and who was last seen when -------------------

CREATE TABLE presence.people (
	user_id text COLLATE pg_catalog."C" PRIMARY KEY
		CHECK (pg_catalog.char_length(user_id) OPERATOR(pg_catalog.>=) 1
			   AND pg_catalog.char_length(user_id) OPERATOR(pg_catalog.<=) 255),
	chosen_status text COLLATE pg_catalog."C"
		CHECK (chosen_status OPERATOR(pg_catalog.=) ANY (ARRAY['online', 'away', 'busy', 'offline'])),
	custom_message text
		CHECK (pg_catalog.char_length(custom_message) OPERATOR(pg_catalog.<=) 100),
	chosen_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

COMMENT ON TABLE presence.people IS 'what users chose to show';
COMMENT ON COLUMN presence.people.user_id IS 'the user, 1 to 255 characters';
COMMENT ON COLUMN presence.people.chosen_status IS 'online, away, busy or offline (invisible); NULL: none chosen, which means online';
COMMENT ON COLUMN presence.people.custom_message IS 'at most 100 characters of the user''s own, or NULL';
COMMENT ON COLUMN presence.people.chosen_at IS 'when the status was chosen; others take it for when an invisible user was last seen';

SELECT pg_catalog.pg_extension_config_dump('presence.people', '');

-- Apart from the choices, and not unique, so that nobody who goes offline waits
-- for a transaction in which somebody chooses, or for another who goes.
CREATE TABLE presence.user_last_seen (
	user_id text COLLATE pg_catalog."C" NOT NULL,
	last_seen timestamptz NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE presence.user_last_seen REPLICA IDENTITY FULL; -- a publication of all tables asks for one
CREATE INDEX user_last_seen_user_id ON presence.user_last_seen (user_id);

COMMENT ON TABLE presence.user_last_seen IS
	'when users whose connections went were last seen; of several rows of a user the newest counts; the worker and prune_rooms remove the others, and those older than presence.keep_last_seen';
COMMENT ON INDEX presence.user_last_seen_user_id IS 'finds when a user was last seen';
COMMENT ON COLUMN presence.user_last_seen.user_id IS 'the user';
COMMENT ON COLUMN presence.user_last_seen.last_seen IS 'a last sign of life of the connections that went';

SELECT pg_catalog.pg_extension_config_dump('presence.user_last_seen', '');

CREATE TYPE presence.person AS (
	user_id text COLLATE pg_catalog."C",
	status text,
	chosen_status text,
	custom_message text,
	connections bigint,
	last_seen timestamptz
);
COMMENT ON TYPE presence.person IS 'a user: status is the effective one, offline without a live connection';

CREATE FUNCTION presence.capture_person() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'presence_capture_person';
COMMENT ON FUNCTION presence.capture_person() IS 'notes changed statuses for announcement at commit';

CREATE TRIGGER presence_capture_person
	AFTER INSERT OR UPDATE OR DELETE ON presence.people
	FOR EACH ROW EXECUTE FUNCTION presence.capture_person();
ALTER TABLE presence.people ENABLE ALWAYS TRIGGER presence_capture_person;
COMMENT ON TRIGGER presence_capture_person ON presence.people IS 'captures changes, also those of replication';

CREATE FUNCTION presence.check_status(status text, custom_message text)
	RETURNS void
	LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'presence_check_status';
COMMENT ON FUNCTION presence.check_status(text, text) IS
	'raises an error unless the arguments of presence_set_status are valid';

CREATE FUNCTION presence_statuses(user_ids text[])
	RETURNS SETOF presence.person
	LANGUAGE c STABLE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_statuses(text[]) IS
	'one row for each user asked for, in the order asked; unknown ones are offline';

CREATE FUNCTION presence_status(user_id text)
	RETURNS presence.person
	LANGUAGE c STABLE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_status(text) IS
	'a user''s effective status, chosen status, message, live connections and when last seen; who chose offline has none, and was last seen then; counts the connections one by one';

CREATE FUNCTION presence_set_status(user_id text, status text, custom_message text DEFAULT NULL)
	RETURNS presence.person
	LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 1000
BEGIN ATOMIC
	SELECT presence.check_name(presence_set_status.user_id, 'user_id');
	SELECT presence.check_status(presence_set_status.status, presence_set_status.custom_message);
	INSERT INTO presence.people AS p (user_id, chosen_status, custom_message)
	VALUES (presence_set_status.user_id, presence_set_status.status, presence_set_status.custom_message)
	ON CONFLICT (user_id) DO UPDATE
		SET chosen_status = excluded.chosen_status, custom_message = excluded.custom_message,
			chosen_at = CASE WHEN p.chosen_status IS DISTINCT FROM excluded.chosen_status
							 THEN excluded.chosen_at ELSE p.chosen_at END
		WHERE ROW(p.chosen_status, p.custom_message) IS DISTINCT FROM
			  ROW(excluded.chosen_status, excluded.custom_message);
	SELECT s.user_id, s.status, s.chosen_status, s.custom_message, s.connections, s.last_seen
	FROM presence_status(presence_set_status.user_id) s;
END;
COMMENT ON FUNCTION presence_set_status(text, text, text) IS
	'chooses a status, online, away, busy or offline (invisible), with a message of at most 100 characters';
-- 7. Short-lived state: cursors, typing and whatever lives for seconds ----

CREATE FUNCTION presence_set_state(room text, key text, value jsonb, ttl_in_seconds double precision DEFAULT 10)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_set_state(text, text, jsonb, double precision) IS
	'keeps a value in shared memory for so many seconds, at most 30 days: not transactional, not in the WAL, gone at restart';

CREATE FUNCTION presence_get_state(room text, key_prefix text DEFAULT '')
	RETURNS TABLE (key text, value jsonb, updated_at timestamptz, expires_at timestamptz)
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_get_state(text, text) IS
	'the values of a room whose keys begin with a prefix, by key; never an expired one';

CREATE FUNCTION presence_clear_state(room text, key text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_clear_state(text, text) IS
	'removes a value of a room; false: there was none';

CREATE FUNCTION presence_cursor_update(room text, user_id text, x double precision, y double precision, meta jsonb DEFAULT '{}')
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_cursor_update(text, text, double precision, double precision, jsonb) IS
	'moves a user''s cursor in a room; it expires presence.cursor_timeout after the last update';

CREATE FUNCTION presence_cursors(room text)
	RETURNS TABLE (user_id text, x double precision, y double precision, meta jsonb, updated_at timestamptz)
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_cursors(text) IS 'the cursors of a room, by user_id';

CREATE FUNCTION presence_cursor_remove(room text, user_id text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_cursor_remove(text, text) IS
	'removes a user''s cursor from a room; false: there was none; the user''s last leave does so too';

CREATE FUNCTION presence_typing(room text, user_id text, is_typing boolean)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_typing(text, text, boolean) IS
	'says that a user types in a room, which ends by itself 6 seconds later, or no longer does';

CREATE FUNCTION presence_typing_users(room text)
	RETURNS SETOF text
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_typing_users(text) IS 'the users who type in a room, by name';
-- 8. Admission, moderation, broadcast -------------------------------------

CREATE TABLE presence.invitations (
	room text COLLATE pg_catalog."C" NOT NULL
		CHECK (pg_catalog.char_length(room) OPERATOR(pg_catalog.>=) 1
			   AND pg_catalog.char_length(room) OPERATOR(pg_catalog.<=) 255),
	user_id text COLLATE pg_catalog."C" NOT NULL
		CHECK (pg_catalog.char_length(user_id) OPERATOR(pg_catalog.>=) 1
			   AND pg_catalog.char_length(user_id) OPERATOR(pg_catalog.<=) 255),
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (room, user_id)
);
COMMENT ON TABLE presence.invitations IS 'who may enter private rooms';
COMMENT ON COLUMN presence.invitations.room IS 'the room';
COMMENT ON COLUMN presence.invitations.user_id IS 'the user who may enter it';
COMMENT ON COLUMN presence.invitations.created_at IS 'when the user was invited';

CREATE TABLE presence.bans (
	room text COLLATE pg_catalog."C"
		CHECK (pg_catalog.char_length(room) OPERATOR(pg_catalog.>=) 1
			   AND pg_catalog.char_length(room) OPERATOR(pg_catalog.<=) 255),
	user_id text COLLATE pg_catalog."C" NOT NULL
		CHECK (pg_catalog.char_length(user_id) OPERATOR(pg_catalog.>=) 1
			   AND pg_catalog.char_length(user_id) OPERATOR(pg_catalog.<=) 255),
	until timestamptz NOT NULL DEFAULT 'infinity',
	reason text,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	UNIQUE NULLS NOT DISTINCT (user_id, room)
);
-- Its key may be NULL; a publication of all tables asks for an identity.
ALTER TABLE presence.bans REPLICA IDENTITY FULL;
COMMENT ON TABLE presence.bans IS 'who may not enter';
COMMENT ON COLUMN presence.bans.room IS 'the room; NULL: every room';
COMMENT ON COLUMN presence.bans.user_id IS 'the user who may not enter';
COMMENT ON COLUMN presence.bans.until IS 'when the ban ends';
COMMENT ON COLUMN presence.bans.reason IS 'why, in the moderator''s words';
COMMENT ON COLUMN presence.bans.created_at IS 'when the ban began';

-- Admissions counted by presence.join_rate.  Losing them in a crash is no
-- harm, so they are not logged.
CREATE UNLOGGED TABLE presence.admissions (
	room text COLLATE pg_catalog."C" NOT NULL,
	user_id text COLLATE pg_catalog."C" NOT NULL,
	admitted_at timestamptz NOT NULL
);
ALTER TABLE presence.admissions REPLICA IDENTITY FULL;
CREATE INDEX admissions_idx ON presence.admissions (user_id, room, admitted_at);
COMMENT ON TABLE presence.admissions IS 'recent admissions, kept while presence.join_rate limits them';
COMMENT ON COLUMN presence.admissions.room IS 'the room';
COMMENT ON COLUMN presence.admissions.user_id IS 'the user who entered it';
COMMENT ON COLUMN presence.admissions.admitted_at IS 'when';
COMMENT ON INDEX presence.admissions_idx IS 'counts a user''s admissions to a room';

SELECT pg_catalog.pg_extension_config_dump('presence.invitations', '');
SELECT pg_catalog.pg_extension_config_dump('presence.bans', '');

CREATE TYPE presence.room AS (
	name text COLLATE pg_catalog."C",
	meta jsonb,
	max_members integer,
	private boolean,
	persistent boolean,
	announce text COLLATE pg_catalog."C",
	created_at timestamptz
);
COMMENT ON TYPE presence.room IS 'a room and its settings; max_members NULL: unlimited; announce NULL: none of its own';

CREATE FUNCTION presence.room_deleted() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'presence_room_deleted';
COMMENT ON FUNCTION presence.room_deleted() IS 'removes the presences of a room that is deleted; invitations and bans stay for the next room of that name';

CREATE TRIGGER presence_room_deleted
	AFTER DELETE ON presence.rooms
	FOR EACH ROW EXECUTE FUNCTION presence.room_deleted();
ALTER TABLE presence.rooms ENABLE ALWAYS TRIGGER presence_room_deleted;
COMMENT ON TRIGGER presence_room_deleted ON presence.rooms IS 'leaves nobody in a room that is gone';

CREATE FUNCTION presence.capture_room() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'presence_capture_room';
COMMENT ON FUNCTION presence.capture_room() IS 'notes that a room is to be announced in another way';

CREATE TRIGGER presence_capture_new_room
	AFTER INSERT ON presence.rooms
	FOR EACH ROW WHEN (NEW.announce IS NOT NULL) EXECUTE FUNCTION presence.capture_room();
ALTER TABLE presence.rooms ENABLE ALWAYS TRIGGER presence_capture_new_room;
COMMENT ON TRIGGER presence_capture_new_room ON presence.rooms IS 'has a new room announced as it says';

CREATE TRIGGER presence_capture_room
	AFTER UPDATE OF name, announce ON presence.rooms
	FOR EACH ROW EXECUTE FUNCTION presence.capture_room();
ALTER TABLE presence.rooms ENABLE ALWAYS TRIGGER presence_capture_room;
COMMENT ON TRIGGER presence_capture_room ON presence.rooms IS 'has a room announced as it says from now on';

CREATE FUNCTION presence.check_room_settings(max_members integer, meta jsonb, announce text)
	RETURNS void
	LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'presence_check_room_settings';
COMMENT ON FUNCTION presence.check_room_settings(integer, jsonb, text) IS
	'raises an error unless the arguments of presence_configure_room are valid';

CREATE FUNCTION presence_configure_room(room text, max_members integer DEFAULT NULL,
	persistent boolean DEFAULT NULL, private boolean DEFAULT NULL, meta jsonb DEFAULT NULL,
	announce text DEFAULT NULL)
	RETURNS presence.room
	LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 1000
BEGIN ATOMIC
	SELECT presence.check_name(presence_configure_room.room, 'room');
	SELECT presence.check_room_settings(presence_configure_room.max_members, presence_configure_room.meta,
										presence_configure_room.announce);
	INSERT INTO presence.rooms AS r (name, max_members, persistent, private, meta, announce)
	VALUES (presence_configure_room.room,
			CASE WHEN presence_configure_room.max_members OPERATOR(pg_catalog.>) 0
				 THEN presence_configure_room.max_members END,
			COALESCE(presence_configure_room.persistent, false),
			COALESCE(presence_configure_room.private, false),
			presence_configure_room.meta,
			CASE WHEN presence_configure_room.announce OPERATOR(pg_catalog.<>) 'default'
				 THEN presence_configure_room.announce END)
	ON CONFLICT (name) DO UPDATE
		SET max_members = CASE WHEN presence_configure_room.max_members IS NULL THEN r.max_members
							   ELSE excluded.max_members END,
			persistent = COALESCE(presence_configure_room.persistent, r.persistent),
			private = COALESCE(presence_configure_room.private, r.private),
			meta = COALESCE(presence_configure_room.meta, r.meta),
			announce = CASE WHEN presence_configure_room.announce IS NULL THEN r.announce
							ELSE excluded.announce END
	RETURNING r.name, r.meta, r.max_members, r.private, r.persistent, r.announce, r.created_at;
END;
COMMENT ON FUNCTION presence_configure_room(text, integer, boolean, boolean, jsonb, text) IS
	'sets what is not NULL, making the room where it does not exist; max_members 0: unlimited; announce: all, counts, none, or default for none of its own';

CREATE FUNCTION presence_invite(room text, user_id text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_invite(text, text) IS 'lets a user enter a private room; false: invited already';

CREATE FUNCTION presence_uninvite(room text, user_id text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_uninvite(text, text) IS
	'takes an invitation back, present connections stay; false: there was none';

CREATE FUNCTION presence_kick(room text, user_id text DEFAULT NULL, channel_name text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_kick(text, text, text) IS
	'removes a user, a channel, or a channel of a user from a room; returns how many presences went';

CREATE FUNCTION presence_ban(room text, user_id text, until timestamptz DEFAULT 'infinity', reason text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_ban(text, text, timestamptz, text) IS
	'keeps a user out of a room, or of every room where that is NULL; returns how many presences went';

CREATE FUNCTION presence_unban(room text, user_id text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_unban(text, text) IS 'ends a ban; false: there was none';

CREATE FUNCTION presence_broadcast(room text, event text, payload jsonb DEFAULT '{}', sender text DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_broadcast(text, text, jsonb, text) IS
	'sends an event to every listener on presence_broadcast when the transaction commits, in order with its changes of presence';
-- 9. Operation ------------------------------------------------------------

CREATE FUNCTION presence_grant(role regrole, level text DEFAULT 'member')
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_grant(regrole, text) IS
	'grants a role what it needs: reader, member or admin; the joins of a gateway wait for no disk after ALTER ROLE ... SET synchronous_commit = off';

CREATE FUNCTION presence_revoke(role regrole)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_revoke(regrole) IS
	'takes back what presence_grant gave';

CREATE FUNCTION presence_start_worker()
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_start_worker() IS
	'starts the worker for this database where none runs; whether one had to be started';

CREATE FUNCTION presence_schedule_pruning(schedule text DEFAULT '* * * * *')
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_schedule_pruning(text) IS
	'has pg_cron call prune_presences and prune_rooms';

CREATE FUNCTION presence_unschedule_pruning()
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_unschedule_pruning() IS
	'takes the pg_cron jobs back; whether there were any';

CREATE FUNCTION presence.stat_row(
	OUT mode text, OUT worker_pid integer, OUT epoch text, OUT seq bigint,
	OUT channels bigint, OUT max_channels bigint, OUT queue_bytes bigint, OUT queue_size bigint,
	OUT adds bigint, OUT touches bigint, OUT leaves bigint, OUT expirations bigint,
	OUT events bigint, OUT bulk_events bigint, OUT resyncs bigint, OUT fallbacks bigint,
	OUT last_expiry_lag interval, OUT last_drain timestamptz, OUT stats_reset timestamptz,
	OUT state_entries bigint, OUT state_bytes bigint, OUT state_evictions bigint,
	OUT replay_bytes bigint, OUT held bigint)
	RETURNS record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'presence_stat_row';
COMMENT ON FUNCTION presence.stat_row() IS 'the row of presence.stats';

CREATE VIEW presence.stats AS
	SELECT s.mode, s.worker_pid, s.epoch, s.seq, s.channels, s.max_channels,
		   s.queue_bytes, s.queue_size, s.adds, s.touches, s.leaves, s.expirations,
		   s.events, s.bulk_events, s.resyncs, s.fallbacks,
		   s.last_expiry_lag, s.last_drain, s.stats_reset,
		   s.state_entries, s.state_bytes, s.state_evictions, s.replay_bytes, s.held
	FROM presence.stat_row() s;
COMMENT ON VIEW presence.stats IS 'one row: how presence works in this database, and what it has done';

CREATE FUNCTION presence_reset_stats()
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_reset_stats() IS 'sets the counters of presence.stats to zero';
-- 10. Privileges: nobody but the owner has any before presence_grant ------

-- PostgreSQL grants functions and types to PUBLIC, and default privileges may
-- grant anything to anybody.  The schema counts where it was made here.  The row
-- types of tables and views, which are members since PostgreSQL 17, tell nothing
-- that the catalogs do not: anybody may write a function that takes such a row.
DO $$
DECLARE
	granted record;
BEGIN
	FOR granted IN
		WITH members AS MATERIALIZED (
			SELECT d.classid, d.objid
			FROM pg_catalog.pg_depend d
			JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
			WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
			  AND d.deptype OPERATOR(pg_catalog.=) 'e'
			  AND e.extname OPERATOR(pg_catalog.=) 'presence'),
		objects AS (
			SELECT 'FUNCTION' AS kind, p.oid::pg_catalog.regprocedure::text AS name, p.proowner AS owner,
				   COALESCE(p.proacl, pg_catalog.acldefault('f', p.proowner)) AS acl
			FROM members m JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) m.objid
			WHERE m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
			UNION ALL
			SELECT CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
				   c.oid::pg_catalog.regclass::text, c.relowner, c.relacl
			FROM members m JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) m.objid
			WHERE m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
			  AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,v,S}')
			UNION ALL
			SELECT 'TYPE', t.oid::pg_catalog.regtype::text, t.typowner,
				   COALESCE(t.typacl, pg_catalog.acldefault('T', t.typowner))
			FROM members m JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) m.objid
			WHERE m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
			  AND t.typcategory OPERATOR(pg_catalog.<>) 'A'
			  AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) t.typrelid
							  AND c.relkind OPERATOR(pg_catalog.<>) 'c')
			UNION ALL
			SELECT 'SCHEMA', pg_catalog.quote_ident(n.nspname), n.nspowner, n.nspacl
			FROM members m JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) m.objid
			WHERE m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass)
		SELECT DISTINCT o.kind, o.name,
			   CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
					ELSE a.grantee::pg_catalog.regrole::text END AS grantee
		FROM objects o CROSS JOIN LATERAL pg_catalog.aclexplode(o.acl) a
		WHERE a.grantee OPERATOR(pg_catalog.<>) o.owner
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %s', granted.kind, granted.name, granted.grantee);
	END LOOP;
END
$$;
