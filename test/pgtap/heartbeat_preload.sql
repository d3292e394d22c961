-- Proves that heartbeats write no WAL, take no transaction id and leave no dead rows.
\ir lib/helpers.psql
SELECT no_plan();
SELECT presence_add_many('beat', ARRAY(SELECT 'b' || i FROM generate_series(1, 1000) i));
SELECT bool_and(presence_touch('b' || i)) FROM generate_series(1, 1000) i;
SELECT presence_receive('b1', '"heartbeat"'), presence_touch_many('{b1}');
CALL pg_temp.wait_for($$SELECT queue_bytes = 0 FROM presence.stats$$);
CHECKPOINT;
SELECT touches AS touches FROM presence.stats \gset before_
SELECT pg_stat_force_next_flush();
SELECT n_tup_upd, n_dead_tup FROM pg_stat_all_tables WHERE relid = 'presence.presences'::regclass \gset before_

-- Other processes write WAL, too, now and then: the lowest of several measurements counts.
CREATE FUNCTION pg_temp.beat() RETURNS boolean LANGUAGE sql AS $$
	SELECT bool_and(presence_touch('b' || i)) AND cardinality(presence_touch_many(array_agg('b' || i))) = 0
		AND NOT bool_or(presence_receive('b' || i, '"heartbeat"'))
	FROM generate_series(1, 1000) i
$$;
CREATE FUNCTION pg_temp.beat_and_measure(OUT alive boolean, OUT wal numeric, OUT xid text) LANGUAGE plpgsql AS $$
DECLARE
	start pg_lsn;
BEGIN
	FOR i IN 1..50 LOOP
		start := pg_current_wal_insert_lsn();
		alive := pg_temp.beat();
		wal := pg_current_wal_insert_lsn() - start;
		EXIT WHEN NOT alive OR wal = 0;
		PERFORM pg_sleep(0.05);
	END LOOP;
	xid := coalesce(pg_current_xact_id_if_assigned()::text, 'none');
END
$$;
SELECT * FROM pg_temp.beat_and_measure() \gset
SELECT is(:'alive'::boolean, true, '3,000 heartbeats of 1,000 channels are answered');
SELECT is(:'wal'::numeric, 0::numeric, 'without a byte of WAL');
SELECT is(:'xid'::text, 'none', 'and without a transaction id');

SELECT pg_stat_force_next_flush();
SELECT is((SELECT row(n_tup_upd, n_dead_tup)::text FROM pg_stat_all_tables WHERE relid = 'presence.presences'::regclass),
	row(:before_n_tup_upd, :before_n_dead_tup)::text, 'no row was updated, none is dead');
SELECT cmp_ok((SELECT touches FROM presence.stats) - :before_touches, '>=', 3000::bigint, 'they are counted');

BEGIN;
SELECT pg_current_xact_id() IS NOT NULL;
SELECT is(pg_temp.beat(), true, 'in a transaction that writes, too');
ROLLBACK;

-- At 80 s all channels with a heartbeat at 40 s are live.
SELECT pg_temp.pass(40);
SELECT is(cardinality(presence_touch_many(ARRAY(SELECT 'b' || i FROM generate_series(1, 500) i))), 0, 'half of them beat');
SELECT pg_temp.pass(40);
SELECT is(presence_count('beat'), 500::bigint, 'and half of them live');
CALL pg_temp.wait_for($$SELECT count(*) = 500 FROM presence.presences WHERE room = 'beat'$$);
SELECT is((SELECT count(*) FROM presence.presences WHERE room = 'beat'), 500::bigint, 'the worker has removed the others');

SELECT is(presence_leave_all_many(ARRAY(SELECT 'b' || i FROM generate_series(1, 1000) i)), 500::bigint, 'the living leave');
DELETE FROM presence.rooms;
SELECT finish();
