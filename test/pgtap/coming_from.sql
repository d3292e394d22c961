-- Proves the rows of docs/coming-from.md that need neither listeners nor preload: one assertion per row.
\ir lib/helpers.psql
SELECT no_plan();
DELETE FROM presence.presences;
DELETE FROM presence.rooms;

-- django-channels-presence: pruning of committed presences, before a worker does it
SELECT presence_add('old room', 'old'), presence_configure_room('kept', persistent => true);
SELECT pg_temp.pass(30);
SELECT presence_add('new room', 'new');
SELECT is(prune_presences(), 0::bigint, 'prune_presences: by default those older than max_age, here nobody');
SELECT is(prune_presences(20), 1::bigint, 'prune_presences: those older than an age in seconds');
SELECT is(prune_rooms(), 1::bigint, 'prune_rooms removes rooms without presences');
SELECT results_eq($$SELECT name FROM presence.rooms ORDER BY name$$, ARRAY['kept', 'new room'] COLLATE "C", 'but not persistent ones');
DELETE FROM presence.presences;

BEGIN;

-- django-channels-presence
SELECT is(current_setting('presence.max_age'), '1min', 'max_age is 60 s by default');
SELECT m.* FROM presence_add('room', 'c1', 'alice') m \gset first_
SELECT results_eq($$SELECT room, connections FROM presence.room_list WHERE room = 'room'$$,
	$$VALUES ('room' COLLATE "C", 1::bigint)$$, 'an add makes the room');
SELECT is(concat_ws(' ', :'first_room', :'first_channel_name', :'first_user_id'), 'room c1 alice', 'an add returns the presence');
SELECT pg_temp.pass(30);
SELECT cmp_ok((SELECT last_seen FROM presence_add('room', 'c1')), '>=', :'first_last_seen'::timestamptz + interval '30 seconds',
	're-add refreshes last_seen');
SELECT is((SELECT concat_ws(' ', id, user_id) FROM presence_add('room', 'c1', 'bob')), :first_id || ' bob',
	're-add with another user replaces the user');
SELECT presence_add('room', 'c2', 'bob'), presence_add('room', 'c3'), presence_add('room', 'c4');
SELECT results_eq($$SELECT user_id, connections FROM presence_users('room')$$, $$VALUES ('bob', 2::bigint)$$,
	'get_users: distinct users, each once');
SELECT is(presence_anonymous_count('room'), 2::bigint, 'get_anonymous_count: connections without a user');
SELECT is(presence_remove('room', 'c4'), true, 'remove leaves one room');
SELECT is(presence_remove('nowhere', 'c4'), false, 'remove of what is not there is no error');
SELECT is_empty($$SELECT FROM presence.rooms WHERE name = 'nowhere'$$, 'and makes no room');
SELECT results_eq($$SELECT room, channel_name, user_id, last_seen IS NOT NULL FROM presence_list('room') WHERE channel_name = 'c2'$$,
	$$VALUES ('room' COLLATE "C", 'c2' COLLATE "C", 'bob' COLLATE "C", true)$$, 'a presence has room, channel_name, user and last_seen');
SELECT presence_add('room 2', 'c2', 'bob');
SELECT pg_temp.pass(20);
SELECT is(presence_touch('c2'), true, 'touch of a channel that is present');
SELECT ok(bool_and(last_seen > now() - interval '10 minutes' AND last_seen >= joined_at + interval '20 seconds'),
	'touch counts in every room of the channel') FROM presence.members WHERE channel_name = 'c2';
SELECT is(presence_touch('never added'), false, 'touch says when the channel is not present');
SELECT is(presence_receive('c2', '"heartbeat"'), false, 'touch_presence: "heartbeat" needs no more work');
SELECT is(presence_receive('c2', '{"type": "message"}'), true, 'touch_presence: other messages are to be processed');
SELECT is(presence_leave_all('c2'), 2::bigint, 'leave_all leaves every room');
SELECT is(presence_leave_all('c2'), 0::bigint, 'remove_presence on a channel that never joined is no error');
SELECT pg_temp.pass(61);
SELECT is(presence_count('room'), 0::bigint, 'the expired are invisible before anybody prunes');

