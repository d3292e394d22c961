-- Proves that pg_cron gets two jobs that prune this database, and that they are removed again.
\ir lib/helpers.psql
SELECT no_plan();
SELECT is(pg_temp.error_of('SELECT presence_schedule_pruning()'),
	'0A000 pg_cron is not installed in this database |  | Install pg_cron and run CREATE EXTENSION pg_cron, or preload presence, whose worker needs no schedule.',
	'without pg_cron scheduling is refused');
SELECT is(pg_temp.state_of('SELECT presence_unschedule_pruning()'), '0A000', 'and so is its opposite');

SELECT current_setting('shared_preload_libraries') ~ '\mpg_cron\M' AND current_setting('cron.database_name', true) = current_database()
	AS has_cron \gset
\if :has_cron
CREATE EXTENSION pg_cron;
SELECT is(presence_unschedule_pruning(), false, 'no jobs to take back');
SELECT lives_ok('SELECT presence_schedule_pruning()', 'scheduled');
SELECT results_eq($$SELECT row(jobname, schedule, command, database)::text COLLATE "C" FROM cron.job ORDER BY 1$$,
	ARRAY(SELECT row(format('presence %s %s', f, current_database()), '* * * * *', format('SELECT %s.%s()', extnamespace::regnamespace, f),
		current_database())::text COLLATE "C" FROM unnest('{prune_presences,prune_rooms}'::text[]) f, pg_extension WHERE extname = 'presence'),
	'there are two jobs');
SELECT lives_ok($$SELECT presence_schedule_pruning('*/5 * * * *')$$, 'scheduled again');
SELECT results_eq('SELECT schedule FROM cron.job', ARRAY['*/5 * * * *', '*/5 * * * *'], 'there are two still, with the new schedule');
SELECT presence_add('cron', 'dead');
CREATE FUNCTION pg_temp.run_jobs() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	command text;
BEGIN
	FOR command IN SELECT j.command FROM cron.job j LOOP
		EXECUTE command;
	END LOOP;
END
$$;
SELECT lives_ok('SELECT pg_temp.run_jobs()', 'what they run works');
SELECT isnt(pg_temp.state_of($$SELECT presence_schedule_pruning('nonsense')$$), 'no', 'nonsense is refused by pg_cron');
SELECT is(presence_unschedule_pruning(), true, 'taken back');
SELECT is_empty('SELECT * FROM cron.job', 'none is left');
DROP EXTENSION pg_cron;
DELETE FROM presence.presences;
DELETE FROM presence.rooms;
\else
SELECT skip('pg_cron is not preloaded for this database', 9);
\endif
SELECT finish();
