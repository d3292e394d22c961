-- Proves that plans made while the tables were empty use indexes all the same: cached plans must not scan whole tables
-- that have grown.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

CREATE TEMP VIEW scans AS
	SELECT relname, seq_scan FROM pg_stat_xact_user_tables WHERE schemaname = 'presence';

-- For a table known to be empty, a sequential scan is planned.
TRUNCATE presence.presences, presence.rooms;
ANALYZE presence.presences, presence.rooms, presence.people, presence.bans, presence.invitations;
CREATE TEMP TABLE before AS SELECT * FROM scans;

SELECT presence_add('plans', 'c1', 'alice');
SELECT presence_add('plans', 'c1', 'alice', '{"n":1}');
SELECT presence_add_many('plans', '{c2,c3}', '{bob,carol}');
SELECT presence_touch('c1');
SELECT presence_update('plans', 'c1', '{"n":2}');
SELECT presence_remove('plans', 'c1');
SELECT presence_leave_all('c2');
SELECT presence_kick('plans', 'carol');

SELECT is_empty($$SELECT s.relname FROM scans s JOIN before b USING (relname)
	WHERE s.seq_scan > b.seq_scan AND relname IN ('presences', 'rooms')$$,
	'no table was read whole');

SELECT * FROM finish();
ROLLBACK;
