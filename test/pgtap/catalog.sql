-- Proves that every object of the extension has a description, and that none resolves names through the caller's
-- search_path.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

CREATE TEMP TABLE members AS
SELECT d.classid, d.objid, pg_describe_object(d.classid, d.objid, 0) AS object FROM pg_depend d
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'presence');
SELECT cmp_ok((SELECT count(*) FROM members WHERE classid = 'pg_proc'::regclass), '>=', 30::bigint, 'functions are members');
SELECT cmp_ok((SELECT count(*) FROM members WHERE classid = 'pg_class'::regclass), '>=', 5::bigint, 'tables are members');

-- Descriptions
SELECT is_empty($$SELECT object FROM members m WHERE classid <> 'pg_class'::regclass AND obj_description(objid, classid::regclass::name) IS NULL
	AND NOT EXISTS (SELECT FROM pg_type t WHERE m.classid = 'pg_type'::regclass AND t.oid = m.objid
		AND (t.typelem <> 0 OR t.typrelid IN (SELECT objid FROM members)))$$, 'functions, types, schema: all are described');
SELECT is_empty($$SELECT object FROM members JOIN pg_class c ON c.oid = objid AND classid = 'pg_class'::regclass
	WHERE relkind NOT IN ('S', 'c') AND obj_description(objid, 'pg_class') IS NULL$$, 'tables and views: all are described');
SELECT is_empty($$SELECT object, attname FROM members JOIN pg_class c ON c.oid = objid AND classid = 'pg_class'::regclass
	JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped
	WHERE relkind = 'r' AND col_description(c.oid, attnum) IS NULL$$, 'columns of tables: all are described');
SELECT is_empty($$SELECT tgname FROM members JOIN pg_trigger t ON t.tgrelid = objid AND classid = 'pg_class'::regclass
	WHERE NOT tgisinternal AND obj_description(t.oid, 'pg_trigger') IS NULL$$, 'triggers: all are described');
SELECT is_empty($$SELECT i.indexrelid::regclass FROM members JOIN pg_index i ON i.indrelid = objid AND classid = 'pg_class'::regclass
	WHERE NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid)
	AND obj_description(i.indexrelid, 'pg_class') IS NULL$$, 'indexes that no constraint explains: all are described');

-- Settings: with a description, and a unit where they are quantities.
SELECT cmp_ok((SELECT count(*) FROM pg_settings WHERE name LIKE 'presence.%'), '>=', 7::bigint, 'settings are there');
SELECT is_empty($$SELECT name FROM pg_settings WHERE name LIKE 'presence.%' AND coalesce(short_desc, '') !~ '^[A-Z].+\.$'$$,
	'each is described by a sentence');
SELECT is_empty($$SELECT name FROM pg_settings WHERE name LIKE 'presence.%' AND context NOT IN ('sighup', 'postmaster')$$,
	'no session can change one');
SELECT is_empty($$SELECT name FROM pg_settings WHERE name LIKE 'presence.%' AND unit IS NULL AND vartype IN ('integer', 'real')
	AND name NOT IN ('presence.max_channels', 'presence.bulk_threshold', 'presence.announce_max', 'presence.join_rate')$$, 'all but counts have a unit');
SELECT results_eq($$SELECT name, boot_val || coalesce(unit, '') FROM pg_settings WHERE name IN ('presence.max_age',
	'presence.notify', 'presence.notify_channel', 'presence.notify_interval', 'presence.notify_meta', 'presence.bulk_threshold',
	'presence.prune_rooms_interval') ORDER BY name$$,
	$$VALUES ('presence.bulk_threshold', '50'), ('presence.max_age', '60000ms'), ('presence.notify', 'auto'),
		('presence.notify_channel', 'presence_changed'), ('presence.notify_interval', '10ms'), ('presence.notify_meta', 'on'),
		('presence.prune_rooms_interval', '3600s')$$, 'defaults are as promised');
SELECT results_eq($$SELECT name, boot_val || coalesce(unit, '') FROM pg_settings WHERE name IN ('presence.max_channels', 'presence.queue_size',
	'presence.replay_size') ORDER BY name$$, $$VALUES ('presence.max_channels', '65536'), ('presence.queue_size', '8192kB'), ('presence.replay_size', '4096kB')$$, 'also those of shared memory')
WHERE pg_temp.preloaded();
SELECT is(pg_temp.state_of('SET presence.max_age = 1'), '55P02', 'a session cannot set presence.max_age');
SELECT is(pg_temp.state_of('SET presence.unknown = 1'), '42602', 'unknown names are refused');

