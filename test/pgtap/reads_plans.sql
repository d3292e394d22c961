-- Proves that reading a room of five reads the same number of blocks beside one of 60,000, whichever statistics were
-- collected.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

-- Live during the whole test, by the extension's clock, which other tests may have advanced.
CREATE TEMP TABLE clock AS SELECT a.last_seen + '10 minutes' AS seen FROM presence_add('clock', 'clock') a;

-- Other rows, as the table would contain them: the triggers would only take time.
ALTER TABLE presence.presences DISABLE TRIGGER USER;
TRUNCATE presence.presences, presence.rooms, presence.people, presence.user_last_seen;

CREATE FUNCTION pg_temp.fill_small() RETURNS void LANGUAGE sql AS $$
	TRUNCATE presence.presences, presence.rooms;
	INSERT INTO presence.presences (last_seen, room, channel_name, user_id)
	SELECT seen, 'small' || r, 'small' || r || '-' || c, CASE WHEN c > 1 THEN 'user' || r || '-' || c / 2 END
	FROM clock, generate_series(1, 5) r, generate_series(1, 5) c;
	INSERT INTO presence.rooms (name) SELECT 'small' || r FROM generate_series(1, 5) r;
$$;
-- All members of the big room are one of three users.
CREATE FUNCTION pg_temp.fill_big() RETURNS void LANGUAGE sql AS $$
	INSERT INTO presence.presences (last_seen, room, channel_name, user_id)
	SELECT seen, 'big', 'big-' || c, CASE WHEN c % 4 > 0 THEN 'crowd' || c % 4 END FROM clock, generate_series(1, 60000) c;
	INSERT INTO presence.rooms (name) SELECT 'big' UNION ALL SELECT 'empty' || lpad(c::text, 6, '0') FROM generate_series(1, 5000) c;
$$;
-- One channel is in very many rooms.
CREATE FUNCTION pg_temp.fill_wide() RETURNS void LANGUAGE sql AS $$
	INSERT INTO presence.presences (last_seen, room, channel_name, user_id)
	SELECT seen, 'wide' || c, 'everywhere', 'everywhere' FROM clock, generate_series(1, 10000) c;
$$;

-- Statistics are taken from a sample, which misses the small rooms of a very large table: therefore of this one.
ALTER TABLE presence.presences ALTER id SET STATISTICS 1, ALTER room SET STATISTICS 1, ALTER channel_name SET STATISTICS 1,
	ALTER user_id SET STATISTICS 1, ALTER meta SET STATISTICS 1, ALTER joined_at SET STATISTICS 1, ALTER last_seen SET STATISTICS 1;

-- Blocks of tables and indexes of presence that this transaction requested, and sequential scans of presences.
CREATE FUNCTION pg_temp.blocks() RETURNS bigint LANGUAGE sql AS $$
	SELECT sum(pg_stat_get_xact_blocks_fetched(oid)) FROM pg_class
	WHERE relnamespace = 'presence'::regnamespace AND relkind IN ('r', 'i')
$$;
CREATE FUNCTION pg_temp.whole() RETURNS bigint LANGUAGE sql AS $$
	SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relid = 'presence.presences'::regclass
$$;
CREATE FUNCTION pg_temp.cost_of(query text, OUT blocks bigint, OUT scans bigint, OUT answer text) LANGUAGE plpgsql AS $$
DECLARE
	before bigint;
	scans_before bigint;
BEGIN
	-- not what the first use in a session reads of catalogs or the size of tables
	EXECUTE query;
	before := pg_temp.blocks();
	scans_before := pg_temp.whole();
	EXECUTE query INTO answer;
	blocks := pg_temp.blocks() - before;
	scans := pg_temp.whole() - scans_before;
END
$$;

