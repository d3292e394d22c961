-- Proves that presence_add returns whether it made the presence, and that of equal names the last one counts where many
-- are added.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

SELECT is((SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'presence.added'::regclass),
	(SELECT string_agg(attname, ' ' ORDER BY attnum) || ' created' FROM pg_attribute WHERE attrelid = 'presence.member'::regclass),
	'presence.added has the columns of presence.member, and created');
SELECT is((presence_add('made', 'c')).created, true, 'a new presence was created');
SELECT is((presence_add('made', 'c')).created, false, 'a sign of life created none');
SELECT is((presence_add('made', 'c', 'alice', '{"n":1}')).created, false, 'nor did a change');
SELECT presence_remove('made', 'c');
SELECT is((presence_add('made', 'c')).created, true, 'whoever comes back is new');

-- Equal names
SELECT is(presence_add_many('many', ARRAY['a', 'b', 'a', 'c', 'a', 'b'], '{u1,u2,u3,u4,u5,u6}',
	ARRAY['{"n":1}', '{"n":2}', '{"n":3}', '{"n":4}', '{"n":5}', '{"n":6}']::jsonb[]), 3::bigint, 'each channel counts once');
SELECT is((SELECT string_agg(concat_ws(' ', channel_name, user_id, meta), ', ' ORDER BY channel_name) FROM presence_list('many')),
	'a u5 {"n": 5}, b u6 {"n": 6}, c u4 {"n": 4}', 'the last of equal names counts');
SELECT is((SELECT count(*) FROM presence.presences WHERE room = 'many'), 3::bigint, 'one row each');
SELECT is(presence_add_many('lots', array_agg('c' || n % 100 ORDER BY n), array_agg('u' || n ORDER BY n)), 100::bigint, 'among a thousand, too')
FROM generate_series(1, 1000) n;
SELECT is_empty($$SELECT channel_name, user_id FROM presence_list('lots') WHERE user_id <> 'u' || (CASE channel_name WHEN 'c0' THEN 1000
	ELSE 900 + substr(channel_name, 2)::integer END)$$, 'and it is the last of each');
SELECT is(presence_add_many('many', '{a,a}', '{v1,NULL}'), 0::bigint, 'a last one without user');
SELECT is((SELECT user_id FROM presence_list('many') WHERE channel_name = 'a'), 'u5', 'leaves the user as it was');

-- All or nothing
SELECT presence_ban('refusing', 'banned');
SELECT is(pg_temp.state_of($$SELECT presence_add_many('refusing', '{a,b,c}', '{u1,banned,u3}')$$), 'PR002', 'one that is refused');
SELECT is_empty($$SELECT FROM presence.presences WHERE room = 'refusing'$$, 'undoes the call');
SELECT is(pg_temp.state_of($$SELECT presence_add_many('refusing', '{a,b,c}', NULL, ARRAY['{}', '[]', '{}']::jsonb[])$$), '22023', 'so does one that is wrong');
SELECT is_empty($$SELECT FROM presence.presences WHERE room = 'refusing'$$, 'nobody is in');

SELECT finish();
ROLLBACK;
