-- presence @VERSION@
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
