-- Proves that the rules of a room, whether it is empty, and which presences leave with it, do not depend on what the
-- caller sees, and that a member makes rooms but does not configure them.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

CREATE ROLE presence_test_a;
CREATE ROLE presence_test_member;
SELECT presence_grant('presence_test_a', 'admin');
SELECT presence_grant('presence_test_member');

-- Tenant a sees what begins with "a:" and nothing else.
ALTER TABLE presence.rooms ENABLE ROW LEVEL SECURITY;
ALTER TABLE presence.presences ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON presence.rooms USING (name LIKE 'a:%');
CREATE POLICY mine ON presence.presences USING (room LIKE 'a:%');

SELECT presence_configure_room('b:private', private => true);
SELECT presence_configure_room('b:full', 1);
SELECT presence_add('b:full', 'b1', 'bob'), presence_add('b:open', 'b2', 'bob'), presence_add('a:open', 'a1', 'alice');
SELECT presence_add('a:empty', 'a2', 'alice'), presence_add('b:empty', 'b3', 'bob');
DELETE FROM presence.presences WHERE room LIKE '%:empty';

-- A policy that hides a room from a user who enters it does not lift its rules.
CREATE POLICY enters ON presence.presences USING (channel_name = 'a3');
SELECT is(pg_temp.as_role('presence_test_a', $$SELECT presence_add('b:private', 'a3', 'alice')$$), 'PR004', 'a private room stays private');
SELECT is(pg_temp.as_role('presence_test_a', $$SELECT presence_add('b:full', 'a3', 'alice')$$), 'PR001', 'and a full one full');
DROP POLICY enters ON presence.presences;

-- Pruning removes what is empty, not what looks empty to the caller.
DROP POLICY mine ON presence.rooms;
CREATE POLICY all_rooms ON presence.rooms USING (true);
SET LOCAL ROLE presence_test_a;
SELECT is((SELECT count(*) FROM presence_list('b:open')), 0::bigint, 'tenant a sees nobody in the room of b');
SELECT is(prune_rooms(), 2::bigint, 'and prunes the empty rooms');
RESET ROLE;
SELECT results_eq('SELECT name FROM presence.rooms ORDER BY name', '{a:open,b:full,b:open,b:private}'::text[] COLLATE "C",
	'not those where others are');
SELECT is((SELECT max_members FROM presence.rooms WHERE name = 'b:full'), 1, 'with what they ask');

-- Deleting a room removes all its presences, visible to the caller or not.
SET LOCAL ROLE presence_test_a;
DELETE FROM presence.rooms WHERE name = 'b:open';
RESET ROLE;
SELECT is_empty($$SELECT FROM presence.presences WHERE room = 'b:open'$$, 'nobody stays in a room that is deleted');

-- A policy of DELETE decides which rooms prune_rooms may remove.
SELECT presence_add('b:empty', 'b3', 'bob');
DELETE FROM presence.presences WHERE room = 'b:empty';
DROP POLICY all_rooms ON presence.rooms;
CREATE POLICY mine ON presence.rooms USING (name LIKE 'a:%');
SET LOCAL ROLE presence_test_a;
SELECT is(prune_rooms(), 0::bigint, 'rooms of others are not the caller''s to prune');
RESET ROLE;

-- Old admissions are removed whichever role prunes.
INSERT INTO presence.admissions SELECT 'a:open', 'old', now() - interval '1 year';
SELECT is(pg_temp.as_role('presence_test_a', 'SELECT prune_rooms()'), 'may', 'who prunes may forget old admissions');

-- A member makes rooms by name only, and no presence with a chosen id.
ALTER TABLE presence.rooms DISABLE ROW LEVEL SECURITY;
ALTER TABLE presence.presences DISABLE ROW LEVEL SECURITY;
SELECT is(pg_temp.as_role('presence_test_member', format('INSERT INTO presence.rooms (name, %s) VALUES (''mine'', %s)', c, v)), '42501',
	c || ' is not a member''s to set')
FROM (VALUES ('private', 'true'), ('persistent', 'true'), ('max_members', '1'), ('meta', '''{}'''), ('created_at', 'now()')) x (c, v);
SELECT is(pg_temp.as_role('presence_test_member', $$INSERT INTO presence.rooms (name) VALUES ('mine')$$), 'may', 'a name is');
SELECT is(pg_temp.as_role('presence_test_a', $$INSERT INTO presence.rooms (name, private) VALUES ('theirs', true)$$), 'may', 'an admin sets all');
SELECT is(pg_temp.as_role('presence_test_member', $$INSERT INTO presence.presences (id, room, channel_name) OVERRIDING SYSTEM VALUE
	VALUES (1, 'mine', 'c')$$), '42501', 'the number of a presence is not to be chosen');
SELECT is(pg_temp.as_role('presence_test_member', $$INSERT INTO presence.presences (room, channel_name, user_id, meta, joined_at, last_seen)
	VALUES ('mine', 'c', 'u', '{}', now(), now())$$), 'may', 'all else is');

SELECT finish();
ROLLBACK;
