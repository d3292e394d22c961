-- What a listener hears: the payload of every kind of event, and of nothing that was rolled back.
\set QUIET on
-- Waits until all that was committed has been announced.
CREATE PROCEDURE delivered() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..12000 LOOP
		EXIT WHEN (SELECT coalesce(queue_bytes, 0) = 0 FROM presence.stats);
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;
\set told 'CALL delivered();'
-- A worker that opens between the word of a transaction and its commit has
-- listeners read again; here it speaks from the first event on.
CREATE PROCEDURE spoken_for() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM presence_start_worker();
	FOR i IN 1..6000 LOOP
		EXIT WHEN (SELECT mode = 'worker' FROM presence.stats);
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;
CALL spoken_for();
LISTEN presence_changed;

-- 1. One by one -----------------------------------------------------------

-- Alice's first tab, with a meta; her second; and a guest
\o |sed -f "$PG_ABS_SRCDIR/lib/payload.sed"
SELECT presence_add('hall', 'tab-1', 'alice', '{"name": "Alice"}') AS x \gset
:told
SELECT presence_add('hall', 'tab-2', 'alice') AS x \gset
:told
SELECT presence_add('hall', 'guest') AS x \gset
:told
\o

-- The guest logs in as Bob; Alice changes her meta; a repetition and a heartbeat are no news.
\o |sed -f "$PG_ABS_SRCDIR/lib/payload.sed"
SELECT presence_add('hall', 'guest', 'bob') AS x \gset
:told
SELECT presence_update('hall', 'tab-1', '{"colour": "red", "name": null}') AS x \gset
:told
SELECT presence_add('hall', 'tab-1', 'alice') AS x, presence_touch('tab-1') AS y \gset
:told
\o

-- Alice closes one tab, then the other.
\o |sed -f "$PG_ABS_SRCDIR/lib/payload.sed"
SELECT presence_remove('hall', 'tab-2') AS x \gset
:told
SELECT presence_leave_all('tab-1') AS x \gset
:told
\o

-- 2. Transactions -----------------------------------------------------------

-- Only what survives is told, once it is committed.
\o |sed -f "$PG_ABS_SRCDIR/lib/payload.sed"
BEGIN;
SELECT presence_add('hall', 'kept') AS x \gset
SAVEPOINT s;
SELECT presence_add('hall', 'undone') AS x \gset
SELECT presence_remove('hall', 'kept') AS x \gset
ROLLBACK TO s;
DO $$
BEGIN
	PERFORM presence_add('hall', 'caught');
	RAISE EXCEPTION 'undo';
EXCEPTION WHEN raise_exception THEN
	PERFORM presence_update('hall', 'kept', '{"a": 1}');
END
$$;
SELECT presence_add('hall', 'fleeting') AS x \gset
SELECT presence_remove('hall', 'fleeting') AS x \gset
COMMIT;
:told
BEGIN;
SELECT presence_remove('hall', 'kept') AS x \gset
ROLLBACK;
:told
\o

-- A presence that is replaced by another of the same channel leaves and joins.
\o |sed -f "$PG_ABS_SRCDIR/lib/payload.sed"
BEGIN;
SELECT presence_remove('hall', 'kept') AS x \gset
SELECT presence_add('hall', 'kept', 'carol') AS x \gset
COMMIT;
:told
\o

-- 3. Plain SQL --------------------------------------------------------------

\o |sed -f "$PG_ABS_SRCDIR/lib/payload.sed"
INSERT INTO presence.presences (room, channel_name, user_id) VALUES ('annex', 'plain', 'dave');
:told
UPDATE presence.presences SET last_seen = now() WHERE room = 'annex';
:told
UPDATE presence.presences SET user_id = 'erin' WHERE room = 'annex';
:told
UPDATE presence.presences SET room = 'attic' WHERE room = 'annex';
:told
DELETE FROM presence.presences WHERE room = 'attic';
:told
COPY presence.presences (room, channel_name, meta) FROM stdin;
attic	copied	{"by": "COPY"}
\.
:told
\o

-- 4. Too much for one payload, or for one at a time --------------------------

\o |sed -f "$PG_ABS_SRCDIR/lib/payload.sed"
SELECT presence_add('hall', 'big', NULL, jsonb_build_object('blob', repeat('x', 10000))) AS x \gset
:told
SELECT presence_remove('hall', 'big') AS x \gset
:told
\o

-- 51 changes of a room make one event, with a list while it fits.
\o |sed -f "$PG_ABS_SRCDIR/lib/payload.sed" -e 's/"joined":\[.*\],"left"/"joined":[…],"left"/'
SELECT presence_add_many('arena', ARRAY(SELECT 'b' || i FROM generate_series(1, 51) i)) AS x \gset
:told
SELECT presence_add_many('arena', ARRAY(SELECT repeat('long ', 50) || i FROM generate_series(1, 51) i)) AS x \gset
:told
\o

-- 50 of two rooms each do not.
\o |sed -f "$PG_ABS_SRCDIR/lib/payload.sed" | sed -e 's/^.*"event":"\([a-z]*\)","room":"\([a-z]*\)".*$/\1 \2/' | sort | uniq -c | sed 's/^ *//'
SELECT presence_add_many(room, ARRAY(SELECT 'm' || i FROM generate_series(1, 50) i)) AS x FROM unnest('{north,south}'::text[]) room OFFSET 1 \gset
:told
\o

-- All at once
\o |sed -f "$PG_ABS_SRCDIR/lib/payload.sed"
TRUNCATE presence.presences;
:told
\o

UNLISTEN *;
SELECT prune_rooms() AS x \gset
DROP PROCEDURE delivered();
