-- Proves that row-level security on presence.presences applies to every function, heartbeats included.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

CREATE ROLE presence_test_red;
CREATE ROLE presence_test_blue;
SELECT presence_grant('presence_test_red', 'admin'), presence_grant('presence_test_blue', 'admin');
DELETE FROM presence.presences;

-- 1. A policy by role: a role's rooms begin with its name --------------------
ALTER TABLE presence.presences ENABLE ROW LEVEL SECURITY;
CREATE POLICY by_role ON presence.presences
	USING (room LIKE replace(current_user, 'presence_test_', '') || ':%');

SET LOCAL ROLE presence_test_red;
SELECT is((presence_add('red:1', 'r1', 'rita')).room, 'red:1', 'red adds to a room of its own');
SELECT is(pg_temp.state_of($$SELECT presence_add('blue:1', 'r1')$$), '42501', 'not to one of blue''s');
SELECT is(pg_temp.state_of($$SELECT presence_add_many('blue:1', '{r1,r2}')$$), '42501', 'nor many');
SET LOCAL ROLE presence_test_blue;
SELECT is((presence_add('blue:1', 'b1', 'bill')).room, 'blue:1', 'blue adds to its own');
SELECT is(presence_count('red:1'), 0::bigint, 'blue sees nobody in red''s room');
SELECT is_empty($$SELECT * FROM presence_list('red:1')$$, 'presence_list');
SELECT is_empty($$SELECT * FROM presence_users('red:1')$$, 'presence_users');
SELECT is_empty($$SELECT presence_rooms('r1')$$, 'presence_rooms');
SELECT is_empty($$SELECT presence_user_rooms('rita')$$, 'presence_user_rooms');
SELECT is(presence_is_online('rita'), false, 'presence_is_online');
SELECT results_eq($$SELECT user_id FROM presence_online('{rita,bill}')$$, ARRAY['bill'], 'presence_online');
SELECT is(presence_snapshot('red:1') -> 'members', '[]', 'presence_snapshot');
SELECT is(presence_snapshot('red:1', 0) ->> 'connections', '0', 'presence_snapshot of none');
SELECT is_empty($$SELECT * FROM presence_page('red:1')$$, 'presence_page');
SELECT results_eq($$SELECT channel_name FROM presence.members$$, ARRAY['b1'] COLLATE "C", 'presence.members');
SELECT is((SELECT connections FROM presence.room_list WHERE room = 'red:1'), 0::bigint, 'presence.room_list');

RESET ROLE;
SELECT last_seen AS seen FROM presence_list('red:1') \gset
SELECT pg_temp.pass(10);
SET LOCAL ROLE presence_test_blue;
SELECT is(presence_touch('r1'), false, 'blue cannot beat for red');
SELECT is(presence_touch_many('{r1,b1}'), '{r1}', 'nor among many');
SELECT is(presence_receive('r1', 'x'), true, 'nor by messages');
SELECT is(presence_update('red:1', 'r1', '{"by": "blue"}'), false, 'nor update');
SELECT is(presence_remove('red:1', 'r1'), false, 'nor remove');
SELECT is(presence_leave_all('r1'), 0::bigint, 'nor have it leave');
SELECT is(presence_leave_all_many('{r1}'), 0::bigint, 'nor many');
SELECT is(pg_temp.state_of($$SELECT presence_add('red:1', 'r1')$$), '42501', 'nor add again what it cannot see');
SELECT is(presence_kick('red:1', 'rita'), 0::bigint, 'nor kick');
RESET ROLE;
SELECT ok((SELECT last_seen FROM presence_list('red:1')) - :'seen' < interval '5 seconds', 'none of which was a sign of life');
SELECT is((SELECT row(user_id, meta)::text FROM presence_list('red:1')), '(rita,)', 'or changed anything');
SET LOCAL ROLE presence_test_red;
SELECT is(presence_touch('r1'), true, 'red beats');
SELECT is(presence_touch_many('{r1,b1}'), '{b1}', 'for its own alone');
SELECT is(presence_update('red:1', 'r1', '{"by": "red"}'), true, 'updates');
RESET ROLE;
SELECT ok((SELECT last_seen FROM presence_list('red:1')) - :'seen' >= interval '10 seconds', 'which is a sign of life');

-- 2. May see all, but change only its own -------------------------------------
CREATE POLICY read_all ON presence.presences FOR SELECT USING (true);
SELECT last_seen AS seen FROM presence_list('red:1') \gset
SELECT pg_temp.pass(10);
SET LOCAL ROLE presence_test_blue;
SELECT is(presence_count('red:1'), 1::bigint, 'now blue sees red');
SELECT is(presence_touch('r1'), false, 'and still cannot beat for it');
SELECT is(presence_update('red:1', 'r1', '{"by": "blue"}'), false, 'nor update');
SELECT is(presence_update('red:1', 'r1', '{}'), false, 'not even with nothing');
SELECT is(presence_remove('red:1', 'r1'), false, 'nor remove');
SELECT is(presence_leave_all('r1'), 0::bigint, 'nor have it leave');
SELECT is(pg_temp.state_of($$SELECT presence_add('red:1', 'r1', 'blue')$$), '42501', 'nor take its user over');
SELECT is(pg_temp.state_of($$SELECT presence_add('red:1', 'r1')$$), '42501', 'nor repeat its add');
RESET ROLE;
SELECT ok((SELECT last_seen FROM presence_list('red:1')) - :'seen' < interval '5 seconds', 'none of which was a sign of life');
SELECT is((SELECT row(user_id, meta)::text FROM presence_list('red:1')), row('rita', '{"by": "red"}'::jsonb)::text, 'or changed anything');
DROP POLICY read_all ON presence.presences;

-- 3. A policy by setting: one tenant of many behind one role -------------------
DROP POLICY by_role ON presence.presences;
CREATE POLICY by_tenant ON presence.presences
	USING (room LIKE current_setting('app.tenant', true) || ':%');
SET LOCAL ROLE presence_test_blue;
SELECT is(presence_touch_many('{b1,r1}'), '{b1,r1}', 'without a tenant nobody is there');
SET LOCAL app.tenant = 'red';
SELECT is(presence_touch_many('{b1,r1}'), '{b1}', 'the red tenant');
SELECT is(presence_touch('r1'), true, 'beats for its own');
SET LOCAL app.tenant = 'blue';
SELECT is(presence_touch_many('{b1,r1}'), '{r1}', 'the blue one, in the same session');
SELECT is(presence_touch('r1'), false, 'does not beat for red');
SELECT is(presence_leave_all('r1'), 0::bigint, 'nor make it leave');
SELECT is(pg_temp.state_of($$SELECT presence_add('red:2', 'b1')$$), '42501', 'nor enter');

-- 4. Pruning sees what its role sees; the owner sees all -------------------------
SELECT is((SELECT count(*) FROM presence.presences), 1::bigint, 'one presence to see');
RESET ROLE;
SELECT is((SELECT count(*) FROM presence.presences), 2::bigint, 'two for a superuser');
ALTER TABLE presence.presences DISABLE ROW LEVEL SECURITY;
SET LOCAL ROLE presence_test_blue;
SELECT is(presence_touch_many('{b1,r1}'), '{}', 'without row-level security the same session beats for all');

SELECT finish();
ROLLBACK;
