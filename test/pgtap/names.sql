-- Proves that any name of 1 to 255 characters works everywhere, whatever characters it contains, and so do large metas.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

CREATE TEMP TABLE strange (name text);
INSERT INTO strange VALUES
	(repeat('ä', 255)),
	(repeat('漢', 255)),
	(repeat(U&'\+01F600', 255)),
	('''); DROP TABLE presence.presences; --'),
	('"; DROP TABLE presence.presences; --'),
	('$1'), ('%s %n'), ('{a,b}'), ('NULL'), ('\'), ('\\u0000'), ('a b'), (' '), (E'\t\n\r'), (E'\x01'),
	('"heartbeat"'), ('%'), ('_'), ('A'), ('a'), (repeat('x', 68)), (repeat('x', 69)), (repeat('x', 136));

SELECT is(m.room || ' ' || m.channel_name || ' ' || m.user_id, concat_ws(' ', name, name, name),
	'adds ' || to_json(left(name, 40)))
FROM strange, presence_add(name, name, name) m;
SELECT is(presence_touch(name), true, 'touches it') FROM strange;
SELECT is(presence_rooms(name), name, 'finds its room') FROM strange;
SELECT is(presence_user_rooms(name), name, 'finds its user''s room') FROM strange;
SELECT is((SELECT count(*) FROM presence_list(name)), 1::bigint, 'lists it alone') FROM strange;
SELECT is((SELECT count(*) FROM presence_online(ARRAY(SELECT name FROM strange))),
	(SELECT count(*) FROM strange), 'all users are online');
SELECT is(presence_touch_many(ARRAY(SELECT name FROM strange) || 'nobody'::text), '{nobody}', 'all beat at once');
SELECT is(presence_update(name, name, jsonb_build_object(name, name)), true, 'updates it') FROM strange;
SELECT is(presence_snapshot(name) #>> ARRAY['members', '0', 'meta', name], name, 'is in its snapshot') FROM strange;
SELECT is(presence_leave_all_many(ARRAY(SELECT name FROM strange)), (SELECT count(*) FROM strange), 'all leave');
SELECT is_empty('SELECT FROM presence.presences WHERE room IN (SELECT name FROM strange)', 'nobody is left');

-- Names that differ only in case, or by a trailing blank, are different.
SELECT presence_add('room', 'c'), presence_add('Room', 'c'), presence_add('room ', 'c');
SELECT is(presence_count('room'), 1::bigint, 'rooms are told apart to the byte');
SELECT is(presence_leave_all('c'), 3::bigint, 'by channel they are found all');

-- Metas of 1 MB.
SELECT presence_add('big', 'c', 'u', jsonb_build_object('blob', repeat('x', 1024 * 1024)));
SELECT is((SELECT length(meta ->> 'blob') FROM presence_list('big')), 1024 * 1024, 'a meta of 1 MB is kept');
SELECT is(presence_update('big', 'c', '{"name": "Alice"}'), true, 'is updated');
SELECT is((SELECT length(meta ->> 'blob') || (meta ->> 'name') FROM presence_list('big')), '1048576Alice', 'keeps the rest');
SELECT is(presence_remove('big', 'c'), true, 'and is removed');

SELECT finish();
-- The announcement of all these changes must not fail the commit.
COMMIT;
DELETE FROM presence.rooms;
