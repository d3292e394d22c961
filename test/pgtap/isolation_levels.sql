-- Proves that the functions work at REPEATABLE READ and SERIALIZABLE, committed and rolled back.
\ir lib/helpers.psql
SELECT no_plan();
DELETE FROM presence.presences;

CREATE TEMP TABLE seen (level text, what text);
-- What a transaction at this level does and sees.
CREATE FUNCTION pg_temp.work(OUT added bigint, OUT again bigint, OUT listed bigint, OUT updated boolean, OUT missing text[],
	OUT anonymous bigint, OUT snapshot text, OUT removed boolean, OUT gone boolean, OUT pruned bigint) LANGUAGE plpgsql AS $$
DECLARE
	prefix text := replace(current_setting('transaction_isolation'), ' ', '-');
BEGIN
	added := presence_add_many(prefix, ARRAY[prefix || '1', prefix || '2', prefix || '3'], '{u,v,NULL}');
	again := presence_add_many(prefix, ARRAY[prefix || '1', prefix || '2', prefix || '3'], '{w,v,NULL}');
	listed := (SELECT count(*) FROM presence_list(prefix));
	updated := presence_update(prefix, prefix || '1', '{"a": 1}');
	missing := presence_touch_many(ARRAY[prefix || '1', 'nobody']);
	anonymous := presence_anonymous_count(prefix);
	snapshot := presence_snapshot(prefix) - 'epoch' - 'seq' - 'members';
	removed := presence_remove(prefix, prefix || '2');
	gone := presence_touch(prefix || '2');
	pruned := prune_presences(3600);
END
$$;

BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT w::text AS expected FROM pg_temp.work() w \gset
COMMIT;
SELECT is(replace(:'expected', 'read-committed', '*'),
	'(3,0,3,t,{nobody},1,"{""room"": ""*"", ""users"": 2, ""anonymous"": 1, ""connections"": 3}",t,f,0)', 'READ COMMITTED');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is(replace(w::text, 'repeatable-read', '*'), replace(:'expected', 'read-committed', '*'), 'REPEATABLE READ is the same') FROM pg_temp.work() w;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT is(replace(w::text, 'serializable', '*'), replace(:'expected', 'read-committed', '*'), 'SERIALIZABLE is the same') FROM pg_temp.work() w;
COMMIT;
SELECT is(presence_touch_many(ARRAY[p || '1', p || '2', p || '3']), ARRAY[p || '2'], p || ': committed')
FROM unnest('{read-committed,repeatable-read,serializable}'::text[]) p;
SELECT is(presence_count(p), 2::bigint, p || ': two are left')
FROM unnest('{read-committed,repeatable-read,serializable}'::text[]) p;

-- Existing rooms, and pruned rooms.
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT is(presence_leave_all_many('{serializable1,serializable3}'), 2::bigint, 'a room becomes empty');
SELECT is(prune_rooms(), 1::bigint, 'and is pruned');
SELECT is((presence_add('serializable', 's')).room, 'serializable', 'and made again');
COMMIT;
SELECT is(presence_touch('s'), true, 'all in one transaction');
SELECT is((SELECT connections FROM presence.room_list WHERE room = 'serializable'), 1::bigint, 'which leaves room and presence');

-- A transaction that is rolled back leaves nothing.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT presence_add('rr', 'ghost');
SELECT is(presence_touch('ghost'), true, 'present within');
ROLLBACK;
SELECT is(presence_touch('ghost'), false, 'not after');

DELETE FROM presence.presences;
DELETE FROM presence.rooms;
SELECT finish();
