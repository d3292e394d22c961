-- Proves that without shared memory the rows decide what is live: by their last_seen, which a heartbeat renews.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();
DELETE FROM presence.presences;
SELECT presence_add('rows', 'c1', 'u'), presence_add('rows', 'c2', 'v'), presence_add('rows2', 'c1', 'u');
UPDATE presence.presences SET last_seen = clock_timestamp() - interval '30 seconds' WHERE channel_name = 'c1';
SELECT is(presence_count('rows'), 2::bigint, '30 seconds are not too old');
SELECT is(presence_touch('c1'), true, 'a heartbeat');
SELECT is((SELECT count(*) FROM presence.presences WHERE channel_name = 'c1' AND last_seen > clock_timestamp() - interval '5 seconds'),
	2::bigint, 'is written to all rows of its channel');
SELECT pg_temp.pass(61);
SELECT is_empty($$SELECT * FROM presence_list('rows')$$, 'after presence.max_age nobody is listed');
SELECT is(presence_touch('c1'), false, 'nor renewed');
UPDATE presence.presences SET last_seen = clock_timestamp() + interval '61 seconds' WHERE channel_name = 'c1' AND room = 'rows';
SELECT results_eq($$SELECT room FROM presence.members WHERE channel_name = 'c1' AND room LIKE 'rows%'$$, ARRAY['rows'] COLLATE "C",
	'each row stands for itself');
SELECT is(prune_presences(), 2::bigint, 'prune_presences removes the others');
SELECT finish();
ROLLBACK;
