-- Proves that leaving removes exactly the named presences, and returns how many.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

SELECT is(presence_remove('leave', 'c1'), false, 'an unknown room: false');
SELECT is_empty($$SELECT FROM presence.rooms WHERE name = 'leave'$$, 'which is not made');
SELECT presence_add_many(room, '{c1,c2,c3}', '{u1,u1,NULL}') FROM unnest('{leave,leave2,leave3}'::text[]) room;

SELECT is(presence_remove('leave', 'nobody'), false, 'an unknown channel: false');
SELECT is(presence_remove('leave', 'c1'), true, 'a presence: true');
SELECT is(presence_remove('leave', 'c1'), false, 'once');
SELECT results_eq($$SELECT channel_name FROM presence_list('leave')$$, ARRAY['c2', 'c3'] COLLATE "C", 'the others stay');
SELECT results_eq($$SELECT presence_rooms('c1')$$, ARRAY['leave2', 'leave3'], 'and so do its other rooms');
SELECT is(presence_touch('c1'), true, 'it is still present');

SELECT is(presence_leave_all('c1'), 2::bigint, 'leave_all leaves all rooms');
SELECT is_empty($$SELECT presence_rooms('c1')$$, 'none is left');
SELECT is(presence_touch('c1'), false, 'it is not present any more');
SELECT is(presence_leave_all('c1'), 0::bigint, 'nothing to leave twice');
SELECT is(presence_leave_all('nobody'), 0::bigint, 'an unknown channel leaves nothing');

SELECT is(presence_leave_all_many('{c2,nobody,c1,c2}'), 3::bigint, 'leave_all_many counts presences, each once');
SELECT results_eq($$SELECT room, channel_name FROM presence.members WHERE room LIKE 'leave%' ORDER BY room$$,
	$$VALUES ('leave' COLLATE "C", 'c3' COLLATE "C"), ('leave2', 'c3'), ('leave3', 'c3')$$, 'the others stay');
SELECT is((SELECT count(*) FROM presence.rooms WHERE name LIKE 'leave%'), 3::bigint, 'rooms stay until they are pruned');

-- A rejoin is a new presence.
SELECT id AS old FROM presence_list('leave') \gset
SELECT presence_remove('leave', 'c3');
SELECT isnt((SELECT id FROM presence_add('leave', 'c3')), :old::bigint, 'a rejoin gets a new id');

SELECT finish();
ROLLBACK;
