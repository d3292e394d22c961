-- Proves that a heartbeat keeps a channel live in all its rooms, and returns false for channels that are not present.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

SELECT presence_add_many(room, '{c1,c2,c3}', '{u1,u2,u3}') FROM unnest('{touch,touch2}'::text[]) room;

SELECT is(presence_touch('nobody'), false, 'an unknown channel: false');
SELECT is(presence_touch('nobody'), false, 'and again');
SELECT is_empty($$SELECT presence_rooms('nobody')$$, 'asking makes nobody present');
SELECT is(presence_touch('c1'), true, 'a present one: true');

SELECT last_seen AS before FROM presence_list('touch') WHERE channel_name = 'c1' \gset
SELECT pg_temp.pass(40);
SELECT is(presence_touch('c1'), true, 'late, but in time');
SELECT cmp_ok(last_seen, '>=', :'before'::timestamptz + interval '40 seconds', room || ' shows the heartbeat')
FROM presence.members WHERE channel_name = 'c1' AND room LIKE 'touch%';
SELECT cmp_ok((SELECT max(last_seen) - min(last_seen) FROM presence.members WHERE channel_name = 'c1'), '<', interval '5 milliseconds',
	'last_seen belongs to the channel, not to the room');
SELECT cmp_ok(last_seen, '<', :'before'::timestamptz + interval '40 seconds', 'not of another channel')
FROM presence_list('touch') WHERE channel_name = 'c2';
SELECT is(presence_touch_many('{c2,nobody,c1}'), '{nobody}', 'touch_many returns those not present');
SELECT is(presence_touch_many('{nobody,noone}'), '{nobody,noone}', 'all of them, in the order asked');
SELECT is(presence_touch_many('{c1}'), '{}', 'an empty array when all are');

SELECT pg_temp.pass(25);
SELECT results_eq($$SELECT channel_name FROM presence_list('touch')$$, ARRAY['c1', 'c2'] COLLATE "C",
	'65 seconds after the adds those that beat are alive');
SELECT is(presence_touch('c3'), false, 'an expired channel: false');
SELECT is(presence_touch_many('{c1,c2,c3}'), '{c3}', 'also among many');
SELECT is_empty($$SELECT presence_rooms('c3')$$, 'a late heartbeat revives nobody');
SELECT is((SELECT channel_name FROM presence_add('touch', 'c3')), 'c3', 'it is added again');
SELECT is(presence_touch('c3'), true, 'and beats');
SELECT results_eq($$SELECT presence_rooms('c3')$$, ARRAY['touch'], 'in this room alone');

SELECT is(presence_remove('touch', 'c3'), true, 'it leaves its last room');
SELECT is(presence_touch('c3'), false, 'a removed channel: false');

-- The decorator of message handlers
SELECT is(presence_receive('c1', message), expected, 'receives ' || message)
FROM (VALUES ('"heartbeat"', false), ('heartbeat', true), ('"heartbeat" ', true), (' "heartbeat"', true),
			 ('"Heartbeat"', true), ('{"type": "heartbeat"}', true), ('"heartbeats"', true), ('', true)) AS v (message, expected);
SELECT is(presence_receive('nobody', '"heartbeat"'), false, 'a heartbeat of nobody needs no work');
SELECT is(presence_receive('nobody', 'hello'), true, 'a message of nobody does');
SELECT pg_temp.pass(50);
SELECT presence_receive('c1', 'hello');
SELECT presence_receive('c2', '"heartbeat"');
SELECT pg_temp.pass(50);
SELECT is(presence_count('touch'), 2::bigint, 'every message is a sign of life');

SELECT finish();
ROLLBACK;