-- djust
SELECT presence_add('document:7', 'tab 1', 'alice', '{"name": "Alice", "color": "#6c63ff", "avatar": "a.png"}'),
	presence_add('document:7', 'tab 2', 'alice'), presence_add('document:7', 'tab 3'), presence_add('document:7', 'tab 4');
SELECT is((SELECT meta FROM presence_list('document:7') WHERE channel_name = 'tab 1'),
	'{"name": "Alice", "color": "#6c63ff", "avatar": "a.png"}'::jsonb, 'track_presence: meta is kept with the presence');
SELECT results_eq($$SELECT * FROM presence_counts('document:7')$$, $$VALUES (4::bigint, 1::bigint, 2::bigint)$$,
	'online_count: people, connections and anonymous ones at once');
SELECT is(presence_count('document:7'), 4::bigint, 'unique per connection: each tab counts');
SELECT results_eq($$SELECT user_id, connections FROM presence_users('document:7')$$, $$VALUES ('alice', 2::bigint)$$,
	'two tabs of one user are one person');
SELECT presence_remove('document:7', 'tab 1');
SELECT is((SELECT users FROM presence_counts('document:7')), 1::bigint, 'until the last of them closes');
SELECT presence_add('document:7', 'tab 5', 'anon_s3ss10n'), presence_add('document:7', 'tab 6', 'anon_s3ss10n');
SELECT is((SELECT users FROM presence_counts('document:7')), 2::bigint, 'a session key as user_id: tabs of one session are one');
SELECT is((SELECT string_agg(channel_name, ', ') FROM presence_list('document:7')), 'tab 2, tab 3, tab 4, tab 5, tab 6',
	'list_presences: all of a room, in the order of their joining');
SELECT is(presence_update('document:7', 'tab 2', '{"color": "red"}'), true, 'meta may change later');
SELECT is((SELECT meta ->> 'color' FROM presence_list('document:7') WHERE channel_name = 'tab 2'), 'red', 'key by key');
SELECT is((ARRAY['#e74c3c', '#3498db', '#2ecc71', '#f39c12', '#9b59b6'])[1 + presence_count('document:7') % 5], '#e74c3c',
	'assign_color: a colour by how many are there');
SELECT is(presence_leave_all('tab 6'), 1::bigint, 'untrack_presence');
SELECT lives_ok(format($$SELECT presence_add(%L, 'c')$$, 'tenant/1/document:' || repeat('7', 237)), 'presence keys of up to 255 characters');

-- The tutorial
CREATE TEMP TABLE auth_user (id int, username text);
INSERT INTO auth_user VALUES (1, 'ann'), (2, 'ben');
CREATE TEMP VIEW user_list AS
	SELECT u.username, initcap(s.status) AS status FROM auth_user u CROSS JOIN LATERAL presence_status(u.username) s ORDER BY u.username;
SELECT results_eq('SELECT * FROM user_list', $$VALUES ('ann', 'Offline'), ('ben', 'Offline')$$, 'user list: all users, Offline');
SELECT presence_add('users', 'ann 1', 'ann'), presence_add('users', 'ann 2', 'ann');
SELECT results_eq('SELECT * FROM user_list', $$VALUES ('ann', 'Online'), ('ben', 'Offline')$$, 'user list: who logs in is Online');
SELECT presence_leave_all('ann 1');
SELECT is((SELECT status FROM user_list WHERE username = 'ann'), 'Online', 'user list: logging out in one of two browsers leaves the user Online');
SELECT pg_temp.pass(61);
SELECT is((SELECT status FROM user_list WHERE username = 'ann'), 'Offline', 'user list: who is cut off becomes Offline');
SELECT is((presence_status('nobody')).status, 'offline', 'no row is needed for a user');

