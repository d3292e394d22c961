-- Proves what happens to presences and heartbeats when transactions and savepoints commit or are rolled back.
\ir lib/helpers.psql
SELECT no_plan();

-- An add that is rolled back leaves nothing to touch, even where its own transaction sent a heartbeat.
BEGIN;
SELECT presence_add('tx', 'ghost');
SELECT is(presence_touch('ghost'), true, 'a transaction sees its own add');
ROLLBACK;
SELECT is(presence_touch('ghost'), false, 'rolled back, it is not present');
SELECT is(presence_touch_many('{ghost}'), '{ghost}', 'nor among many');
SELECT is_empty($$SELECT * FROM presence_list('tx')$$, 'nor in the list');
BEGIN;
SELECT presence_add('tx', 'ghost');
SELECT is(presence_touch_many('{ghost}'), '{}', 'the same for many: present within');
ROLLBACK;
SELECT is(presence_touch('ghost'), false, 'and not after');

-- A removal that is rolled back removes nothing.
SELECT presence_add('tx', 'c');
BEGIN;
SELECT presence_leave_all('c');
SELECT is(presence_touch('c'), false, 'a transaction sees its own removal');
SELECT is((presence_add('tx2', 'c')).room, 'tx2', 'and a later add');
SELECT is(presence_touch('c'), true, 'which beats');
ROLLBACK;
SELECT is(presence_touch('c'), true, 'rolled back, the channel is present');
SELECT results_eq($$SELECT presence_rooms('c')$$, ARRAY['tx'], 'where it was');

-- Committed, both take effect.
BEGIN;
SELECT presence_leave_all('c');
SELECT presence_add('tx', 'd');
SELECT presence_touch('d');
COMMIT;
SELECT is(presence_touch_many('{c,d}'), '{c}', 'committed, one has gone and one has come');
BEGIN;
SELECT presence_add('tx', 'e'), presence_remove('tx', 'e');
COMMIT;
SELECT is(presence_touch('e'), false, 'who came and went in one transaction is not present');
BEGIN;
SELECT presence_remove('tx', 'd'), presence_add('tx', 'd');
COMMIT;
SELECT is(presence_touch('d'), true, 'who went and came is');

-- Savepoints
BEGIN;
SELECT presence_add('tx', 'kept');
SAVEPOINT s;
SELECT presence_add('tx', 'undone'), presence_remove('tx', 'kept');
SELECT is(presence_touch_many('{kept,undone}'), '{kept}', 'within the savepoint');
ROLLBACK TO s;
SELECT is(presence_touch_many('{kept,undone}'), '{undone}', 'rolled back to it');
SAVEPOINT s2;
SELECT presence_add('tx', 'released');
RELEASE s2;
COMMIT;
SELECT is(presence_touch_many('{kept,undone,released}'), '{undone}', 'committed');

-- EXCEPTION blocks are the same.
DO $$
BEGIN
	PERFORM presence_add('tx', 'outer');
	BEGIN
		PERFORM presence_add('tx', 'inner');
		BEGIN
			PERFORM presence_add('tx', 'innermost');
			PERFORM presence_remove('tx', 'outer');
			RAISE EXCEPTION 'undo';
		EXCEPTION WHEN raise_exception THEN
			PERFORM presence_add('tx', 'handler');
		END;
	EXCEPTION WHEN OTHERS THEN
		PERFORM presence_add('tx', 'never');
	END;
END
$$;
SELECT is(presence_touch_many('{outer,inner,innermost,handler,never}'), '{innermost,never}', 'nested EXCEPTION blocks');
SELECT results_eq($$SELECT channel_name FROM presence_list('tx') ORDER BY 1$$,
	ARRAY['d', 'handler', 'inner', 'kept', 'outer', 'released'] COLLATE "C", 'the list agrees');

-- Heartbeats are not rolled back.
SELECT pg_temp.pass(40);
BEGIN;
SELECT is(presence_touch('kept'), true, 'a heartbeat in a transaction');
ROLLBACK;
SELECT pg_temp.pass(30);
SELECT is((SELECT count(*) FROM presence_list('tx') WHERE channel_name = 'kept'), 1::bigint, 'outlives its rollback')
WHERE pg_temp.preloaded();
SELECT is((SELECT count(*) FROM presence_list('tx')), pg_temp.preloaded()::int::bigint, 'the others are dead');

-- An expired channel that a rolled-back transaction added again stays expired.
SELECT pg_temp.pass(61);
BEGIN;
SELECT is((presence_add('tx', 'kept')).room, 'tx', 'a dead channel is added');
SELECT is(presence_touch('kept'), true, 'and beats');
ROLLBACK;
SELECT is(presence_touch('kept'), false, 'rolled back, it is as dead as before');
SELECT is_empty($$SELECT * FROM presence_list('tx')$$, 'and unseen');

-- A transaction may become read-only after it has made its changes.
SELECT presence_add('tx', 'reader', 'rita');
BEGIN;
SELECT presence_leave_all('reader');
SET TRANSACTION READ ONLY;
COMMIT;
SELECT is(presence_touch('reader'), false, 'a removal commits in a transaction that has become read-only');

-- Two-phase commit
SELECT current_setting('max_prepared_transactions')::int > 0 AS can_prepare \gset
\if :can_prepare
\set ON_ERROR_STOP off
\set VERBOSITY sqlstate
BEGIN;
SELECT presence_add('tx', 'prepared');
PREPARE TRANSACTION 'presence_test';
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '0A000', 'PREPARE TRANSACTION with a change of presences is refused');
SELECT is(:'LAST_ERROR_MESSAGE'::text, 'cannot PREPARE a transaction that has changed presences', 'and says why');
SELECT is_empty($$SELECT FROM pg_prepared_xacts WHERE gid = 'presence_test'$$, 'nothing is prepared');
SELECT is(presence_touch('prepared'), false, 'nothing is present');
SELECT presence_add('tx', 'plain');
BEGIN;
DELETE FROM presence.presences WHERE room = 'tx' AND channel_name = 'plain';
PREPARE TRANSACTION 'presence_test2';
SELECT is(:'ERROR' || ' ' || :'SQLSTATE', 'true 0A000', 'also after plain SQL');
BEGIN;
SELECT presence_list('tx'), presence_touch('d');
PREPARE TRANSACTION 'presence_test3';
SELECT is(:'ERROR'::text, 'false', 'a transaction that only reads and beats may be prepared');
COMMIT PREPARED 'presence_test3';
\set ON_ERROR_STOP on
\endif

DELETE FROM presence.presences WHERE room LIKE 'tx%';
DELETE FROM presence.rooms WHERE name LIKE 'tx%';
SELECT finish();
