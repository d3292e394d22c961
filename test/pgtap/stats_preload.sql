-- Proves that presence.stats counts the committed changes, whichever process made them, exact to the savepoint.
\ir lib/helpers.psql
SELECT no_plan();
DELETE FROM presence.presences;
SELECT presence_add('warm', 'up');
CALL pg_temp.wait_for($$SELECT mode = 'worker' AND queue_bytes = 0 FROM presence.stats$$);
SELECT is(mode, 'worker', 'a worker announces') FROM presence.stats;
SELECT ok(EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = s.worker_pid AND a.backend_type = 'presence worker'),
	'its pid is in pg_stat_activity') FROM presence.stats s;
SELECT is(max_channels::text, current_setting('presence.max_channels'), 'max_channels is the setting') FROM presence.stats;
SELECT is(queue_size, pg_size_bytes(current_setting('presence.queue_size')), 'queue_size is the setting, in bytes') FROM presence.stats;
SELECT matches(epoch, '^[0-9a-f]{16}$', 'the epoch is a number in hex') FROM presence.stats;

-- Remembers the counters, and returns how they have changed once all is announced.
CREATE TEMP TABLE before AS SELECT * FROM presence.stats;
CREATE PROCEDURE pg_temp.delivered() LANGUAGE plpgsql AS $$
BEGIN
	CALL pg_temp.wait_for('SELECT queue_bytes = 0 FROM presence.stats');
END
$$;
CREATE FUNCTION pg_temp.moved() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	SELECT format('adds %s leaves %s events %s bulk %s resyncs %s fallbacks %s seq %s', s.adds - b.adds, s.leaves - b.leaves,
		s.events - b.events, s.bulk_events - b.bulk_events, s.resyncs - b.resyncs, s.fallbacks - b.fallbacks, s.seq - b.seq)
	INTO result FROM presence.stats s, before b;
	DELETE FROM before;
	INSERT INTO before SELECT * FROM presence.stats;
	RETURN result;
END
$$;

SELECT presence_add('stats', 'c1');
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 1 leaves 0 events 1 bulk 0 resyncs 0 fallbacks 0 seq 1', 'an add');
SELECT presence_add('stats', 'c1'), presence_add('stats', 'c1', NULL, NULL);
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 0 leaves 0 events 0 bulk 0 resyncs 0 fallbacks 0 seq 0', 'repetitions are silent');
SELECT presence_add('stats', 'c1', 'u');
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 0 leaves 0 events 2 bulk 0 resyncs 0 fallbacks 0 seq 1', 'another user: an update, and a status');
SELECT presence_update('stats', 'c1', '{"a": 1}');
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 0 leaves 0 events 1 bulk 0 resyncs 0 fallbacks 0 seq 1', 'another meta: an update');
SELECT presence_update('stats', 'c1', '{"a": 1, "b": null}'), presence_touch('c1');
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 0 leaves 0 events 0 bulk 0 resyncs 0 fallbacks 0 seq 0', 'the same meta and a heartbeat are silent');
SELECT presence_remove('stats', 'c1');
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 0 leaves 1 events 2 bulk 0 resyncs 0 fallbacks 0 seq 1', 'a leave, and a status');

-- Plain SQL
INSERT INTO presence.presences (room, channel_name) VALUES ('stats', 'p1'), ('stats', 'p2');
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 2 leaves 0 events 2 bulk 0 resyncs 0 fallbacks 0 seq 2', 'INSERT');
SELECT is(presence_touch('p1'), true, 'makes channels that beat');
COPY presence.presences (room, channel_name) FROM stdin;
stats	p3
stats	p4
\.
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 2 leaves 0 events 2 bulk 0 resyncs 0 fallbacks 0 seq 2', 'COPY');
UPDATE presence.presences SET meta = '{}' WHERE channel_name IN ('p1', 'p2');
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 0 leaves 0 events 2 bulk 0 resyncs 0 fallbacks 0 seq 2', 'UPDATE of meta');
UPDATE presence.presences SET last_seen = now(), joined_at = joined_at WHERE room = 'stats';
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 0 leaves 0 events 0 bulk 0 resyncs 0 fallbacks 0 seq 0', 'UPDATE of last_seen is silent');
UPDATE presence.presences SET channel_name = 'p5' WHERE channel_name = 'p4';
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 1 leaves 1 events 2 bulk 0 resyncs 0 fallbacks 0 seq 2', 'a rename leaves and joins');
SELECT is(presence_touch_many('{p4,p5}'), '{p4}', 'and the registry knows');
DELETE FROM presence.presences WHERE channel_name = 'p5';
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 0 leaves 1 events 1 bulk 0 resyncs 0 fallbacks 0 seq 1', 'DELETE');
SELECT is(presence_touch('p5'), false, 'takes the heartbeat away');
MERGE INTO presence.presences p USING (VALUES ('p1'), ('p6')) v (c) ON p.room = 'stats' AND p.channel_name = v.c
	WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (room, channel_name) VALUES ('stats', v.c);
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 1 leaves 1 events 2 bulk 0 resyncs 0 fallbacks 0 seq 2', 'MERGE');

