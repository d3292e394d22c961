-- Proves that presence_add makes room and presence once, and that repeating it is a heartbeat that writes only what
-- differs.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

-- The location of a row, and the transaction that wrote it: both stay the same if the row is not written.
CREATE FUNCTION pg_temp.version(channel text) RETURNS text LANGUAGE sql AS
	$$ SELECT ctid || ' ' || cmin FROM presence.presences WHERE room = 'add' AND channel_name = channel $$;

SELECT is_empty($$SELECT FROM presence.rooms WHERE name = 'add'$$, 'the room is not there');
SELECT m.* FROM presence_add('add', 'c1', 'alice', '{"name": "Alice"}') m \gset first_
SELECT ok(:first_id > 0, 'a new presence has an id');
SELECT is(concat_ws(' ', :'first_room', :'first_channel_name', :'first_user_id', :'first_meta'),
	'add c1 alice {"name": "Alice"}', 'add returns what it stored');
SELECT is(:'first_joined_at'::timestamptz, :'first_last_seen'::timestamptz, 'seen first when it joined');
SELECT results_eq($$SELECT id, room, channel_name, user_id, meta, joined_at FROM presence_list('add')$$,
	$$SELECT id, room, channel_name, user_id, meta, joined_at FROM presence.presences WHERE room = 'add'$$, 'and stored it');
SELECT is((SELECT row(name, meta, max_members, private, persistent)::text FROM presence.rooms WHERE name = 'add'),
	'(add,,,f,f)', 'the room was made, without settings');

-- Repetitions
SELECT pg_temp.version('c1') AS version \gset
SELECT pg_temp.pass(5);
SELECT m.* FROM presence_add('add', 'c1') m \gset again_
SELECT is(:again_id::bigint, :first_id::bigint, 'a repetition finds the same presence');
SELECT is(:'again_joined_at'::timestamptz, :'first_joined_at'::timestamptz, 'joined_at stays');
SELECT ok(:'again_last_seen'::timestamptz >= :'first_last_seen'::timestamptz + interval '5 seconds',
	'it is a sign of life');
SELECT is(concat_ws(' ', :'again_user_id', :'again_meta'), 'alice {"name": "Alice"}',
	'NULL user and meta leave the stored ones');
SELECT is(pg_temp.version('c1'), :'version', 'and no row is written') WHERE pg_temp.preloaded();
SELECT is((SELECT row(user_id, meta)::text FROM presence_add('add', 'c1', 'alice', '{"name":   "Alice"}')),
	row('alice', '{"name": "Alice"}'::jsonb)::text, 'the same user and meta again');
SELECT is(pg_temp.version('c1'), :'version', 'write no row either') WHERE pg_temp.preloaded();
SELECT cmp_ok((SELECT last_seen FROM presence_list('add')), '>=', :'first_last_seen'::timestamptz + interval '5 seconds',
	'reads see the sign of life');

-- Differences
SELECT is((SELECT row(id, user_id, meta)::text FROM presence_add('add', 'c1', 'bob')),
	row(:first_id, 'bob', '{"name": "Alice"}'::jsonb)::text, 'another user replaces the stored one, login on an open connection');
SELECT isnt(pg_temp.version('c1'), :'version', 'which writes the row');
SELECT is((SELECT row(id, user_id, meta)::text FROM presence_add('add', 'c1', NULL, '{"k": 1}')),
	row(:first_id, 'bob', '{"k": 1}'::jsonb)::text, 'another meta replaces the stored one, whole');
SELECT is((SELECT row(user_id, meta)::text FROM presence_add('add', 'c1', 'bo')), row('bo', '{"k": 1}'::jsonb)::text,
	'a user whose name begins another''s differs');
SELECT is((SELECT row(user_id, meta, joined_at)::text FROM presence_list('add')),
	row('bo', '{"k": 1}'::jsonb, :'first_joined_at'::timestamptz)::text, 'the list shows it, joined_at unchanged');
SELECT is((SELECT user_id FROM presence_add('add', 'c2')), NULL, 'an anonymous connection');
SELECT is((SELECT user_id FROM presence_add('add', 'c2', 'carol')), 'carol', 'logs in');
SELECT is((SELECT count(*) FROM presence.presences WHERE room = 'add'), 2::bigint, 'one row for each channel');

-- Many
SELECT is(presence_add_many('add', '{c2,c3,c4}', '{dave,NULL,alice}', ARRAY['{"x": 1}', NULL, NULL]::jsonb[]), 2::bigint,
	'add_many tells how many were new');
SELECT results_eq($$SELECT channel_name, user_id, meta FROM presence_list('add') ORDER BY channel_name COLLATE "C"$$,
	$$VALUES ('c1' COLLATE "C", 'bo' COLLATE "C", '{"k": 1}'::jsonb), ('c2', 'dave', '{"x": 1}'), ('c3', NULL, NULL), ('c4', 'alice', NULL)$$,
	'and replaces what differs, element by element');
SELECT is(presence_add_many('add', '{c5,c5,c5}'), 1::bigint, 'the same channel thrice is new once');
SELECT is(presence_add_many('many', ARRAY(SELECT 'm' || i FROM generate_series(1, 1000) i)), 1000::bigint, '1,000 at once');
SELECT is(presence_count('many'), 1000::bigint, 'are all there');
SELECT is(presence_add_many('many', ARRAY(SELECT 'm' || i FROM generate_series(1, 1000) i)), 0::bigint, 'none new twice');

-- An expired presence does not become live again: the channel joins anew.
SELECT pg_temp.pass(61);
SELECT is_empty($$SELECT * FROM presence_list('add')$$, 'all have died');
SELECT isnt((SELECT id FROM presence_add('add', 'c1')), :first_id::bigint, 'a dead channel gets a new presence');
SELECT is((SELECT row(user_id, meta)::text FROM presence_list('add')), row(NULL::text, NULL::jsonb)::text,
	'that knows nothing of the old one');
SELECT cmp_ok((SELECT joined_at FROM presence_list('add')), '>', :'first_joined_at'::timestamptz + interval '1 minute',
	'and joined now');

SELECT finish();
ROLLBACK;