-- Functions
CREATE TEMP TABLE functions AS
SELECT p.* FROM members JOIN pg_proc p ON p.oid = objid AND classid = 'pg_proc'::regclass;
SELECT is_empty($$SELECT proname FROM functions WHERE prosecdef$$, 'none is SECURITY DEFINER');
SELECT is_empty($$SELECT proname FROM functions f JOIN pg_language l ON l.oid = prolang
	WHERE lanname NOT IN ('c', 'internal') AND NOT (lanname = 'sql' AND prosqlbody IS NOT NULL)$$,
	'each is C, or SQL that was parsed when it was made');
SELECT is_empty($$SELECT proname FROM functions WHERE provolatile = 'v' AND proparallel = 's'$$, 'no volatile one is parallel safe');
SELECT is_empty($$SELECT proname FROM functions WHERE proname IN ('presence_add', 'presence_add_many', 'presence_update', 'presence_remove',
	'presence_touch', 'presence_touch_many', 'presence_receive', 'presence_hold', 'presence_hold_many',
	'presence_release', 'presence_release_all', 'presence_leave_all', 'presence_leave_all_many', 'prune_presences', 'prune_rooms')
	AND (provolatile <> 'v' OR proparallel <> 'u')$$, 'those that change something are volatile and parallel unsafe');
SELECT is_empty($$SELECT proname FROM functions WHERE provolatile = 'v' AND proparallel = 'u' AND prorettype <> 'trigger'::regtype
	AND pronamespace <> 'presence'::regnamespace AND procost <> 1000$$, 'and so expensive that no plan calls them for more rows than it must');
SELECT is_empty($$SELECT proname FROM functions WHERE (provolatile <> 'v' OR proparallel <> 'u') AND procost >= 1000$$, 'as no read is');
SELECT is_empty($$SELECT proname FROM functions WHERE proisstrict$$, 'none is strict: a NULL would silently do nothing');

-- Tables
SELECT results_eq($$SELECT tgname::text COLLATE "C", tgenabled::text COLLATE "C" FROM pg_trigger WHERE tgrelid = 'presence.presences'::regclass AND NOT tgisinternal ORDER BY 1$$,
	$$VALUES ('presence_capture_row' COLLATE "C", 'A' COLLATE "C"), ('presence_capture_truncate', 'A'), ('presence_renew_id', 'O'), ('presence_write_visits', 'O')$$,
	'the triggers that capture fire for replication, too');
SELECT is_empty($$SELECT c.conname FROM pg_constraint c JOIN members m ON m.objid = c.conrelid AND m.classid = 'pg_class'::regclass WHERE contype = 'f'$$,
	'no foreign key taxes an add');
SELECT is_empty($$SELECT i.indexrelid::regclass FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = 'last_seen'
	WHERE i.indrelid = 'presence.presences'::regclass AND a.attnum = ANY (i.indkey)$$, 'no index on last_seen taxes a heartbeat');
SELECT is_empty($$SELECT a.attrelid::regclass, attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid AND relkind = 'r'
	WHERE relnamespace = 'presence'::regnamespace AND attname IN ('name', 'room', 'channel_name', 'user_id') AND attcollation <> 'pg_catalog."C"'::regcollation$$,
	'names compare by their bytes');

SELECT is_empty($$SELECT c.oid::regclass FROM members m JOIN pg_class c ON c.oid = m.objid AND m.classid = 'pg_class'::regclass
	WHERE relkind = 'r' AND relreplident <> 'f'
	AND NOT (relreplident = 'd' AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))$$,
	'every table has a replica identity, so that any publication may have it');

-- Constraints refuse in rows what functions refuse.
SELECT is(pg_temp.state_of(query), state, query) FROM (VALUES
	('22023', $$INSERT INTO presence.presences (room, channel_name) VALUES ('', 'c')$$),
	('22023', $$INSERT INTO presence.presences (room, channel_name) VALUES ('r', '')$$),
	('22001', $$INSERT INTO presence.presences (room, channel_name) VALUES (repeat('ä', 256), 'c')$$),
	('22001', $$INSERT INTO presence.presences (room, channel_name) VALUES ('r', repeat('ä', 256))$$),
	('22023', $$INSERT INTO presence.presences (room, channel_name, user_id) VALUES ('r', 'c', '')$$),
	('22023', $$INSERT INTO presence.presences (room, channel_name, meta) VALUES ('r', 'c', '[]')$$),
	('23502', $$INSERT INTO presence.presences (room, channel_name) VALUES (NULL, 'c')$$),
	('23502', $$INSERT INTO presence.presences (room, channel_name) VALUES ('r', NULL)$$),
	('23514', $$INSERT INTO presence.rooms (name) VALUES ('')$$),
	('23514', $$INSERT INTO presence.rooms (name, announce) VALUES ('r', 'default')$$),
	('23514', $$INSERT INTO presence.rooms (name, max_members) VALUES ('r', 0)$$)) v (state, query);

SELECT finish();
ROLLBACK;