-- Savepoints
BEGIN;
SELECT presence_add('stats', 's1');
SAVEPOINT a;
SELECT presence_add('stats', 's2'), presence_remove('stats', 's1');
ROLLBACK TO a;
SAVEPOINT b;
SELECT presence_add('stats', 's3');
SAVEPOINT c;
SELECT presence_add('stats', 's4');
RELEASE c;
ROLLBACK TO b;
SELECT presence_add('stats', 's5');
COMMIT;
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 2 leaves 0 events 2 bulk 0 resyncs 0 fallbacks 0 seq 2', 'savepoints: s1 and s5 alone');
DO $$
BEGIN
	FOR i IN 1..10 LOOP
		BEGIN
			PERFORM presence_add('stats', 'e' || i);
			BEGIN
				PERFORM presence_remove('stats', 's1');
				PERFORM 1 / 0;
			EXCEPTION WHEN division_by_zero THEN
				PERFORM presence_update('stats', 'e' || i, '{"caught": true}');
			END;
			IF i % 2 = 0 THEN
				RAISE EXCEPTION 'even';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
	END LOOP;
END
$$;
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 5 leaves 0 events 5 bulk 0 resyncs 0 fallbacks 0 seq 5',
	'nested EXCEPTION blocks: the odd ones, each as one join with its meta');
BEGIN;
SELECT presence_leave_all_many('{e1,e3,e5,e7,e9}');
ROLLBACK;
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 0 leaves 0 events 0 bulk 0 resyncs 0 fallbacks 0 seq 0', 'ROLLBACK');

-- Net changes
BEGIN;
SELECT presence_add('stats', 'n'), presence_remove('stats', 'n');
COMMIT;
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 1 leaves 1 events 0 bulk 0 resyncs 0 fallbacks 0 seq 0', 'who comes and goes in one transaction is no news');
SELECT presence_add_many('stats', ARRAY(SELECT 'many' || i FROM generate_series(1, 51) i));
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 51 leaves 0 events 1 bulk 1 resyncs 0 fallbacks 0 seq 1', 'past presence.bulk_threshold they fold into one');
SELECT presence_leave_all_many(ARRAY(SELECT 'many' || i FROM generate_series(1, 50) i));
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 0 leaves 50 events 50 bulk 0 resyncs 0 fallbacks 0 seq 50', 'at it they do not');

-- Expiry
SELECT expirations AS expirations FROM presence.stats \gset
SELECT count(*) AS living FROM presence.presences \gset
SELECT pg_temp.pass(61);
CALL pg_temp.wait_for('SELECT NOT EXISTS (SELECT FROM presence.presences)');
CALL pg_temp.delivered();
SELECT is((SELECT s.expirations FROM presence.stats s) - :expirations, :living::bigint, 'expirations are counted');
SELECT is((SELECT s.channels FROM presence.stats s), 0::bigint, 'and leave no entry behind');

-- TRUNCATE
SELECT presence_add('stats', 't1'), presence_add('stats', 't2');
CALL pg_temp.delivered();
SELECT pg_temp.moved();
TRUNCATE presence.presences;
CALL pg_temp.delivered();
SELECT is(pg_temp.moved(), 'adds 0 leaves 0 events 1 bulk 0 resyncs 1 fallbacks 0 seq 1', 'TRUNCATE asks listeners to read again');
SELECT is(presence_touch_many('{t1,t2}'), '{t1,t2}', 'and takes the heartbeats away');

-- Reset
SELECT presence_reset_stats();
SELECT is(row(adds, touches, leaves, expirations, events, bulk_events, resyncs, fallbacks)::text, '(0,0,0,0,0,0,0,0)', 'reset')
FROM presence.stats;
SELECT is(seq > 0, true, 'but seq goes on') FROM presence.stats;
SELECT is(stats_reset > now() - interval '1 hour', true, 'and the time is noted') FROM presence.stats;

DELETE FROM presence.rooms;
SELECT finish();