CREATE TEMP TABLE reads (query text PRIMARY KEY);
INSERT INTO reads VALUES
	('SELECT string_agg(channel_name, '' '') FROM presence_list(''small3'')'),
	('SELECT string_agg(channel_name, '' '') FROM presence_page(''small3'')'),
	('SELECT jsonb_array_length(presence_snapshot(''small3'', 2)->''members'')'),
	('SELECT string_agg(u::text, '' '') FROM (SELECT user_id, connections FROM presence_users(''small3'')) u'),
	('SELECT presence_count(''small3'')'), ('SELECT presence_anonymous_count(''small3'')'), ('SELECT presence_counts(''small3'')'),
	('SELECT presence_rooms(''small3-2'')'), ('SELECT presence_user_rooms(''user3-1'')'), ('SELECT presence_is_online(''user3-1'')'),
	('SELECT presence_is_online(''nobody'')'),
	('SELECT string_agg(o::text, '' '') FROM (SELECT user_id, connections FROM presence_online(''{user3-1,user4-2,nobody}'')) o'),
	('SELECT string_agg(s::text, '' '') FROM (SELECT user_id, status, connections FROM presence_statuses(''{user3-1,user4-2,nobody}'')) s'),
	('SELECT s::text FROM (SELECT user_id, status, connections FROM presence_status(''user3-1'')) s'),
	('SELECT jsonb_array_length(presence_snapshot(''small3'')->''members'')'),
	('SELECT l::text FROM (SELECT room, connections, users, anonymous FROM presence.room_list WHERE room = ''small3'') l');

-- Before the big room exists.
SELECT pg_temp.fill_small();
CREATE TEMP TABLE alone AS SELECT query, c.* FROM reads, pg_temp.cost_of(query) c;
SELECT is_empty('SELECT query FROM alone WHERE answer IS NULL', 'each reads something');

