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
