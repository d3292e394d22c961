-- Proves that prune_presences also removes what the same transaction added, and that heartbeats are correct however it
-- ends.
\ir lib/helpers.psql
SELECT no_plan();
DELETE FROM presence.presences;

-- Committed.
BEGIN;
SELECT presence_add_many('own', '{c1,c2}');
SELECT is(prune_presences(0), 2::bigint, 'added and pruned in one transaction');
SELECT is_empty($$SELECT FROM presence_list('own')$$, 'nobody is there');
SELECT is_empty($$SELECT FROM presence.presences WHERE room = 'own'$$, 'nor in the table');
SELECT is(presence_touch('c1'), false, 'a heartbeat says so');
SELECT is(prune_presences(0), 0::bigint, 'once');
COMMIT;
SELECT is(presence_touch('c1'), false, 'nor after the commit');
SELECT is((presence_add('own', 'c1')).created, true, 'it can come again');
SELECT is(presence_touch('c1'), true, 'and beats');
SELECT is((SELECT count(*) FROM presence_list('own')), 1::bigint, 'and is there');

-- Rolled back: a channel present before is present again.
BEGIN;
SELECT presence_add('other', 'c1');
SELECT presence_add('own', 'c3');
SELECT is(prune_presences(0), 3::bigint, 'with a presence from before');
SELECT is(presence_touch('c1'), false, 'nobody beats');
ROLLBACK;
SELECT is(presence_touch('c1'), true, 'who was there before does again');
SELECT is(presence_touch('c3'), false, 'who was not does not');
SELECT is((SELECT string_agg(room, ' ') FROM presence_rooms('c1') room), 'own', 'in the room from before');

-- To a savepoint: a channel added before it is present.
BEGIN;
SELECT presence_add('own', 'c4');
SAVEPOINT pruned;
SELECT is(prune_presences(0), 2::bigint, 'in a savepoint');
ROLLBACK TO pruned;
SELECT is((SELECT count(*) FROM presence_list('own')), 2::bigint, 'rolled back, all are there');
SELECT is(presence_touch('c4'), true, 'and beat');
COMMIT;
SELECT is(presence_touch('c4'), true, 'also after the commit');

-- Added again.
BEGIN;
SELECT presence_add('own', 'c5', 'before');
SELECT is(prune_presences(0), 3::bigint, 'pruned');
SELECT is((presence_add('own', 'c5', 'after')).created, true, 'and added again');
SELECT is(presence_touch('c5'), true, 'it beats');
COMMIT;
SELECT is(presence_touch('c5'), true, 'also after the commit');
SELECT results_eq($$SELECT channel_name, user_id FROM presence_list('own')$$, $$VALUES ('c5' COLLATE "C", 'after' COLLATE "C")$$, 'and is the only one');
SELECT is(prune_presences(0), 1::bigint, 'until it is pruned');
SELECT is(presence_touch('c5'), false, 'then no more');

-- Age decides as usual.
BEGIN;
SELECT presence_add('own', 'old');
SELECT pg_temp.pass(10);
SELECT presence_add('own', 'young');
SELECT is(prune_presences(5), 1::bigint, 'of one''s own only those go that are old enough');
SELECT is((SELECT string_agg(channel_name, ' ') FROM presence_list('own')), 'young', 'the young one stays');
COMMIT;
SELECT is(presence_touch('young'), true, 'and beats');
SELECT is(presence_touch('old'), false, 'the other does not');

DELETE FROM presence.presences;
SELECT finish();
