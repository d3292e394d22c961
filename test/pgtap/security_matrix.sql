-- Proves the table "who may what" of README.md, section Security: each level, by each function and by plain SQL on each table.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

CREATE ROLE presence_test_nobody;
CREATE ROLE presence_test_reader;
CREATE ROLE presence_test_member;
CREATE ROLE presence_test_admin;
SELECT presence_grant('presence_test_reader', 'reader'), presence_grant('presence_test_member'), presence_grant('presence_test_admin', 'admin');
CREATE TEMP TABLE levels (level int, role text);
INSERT INTO levels VALUES (0, 'presence_test_nobody'), (1, 'presence_test_reader'), (2, 'presence_test_member'),
	(3, 'presence_test_admin'), (4, current_user);		-- the owner
SELECT presence_add('r', 'c', 'u', '{}');

-- 1. The lowest level that may call each function --------------------------------
CREATE TEMP TABLE functions (level int, names text);
INSERT INTO functions VALUES
	(1, 'presence_list presence_page presence_users presence_count presence_anonymous_count presence_counts presence_rooms presence_user_rooms
		presence_is_online presence_online presence_snapshot presence_since presence_status presence_statuses presence_get_state presence_cursors
		presence_typing_users is_live is_older effective_last_seen check_name stat_row'),
	(2, 'presence_add presence_add_many presence_update presence_remove presence_touch presence_touch_many presence_receive
		presence_hold presence_hold_many presence_release presence_release_all
		presence_leave_all presence_leave_all_many presence_set_status presence_broadcast presence_set_state presence_clear_state
		presence_cursor_update presence_cursor_remove presence_typing note_touchable check_status'),
	(3, 'presence_configure_room presence_invite presence_uninvite presence_kick presence_ban presence_unban prune_presences prune_rooms
		presence_start_worker presence_schedule_pruning presence_unschedule_pruning presence_reset_stats check_room_settings'),
	(4, 'presence_grant presence_revoke');
SELECT is(string_agg(l.role, ', ' ORDER BY l.level) FILTER (WHERE has_function_privilege(l.role, p.oid, 'EXECUTE')),
		  string_agg(l.role, ', ' ORDER BY l.level) FILTER (WHERE l.level >= f.level), 'who may call ' || p.proname)
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'presence'
JOIN pg_proc p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass AND p.prorettype <> 'trigger'::regtype
LEFT JOIN functions f ON p.proname = ANY (regexp_split_to_array(f.names, '\s+'))
CROSS JOIN levels l WHERE d.deptype = 'e'
GROUP BY p.oid, p.proname ORDER BY p.proname;

-- 2. The privileges of each level on each table and view, on any column --------------
CREATE TEMP TABLE tables (name text, level int, privileges text);
INSERT INTO tables VALUES
	('presences', 1, 'SELECT'), ('presences', 2, 'INSERT UPDATE DELETE'),
	('rooms', 1, 'SELECT'), ('rooms', 2, 'INSERT'), ('rooms', 3, 'UPDATE DELETE'),
	('people', 1, 'SELECT'), ('people', 2, 'INSERT UPDATE'), ('people', 3, 'DELETE'),
	('user_last_seen', 1, 'SELECT'), ('user_last_seen', 3, 'UPDATE DELETE'),
	('visits', 1, 'SELECT'), ('visits', 3, 'UPDATE DELETE'),
	('bans', 2, 'SELECT'), ('bans', 3, 'INSERT UPDATE DELETE'),
	('invitations', 2, 'SELECT'), ('invitations', 3, 'INSERT UPDATE DELETE'),
	('admissions', 3, 'SELECT UPDATE DELETE'),
	('members', 1, 'SELECT'), ('room_list', 1, 'SELECT'), ('stats', 1, 'SELECT');
SELECT is(string_agg(l.role, ', ' ORDER BY l.level) FILTER (WHERE
			CASE WHEN w.privilege IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
				 THEN has_any_column_privilege(l.role, c.oid, w.privilege)
				 ELSE has_table_privilege(l.role, c.oid, w.privilege) END),
		  string_agg(l.role, ', ' ORDER BY l.level) FILTER (WHERE l.level >= coalesce(t.level, 4)),
		  format('who may %s %s', w.privilege, c.relname))
FROM pg_class c
CROSS JOIN unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS w (privilege)
LEFT JOIN tables t ON t.name = c.relname AND w.privilege = ANY (string_to_array(t.privileges, ' '))
CROSS JOIN levels l
WHERE c.relnamespace = 'presence'::regnamespace AND c.relkind IN ('r', 'v')
GROUP BY c.oid, c.relname, w.privilege ORDER BY c.relname, w.privilege;
SELECT is_empty($$SELECT l.role, s.oid::regclass FROM levels l, pg_class s WHERE s.relnamespace = 'presence'::regnamespace AND s.relkind = 'S'
	AND l.level < 4 AND has_sequence_privilege(l.role, s.oid, 'USAGE, SELECT, UPDATE')$$, 'nobody but the owner may use a sequence');

-- 3. Statements of each level -------------------------------------------------------
CREATE TEMP TABLE cells (level int, statement text);
INSERT INTO cells SELECT level, 'SELECT * FROM ' || call FROM (VALUES
	(1, 'presence_list(''r'')'), (1, 'presence_page(''r'')'), (1, 'presence_users(''r'')'), (1, 'presence_count(''r'')'), (1, 'presence_anonymous_count(''r'')'),
	(1, 'presence_counts(''r'')'), (1, 'presence_rooms(''c'')'), (1, 'presence_user_rooms(''u'')'), (1, 'presence_is_online(''u'')'),
	(1, 'presence_online(''{u}'')'), (1, 'presence_snapshot(''r'')'), (1, 'presence_since(''e'', 1)'), (1, 'presence.members'), (1, 'presence.room_list'),
	(1, 'presence.stats'), (1, 'presence.presences'), (1, 'presence.rooms'), (1, 'presence.people'), (1, 'presence.user_last_seen'), (1, 'presence.visits'),
	(1, 'presence_status(''u'')'), (1, 'presence_statuses(''{u}'')'),
	(1, 'presence_get_state(''r'')'), (1, 'presence_cursors(''r'')'), (1, 'presence_typing_users(''r'')'),
	(2, 'presence.bans'), (2, 'presence.invitations'),
	(2, 'presence_add(''r'', ''c2'', ''v'', ''{}'')'), (2, 'presence_add_many(''r'', ''{c3}'')'), (2, 'presence_add(''new room'', ''c2'')'),
	(2, 'presence_update(''r'', ''c'', ''{"a": 1}'')'), (2, 'presence_touch(''c'')'), (2, 'presence_touch_many(''{c}'')'),
	(2, 'presence_receive(''c'', ''"heartbeat"'')'), (2, 'presence_remove(''r'', ''c'')'), (2, 'presence_leave_all(''c'')'),
	(2, 'presence_leave_all_many(''{c}'')'), (2, 'presence_hold(''nobody'')'), (2, 'presence_hold_many(''{nobody}'')'),
	(2, 'presence_release(''c'')'), (2, 'presence_release_all()'), (2, 'presence_set_status(''u'', ''away'')'), (2, 'presence_broadcast(''r'', ''e'')'),
	(2, 'presence_set_state(''r'', ''matrix'', ''1'', 0.1)'), (2, 'presence_clear_state(''r'', ''matrix'')'),
	(2, 'presence_cursor_update(''r'', ''matrix'', 1, 2)'), (2, 'presence_cursor_remove(''r'', ''matrix'')'), (2, 'presence_typing(''r'', ''matrix'', false)'),
	(3, 'presence.admissions'),
	(3, 'prune_presences()'), (3, 'prune_presences(0)'), (3, 'prune_rooms()'), (3, 'presence_reset_stats()'),
	(3, 'presence_configure_room(''r'', 5, true, true, ''{}'')'), (3, 'presence_invite(''r'', ''u'')'), (3, 'presence_uninvite(''r'', ''u'')'),
	(3, 'presence_kick(''r'', ''u'')'), (3, 'presence_ban(''r'', ''u'')'), (3, 'presence_ban(NULL, ''u'')'), (3, 'presence_unban(''r'', ''u'')'),
	(4, 'presence_grant(''presence_test_nobody'')'), (4, 'presence_revoke(''presence_test_reader'')'),
	(4, 'nextval(''presence.presences_id_seq'')')) AS c (level, call);
INSERT INTO cells VALUES
	(2, 'INSERT INTO presence.presences (room, channel_name, user_id, meta) VALUES (''r'', ''p'', ''v'', ''{}'')'),
	(2, 'UPDATE presence.presences SET meta = ''{}'' WHERE channel_name = ''c'''),
	(2, 'DELETE FROM presence.presences WHERE channel_name = ''c'''),
	(4, 'INSERT INTO presence.presences (id, room, channel_name) OVERRIDING SYSTEM VALUE VALUES (1000000000, ''r'', ''p'')'),
	(4, 'TRUNCATE presence.presences'),
	(2, 'INSERT INTO presence.rooms (name) VALUES (''plain'')'),
	(3, 'INSERT INTO presence.rooms (name, private) VALUES (''plain'', true)'),
	(3, 'INSERT INTO presence.rooms (name, max_members, persistent, meta) VALUES (''plain'', 1, true, ''{}'')'),
	(3, 'UPDATE presence.rooms SET private = true WHERE name = ''r'''), (3, 'DELETE FROM presence.rooms WHERE name = ''r'''),
	(2, 'INSERT INTO presence.people (user_id, chosen_status) VALUES (''plain'', ''away'')'),
	(2, 'UPDATE presence.people SET chosen_status = ''away'''), (3, 'DELETE FROM presence.people WHERE user_id = ''u'''),
	(4, 'INSERT INTO presence.user_last_seen VALUES (''u'', now())'),
	(3, 'UPDATE presence.user_last_seen SET last_seen = now() WHERE user_id = ''none'''), (3, 'DELETE FROM presence.user_last_seen WHERE user_id = ''none'''),
	(4, 'INSERT INTO presence.visits (room, channel_name, joined_at, left_at, reason) VALUES (''r'', ''c'', now(), now(), ''leave'')'),
	(3, 'UPDATE presence.visits SET reason = ''leave'' WHERE room = ''none'''), (3, 'DELETE FROM presence.visits WHERE room = ''none'''),
	(3, 'INSERT INTO presence.bans (room, user_id) VALUES (''r'', ''plain'')'),
	(3, 'UPDATE presence.bans SET reason = NULL WHERE user_id = ''none'''), (3, 'DELETE FROM presence.bans WHERE user_id = ''none'''),
	(3, 'INSERT INTO presence.invitations (room, user_id) VALUES (''r'', ''plain'')'), (3, 'DELETE FROM presence.invitations WHERE user_id = ''none'''),
	(4, 'INSERT INTO presence.admissions VALUES (''r'', ''u'', now())'), (3, 'DELETE FROM presence.admissions WHERE user_id = ''none'''),
	-- a role that may change all rows of a table may lock it
	(2, 'LOCK TABLE presence.presences IN ACCESS EXCLUSIVE MODE'), (2, 'LOCK TABLE presence.people IN ACCESS EXCLUSIVE MODE'),
	(3, 'LOCK TABLE presence.rooms IN ROW EXCLUSIVE MODE'), (3, 'LOCK TABLE presence.rooms IN SHARE MODE'),
	(3, 'LOCK TABLE presence.bans IN SHARE MODE'), (3, 'LOCK TABLE presence.invitations IN SHARE MODE'),
	(3, 'LOCK TABLE presence.user_last_seen IN SHARE MODE'), (3, 'LOCK TABLE presence.visits IN SHARE MODE'), (3, 'LOCK TABLE presence.admissions IN SHARE MODE'),
	-- the tables themselves
	(4, 'ALTER TABLE presence.presences DISABLE TRIGGER presence_capture_row'), (4, 'ALTER TABLE presence.rooms ENABLE ROW LEVEL SECURITY'),
	(4, 'CREATE POLICY p ON presence.presences USING (true)'), (4, 'CREATE INDEX ON presence.people (chosen_at)'),
	(4, 'CREATE TRIGGER t AFTER INSERT ON presence.presences FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()'),
	(4, 'CREATE TABLE presence.mine ()'),
	-- what PostgreSQL lets every connected role do
	(0, 'LISTEN presence_changed'), (0, 'SELECT pg_notify(''presence_matrix'', ''{"event": "join"}'')');
-- Without shared memory there is no state: only roles that may use it get that error.
SELECT is(CASE WHEN f.fares = '55000' AND NOT pg_temp.preloaded() THEN 'may' ELSE f.fares END,
		  CASE WHEN l.level >= c.level THEN 'may' ELSE '42501' END, l.role || ': ' || c.statement)
FROM cells c CROSS JOIN levels l CROSS JOIN LATERAL pg_temp.as_role(l.role, c.statement) AS f (fares)
ORDER BY l.level, c.statement;

SELECT finish();
ROLLBACK;
