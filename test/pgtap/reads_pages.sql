-- Proves that a page of a room costs what the page costs, wherever it lies and whatever statistics were collected, and
-- that a snapshot of some members counts all.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

-- Live during the whole test, by the extension's clock, which other tests may have advanced.
CREATE TEMP TABLE clock AS SELECT a.last_seen + interval '10 minutes' AS seen, a.last_seen - interval '10 minutes' AS dead FROM presence_add('clock', 'clock') a;
SELECT presence_remove('clock', 'clock');

-- 1. What a page has ---------------------------------------------------------
SELECT presence_add_many('hall', '{b,ä,B,a,zz,z}', '{u,u,v,NULL,w,NULL}', ARRAY['{"n": 1}', NULL, NULL, NULL, NULL, NULL]::jsonb[]),
	presence_add('hal', 'c'), presence_add('hall2', 'c'), presence_add('hall', 'c', 'x');
SELECT results_eq($$SELECT channel_name FROM presence_page('hall')$$, ARRAY['B', 'a', 'b', 'c', 'z', 'zz', 'ä'] COLLATE "C",
	'in the order of channel_name, byte by byte');
SELECT results_eq($$SELECT id, room, channel_name, user_id, meta, joined_at FROM presence_page('hall', 2, 'a')$$,
	$$SELECT id, room, channel_name, user_id, meta, joined_at FROM presence_list('hall') WHERE channel_name IN ('b', 'c') ORDER BY channel_name$$, 'the rows of the list');
SELECT results_eq($$SELECT channel_name FROM presence_page('hall', 2, 'bb')$$, ARRAY['c', 'z'] COLLATE "C", 'after one that is not there');
SELECT is_empty($$SELECT * FROM presence_page('hall', 5, 'ä')$$, 'nothing after the last');
SELECT is_empty($$SELECT * FROM presence_page('no hall')$$, 'nothing of an unknown room');
SELECT results_eq($$WITH RECURSIVE pages AS (
		SELECT array_agg(channel_name) AS names FROM presence_page('hall', 3)
		UNION ALL SELECT (SELECT array_agg(n.channel_name) FROM presence_page('hall', 3, p.names[array_length(p.names, 1)]) n)
		FROM pages p WHERE p.names IS NOT NULL)
	SELECT unnest(names) FROM pages$$, $$SELECT channel_name FROM presence_list('hall') ORDER BY channel_name$$, 'page by page, each once');
SELECT is((SELECT count(*) FROM (VALUES ('hall'), ('hal'), ('hall2')) r (room), presence_page(r.room, 4)), 6::bigint, 'joins laterally');
SELECT is(pg_temp.error_of(call), error, call) FROM (VALUES
	('SELECT presence_page(''hall'', 0)',
	 '22023 argument "max_rows" must be at least 1 | The value of type integer is 0. | Pass the most members to return.'),
	('SELECT presence_page(''hall'', NULL)', '22004 argument "max_rows" must not be null | The value is NULL. | Pass a value for "max_rows".'),
	('SELECT presence_snapshot(''hall'', -1)',
	 '22023 argument "max_members" must be at least 0 | The value of type integer is -1. | Pass the most members to return.')) e (call, error);

-- 2. What a snapshot of some members has -----------------------------------------
CREATE FUNCTION pg_temp.snapshot(room text, max_members int) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', (SELECT string_agg(m->>'channel_name', ',' ORDER BY n) FROM jsonb_array_elements(s->'members') WITH ORDINALITY e (m, n)),
		s->'connections', s->'users', s->'anonymous', s->'truncated')
	FROM presence_snapshot(room, max_members) s
$$;
SELECT is(pg_temp.snapshot('hall', 3), 'B,a,b 7 4 2 true', 'the first three by channel, and the counts of all');
SELECT is(pg_temp.snapshot('hall', 0), '7 4 2 true', 'the counts alone');
SELECT is(pg_temp.snapshot('hall', 6), 'B,a,b,c,z,zz 7 4 2 true', 'all but one');
SELECT is(pg_temp.snapshot('hall', n), (SELECT string_agg(channel_name, ',' ORDER BY joined_at, id) FROM presence_list('hall')) || ' 7 4 2',
	'all of them, as without a limit') FROM unnest('{7,8,2147483647,NULL}'::int[]) n;
SELECT is(pg_temp.snapshot('nobody', 0), '0 0 0', 'an empty room has no more');
-- The object is written byte by byte: it is what PostgreSQL itself makes of its text.
INSERT INTO presence.presences (room, channel_name, user_id, meta)
SELECT 'bytes', repeat('c', n), CASE WHEN n % 3 > 0 THEN repeat('u', 1 + n % 11) END, jsonb_build_object(repeat('k', n % 5), n)
FROM generate_series(1, 70) n;
SELECT is(count(*), 0::bigint, 'a snapshot of some members is valid jsonb')
FROM generate_series(0, 71) n, presence_snapshot('bytes', n) s, CAST(s::text AS jsonb) again
WHERE NOT record_image_eq(ROW (s), ROW (again)) OR jsonb_array_length(s->'members') <> least(n, 70)
	OR (s->>'connections', s->>'users', s->>'anonymous') <> ('70', '11', '23') OR (s ? 'truncated') <> (n < 70);

