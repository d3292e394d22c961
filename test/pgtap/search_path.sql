-- Proves that a schema full of traps, first in search_path, changes nothing.
\ir lib/helpers.psql
SELECT no_plan();
DELETE FROM presence.presences;
DELETE FROM presence.rooms;
SELECT nspname AS home FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'presence' \gset

CREATE SCHEMA trap;
CREATE FUNCTION trap.spring() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped' USING ERRCODE = 'TRAP1'; END $$;
DO $$
DECLARE
	t text;
	op text;
BEGIN
	FOREACH t IN ARRAY '{text,jsonb,bigint,integer,timestamptz,boolean,double precision,text[],tid,tid[],interval}'::text[] LOOP
		EXECUTE format('CREATE FUNCTION trap.op(a %1$s, b %1$s) RETURNS boolean LANGUAGE plpgsql AS
			$f$ BEGIN PERFORM trap.spring(); RETURN true; END $f$', t);
		FOREACH op IN ARRAY '{=,<>,<,<=,>,>=,||,-}'::text[] LOOP
			EXECUTE format('CREATE OPERATOR trap.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = trap.op)', op, t, t);
		END LOOP;
	END LOOP;
END
$$;
CREATE FUNCTION trap.count("any") RETURNS bigint LANGUAGE internal AS 'pg_backend_pid';
CREATE FUNCTION trap.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.spring(); RETURN NULL; END $$;
CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.spring(); RETURN NULL; END $$;
CREATE FUNCTION trap.unnest(text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.spring(); END $$;
CREATE FUNCTION trap.jsonb_each(jsonb) RETURNS SETOF record LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.spring(); END $$;
CREATE FUNCTION trap.jsonb_typeof(jsonb) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.spring(); RETURN ''; END $$;
CREATE FUNCTION trap.char_length(text) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.spring(); RETURN 1; END $$;
CREATE FUNCTION trap.is_live(text, timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.spring(); RETURN true; END $$;
CREATE FUNCTION trap.check_name(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.spring(); RETURN ''; END $$;
CREATE TABLE trap.presences (LIKE presence.presences);
CREATE TABLE trap.rooms (LIKE presence.rooms);
CREATE TABLE trap.members (LIKE presence.presences);
CREATE DOMAIN trap.text AS integer;
CREATE DOMAIN trap.jsonb AS integer;

-- What a call returns with the traps first, even before pg_catalog.
CREATE FUNCTION pg_temp.trapped(call pg_catalog.text) RETURNS pg_catalog.text LANGUAGE plpgsql AS $$
DECLARE
	query pg_catalog.text := format('SELECT (%s)::pg_catalog.text', call);
	result pg_catalog.text;
BEGIN
	PERFORM pg_catalog.set_config('search_path', 'trap, pg_catalog', true);
	EXECUTE query INTO result;
	PERFORM pg_catalog.set_config('search_path', 'public', true);
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	PERFORM pg_catalog.set_config('search_path', 'public', true);
	RETURN format('%s %s', SQLSTATE, SQLERRM);
END
$$;
SELECT is(pg_temp.trapped($$'a'::pg_catalog.text = 'b'::pg_catalog.text$$), 'TRAP1 trapped', 'the traps work');
SELECT is(pg_temp.trapped(format('%I.%s', :'home', call)), result, call)
FROM (VALUES
	(1, $$presence_count('trap')$$, '0'),
	(2, $$presence_add_many('trap', '{a,b}', '{u,NULL}')$$, '2'),
	(3, $$presence_add_many('trap', '{a,b}', '{v,NULL}')$$, '0'),
	(4, $$presence_update('trap', 'a', '{"x": 1, "y": null}')$$, 'true'),
	(5, $$presence_touch('a')$$, 'true'),
	(6, $$presence_touch_many('{a,nobody}')$$, '{nobody}'),
	(7, $$presence_receive('a', '"heartbeat"')$$, 'false'),
	(8, $$presence_counts('trap')$$, '(2,1,1)'),
	(9, $$presence_anonymous_count('trap')$$, '1'),
	(10, $$presence_rooms('a')$$, 'trap'),
	(11, $$presence_user_rooms('v')$$, 'trap'),
	(12, $$presence_is_online('v')$$, 'true'),
	(13, $$presence_is_online('u')$$, 'false'),
	(14, $$presence_remove('trap', 'b')$$, 'true'),
	(15, $$presence_leave_all('b')$$, '0'),
	(16, $$presence_add('', 'c')$$, '22023 argument "room" must not be empty'),
	(17, $$presence_leave_all_many('{a}')$$, '1'),
	(18, $$prune_presences(3600)$$, '0'),
	(19, $$prune_rooms()$$, '1'),
	(20, $$presence_is_online('v')$$, 'false')) v (n, call, result)
ORDER BY n;
SELECT is_empty('SELECT FROM trap.presences UNION ALL SELECT FROM trap.rooms', 'nothing went into the traps');

-- The same for functions that return rows, and for the commit, which announces.
CREATE ROLE presence_test_trap;
BEGIN;
SET LOCAL search_path = trap, pg_catalog;
SELECT channel_name AS added FROM :home.presence_add('trap', 'a', 'u', '{"x": 1}') \gset
SELECT channel_name AS list FROM :home.presence_list('trap') \gset
SELECT user_id AS users FROM :home.presence_users('trap') \gset
SELECT user_id AS online FROM :home.presence_online('{u}') \gset
SELECT channel_name AS members FROM presence.members \gset
SELECT connections AS rooms FROM presence.room_list \gset
SELECT :home.presence_snapshot('trap') OPERATOR(pg_catalog.->>) 'connections'::pg_catalog.text AS snapshot \gset
SELECT mode AS stats FROM presence.stats \gset
SELECT :home.presence_grant('presence_test_trap', 'admin');
SELECT :home.presence_revoke('presence_test_trap');
COMMIT;
SELECT is(concat_ws(' ', :'added', :'list', :'users', :'online', :'members', :'rooms', :'snapshot'), 'a a u u a 1 1', 'reads of rows');
SELECT is(presence_touch('a'), true, 'a commit among the traps');

DROP ROLE presence_test_trap;
DROP SCHEMA trap CASCADE;
DELETE FROM presence.presences;
DELETE FROM presence.rooms;
SELECT finish();
