-- Proves that the extension installs into the given schema, leaves nothing behind when dropped, and can be created
-- again.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

-- All objects that could be left.
CREATE FUNCTION pg_temp.traces() RETURNS SETOF text LANGUAGE sql AS $$
	SELECT 'function ' || oid::regprocedure FROM pg_proc WHERE (proname LIKE 'presence%' OR proname LIKE 'prune\_%' OR pronamespace::regnamespace::text = 'presence')
	UNION ALL SELECT 'relation ' || oid::regclass FROM pg_class WHERE relnamespace::regnamespace::text = 'presence' OR relname LIKE 'presence%'
	UNION ALL SELECT 'type ' || oid::regtype FROM pg_type WHERE typnamespace::regnamespace::text = 'presence'
	UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname = 'presence'
	UNION ALL SELECT 'extension' FROM pg_extension WHERE extname = 'presence'
	UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE 'presence%'
$$;

SELECT presence_add('install', 'c');
SELECT isnt_empty('SELECT pg_temp.traces()', 'it is here');
DROP EXTENSION presence;
SELECT is_empty('SELECT pg_temp.traces()', 'DROP EXTENSION leaves nothing');

-- Functions in a given schema, the rest in "presence"
CREATE SCHEMA "My Schema";
CREATE EXTENSION presence SCHEMA "My Schema";
SELECT is((SELECT nspname::text FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'presence'), 'My Schema',
	'CREATE EXTENSION … SCHEMA');
SELECT is_empty($$SELECT proname FROM pg_proc WHERE proname LIKE 'presence\_%' AND pronamespace::regnamespace::text NOT IN ('"My Schema"', 'presence')
	AND pronamespace <> pg_my_temp_schema()$$, 'has its functions there');
SELECT is_empty($$SELECT relname FROM pg_class WHERE relnamespace = '"My Schema"'::regnamespace$$, 'and its tables elsewhere');
SELECT isnt_empty($$SELECT relname FROM pg_class WHERE relnamespace = 'presence'::regnamespace$$, 'in presence');
SELECT is(("My Schema".presence_add('install', 'c', 'u', '{"a": 1}')).room, 'install', 'an add works');
SELECT is("My Schema".presence_touch('c'), true, 'a heartbeat');
SELECT is("My Schema".presence_update('install', 'c', '{"b": 1}'), true, 'an update');
SELECT is("My Schema".presence_count('install'), 1::bigint, 'a read');
SELECT is("My Schema".presence_snapshot('install') #>> '{members,0,meta}', '{"a": 1, "b": 1}', 'a snapshot');
CREATE ROLE presence_test_install;
SELECT "My Schema".presence_grant('presence_test_install');
SET LOCAL ROLE presence_test_install;
SELECT is("My Schema".presence_leave_all('c'), 1::bigint, 'presence_grant knows the schema');
RESET ROLE;
SELECT "My Schema".presence_revoke('presence_test_install');
SELECT is("My Schema".prune_rooms(), 1::bigint, 'rooms are pruned');
SELECT is(pg_temp.state_of('ALTER EXTENSION presence SET SCHEMA public'), '0A000', 'it does not move later');
DROP EXTENSION presence;
SELECT is_empty('SELECT pg_temp.traces()', 'dropped, it leaves nothing');

-- All in "presence"
CREATE SCHEMA presence;
CREATE EXTENSION presence SCHEMA presence;
SELECT is((presence.presence_add('install', 'c')).room, 'install', 'SCHEMA presence: an add');
SELECT is(presence.presence_touch('c'), true, 'a heartbeat');
SELECT presence.presence_grant('presence_test_install', 'reader');
SET LOCAL ROLE presence_test_install;
SELECT is(presence.presence_count('install'), 1::bigint, 'a read by another role');
RESET ROLE;
SELECT presence.presence_revoke('presence_test_install');
DROP EXTENSION presence;
SELECT results_eq('SELECT pg_temp.traces()', ARRAY['schema presence'], 'the schema stays, for it is the user''s');

-- A schema that the extension did not create is refused.
SELECT is(pg_temp.state_of('CREATE EXTENSION presence SCHEMA "My Schema"'), '42P06', 'a schema "presence" of somebody else is in the way');
DROP SCHEMA presence;
CREATE EXTENSION presence;
SELECT is((presence_add('install', 'c')).room, 'install', 'once it is gone, the default works');

SELECT finish();
ROLLBACK;

-- The rollback has restored the old extension, and this session uses it.
SELECT presence_touch('c') AS ghost, (presence_add('install', 'c2')).room AS room, presence_leave_all('c2') AS left_ \gset
\if :ghost
\echo not ok - the rolled-back extension left a presence behind
\endif
DELETE FROM presence.rooms;
