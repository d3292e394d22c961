-- Proves: a snapshot formats times as events do, whatever the session's settings.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

SELECT presence_add('r', 'c1', 'alice');
INSERT INTO presence.presences (room, channel_name, joined_at, last_seen)
VALUES ('r', 'c2', '2020-02-29 23:59:59+00', now()), ('r', 'c3', '2020-07-01 00:00:00.25-07', now());
CREATE FUNCTION pg_temp.times() RETURNS TABLE (channel_name text, joined_at text, last_seen text) LANGUAGE sql AS
	$$ SELECT m->>'channel_name', m->>'joined_at', m->>'last_seen' FROM jsonb_array_elements(presence_snapshot('r')->'members') m $$;
CREATE TEMPORARY TABLE utc AS SELECT set_config('TimeZone', 'UTC', true), t.* FROM pg_temp.times() t;

SELECT results_eq('SELECT channel_name, joined_at FROM pg_temp.times() OFFSET 0 LIMIT 2',
	$$VALUES ('c2', '2020-02-29T23:59:59.000000+00:00'), ('c3', '2020-07-01T07:00:00.250000+00:00')$$, 'in UTC, with microseconds');
SELECT set_config('TimeZone', 'Asia/Kathmandu', true), set_config('DateStyle', 'German, DMY', true), set_config('IntervalStyle', 'sql_standard', true);
SELECT results_eq('SELECT channel_name, joined_at FROM pg_temp.times()', 'SELECT channel_name, joined_at FROM utc', 'also in another time zone');
SELECT is_empty($$SELECT * FROM pg_temp.times() WHERE last_seen !~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$'$$, 'last_seen, too');
SELECT is((SELECT joined_at::timestamptz FROM pg_temp.times() WHERE channel_name = 'c1'),
	(SELECT joined_at FROM presence.presences WHERE channel_name = 'c1'), 'they are the times of the table');

SELECT finish();
ROLLBACK;
