-- Proves that adds of presences which policies hide, or make read-only, are refused and are not heartbeats.
\ir lib/helpers.psql
SELECT no_plan();
DELETE FROM presence.presences;

CREATE ROLE presence_test_user;
SELECT presence_grant('presence_test_user');
SELECT presence_add('rls', 'c1', 'alice', '{"a": 1}'), presence_add('rls', 'c2', 'bob');
ALTER TABLE presence.presences ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON presence.presences USING (user_id = current_setting('app.login'));
SET app.login = 'bob';
SELECT last_seen AS seen FROM presence_list('rls') WHERE channel_name = 'c1' \gset
SELECT pg_temp.pass(10);

-- bob's new presence would pass the policy, but alice's already exists in its place.
SET ROLE presence_test_user;
SELECT is((presence_add('rls', 'c2', 'bob')).user_id, 'bob', 'bob repeats his own add');
SELECT is((presence_add('rls', 'c3', 'bob')).user_id, 'bob', 'and adds more');
SELECT is(pg_temp.error_of($$SELECT presence_add('rls', 'c1', 'bob')$$),
	'42501 permission denied for channel "c1" in room "rls" | '
	'It is present, and the row-level security of presence.presences does not let role "presence_test_user" update it. | '
	'Use another channel name, or change the policies.', 'a hidden presence is not taken over');
SELECT is(pg_temp.state_of($$SELECT presence_add_many('rls', '{c1,c4}', '{bob,bob}')$$), '42501', 'nor among many');
RESET ROLE;

-- The same where he may read it.
CREATE POLICY read_all ON presence.presences FOR SELECT USING (true);
SET ROLE presence_test_user;
SELECT is(presence_count('rls'), 3::bigint, 'bob may read all');
SELECT is(pg_temp.state_of($$SELECT presence_add('rls', 'c1', 'bob')$$), '42501', 'a visible presence is not taken over');
SELECT is(pg_temp.state_of($$SELECT presence_add('rls', 'c1')$$), '42501', 'nor kept alive by a repetition');
SELECT is(pg_temp.state_of($$SELECT presence_add('rls', 'c1', 'alice')$$), '42501', 'nor in the name of its user');
SELECT is(presence_update('rls', 'c1', '{"b": 2}'), false, 'nor updated');
SELECT is(presence_touch('c1'), false, 'nor touched');
RESET ROLE;

SELECT ok((SELECT last_seen FROM presence_list('rls') WHERE channel_name = 'c1') - :'seen' < interval '5 seconds',
	'none of which was a sign of life');
SELECT is((SELECT row(user_id, meta)::text FROM presence_list('rls') WHERE channel_name = 'c1'),
	row('alice', '{"a": 1}'::jsonb)::text, 'or changed anything');
SELECT is((SELECT count(*) FROM presence_list('rls') WHERE last_seen >= :'seen'::timestamptz + interval '5 seconds'), 2::bigint,
	'what bob may was one');
SET app.login = 'alice';
SET ROLE presence_test_user;
SELECT is((presence_add('rls', 'c1', 'alice')).meta, '{"a": 1}', 'alice repeats her add');
RESET ROLE;
SELECT ok((SELECT last_seen FROM presence_list('rls') WHERE channel_name = 'c1') - :'seen' >= interval '10 seconds',
	'which is a sign of life');

DROP POLICY own ON presence.presences;
DROP POLICY read_all ON presence.presences;
ALTER TABLE presence.presences DISABLE ROW LEVEL SECURITY;
SELECT presence_revoke('presence_test_user');
DROP ROLE presence_test_user;
DELETE FROM presence.presences;
DELETE FROM presence.rooms;
SELECT finish();
