-- Proves that a snapshot, which is written byte by byte, is the jsonb that PostgreSQL itself makes of the same members.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

-- The same object by SQL.  The text of last_seen depends on the clock, so it is taken from the snapshot; reads.sql has it.
CREATE FUNCTION pg_temp.built(room text, s jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('room', $1, 'epoch', s->'epoch', 'seq', s->'seq', 'connections', count(*),
		'users', count(DISTINCT m.user_id), 'anonymous', count(*) FILTER (WHERE m.user_id IS NULL),
		'members', COALESCE(jsonb_agg(jsonb_build_object('id', m.id, 'channel_name', m.channel_name, 'user_id', m.user_id,
			'meta', m.meta, 'last_seen', l.last_seen, 'joined_at', CASE WHEN isfinite(m.joined_at) THEN
				to_char(m.joined_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"') END)
			ORDER BY m.joined_at, m.id), '[]'))
	FROM presence.members m
	JOIN (SELECT e->>'channel_name', e->'last_seen' FROM jsonb_array_elements(s->'members') e) l (channel_name, last_seen)
		USING (channel_name)
	WHERE m.room = $1
$$;

-- What is wrong with the snapshot of a room of so many members.
CREATE FUNCTION pg_temp.wrong(room text, members bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	s jsonb := presence_snapshot(room);
	built jsonb := pg_temp.built(room, s);
	again jsonb := s::text;
BEGIN
	RETURN concat_ws(', ',
		CASE WHEN (s->'connections')::bigint <> members THEN 'connections' END,
		CASE WHEN s <> built THEN 'not equal' END,
		CASE WHEN s::text <> built::text THEN 'other text' END,
		CASE WHEN NOT record_image_eq(ROW (s), ROW (again)) THEN 'other bytes' END,
		CASE WHEN jsonb_hash(s) <> jsonb_hash(built) THEN 'other hash' END,
		CASE WHEN NOT (s @> built AND s <@ built) THEN 'does not contain' END,
		CASE WHEN s || '{"x": 1}' <> built || '{"x": 1}' THEN '||' END,
		CASE WHEN s - 'room' <> built - 'room' OR s #- '{members,0,id}' <> built #- '{members,0,id}' THEN '-' END,
		CASE WHEN NOT s ?& '{seq,room,epoch,users,members,anonymous,connections}' OR s ? 'x' THEN '?' END,
		CASE WHEN EXISTS (SELECT FROM generate_series(-1, members) i
			WHERE s->'members'->i::int IS DISTINCT FROM built->'members'->i::int
			OR s #> ARRAY['members', i::text, 'meta'] IS DISTINCT FROM built #> ARRAY['members', i::text, 'meta']
			OR s #>> ARRAY['members', i::text, 'channel_name'] IS DISTINCT FROM built #>> ARRAY['members', i::text, 'channel_name'])
			THEN 'a member' END,
		CASE WHEN ARRAY(SELECT jsonb_array_elements(s->'members')) <> ARRAY(SELECT jsonb_array_elements(built->'members'))
			THEN 'elements' END,
		CASE WHEN jsonb_path_query_array(s, 'strict $.**.id') <> jsonb_path_query_array(built, 'strict $.**.id') THEN 'path' END);
END
$$;

CREATE FUNCTION pg_temp.meta_of(n bigint) RETURNS jsonb LANGUAGE sql AS $$
	SELECT (ARRAY[NULL, '{}', jsonb_build_object('n', n), jsonb_build_object('name', repeat('x', n::int % 9)),
		'{"a": [1, "b", {"c": [[-1.50, 1e40], {}, []], "deep": {"er": 0.000001}}], "t": true, "f": false, "z": null}',
		jsonb_build_object(repeat('k', n::int % 7), n, 'y', ARRAY[n::numeric / 7, 10000, 0]),
		jsonb_build_object('forty', array_to_json(array_fill(n, ARRAY[40])), 'u', 'zażółć gęślą jaźń')])[1 + n % 7]
$$;

-- Rooms of so many members, out of order, some of them equally old, with names of all lengths.
INSERT INTO presence.presences (room, channel_name, user_id, meta, joined_at)
SELECT 'of ' || size, left(n || repeat('ż', n::int % 251), 255),
	CASE WHEN n % 3 > 0 THEN left(repeat('u', n::int % 251) || n % 100, 255) END,
	pg_temp.meta_of(n), now() - interval '7 ms' * (n * 7919 % size / 2)
FROM unnest(ARRAY[1, 2, 3, 31, 32, 33, 63, 64, 65, 1000]) size, generate_series(1, size) n;
SELECT is(pg_temp.wrong('of ' || size, size), '', size || ' members')
FROM unnest(ARRAY[0, 1, 2, 3, 31, 32, 33, 63, 64, 65, 1000]) size;
SELECT is(pg_temp.wrong(repeat('ż', n), 0), '', 'a name of ' || n || ' characters') FROM generate_series(1, 5) n;
SELECT is(pg_temp.wrong(repeat('ż', 255), 0), '', 'the longest name');

-- Each meta beside names of each length modulo 4: numbers and arrays are aligned.
INSERT INTO presence.presences (room, channel_name, user_id, meta)
SELECT format('%s %s', n, l), repeat('c', l), repeat('u', l), pg_temp.meta_of(n)
FROM generate_series(1, 14) n, generate_series(1, 5) l;
SELECT is(string_agg(pg_temp.wrong(format('%s %s', n, l), 1), ''), '', 'alignment of meta ' || n)
FROM generate_series(1, 14) n, generate_series(1, 5) l GROUP BY n;

-- Times.
INSERT INTO presence.presences (room, channel_name, joined_at)
SELECT 'times', t, t::timestamptz
FROM unnest('{infinity,1999-12-31 23:59:59.999999+00,2000-01-01 00:00+00,-infinity,2024-02-29 12:00:00.000001+02,0099-01-01 00:00+00}'::text[]) t;
SELECT is(pg_temp.wrong('times', 6), '', 'times');
SELECT is(presence_snapshot('times') #> '{members,0}' @> '{"channel_name": "-infinity", "joined_at": null}', true, 'an infinite one is null');
INSERT INTO presence.presences (room, channel_name, joined_at)
VALUES ('far times', 'a', '0044-03-15 12:00:01.5+00 BC'), ('far times', 'b', '12345-06-07 08:09:10+00');
SELECT is(jsonb_path_query_array(presence_snapshot('far times'), '$.members[*].joined_at'),
	'["-043-03-15T12:00:01.500000+00:00", "12345-06-07T08:09:10.000000+00:00"]', 'years of three and five digits');

-- A meta that is stored compressed, and one that is stored outside of the row.
INSERT INTO presence.presences (room, channel_name, user_id, meta)
SELECT 'large', 'c' || n, 'u', jsonb_build_object('first', n, 'many', CASE
	WHEN n = 1 THEN to_jsonb(repeat('x', 100000))
	WHEN n = 2 THEN (SELECT jsonb_agg(md5(i::text)) FROM generate_series(1, 3000) i)
	WHEN n = 3 THEN (SELECT jsonb_agg(i % 3) FROM generate_series(1, 3000) i)
	ELSE '[]' END)
FROM generate_series(1, 4) n;
SELECT is(pg_temp.wrong('large', 4), '', 'compressed and toasted meta');
SELECT cmp_ok(pg_column_size(meta), '<', 5000, channel_name || ' is compressed') FROM presence.presences
WHERE room = 'large' AND channel_name IN ('c1', 'c3') ORDER BY id;

-- Rows in the table's order, and any columns of the administrator's own beside its.
INSERT INTO presence.presences (room, channel_name, user_id) SELECT 'in order', n, n % 5 FROM generate_series(1, 100) n;
SELECT is(pg_temp.wrong('in order', 100), '', 'members in order');
ALTER TABLE presence.presences ADD COLUMN note text NOT NULL DEFAULT 'n';
SELECT is(pg_temp.wrong('of 33', 33), '', 'with one more column');
ALTER TABLE presence.presences DROP COLUMN note;
SELECT is(pg_temp.wrong('of 33', 33), '', 'and with one dropped');

-- From here on without the trigger that refuses it: meta that is no object.  Other files have advanced the clock.
ALTER TABLE presence.presences DISABLE TRIGGER USER;
ALTER TABLE presence.presences ALTER COLUMN last_seen SET DEFAULT 'infinity';
INSERT INTO presence.presences (room, channel_name, meta)
SELECT 'scalars ' || l, v || repeat('c', l), v::jsonb
FROM unnest(ARRAY['1', '"x"', '""', 'null', 'true', 'false', '[]', '[1]', '1e100', '[[1.5]]', '"yyyyyyyyy"']) v, generate_series(1, 4) l;
SELECT is(pg_temp.wrong('scalars ' || l, 11), '', 'scalars and arrays') FROM generate_series(1, 4) l;

-- A policy may read snapshots, too, while one is being read.
CREATE ROLE presence_snapshot_reader;
SELECT presence_grant('presence_snapshot_reader', 'reader');
CREATE FUNCTION pg_temp.counts(room text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN room <> 'of 33' OR (presence_snapshot('of 3')->'connections')::int = 3;
END
$$;
CREATE POLICY counts ON presence.presences TO presence_snapshot_reader USING (pg_temp.counts(room));
ALTER TABLE presence.presences ENABLE ROW LEVEL SECURITY;
SELECT set_config('role', 'presence_snapshot_reader', true);
SELECT is(pg_temp.wrong('of 33', 33), '', 'inside a policy');
RESET ROLE;
ALTER TABLE presence.presences DISABLE ROW LEVEL SECURITY;

-- Larger than a jsonb can be.
INSERT INTO presence.presences (room, channel_name, meta)
SELECT 'too large', n, jsonb_build_object('m', repeat('x', 1000000)) FROM generate_series(1, 270) n;
SELECT matches(pg_temp.error_of($$SELECT presence_snapshot('too large')$$),
	'^54000 total size of jsonb array elements exceeds the maximum of 268435455 bytes '
	'\| The room has 269 members or more\. \| Pass "max_members", or read the room with presence_page\(\)\.$', 'too many bytes');
SELECT is_empty($$SELECT name FROM pg_backend_memory_contexts WHERE name LIKE 'presence snapshot%'$$, 'memory is freed');

SELECT finish();
ROLLBACK;