-- The chat
SELECT is((SELECT concat_ws(' ', max_members, private, meta ->> 'display_name', created_at IS NOT NULL)
	FROM presence_configure_room('chat', max_members => 100, private => false, meta => '{"display_name": "Chat", "description": "All of us"}')),
	'100 f Chat t', 'ChatRoom: its fields are settings and meta');
SELECT presence_add_many('chat', ARRAY(SELECT 'c' || i FROM generate_series(1, 100) i), ARRAY(SELECT 'u' || i FROM generate_series(1, 100) i));
SELECT is(pg_temp.state_of($$SELECT presence_add('chat', 'c101', 'u101')$$), 'PR001', 'max_users: the 101st is refused');
SELECT is(presence_ban('chat', 'u1', reason => 'spam'), 1::bigint, 'a ban removes who is there');
SELECT is(pg_temp.state_of($$SELECT presence_add('chat', 'c1', 'u1')$$), 'PR002', 'is_user_banned: close code 4003');
SELECT is(pg_temp.error_of($$SELECT presence_add('chat', 'c1', 'u1')$$),
	'PR002 user is banned | room: chat; user: u1; limit: none | See presence.bans for the end of the ban and its reason.',
	'the error tells room, user and limit');
SELECT is(presence_unban('chat', 'u1'), true, 'a ban ends');
SELECT presence_configure_room('vip', private => true), presence_invite('vip', 'ann');
SELECT is(pg_temp.state_of($$SELECT presence_add('vip', 'b1', 'ben')$$), 'PR004', 'is_private: only the invited enter');
SELECT is(pg_temp.state_of($$SELECT presence_add('vip', 'x1')$$), 'PR004', 'an anonymous connection is kept out of a private room');
SELECT is((SELECT user_id FROM presence_add('vip', 'a1', 'ann')), 'ann', 'the invited do');
SELECT is((presence_set_status('ann', status)).status, status, 'STATUS_CHOICES: ' || status)
FROM unnest('{online,away,busy,offline}'::text[]) status;
SELECT is(pg_temp.state_of($$SELECT presence_set_status('ann', 'idle')$$), '22023', 'STATUS_CHOICES: no other');
SELECT is((presence_set_status('ann', 'busy', repeat('m', 100))).custom_message, repeat('m', 100), 'custom_message: 100 characters');
SELECT is(pg_temp.state_of($$SELECT presence_set_status('ann', 'busy', repeat('m', 101))$$), '22001', 'custom_message: not more');
SELECT is((presence_status('ben')).status, 'offline', 'UserStatus: offline by default');
SELECT results_eq($$SELECT user_id, connections FROM presence_users('vip')$$, $$VALUES ('ann', 1::bigint)$$,
	'send_user_list: who is in the room');
SELECT is(presence_touch_many('{a1,c2,c3,gone}'), '{gone}', 'heartbeat_loop: one statement for all sockets');
SELECT presence_add('chat', 'idle', 'ida') WHERE presence_kick('chat', 'u100') = 1;
SELECT pg_temp.pass(30);
SELECT presence_touch_many(ARRAY(SELECT channel_name FROM presence_list('chat') WHERE channel_name <> 'idle'));
SELECT results_eq($$SELECT channel_name FROM presence_list('chat') WHERE last_seen < (SELECT max(last_seen) FROM presence_list('chat')) - interval '25 seconds'$$,
	$$VALUES ('idle' COLLATE "C")$$, 'last_activity: the idle ones can be listed by name');
SELECT is((SELECT count(*) FROM presence_rooms('user_42')), 0::bigint, 'disconnect before joining: nothing to leave');
SELECT is(presence_kick('chat', channel_name => 'c2'), 1::bigint, 'one socket is thrown out');

SELECT finish();
ROLLBACK;
DELETE FROM presence.presences;
DELETE FROM presence.rooms;
