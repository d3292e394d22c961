-- Proves that presence_start_worker starts one worker where the library is not preloaded, which expires presences. No
-- presence is older than the server, which may have just started. A session that begins after the reload has the new
-- setting.
LOAD 'presence';
ALTER SYSTEM SET presence.max_age = '20s';
SELECT pg_reload_conf();
\connect -
\ir lib/helpers.psql
SELECT no_plan();
DELETE FROM presence.presences;

SELECT is((SELECT mode FROM presence.stats), 'transaction', 'without preload transactions announce');
SELECT is((SELECT row(worker_pid, epoch, seq, channels, adds)::text FROM presence.stats), '(,,,,)', 'and nothing is counted');
SELECT lives_ok('SELECT presence_reset_stats()', 'which can be reset all the same');
SELECT is(pg_temp.value_of($$SELECT presence_snapshot('r') ->> 'epoch'$$), NULL, 'nor numbered');

SELECT presence_add('worker', 'dead'), presence_add('worker', 'alive');
UPDATE presence.presences SET last_seen = now() - interval '1 hour' WHERE channel_name = 'dead';
SELECT is(presence_start_worker(), true, 'a worker is started');
CREATE FUNCTION pg_temp.workers() RETURNS bigint LANGUAGE sql AS
	$$ SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'presence worker' AND datname = current_database() $$;
CALL pg_temp.wait_for('SELECT pg_temp.workers() = 1');
SELECT is(pg_temp.workers(), 1::bigint, 'it shows in pg_stat_activity');
CALL pg_temp.wait_for($$SELECT presence_touch('alive') AND NOT EXISTS (SELECT FROM presence.presences WHERE channel_name = 'dead')$$);
SELECT results_eq($$SELECT channel_name FROM presence.presences WHERE room = 'worker'$$, ARRAY['alive'] COLLATE "C",
	'it has removed the dead, and nobody else');
SELECT is(presence_start_worker(), false, 'a second call starts none');
SELECT is(pg_temp.workers(), 1::bigint, 'there is one');
ALTER SYSTEM RESET presence.max_age;
SELECT pg_reload_conf();

-- Terminated, it can be started again.
CREATE PROCEDURE pg_temp.terminate() LANGUAGE plpgsql AS $$
BEGIN
	CALL pg_temp.wait_for('SELECT pg_temp.workers() = 1');
	PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'presence worker' AND datname = current_database();
	CALL pg_temp.wait_for('SELECT pg_temp.workers() = 0');
END
$$;
CALL pg_temp.terminate();
SELECT is(pg_temp.workers(), 0::bigint, 'it can be terminated');
SELECT is(presence_start_worker(), true, 'and started again');
CALL pg_temp.terminate();
DELETE FROM presence.presences;
DELETE FROM presence.rooms;
SELECT finish();
