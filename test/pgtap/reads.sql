-- Proves what every read returns, and that none shows expired presences or writes.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

-- Clocks are read one after the other: last_seen may differ slightly.
CREATE FUNCTION pg_temp.close(a timestamptz, b timestamptz) RETURNS boolean LANGUAGE sql AS
	$$ SELECT abs(extract(epoch FROM a - b)) < 0.005 $$;

-- The channel "dead" expires below.  Joined in this order.
SELECT presence_add('reads', 'dead', 'zoe'), presence_add('reads2', 'dead', 'zoe');
SELECT pg_temp.pass(30);
SELECT presence_add('reads', 'c1', 'alice', '{"n": 1}');
SELECT pg_temp.pass(1);
SELECT presence_add('reads', 'c2', 'bob', '{"n": 2}');
SELECT pg_temp.pass(1);
SELECT presence_add('reads', 'c3', 'alice', '{"n": 3}');
SELECT pg_temp.pass(1);
SELECT presence_add('reads', 'a4'), presence_add('reads', 'a5');
SELECT pg_temp.pass(1);
SELECT presence_add('reads2', 'c1', 'alice'), presence_add('reads2', 'c9', 'carol');
SELECT presence_touch('c2');
INSERT INTO presence.rooms (name, meta, max_members, private, persistent) VALUES ('reads3', '{"t": 1}', 5, true, true);

SELECT is(presence_count('reads'), 6::bigint, 'all count while they live');
SELECT pg_temp.pass(28);
SELECT is(presence_count('reads'), 5::bigint, 'the dead do not');

SELECT results_eq($$SELECT channel_name FROM presence_list('reads')$$, ARRAY['c1', 'c2', 'c3', 'a4', 'a5'] COLLATE "C",
	'list: by joined_at, then id');
SELECT set_eq($$SELECT id, room, channel_name, user_id, meta, joined_at FROM presence_list('reads')$$,
	$$SELECT id, room, channel_name, user_id, meta, joined_at FROM presence.members WHERE room = 'reads'$$, 'members: the same');
SELECT is((SELECT count(*) FROM presence.members m JOIN presence_list('reads') l USING (id)
	WHERE pg_temp.close(m.last_seen, l.last_seen)), 5::bigint, 'members: last_seen, too');
SELECT is_empty($$SELECT * FROM presence.members WHERE channel_name = 'dead'$$, 'members: not the dead');
SELECT results_eq($$SELECT user_id, connections, meta FROM presence_users('reads')$$,
	$$VALUES ('alice', 2::bigint, '{"n": 3}'::jsonb), ('bob', 1, '{"n": 2}')$$,
	'users: one row each, with the meta of the newest connection');
SELECT results_eq($$SELECT joined_at FROM presence_users('reads')$$,
	$$SELECT min(joined_at) FROM presence_list('reads') WHERE user_id IS NOT NULL GROUP BY user_id ORDER BY 1$$,
	'users: earliest joined_at');
SELECT ok(pg_temp.close(u.last_seen, (SELECT max(last_seen) FROM presence_list('reads') l WHERE l.user_id = u.user_id)),
	'users: latest last_seen of ' || user_id) FROM presence_users('reads') u;
SELECT is(presence_anonymous_count('reads'), 2::bigint, 'anonymous_count');
SELECT is(presence_counts('reads')::text, '(5,2,2)', 'counts: connections, users, anonymous');
SELECT results_eq($$SELECT presence_rooms('c1')$$, ARRAY['reads', 'reads2'], 'rooms of a channel');
SELECT is_empty($$SELECT presence_rooms('dead')$$, 'rooms of a dead channel');
SELECT results_eq($$SELECT presence_user_rooms('alice')$$, ARRAY['reads', 'reads2'], 'rooms of a user, each once');
SELECT is_empty($$SELECT presence_user_rooms('zoe')$$, 'rooms of a dead user');
SELECT is(presence_is_online('alice'), true, 'is online');
SELECT is(presence_is_online('zoe'), false, 'a dead user is not');
SELECT is(presence_is_online('nobody'), false, 'nor an unknown one');
SELECT results_eq($$SELECT user_id, connections FROM presence_online('{bob,zoe,alice,nobody,alice}')$$,
	$$VALUES ('alice', 2::bigint), ('bob', 1)$$, 'online: those that are, with their channels');