-- At most two more levels of an index, for each index scan.
CREATE FUNCTION pg_temp.compare(circumstance text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	a record;
	c record;
BEGIN
	FOR a IN SELECT * FROM alone ORDER BY query COLLATE "C" LOOP
		c := pg_temp.cost_of(a.query);
		RETURN NEXT is(c.answer, a.answer, circumstance || ', the same answer: ' || a.query);
		RETURN NEXT is(c.scans, 0::bigint, circumstance || ', the table is not read whole: ' || a.query);
		RETURN NEXT cmp_ok(c.blocks, '<=', a.blocks + 20, circumstance || ', a few blocks: ' || a.query);
	END LOOP;
END
$$;

SELECT pg_temp.fill_big();
SELECT pg_temp.compare('plans from before, no statistics');
DISCARD PLANS;
SELECT pg_temp.compare('no statistics');

ANALYZE presence.presences, presence.rooms, presence.people, presence.user_last_seen;
SELECT pg_temp.compare('statistics of now');

SELECT pg_temp.fill_small();
ANALYZE presence.presences, presence.rooms;
SELECT pg_temp.fill_big();
SELECT pg_temp.compare('statistics from before');

TRUNCATE presence.presences, presence.rooms;
ANALYZE presence.presences, presence.rooms;
SELECT pg_temp.fill_small(), pg_temp.fill_big();
SELECT pg_temp.compare('statistics of nothing');

SELECT pg_temp.fill_small(), pg_temp.fill_wide();
ANALYZE presence.presences, presence.rooms;
SELECT pg_temp.compare('statistics of a channel in many rooms');
SELECT pg_temp.fill_small(), pg_temp.fill_big();

-- The session's settings for its own plans do not matter, and are not changed.
SET LOCAL enable_indexscan = off;
SET LOCAL enable_bitmapscan = off;
SET LOCAL plan_cache_mode = force_custom_plan;
DISCARD PLANS;
SELECT ok(c.blocks <= a.blocks + 20 AND c.scans = 0, 'index scans forbidden: ' || query) FROM alone a, pg_temp.cost_of(query) c
WHERE query ~ 'presence_(list|users|count|counts|online|statuses)\(';
SELECT is(string_agg(name || '=' || setting, ' ' ORDER BY name), 'enable_bitmapscan=off enable_indexscan=off enable_seqscan=on jit='
	|| current_setting('jit') || ' plan_cache_mode=force_custom_plan', 'as the session had them')
FROM pg_settings WHERE name IN ('enable_seqscan', 'enable_indexscan', 'enable_bitmapscan', 'jit', 'plan_cache_mode');
RESET enable_indexscan;
RESET enable_bitmapscan;
RESET plan_cache_mode;

-- Functions called by a policy are planned, and run, with the session's settings.
CREATE FUNCTION pg_temp.settings() RETURNS text LANGUAGE sql VOLATILE AS
	$$ SELECT current_setting('enable_seqscan') || current_setting('jit') || current_setting('plan_cache_mode') $$;
CREATE TEMP TABLE seen (settings text);
CREATE FUNCTION pg_temp.look(room text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	INSERT INTO seen SELECT pg_temp.settings();
	RETURN true;
END
$$;
CREATE ROLE presence_test_tenant;
SELECT presence_grant('presence_test_tenant', 'reader');
GRANT INSERT ON seen TO presence_test_tenant;
GRANT SELECT ON alone, reads TO presence_test_tenant;
ALTER TABLE presence.presences ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON presence.presences FOR SELECT TO presence_test_tenant USING (room LIKE 'small%' AND pg_temp.look(room));
SET LOCAL ROLE presence_test_tenant;
SELECT is(presence_count('small3'), 5::bigint, 'row-level security lets through');
SELECT is(presence_count('big'), 0::bigint, 'and keeps back');
SELECT is_empty($$SELECT query FROM (SELECT * FROM alone WHERE query !~ 'snapshot' OFFSET 0) a, pg_temp.cost_of(query) c
	WHERE c.scans > 0 OR c.answer <> a.answer OR c.blocks > a.blocks + 20$$, 'and costs no more blocks');
RESET ROLE;
SELECT results_eq('SELECT DISTINCT settings FROM seen', ARRAY[pg_temp.settings()], 'a policy meets the settings of the session');

-- An error restores them, too.
CREATE OR REPLACE FUNCTION pg_temp.look(room text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS
	$$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'P0009'; END $$;
SET LOCAL ROLE presence_test_tenant;
SELECT is(pg_temp.state_of('SELECT presence_count(''small3'')'), 'P0009', 'a policy may raise an error');
RESET ROLE;
SELECT is(pg_temp.settings(), (SELECT max(settings) FROM seen), 'after which the settings are as before');
DROP POLICY tenant ON presence.presences;
CREATE POLICY tenant ON presence.presences FOR SELECT TO presence_test_tenant USING (room = (1 / 0)::text);
SET LOCAL ROLE presence_test_tenant;
SELECT is(pg_temp.state_of('SELECT presence_count(''small3'')'), '22012', 'one may even fail to be planned');
RESET ROLE;
SELECT is(pg_temp.settings(), (SELECT max(settings) FROM seen), 'after which they are, too');
ALTER TABLE presence.presences DISABLE ROW LEVEL SECURITY;

-- The cost of the list of rooms depends on what it shows.
SELECT ok(scans = 0 AND blocks < 200, format('the first 20 rooms by name: %s blocks', blocks))
FROM pg_temp.cost_of('SELECT count(*) FROM (SELECT * FROM presence.room_list WHERE room > ''c'' ORDER BY room LIMIT 20) l');
SELECT is(answer, '(big,60000,3,15000)', 'the big room is counted as a whole')
FROM pg_temp.cost_of('SELECT l::text FROM (SELECT room, connections, users, anonymous FROM presence.room_list WHERE room = ''big'') l');
-- Whether a room or user has a presence is answered by the first one found.
SELECT ok(answer = 'true' AND blocks < 20, format('is one of 15,000 connections there: %s blocks', blocks))
FROM pg_temp.cost_of('SELECT presence_is_online(''crowd1'')');

SELECT * FROM finish();
ROLLBACK;
