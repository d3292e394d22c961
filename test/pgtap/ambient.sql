-- Proves that every function returns the same whatever the environment of the session: settings, transactions, callers.
\ir lib/helpers.psql
SELECT no_plan();
CREATE ROLE presence_ambient_role;
\ir lib/ambient.psql

SELECT is_empty($$
	SELECT p.proname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND extname = 'presence'
	JOIN pg_proc p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass AND p.pronamespace = e.extnamespace
	WHERE d.refclassid = 'pg_extension'::regclass AND p.prorettype <> 'trigger'::regtype
		AND p.proname ~ '^(presence|prune)_'
		AND NOT EXISTS (SELECT FROM presence_ambient.steps s WHERE s.call ~ ('\m' || p.proname || '\('))$$,
	'the scenario calls every function');
CALL presence_ambient.clear();
CALL presence_ambient.run('call', NULL) \gset
INSERT INTO presence_ambient.plain VALUES (:'digest');
SELECT is((SELECT string_agg(left(d, 5), ' ' ORDER BY n) FROM unnest(:'digest'::text[]) WITH ORDINALITY u (d, n) WHERE d ~ '^[0-9A-Z]{5} [a-z]'),
	CASE WHEN pg_temp.preloaded() THEN '22023 22001 22023 22023 22023 PR001 PR004 PR002 54000 22023 0A000 0A000 22023'
		ELSE '22023 22001 22023 55000 55000 22023 22023 PR001 PR004 PR002 54000 55000 55000 55000 55000 55000 55000 55000 55000 55000 55000 0A000 0A000 22023' END,
	'in plain surroundings it raises what it should');

CALL presence_ambient.try('again', 'call', '{}');
CALL presence_ambient.try('in one transaction', 'transaction', '{}');
CALL presence_ambient.try('called per row, in one statement', 'statement', '{}');
CALL presence_ambient.try('inside a FETCH', 'cursor', '{}');
CALL presence_ambient.try('inside a trigger', 'trigger', '{}');

CALL presence_ambient.try('DateStyle German', 'call', '{DateStyle, "German, DMY"}');
CALL presence_ambient.try('DateStyle SQL', 'call', '{DateStyle, "SQL, MDY", IntervalStyle, sql_standard}');
CALL presence_ambient.try('DateStyle Postgres', 'call', '{DateStyle, "Postgres, YMD", IntervalStyle, iso_8601}');
CALL presence_ambient.try('TimeZone', 'call', '{TimeZone, Asia/Kathmandu}');
CALL presence_ambient.try('TimeZone of a POSIX kind', 'call', '{TimeZone, "<-03:17>+3:17"}');
CALL presence_ambient.try('bytea_output', 'call', '{bytea_output, escape}');
CALL presence_ambient.try('extra_float_digits', 'call', '{extra_float_digits, -15}');
CALL presence_ambient.try('standard_conforming_strings', 'call', '{standard_conforming_strings, off, escape_string_warning, off, backslash_quote, on}');
CALL presence_ambient.try('quote_all_identifiers', 'call', '{quote_all_identifiers, on, transform_null_equals, on, array_nulls, on}');
CALL presence_ambient.try('READ UNCOMMITTED', 'call', '{default_transaction_isolation, "read uncommitted"}');
CALL presence_ambient.try('REPEATABLE READ', 'call', '{default_transaction_isolation, "repeatable read"}');
CALL presence_ambient.try('SERIALIZABLE', 'call', '{default_transaction_isolation, serializable, default_transaction_deferrable, on}');
CALL presence_ambient.try('SERIALIZABLE, in one transaction', 'transaction', '{default_transaction_isolation, serializable}');
CALL presence_ambient.try('row_security', 'call', '{row_security, off}');
CALL presence_ambient.try('session_replication_role replica', 'call', '{session_replication_role, replica}');
CALL presence_ambient.try('session_replication_role local', 'call', '{session_replication_role, local}');
CALL presence_ambient.try('generic plans', 'call', '{plan_cache_mode, force_generic_plan}');
CALL presence_ambient.try('custom plans', 'call', '{plan_cache_mode, force_custom_plan}');
CALL presence_ambient.try('jit', 'call', '{jit, on, jit_above_cost, 0}');
CALL presence_ambient.try('timeouts', 'call', '{statement_timeout, 10min, lock_timeout, 10min, idle_in_transaction_session_timeout, 10min}');
CALL presence_ambient.try('work_mem', 'call', '{work_mem, 64kB, from_collapse_limit, 1, join_collapse_limit, 1, geqo_threshold, 2}');
CALL presence_ambient.try('synchronous_commit', 'call', '{synchronous_commit, off, commit_delay, 0}');
CALL presence_ambient.try('check_function_bodies', 'call', '{check_function_bodies, off, constraint_exclusion, on, xmloption, document}');
CALL presence_ambient.try('client_min_messages', 'call', '{client_min_messages, error}');

