-- Objects for the random queries of sqlsmith: rooms with people in them, values of every type that presence's functions
-- take, and these functions, each under more than one name so that they are called often. The role that calls them is a
-- client with all privileges that presence_grant gives, not a superuser.
\set ON_ERROR_STOP 1

CREATE EXTENSION presence;
CREATE ROLE smith LOGIN;
CREATE SCHEMA smith;
SELECT presence_grant('smith', 'admin');

DO $$
DECLARE
	f record;
BEGIN
	FOR f IN
		SELECT p.oid, p.proname, n.nspname, i
		FROM pg_depend d
		JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'presence'
		JOIN pg_proc p ON p.oid = d.objid AND p.prorettype <> 'trigger'::regtype
		JOIN pg_namespace n ON n.oid = p.pronamespace
		CROSS JOIN generate_series(1, 5) i
		WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass
		  AND d.deptype = 'e'
	LOOP
		-- a body in SQL names its arguments after the function
		EXECUTE replace(replace(pg_get_functiondef(f.oid),
			format('FUNCTION %I.%I', f.nspname, f.proname),
			format('FUNCTION smith.%I', f.proname || '_' || f.i)),
			f.proname || '.', f.proname || '_' || f.i || '.');
	END LOOP;
END
$$;

-- sqlsmith reads pg_proc without its schema, and finds this view first: a few of the server's functions beside those of
-- presence. Operators are removed from the real catalog, because otherwise half of the queries would take a range of
-- one type for one of another.
CREATE SCHEMA catalog;
CREATE VIEW catalog.hard_types AS
SELECT oid FROM pg_type
WHERE typtype IN ('r', 'm') OR typcategory = 'G'
   OR typname ~ '^any|^(xml|txid_snapshot|pg_snapshot|pg_lsn|inet|cidr|macaddr8?|tsvector|tsquery|void|record)$';
CREATE VIEW catalog.pg_proc AS
SELECT p.*
FROM pg_catalog.pg_proc p
WHERE p.pronamespace = 'smith'::regnamespace
   OR (p.pronamespace = 'pg_catalog'::regnamespace AND p.provolatile = 'i'
	   AND (p.prokind = 'a' OR p.oid::bigint % 7 = 0)
	   AND NOT ARRAY[p.prorettype] || string_to_array(p.proargtypes::text, ' ')::oid[] && ARRAY(SELECT oid FROM catalog.hard_types));
GRANT USAGE ON SCHEMA catalog TO smith;
GRANT SELECT ON catalog.pg_proc TO smith;

SET allow_system_table_mods = on;
DELETE FROM pg_operator
WHERE oid < 16384 AND ARRAY[oprleft, oprright] && ARRAY(SELECT oid FROM catalog.hard_types WHERE oid <> ALL ('{anyarray,anynonarray}'::regtype[]));
RESET allow_system_table_mods;

CREATE TABLE smith.arguments AS
SELECT 'room' || i % 5 AS room,
	'channel' || i AS channel_name,
	'user' || i % 20 AS user_id,
	CASE i % 3 WHEN 0 THEN '{"x": 1e3}' WHEN 1 THEN '[1, {"k": null}]' ELSE '"word"' END::jsonb AS meta,
	ARRAY['channel' || i, 'channel' || i + 1, NULL] AS names,
	ARRAY['{}', NULL, '{"a": [1]}']::jsonb[] AS metas,
	('{away,busy,nonsense,NULL}'::text[])[1 + i % 4] AS status,
	'cursor:user' || i AS key,
	i::double precision AS seconds,
	'smith'::regrole AS role,
	now() + i * interval '1 second' AS until
FROM generate_series(-2, 100) i;

INSERT INTO presence.rooms (name) SELECT DISTINCT room FROM smith.arguments;
SELECT count(presence_add(room, channel_name, user_id)) FROM smith.arguments;

-- sqlsmith calls no set-returning functions, but reads views.
CREATE VIEW smith.list AS SELECT r.name AS in_room, l.* FROM presence.rooms r, presence_list(r.name) l;
CREATE VIEW smith.users AS SELECT r.name AS in_room, u.* FROM presence.rooms r, presence_users(r.name) u;
CREATE VIEW smith.snapshots AS SELECT r.name AS in_room, presence_snapshot(r.name) AS snapshot FROM presence.rooms r;
CREATE VIEW smith.states AS SELECT r.name AS in_room, s.* FROM presence.rooms r, presence_get_state(r.name) s;
CREATE VIEW smith.cursors AS SELECT r.name AS in_room, c.* FROM presence.rooms r, presence_cursors(r.name) c;
CREATE VIEW smith.statuses AS SELECT s.* FROM presence_statuses(ARRAY(SELECT DISTINCT user_id FROM presence.presences)) s;

GRANT USAGE ON SCHEMA smith TO smith;
GRANT ALL ON ALL TABLES IN SCHEMA smith TO smith;

-- One step of the load. Changes that sqlsmith makes to rooms and bans make it fail now and then, which must not end the
-- load.
CREATE SEQUENCE smith.steps;
CREATE PROCEDURE smith.step(n integer)
LANGUAGE plpgsql AS $$
DECLARE
	in_room text := 'room' || n % 5;
	channel text := 'load' || n % 60;
	someone text := 'user' || n % 20;
BEGIN
	PERFORM nextval('smith.steps');
	PERFORM presence_touch(channel);
	PERFORM presence_add(in_room, channel, someone, jsonb_build_object('n', n));
	PERFORM presence_set_state(in_room, 'cursor:' || someone, jsonb_build_object('x', n, 'y', n));
	PERFORM presence_typing(in_room, someone, n % 2 = 0);
	PERFORM presence_set_status(someone, CASE n % 3 WHEN 0 THEN 'away' WHEN 1 THEN 'busy' END);
	PERFORM presence_broadcast(in_room, 'said', jsonb_build_object('n', n));
	IF n % 4 = 0 THEN
		PERFORM presence_leave_all(channel);
	END IF;
	IF n % 50 = 0 THEN
		RAISE EXCEPTION 'undone';
	END IF;
EXCEPTION WHEN OTHERS THEN
	PERFORM presence_count(in_room);
END
$$;