-- 3. What a page costs -------------------------------------------------------------
ALTER TABLE presence.presences DISABLE TRIGGER USER;
TRUNCATE presence.presences, presence.rooms;
-- A hall of 30,000, and one that lies after it in both indexes.
CREATE FUNCTION pg_temp.fill(rooms text[], n int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO presence.presences (last_seen, room, channel_name, user_id)
	SELECT seen, r, left(r, 1) || lpad(c::text, 6, '0'), 'u' FROM clock, unnest(rooms) r, generate_series(1, n) c;
$$;
CREATE FUNCTION pg_temp.blocks() RETURNS bigint LANGUAGE sql AS $$
	SELECT sum(pg_stat_get_xact_blocks_fetched(oid)) FROM pg_class
	WHERE relnamespace = 'presence'::regnamespace AND relkind IN ('r', 'i')
$$;
CREATE FUNCTION pg_temp.cost_of(query text, OUT blocks bigint, OUT answer text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE query;		-- not what the first use reads of catalogs or the size of tables
	blocks := pg_temp.blocks();
	EXECUTE query INTO answer;
	blocks := pg_temp.blocks() - blocks;
END
$$;
CREATE TEMP TABLE pages (query text, answer text);
INSERT INTO pages VALUES
	('SELECT string_agg(channel_name, '' '') FROM presence_page(''hall'', 3)', 'h000001 h000002 h000003'),
	('SELECT string_agg(channel_name, '' '') FROM presence_page(''hall'', 3, ''h020000'')', 'h020001 h020002 h020003'),
	('SELECT string_agg(channel_name, '' '') FROM presence_page(''hall'', 100, ''h029997'')', 'h029998 h029999 h030000'),
	('SELECT string_agg(channel_name, '' '') FROM presence_page(''zoo'', 3)', 'z000001 z000002 z000003'),
	('SELECT string_agg(channel_name, '' '') FROM presence_page(''zoo'', 100, ''z000002'')', 'z000003 z000004 z000005'),
	('SELECT count(*) FROM presence_page(''hall'', 10, ''i'')', '0');
GRANT SELECT ON pages, clock TO PUBLIC;
CREATE FUNCTION pg_temp.compare(circumstance text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	p record;
	c record;
BEGIN
	FOR p IN SELECT * FROM pages ORDER BY query COLLATE "C" LOOP
		c := pg_temp.cost_of(p.query);
		RETURN NEXT is(c.answer, p.answer, circumstance || ', the page: ' || p.query);
		RETURN NEXT cmp_ok(c.blocks, '<=', 20::bigint, circumstance || ', a few blocks: ' || p.query);
	END LOOP;
END
$$;
SELECT pg_temp.fill('{hall}', 30000), pg_temp.fill('{zoo}', 5);
SELECT pg_temp.compare('no statistics');
ANALYZE presence.presences;
SELECT pg_temp.compare('statistics of now');
DELETE FROM presence.presences WHERE room = 'zoo';
ANALYZE presence.presences;
SELECT pg_temp.fill('{zoo}', 5);
SELECT pg_temp.compare('statistics of a single room');
CREATE INDEX presence_test_room ON presence.presences (room);
SELECT pg_temp.compare('an index of the user''s on the room');
CREATE INDEX presence_test_channel ON presence.presences (channel_name, room);
SELECT pg_temp.compare('another one in the other order');
DROP INDEX presence.presence_test_room, presence.presence_test_channel;

-- The session's settings for its own plans do not matter, and are not changed.
SET LOCAL enable_indexscan = off;
SET LOCAL enable_seqscan = off;
SET LOCAL plan_cache_mode = force_custom_plan;
DISCARD PLANS;
SELECT pg_temp.compare('index scans forbidden');
SELECT is(string_agg(setting, ' ' ORDER BY name), 'on on off off on force_custom_plan', 'settings as the session had them')
FROM pg_settings WHERE name IN ('enable_bitmapscan', 'enable_indexscan', 'enable_incremental_sort', 'enable_seqscan', 'enable_sort', 'plan_cache_mode');
RESET enable_indexscan;
RESET enable_seqscan;
RESET plan_cache_mode;

-- Policies apply, and a page costs as little.
CREATE ROLE presence_test_visitor;
SELECT presence_grant('presence_test_visitor', 'reader');
ALTER TABLE presence.presences ENABLE ROW LEVEL SECURITY;
CREATE POLICY visitor ON presence.presences FOR SELECT TO presence_test_visitor USING (room <> 'secret' AND length(user_id) = 1);
SELECT pg_temp.fill('{secret}', 5);
SET LOCAL ROLE presence_test_visitor;
SELECT pg_temp.compare('row-level security');
SELECT is_empty($$SELECT * FROM presence_page('secret')$$, 'which hides a room');
RESET ROLE;
ALTER TABLE presence.presences DISABLE ROW LEVEL SECURITY;

-- Never an expired one, however many lie between.
UPDATE presence.presences SET last_seen = dead FROM clock WHERE room = 'hall' AND channel_name > 'h000002' AND channel_name < 'h030000';
SELECT pg_temp.pass(100);		-- the start of the server counts as a sign of life
SELECT results_eq($$SELECT channel_name FROM presence_page('hall', 3)$$, ARRAY['h000001', 'h000002', 'h030000'] COLLATE "C", 'no expired ones');
SELECT is((SELECT s - 'epoch' - 'seq' #- '{members,0,last_seen}' #- '{members,0,joined_at}' #- '{members,0,id}' FROM presence_snapshot('hall', 1) s),
	'{"room": "hall", "users": 1, "members": [{"meta": null, "user_id": "u", "channel_name": "h000001"}],
	"anonymous": 0, "truncated": true, "connections": 3}', 'nor does a snapshot count them');

SELECT * FROM finish();
ROLLBACK;
