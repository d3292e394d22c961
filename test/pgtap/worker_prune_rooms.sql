-- Proves that one call of prune_rooms removes no more rooms than it may while others wait, and continues with the next
-- call.
BEGIN;
SELECT plan(6);

INSERT INTO presence.rooms (name) SELECT 'empty ' || i FROM generate_series(1, 10050) i;
INSERT INTO presence.rooms (name, persistent) VALUES ('empty and kept', true);
INSERT INTO presence.rooms (name, private) VALUES ('empty and private', true);
SELECT is(presence_add_many('full', ARRAY['worker a', 'worker b']), 2::bigint, 'somebody is there');

SELECT cmp_ok(prune_rooms(), '=', 10000::bigint, 'ten thousand at a time');
SELECT cmp_ok(prune_rooms(), '>=', 50::bigint, 'the others the next time');
SELECT is(prune_rooms(), 0::bigint, 'none are left');
SELECT is((SELECT count(*) FROM presence.rooms WHERE name LIKE 'empty%'), 2::bigint, 'persistent and private ones stay');
SELECT is((SELECT count(*) FROM presence.rooms WHERE name = 'full'), 1::bigint, 'so does one that is not empty');

SELECT * FROM finish();
ROLLBACK;
