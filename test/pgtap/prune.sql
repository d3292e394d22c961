-- Proves that prune_presences and prune_rooms remove exactly what is expired or empty, and return how many.
\ir lib/helpers.psql
SELECT no_plan();
DELETE FROM presence.presences;
DELETE FROM presence.rooms;

-- Advanced by less than presence.max_age (60 s), so that no worker comes first.
SELECT presence_add_many(room, '{old1,old2}') FROM unnest('{prune,prune2}'::text[]) room;
SELECT pg_temp.pass(20);
SELECT presence_add_many('prune', '{young,beating}', '{u1,u2}');
SELECT presence_touch('old2');
SELECT pg_temp.pass(5);

SELECT is(prune_presences(), 0::bigint, 'nobody is older than presence.max_age');
SELECT is(prune_presences(NULL), 0::bigint, 'which NULL stands for');
SELECT is(prune_presences(30), 0::bigint, 'nobody is older than 30 seconds');
SELECT is(prune_presences('Infinity'), 0::bigint, 'nor than forever');
SELECT is(prune_presences(1e300), 0::bigint, 'nor than nearly forever');
SELECT is(prune_presences(15.5), 2::bigint, 'one channel in two rooms is older than 15.5');
SELECT results_eq($$SELECT DISTINCT channel_name FROM presence.presences ORDER BY 1$$,
	ARRAY['beating', 'old2', 'young'] COLLATE "C", 'a heartbeat counts as age 0: it is the effective age that decides');
SELECT is(presence_touch('old1'), false, 'a pruned channel is not present');
SELECT is((SELECT count(*) FROM presence.rooms), 2::bigint, 'rooms stay');

SELECT is(presence_leave_all('old2'), 2::bigint, 'a room becomes empty');
INSERT INTO presence.rooms (name, persistent) VALUES ('prune3', true), ('prune4', false);
SELECT is(prune_rooms(), 2::bigint, 'prune_rooms removes those that are empty');
SELECT results_eq($$SELECT name FROM presence.rooms ORDER BY 1$$, ARRAY['prune', 'prune3'] COLLATE "C",
	'not those with presences, nor persistent ones');
SELECT is(prune_rooms(), 0::bigint, 'once');

SELECT is(prune_presences(0), 2::bigint, 'everybody is older than 0');
SELECT is_empty($$SELECT FROM presence.presences$$, 'nobody is left');
SELECT is(prune_presences(0), 0::bigint, 'nobody to remove');
SELECT is(prune_rooms(), 1::bigint, 'their room goes, too');
SELECT results_eq($$SELECT name FROM presence.rooms$$, ARRAY['prune3'] COLLATE "C", 'the persistent one stays');

-- What is rolled back was never removed.
SELECT presence_add('prune', 'back');
SELECT pg_temp.pass(10);
BEGIN;
SELECT is(prune_presences(5), 1::bigint, 'removed');
SELECT is(presence_touch('back'), false, 'and not present');
ROLLBACK;
SELECT is(presence_touch('back'), true, 'rolled back, it is');
SELECT is((SELECT count(*) FROM presence_list('prune')), 1::bigint, 'and listed');

DELETE FROM presence.presences;
DELETE FROM presence.rooms;
SELECT finish();
