-- Proves that admission rules apply to rows, whichever role writes them and however, and that policies are checked
-- before them.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

CREATE ROLE presence_test_member;
CREATE ROLE presence_test_owner;
CREATE ROLE presence_test_heir;
SELECT presence_grant('presence_test_member');
SELECT presence_configure_room('private', private => true), presence_configure_room('full', 1), presence_configure_room('two', 2);
SELECT presence_add('full', 'f1', 'frank'), presence_add('open', 'o1', 'alice'), presence_add('two', 't1', 'tom');
SELECT presence_invite('private', 'guest');
SELECT presence_ban('open', 'banned'), presence_ban(NULL, 'outlaw');

-- Every way for a member to enter a room
CREATE TEMP TABLE ways (n int, query text, answer text, what text);
INSERT INTO ways VALUES
	(1, $$INSERT INTO presence.presences (room, channel_name, user_id) VALUES ('open', 'x', 'alice')$$, 'may', 'an open room is open'),
	(2, $$INSERT INTO presence.presences (room, channel_name, user_id) VALUES ('open', 'x', 'banned')$$, 'PR002', 'INSERT by who is banned there'),
	(3, $$INSERT INTO presence.presences (room, channel_name, user_id) VALUES ('elsewhere', 'x', 'banned')$$, 'may', 'elsewhere he may'),
	(4, $$INSERT INTO presence.presences (room, channel_name, user_id) VALUES ('elsewhere', 'x', 'outlaw')$$, 'PR002', 'who is banned everywhere may not'),
	(5, $$INSERT INTO presence.presences (room, channel_name, user_id) VALUES ('private', 'x', 'alice')$$, 'PR004', 'INSERT into a private room'),
	(6, $$INSERT INTO presence.presences (room, channel_name) VALUES ('private', 'x')$$, 'PR004', 'by nobody known'),
	(7, $$INSERT INTO presence.presences (room, channel_name, user_id) VALUES ('private', 'x', 'guest')$$, 'may', 'by who is invited'),
	(8, $$INSERT INTO presence.presences (room, channel_name, user_id) VALUES ('full', 'x', 'alice')$$, 'PR001', 'INSERT into a full room'),
	(9, $$INSERT INTO presence.presences (room, channel_name) VALUES ('two', 'x')$$, 'may', 'one place is left'),
	(10, $$INSERT INTO presence.presences (room, channel_name) VALUES ('two', 'x'), ('two', 'y')$$, 'PR001', 'not two'),
	(11, $$INSERT INTO presence.presences (room, channel_name) SELECT 'two', 'x' || i FROM generate_series(1, 3) i$$, 'PR001', 'nor three'),
	(12, $$UPDATE presence.presences SET room = 'private' WHERE channel_name = 'o1'$$, 'PR004', 'UPDATE of the room into a private one'),
	(13, $$UPDATE presence.presences SET room = 'full' WHERE channel_name = 'o1'$$, 'PR001', 'into a full one'),
	(14, $$UPDATE presence.presences SET room = 'two' WHERE channel_name = 'o1'$$, 'may', 'into one with a place'),
	(15, $$UPDATE presence.presences SET user_id = 'banned' WHERE channel_name = 'o1'$$, 'PR002', 'UPDATE of the user to a banned one'),
	(16, $$UPDATE presence.presences SET user_id = 'bob' WHERE channel_name = 'o1'$$, 'may', 'to another one'),
	(17, $$UPDATE presence.presences SET user_id = 'bob' WHERE channel_name = 'f1'$$, 'may', 'who is in keeps the place as another user'),
	(18, $$UPDATE presence.presences SET channel_name = 'f2' WHERE channel_name = 'f1'$$, 'may', 'and by another channel'),
	(19, $$UPDATE presence.presences SET meta = '{"a": 1}'$$, 'may', 'meta is nobody''s rule'),
	(20, $$INSERT INTO presence.presences (room, channel_name, user_id) VALUES ('open', 'o1', 'banned')
		ON CONFLICT (room, channel_name) DO UPDATE SET user_id = excluded.user_id$$, 'PR002', 'INSERT ON CONFLICT DO UPDATE'),
	(21, $$MERGE INTO presence.presences p USING (SELECT 1) s ON p.channel_name = 'o1' WHEN MATCHED THEN UPDATE SET room = 'private'$$, 'PR004', 'MERGE'),
	(22, $$WITH i AS (INSERT INTO presence.presences (room, channel_name, user_id) VALUES ('open', 'x', 'banned') RETURNING 1) SELECT * FROM i$$, 'PR002', 'a CTE'),
	(23, $$SELECT presence_add('open', 'x', 'banned')$$, 'PR002', 'and the function');
SELECT is(pg_temp.as_role('presence_test_member', query), answer, what) FROM ways ORDER BY n;

-- Every row takes a counted place, whatever its last_seen.
SELECT is(pg_temp.as_role('presence_test_member', $$INSERT INTO presence.presences (room, channel_name, last_seen)
	SELECT 'full', 'x', now() - interval '1 year'$$), 'PR001', 'a row that is born dead is asked, too');
-- Roles to which the rules do not apply in plain SQL, though they do in functions
SELECT is(pg_temp.as_role(current_user, query), 'may', 'a superuser: ' || what) FROM ways WHERE n < 23 ORDER BY n;
SELECT is(pg_temp.as_role(current_user, $$SELECT presence_add('private', 'x', 'alice')$$), 'PR004', 'but not by a function');
SET LOCAL session_replication_role = replica;
SELECT is(pg_temp.state_of($$INSERT INTO presence.presences (room, channel_name, user_id) VALUES ('nowhere', 'r', 'outlaw')$$), 'no', 'replication is not asked');
SET LOCAL session_replication_role = origin;
SELECT is_empty($$SELECT FROM presence.rooms WHERE name = 'nowhere'$$, 'nor makes it rooms');
DELETE FROM presence.presences WHERE room = 'nowhere';

