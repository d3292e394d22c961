-- Proves that the trigger functions work on the tables of the extension only: on another table they raise an error.
\ir lib/helpers.psql
SELECT no_plan();

-- Tables with different columns, with the same ones, and with the same name.
CREATE SCHEMA presence_test;
CREATE TABLE presence_test.numbers AS SELECT i AS a, i AS b, i AS c, i AS d, i AS e, i AS f, i AS g FROM generate_series(1, 3) i;
CREATE TABLE presence_test.presences (LIKE presence.presences);
CREATE TABLE presence_test.people (a integer, b integer, c integer);
CREATE TABLE presence_test.child () INHERITS (presence.presences);
CREATE TABLE presence_test.parted (LIKE presence.presences) PARTITION BY LIST (room);
CREATE TABLE presence_test.part PARTITION OF presence_test.parted DEFAULT;
DO $$
DECLARE
	t regclass;
BEGIN
	-- a publication of all tables is in the way of updates else
	FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'presence_test'::regnamespace LOOP
		EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', t);
	END LOOP;
END
$$;
INSERT INTO presence_test.presences VALUES (1, 'r', 'c', 'u', '{}', now(), now());
INSERT INTO presence_test.people VALUES (1, 2, 3);
INSERT INTO presence_test.child (room, channel_name, id) VALUES ('r', 'c', 1);
INSERT INTO presence_test.parted VALUES (1, 'r', 'c', 'u', '{}', now(), now());

-- The errors of the statements on a table with a trigger.
CREATE FUNCTION pg_temp.under(target text, timing text, level text, called text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	EXECUTE format('CREATE TRIGGER t %s ON %s FOR EACH %s EXECUTE FUNCTION %s()', timing, target, level, called);
	result := pg_temp.state_of(statement);
	EXECUTE format('DROP TRIGGER t ON %s', target);
	RETURN result;
END
$$;
SELECT is(pg_temp.under('presence_test.' || t, 'AFTER INSERT OR UPDATE OR DELETE', 'ROW', 'presence.' || f, replace(s, '@', 'presence_test.' || t)),
	'39P01', concat_ws(' ', f, t, s))
FROM unnest('{numbers,presences,people,child,parted}'::text[]) t,
	unnest('{capture_row,capture_person,capture_room,room_deleted}'::text[]) f,
	unnest('{INSERT INTO @ SELECT * FROM @, DELETE FROM @}'::text[]) s;
SELECT is(pg_temp.under('presence_test.' || t, 'BEFORE UPDATE', 'ROW', 'presence.renew_id', format('UPDATE presence_test.%s SET %s', t, s)),
	'39P01', concat_ws(' ', 'renew_id', t))
FROM (VALUES ('numbers', 'a = 7'), ('presences', 'room = ''s'''), ('people', 'a = 7'), ('child', 'room = ''s'''), ('parted', 'user_id = ''s''')) v (t, s);
SELECT is(pg_temp.under('presence_test.' || t, 'AFTER UPDATE', 'ROW', 'presence.' || f, format('UPDATE presence_test.%s SET %s', t, s)),
	'39P01', concat_ws(' ', f, t))
FROM (VALUES ('numbers', 'a = 7'), ('presences', 'room = ''s'''), ('people', 'a = 7'), ('child', 'room = ''s'''), ('parted', 'user_id = ''s''')) v (t, s),
	unnest('{capture_row,capture_person,capture_room}'::text[]) f;
SELECT is(pg_temp.under('presence_test.' || t, 'AFTER TRUNCATE', 'STATEMENT', 'presence.capture_truncate', 'TRUNCATE presence_test.' || t),
	'39P01', concat_ws(' ', 'capture_truncate', t))
FROM unnest('{numbers,presences,people,child,parted}'::text[]) t;

SELECT is(pg_temp.under('presence_test.' || t, 'AFTER DELETE', 'STATEMENT', 'presence.write_visits', 'DELETE FROM presence_test.' || t),
	'39P01', concat_ws(' ', 'write_visits', t))
FROM unnest('{numbers,presences,people,child,parted}'::text[]) t;

-- Nor for other events on their own tables.
SELECT is(pg_temp.under('presence.presences', 'BEFORE INSERT', 'ROW', 'presence.' || f, $$SELECT presence_add('r', 'c')$$),
	'39P01', f || ' before')
FROM unnest('{capture_row,renew_id,write_visits,capture_truncate,capture_person,capture_room,room_deleted}'::text[]) f;
SELECT is(pg_temp.under('presence.presences', 'AFTER INSERT', 'STATEMENT', 'presence.' || f, $$SELECT presence_add('r', 'c')$$),
	'39P01', f || ' after a statement')
FROM unnest('{capture_row,renew_id,capture_person,capture_room,room_deleted}'::text[]) f;
INSERT INTO presence.rooms (name) VALUES ('border');
SELECT is(pg_temp.under('presence.rooms', 'BEFORE DELETE', 'ROW', 'presence.room_deleted', $$DELETE FROM presence.rooms WHERE name = 'border'$$),
	'39P01', 'room_deleted before');
SELECT is(pg_temp.under('presence.rooms', 'AFTER DELETE', 'ROW', 'presence.capture_room', $$DELETE FROM presence.rooms WHERE name = 'border'$$),
	'39P01', 'capture_room after a delete');
DELETE FROM presence.rooms WHERE name = 'border';

-- Nor where the columns of their own table differ.
BEGIN;
ALTER TABLE presence.presences RENAME TO others;
CREATE TABLE presence.presences (id integer, room integer, channel_name integer, user_id integer, meta integer, joined_at integer, last_seen integer);
CREATE TRIGGER t AFTER INSERT ON presence.presences FOR EACH ROW EXECUTE FUNCTION presence.capture_row();
SELECT is(pg_temp.state_of('INSERT INTO presence.presences VALUES (1, 2, 3, 4, 5, 6, 7)'), '39P01', 'a table in the place of theirs');
ROLLBACK;
SELECT is((presence_add('border', 'c')).channel_name, 'c', 'the session goes on');
DELETE FROM presence.presences;
DELETE FROM presence.rooms;
DROP SCHEMA presence_test CASCADE;
SELECT finish();