-- Every setting of the planner
DO $$
DECLARE
	switch text;
BEGIN
	FOR switch IN SELECT name FROM pg_settings WHERE name LIKE 'enable\_%' AND vartype = 'bool' ORDER BY 1 LOOP
		CALL presence_ambient.try(switch, 'call', ARRAY[switch, CASE WHEN current_setting(switch)::boolean THEN 'off' ELSE 'on' END]);
	END LOOP;
	CALL presence_ambient.try('no way to scan', 'call',
		'{enable_seqscan, off, enable_indexscan, off, enable_indexonlyscan, off, enable_bitmapscan, off, enable_tidscan, off, enable_nestloop, off, enable_hashjoin, off, enable_mergejoin, off, enable_sort, off, enable_hashagg, off}');
END
$$;

-- A schema full of traps, first in the path; a temporary one; none at all
CREATE SCHEMA presence_trap;
CREATE FUNCTION presence_trap.spring() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
DO $$
DECLARE
	t text;
	op text;
	f record;
BEGIN
	FOREACH t IN ARRAY '{text,name,jsonb,bigint,integer,timestamptz,interval,boolean,double precision,"text[]",tid,"tid[]",oid}'::text[] LOOP
		EXECUTE format('CREATE FUNCTION presence_trap.op(a %1$s, b %1$s) RETURNS boolean LANGUAGE plpgsql AS
			$f$ BEGIN PERFORM presence_trap.spring(); RETURN true; END $f$', t);
		FOREACH op IN ARRAY '{=,<>,<,<=,>,>=,||,-,+,->,->>,@>,~}'::text[] LOOP
			EXECUTE format('CREATE OPERATOR presence_trap.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = presence_trap.op)', op, t, t);
		END LOOP;
	END LOOP;
	-- every function of ours, and what they may call
	FOR f IN SELECT DISTINCT ON (p.proname, args) p.proname, pg_get_function_identity_arguments(p.oid) AS args
		FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
		JOIN pg_extension e ON e.oid = d.refobjid AND extname = 'presence'
		WHERE p.prorettype <> 'trigger'::regtype AND p.proargmodes IS NULL LOOP
		EXECUTE format('CREATE FUNCTION presence_trap.%I(%s) RETURNS text LANGUAGE sql AS $f$ SELECT presence_trap.spring() $f$', f.proname, f.args);
	END LOOP;
END
$$;
CREATE FUNCTION presence_trap.count("any") RETURNS bigint LANGUAGE internal AS 'pg_backend_pid';
CREATE FUNCTION presence_trap.unnest(anyarray) RETURNS SETOF text LANGUAGE sql AS $$ SELECT presence_trap.spring() $$;
CREATE FUNCTION presence_trap.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT presence_trap.spring()::timestamptz $$;
CREATE FUNCTION presence_trap.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT presence_trap.spring()::timestamptz $$;
CREATE FUNCTION presence_trap.char_length(text) RETURNS integer LANGUAGE sql AS $$ SELECT presence_trap.spring()::integer $$;
CREATE FUNCTION presence_trap.jsonb_typeof(jsonb) RETURNS text LANGUAGE sql AS $$ SELECT presence_trap.spring() $$;
CREATE FUNCTION presence_trap.jsonb_each(jsonb) RETURNS SETOF text LANGUAGE sql AS $$ SELECT presence_trap.spring() $$;
CREATE TABLE presence_trap.presences (LIKE presence.presences);
CREATE TABLE presence_trap.rooms (LIKE presence.rooms);
CREATE TABLE presence_trap.members (LIKE presence.presences);
CREATE TABLE presence_trap.people (LIKE presence.people);
CREATE TABLE presence_trap.presence (i integer);
CREATE TABLE presence_trap.pg_extension (i integer);
CREATE DOMAIN presence_trap.text AS integer;
CREATE DOMAIN presence_trap.jsonb AS integer;
CREATE DOMAIN presence_trap.bigint AS pg_catalog.text;
CREATE DOMAIN presence_trap.regrole AS pg_catalog.text;
CREATE TEMP TABLE presences (LIKE presence.presences);
CREATE TEMP TABLE rooms (LIKE presence.rooms);
CREATE TEMP TABLE members (i integer);
CREATE TEMP TABLE text (i integer);
CREATE TEMP TABLE jsonb (i integer);
CALL presence_ambient.try('traps in the search path', 'call', '{search_path, "presence_trap, pg_catalog"}');
CALL presence_ambient.try('temporary traps first', 'call', '{search_path, "pg_temp, presence_trap, pg_catalog"}');
CALL presence_ambient.try('an empty search path', 'call', '{search_path, "\"\""}');
CALL presence_ambient.try('traps inside a FETCH', 'cursor', '{search_path, "presence_trap, pg_catalog"}');
DROP TABLE pg_temp.text, pg_temp.jsonb, pg_temp.members;
SELECT is_empty('TABLE presence_trap.presences UNION ALL TABLE presence_trap.members UNION ALL TABLE pg_temp.presences', 'nothing went into the traps');

SELECT is(difference, '', label) FROM presence_ambient.results ORDER BY n;

-- Read-only: functions that write are refused with 25006, others answer as usual, and the session continues.
CALL presence_ambient.clear();
SELECT (presence_add('amb', 'a', 'alice')).channel_name AS added \gset
CREATE TEMP TABLE answers (n integer, writes boolean, call pg_catalog.text, answer pg_catalog.text);
SET default_transaction_read_only = on;
INSERT INTO answers SELECT s.n, s.writes, s.call, presence_ambient.answer(s.call)
FROM (SELECT * FROM presence_ambient.steps ORDER BY n) s;
SELECT is_empty($$SELECT call, answer FROM answers WHERE answer ~ '^[0-9A-Z]{5} ' AND answer !~ '^(25006|22|0A000|54000|55000)'$$, 'read-only: no other refusal');
SELECT is_empty($$SELECT call, answer FROM answers WHERE writes AND answer !~ '^(25006|[0f])'$$, 'read-only: nothing is written');
-- Without shared memory heartbeats are written to rows.
SELECT is_empty($$SELECT call, answer FROM answers WHERE NOT writes AND answer ~ '^25006'
	AND call !~ 'presence_(remove|leave_all)' AND (pg_temp.preloaded() OR call !~ '(presence_add|presence_touch|presence_receive)')$$,
	'read-only: what does not write is not refused');
SELECT is(presence_touch('a'), true, 'read-only: a heartbeat is allowed') WHERE pg_temp.preloaded();
SELECT is(presence_count('amb'), 1::bigint, 'read-only: and so are reads');
RESET default_transaction_read_only;
SELECT is((SELECT count(*) FROM presence.presences), 1::bigint, 'read-only: the tables are as they were');
DELETE FROM presence_ambient.results;
CALL presence_ambient.try('after it', 'call', '{}');
SELECT is(difference, '', label) FROM presence_ambient.results ORDER BY n;

CALL presence_ambient.clear();
SET client_min_messages = warning;
DROP SCHEMA presence_trap CASCADE;
DROP SCHEMA presence_ambient CASCADE;
DROP ROLE presence_ambient_role;
-- Other tests find the database unchanged: without preload the scenario has started a worker.
CREATE FUNCTION pg_temp.workers() RETURNS SETOF integer LANGUAGE sql AS
	$$ SELECT pid FROM pg_stat_activity WHERE backend_type = 'presence worker' AND datname = current_database() AND NOT pg_temp.preloaded() $$;
SELECT is_empty('SELECT w FROM pg_temp.workers() w WHERE NOT pg_terminate_backend(w)', 'the worker is told to end');
CALL pg_temp.wait_for('SELECT NOT EXISTS (SELECT pg_temp.workers())');
DELETE FROM presence.user_last_seen;
SELECT finish();
