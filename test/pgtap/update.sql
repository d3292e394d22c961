-- Proves that presence_update merges top-level keys, deletes those set to null, and writes only what differs.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

CREATE FUNCTION pg_temp.meta() RETURNS jsonb LANGUAGE sql AS
	$$ SELECT meta FROM presence_list('update') WHERE channel_name = 'c' $$;
CREATE FUNCTION pg_temp.version() RETURNS text LANGUAGE sql AS
	$$ SELECT ctid || ' ' || cmin FROM presence.presences WHERE room = 'update' AND channel_name = 'c' $$;

SELECT is(presence_update('update', 'c', '{"a": 1}'), false, 'an unknown room: false');
SELECT is_empty($$SELECT FROM presence.rooms WHERE name = 'update'$$, 'which is not made');
SELECT presence_add('update', 'other');
SELECT is(presence_update('update', 'c', '{"a": 1}'), false, 'an unknown channel: false');

SELECT m.joined_at, m.last_seen FROM presence_add('update', 'c', 'u') m \gset
SELECT is(presence_update('update', 'c', '{"a": 1, "b": {"c": 1, "d": 2}}'), true, 'a presence without meta: true');
SELECT is(pg_temp.meta(), '{"a": 1, "b": {"c": 1, "d": 2}}', 'gets one');
SELECT is(presence_update('update', 'c', '{"b": {"c": 3}, "e": [1]}'), true, 'keys');
SELECT is(pg_temp.meta(), '{"a": 1, "b": {"c": 3}, "e": [1]}', 'are replaced at the top level, not merged below');
SELECT is(presence_update('update', 'c', '{"a": null, "unknown": null, "f": {"g": null}}'), true, 'nulls');
SELECT is(pg_temp.meta(), '{"b": {"c": 3}, "e": [1], "f": {"g": null}}', 'delete their keys at the top level');
SELECT is((SELECT row(user_id, joined_at)::text FROM presence_list('update') WHERE channel_name = 'c'),
	row('u', :'joined_at'::timestamptz)::text, 'user and joined_at stay');

SELECT pg_temp.version() AS version \gset
SELECT pg_temp.pass(5);
SELECT is(presence_update('update', 'c', '{"e": [1], "nothing": null}'), true, 'nothing that differs: true');
SELECT is(presence_update('update', 'c', '{}'), true, 'nothing at all: true');
SELECT is(pg_temp.meta(), '{"b": {"c": 3}, "e": [1], "f": {"g": null}}', 'changes nothing');
SELECT is(pg_temp.version(), :'version', 'and writes no row') WHERE pg_temp.preloaded();
SELECT cmp_ok((SELECT last_seen FROM presence_list('update') WHERE channel_name = 'c'), '>=',
	:'last_seen'::timestamptz + interval '5 seconds', 'an update is a sign of life');
SELECT cmp_ok((SELECT last_seen FROM presence_list('update') WHERE channel_name = 'other'), '<',
	:'last_seen'::timestamptz + interval '5 seconds', 'of its channel alone');
SELECT is(presence_update('update', 'c', '{"b": null, "e": null, "f": null}'), true, 'the last keys');
SELECT is(pg_temp.meta(), '{}', 'leave an empty object');

-- Plain SQL: a moved row is another presence, a changed one is not.
SELECT presence_add('update', 'moving');
CREATE FUNCTION pg_temp.id() RETURNS bigint LANGUAGE sql AS
	$$ SELECT id FROM presence.presences WHERE channel_name IN ('moving', 'moved') $$;
SELECT pg_temp.id() AS id \gset
UPDATE presence.presences SET user_id = 'u', meta = '{}', room = room, channel_name = channel_name WHERE channel_name = 'moving';
SELECT is(pg_temp.id(), :id::bigint, 'changed, it keeps its id');
SELECT joined_at FROM presence.presences WHERE channel_name = 'moving' \gset
UPDATE presence.presences SET room = 'update2' WHERE channel_name = 'moving';
SELECT cmp_ok(pg_temp.id(), '>', :id::bigint, 'moved to another room, it gets a new one');
SELECT cmp_ok((SELECT joined_at FROM presence.presences WHERE channel_name = 'moving'), '>', :'joined_at'::timestamptz, 'and joins now');
SELECT pg_temp.id() AS id \gset
UPDATE presence.presences SET channel_name = 'moved' WHERE channel_name = 'moving';
SELECT cmp_ok(pg_temp.id(), '>', :id::bigint, 'to another channel, too');

CREATE TEMP TABLE mine (LIKE presence.presences);
CREATE TRIGGER wrong BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION presence.renew_id();
SELECT throws_ok($$INSERT INTO mine VALUES (1, 'r', 'c', NULL, NULL, now(), now())$$, '39P01', NULL, 'the trigger serves no INSERT');

SELECT pg_temp.pass(61);
SELECT is(presence_update('update', 'c', '{"a": 1}'), false, 'an expired presence: false');
SELECT is(presence_touch('c'), false, 'which an update does not revive');

SELECT finish();
ROLLBACK;