-- A row in a room that does not exist makes the room.
SET LOCAL ROLE presence_test_member;
INSERT INTO presence.presences (room, channel_name) VALUES ('made', 'm1');
RESET ROLE;
SELECT is((SELECT count(*) FROM presence.rooms WHERE name = 'made'), 1::bigint, 'a row makes its room');
UPDATE presence.presences SET room = 'made too' WHERE channel_name = 'm1';
SELECT is((SELECT count(*) FROM presence.rooms WHERE name = 'made too'), 1::bigint, 'and so does one that is moved');

-- What a user's own trigger writes instead is checked again.
CREATE FUNCTION pg_temp.turn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.channel_name = 'turned' THEN
		NEW.room := 'private';
	ELSIF NEW.channel_name = 'disguised' THEN
		NEW.user_id := 'outlaw';
	END IF;
	RETURN NEW;
END
$$;
CREATE TRIGGER turn BEFORE INSERT ON presence.presences FOR EACH ROW EXECUTE FUNCTION pg_temp.turn();
SELECT is(pg_temp.as_role('presence_test_member', $$SELECT presence_add('open', 'turned', 'alice')$$), 'PR004', 'a trigger that turns the room');
SELECT is(pg_temp.as_role('presence_test_member', $$SELECT presence_add('open', 'disguised', 'alice')$$), 'PR002', 'or the user');
SELECT is(pg_temp.as_role(current_user, $$SELECT presence_add('open', 'disguised', 'alice')$$), 'PR002', 'also for a superuser: a function let him in');
DROP TRIGGER turn ON presence.presences;

-- A trigger that adds others: each is checked separately.
CREATE FUNCTION pg_temp.bring() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.channel_name = 'host' THEN
		INSERT INTO presence.presences (room, channel_name, user_id) VALUES (NEW.room, 'brought', 'banned');
	END IF;
	RETURN NULL;
END
$$;
CREATE TRIGGER bring AFTER INSERT ON presence.presences FOR EACH ROW EXECUTE FUNCTION pg_temp.bring();
SELECT is(pg_temp.as_role('presence_test_member', $$SELECT presence_add('open', 'host', 'alice')$$), 'PR002', 'who is brought along is asked');
SELECT is(pg_temp.as_role(current_user, $$SELECT presence_add('open', 'host', 'alice')$$), 'may', 'unless by a superuser');
DROP TRIGGER bring ON presence.presences;

-- Policies first: where they forbid a row, the error reveals nothing of the room's rules to the caller.
ALTER TABLE presence.presences ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON presence.presences USING (room LIKE 'my %' OR room = 'two');
SELECT presence_configure_room('my private', private => true), presence_configure_room('my full', 1), presence_add('my full', 'm', 'mia');
SELECT is(pg_temp.as_role('presence_test_member', format('SELECT presence_add(%L, ''x'', ''alice'')', room)), '42501', 'of ' || room)
FROM unnest('{private,full,open,nowhere}'::text[]) room;
SELECT is(pg_temp.as_role('presence_test_member', $$SELECT presence_add('open', 'x', 'outlaw')$$), '42501', 'and of bans');
SELECT is(pg_temp.as_role('presence_test_member', $$SELECT presence_add('my private', 'x', 'alice')$$), 'PR004', 'his own are asked: private');
SELECT is(pg_temp.as_role('presence_test_member', $$SELECT presence_add('my full', 'x', 'alice')$$), 'PR001', 'full');
SELECT is(pg_temp.as_role('presence_test_member', $$SELECT presence_add('my own', 'x', 'outlaw')$$), 'PR002', 'banned');
SELECT is(pg_temp.as_role('presence_test_member', $$SELECT presence_add('two', 'x', 'alice'), presence_add('two', 't1', 'tom')$$), 'may', 'a place that is left');
SELECT is(pg_temp.as_role('presence_test_member', $$SELECT presence_add('two', 'x', 'alice'), presence_add('two', 'y', 'alice')$$), 'PR001', 'and none after it');
SELECT is(pg_temp.as_role('presence_test_member', $$SELECT presence_add('two', 't1', 'outlaw')$$), 'PR002', 'another user of who is in');

-- A policy on rooms decides which roles make them, by rows as by functions.
ALTER TABLE presence.rooms ENABLE ROW LEVEL SECURITY;
SELECT is(pg_temp.as_role('presence_test_member', $$SELECT presence_add('my new', 'x', 'alice')$$), '42501', 'who may make no room by a function');
SELECT is(pg_temp.as_role('presence_test_member', $$INSERT INTO presence.presences (room, channel_name) VALUES ('my new', 'x')$$), '42501', 'may make none by a row');

-- Where the row alone decides what is live, making an expired one live takes a place. No presence is older than the
-- server, so time has to pass.
ALTER TABLE presence.presences DISABLE ROW LEVEL SECURITY;
ALTER TABLE presence.rooms DISABLE ROW LEVEL SECURITY;
DELETE FROM presence.presences;
SELECT pg_temp.pass(7200) WHERE NOT pg_temp.preloaded();
SELECT (presence_add('full', 'f1', 'frank')).created;
INSERT INTO presence.presences (room, channel_name, last_seen) VALUES ('full', 'ghost', now() - interval '1 year');
SELECT is(pg_temp.as_role('presence_test_member', $$UPDATE presence.presences SET last_seen = now() + interval '2 hours' WHERE channel_name = 'ghost'$$),
	CASE WHEN pg_temp.preloaded() THEN 'may' ELSE 'PR001' END, 'a dead row cannot be brought to life past the limit');

SELECT finish();
ROLLBACK;
