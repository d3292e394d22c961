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