SELECT ok(pg_temp.close((SELECT last_seen FROM presence_online('{bob}')), (SELECT last_seen FROM presence_list('reads') WHERE channel_name = 'c2')),
	'online: the newest sign of life');
SELECT results_eq($$SELECT room, meta, persistent, max_members, connections, users, anonymous FROM presence.room_list
	WHERE room LIKE 'reads%' ORDER BY room$$,
	$$VALUES ('reads' COLLATE "C", NULL::jsonb, false, NULL::integer, 5::bigint, 2::bigint, 2::bigint),
			 ('reads2', NULL, false, NULL, 2, 2, 0), ('reads3', '{"t": 1}', true, 5, 0, 0, 0)$$, 'room_list');

SELECT is((SELECT s - 'members' - 'epoch' - 'seq' FROM presence_snapshot('reads') s),
	'{"room": "reads", "connections": 5, "users": 2, "anonymous": 2}', 'snapshot: room and counts');
SELECT is((SELECT s ?& '{epoch,seq}' FROM presence_snapshot('reads') s), true, 'snapshot: epoch and seq');
SELECT results_eq($$SELECT m.id, m.channel_name, m.user_id, m.meta, m.joined_at
	FROM presence_snapshot('reads') s, jsonb_to_recordset(s -> 'members') m
		(id bigint, channel_name text COLLATE "C", user_id text COLLATE "C", meta jsonb, joined_at timestamptz, last_seen timestamptz)$$,
	$$SELECT id, channel_name, user_id, meta, joined_at FROM presence_list('reads')$$,
	'snapshot: members, as in the list');
SELECT is((SELECT count(*) FROM jsonb_to_recordset(presence_snapshot('reads') -> 'members') s (id bigint, last_seen timestamptz)
	JOIN presence_list('reads') l USING (id) WHERE pg_temp.close(s.last_seen, l.last_seen)), 5::bigint, 'snapshot: last_seen, too');
SELECT is((SELECT s - 'epoch' - 'seq' FROM presence_snapshot('empty') s),
	'{"room": "empty", "users": 0, "members": [], "anonymous": 0, "connections": 0}', 'snapshot of an unknown room');

-- Rooms that do not exist are empty, and reading creates none.
SELECT is_empty($$SELECT * FROM presence_list('unknown')$$, 'list of an unknown room');
SELECT is_empty($$SELECT * FROM presence_users('unknown')$$, 'users of an unknown room');
SELECT is(presence_count('unknown'), 0::bigint, 'count of an unknown room');
SELECT is(presence_counts('unknown')::text, '(0,0,0)', 'counts of an unknown room');
SELECT is_empty($$SELECT FROM presence.rooms WHERE name IN ('unknown', 'empty')$$, 'reading makes no rooms');

-- They can be joined with, and used like tables.
SELECT is((SELECT count(*) FROM (VALUES ('reads'), ('reads2')) r (room), presence_list(r.room)), 7::bigint, 'list joins laterally');

-- No read writes: all of them work in a read-only transaction.
SET LOCAL transaction_read_only = on;
SELECT is(pg_temp.state_of($$SELECT presence_add('r', 'c')$$), '25006', 'an add is refused here');
SELECT is(pg_temp.error_of('SELECT * FROM ' || call), 'no error', 'read only: ' || call)
FROM unnest(ARRAY['presence_list(''r'')', 'presence_users(''r'')', 'presence_count(''r'')', 'presence_anonymous_count(''r'')',
	'presence_counts(''r'')', 'presence_rooms(''r'')', 'presence_user_rooms(''r'')', 'presence_is_online(''r'')',
	'presence_online(''{r}'')', 'presence_page(''r'')', 'presence_snapshot(''r'', 1)', 'presence_since(''e'', 1)', 'presence.members', 'presence.room_list', 'presence.stats']) call;

SELECT finish();
ROLLBACK;
