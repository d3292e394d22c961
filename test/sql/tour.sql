-- A quick tour, as a newcomer would take it in psql.

-- Alice opens two tabs, Bob one, and somebody looks on anonymously.
SELECT room, channel_name, user_id, meta FROM presence_add('lobby', 'tab-1', 'alice', '{"name": "Alice"}');
SELECT room, channel_name, user_id, meta FROM presence_add('lobby', 'tab-2', 'alice');
SELECT room, channel_name, user_id, meta FROM presence_add('lobby', 'phone', 'bob', '{"name": "Bob"}');
SELECT room, channel_name, user_id, meta FROM presence_add('lobby', 'guest');
SELECT presence_add_many('kitchen', '{tab-1,phone}', '{alice,bob}');

-- Who is here?
SELECT channel_name, user_id, meta FROM presence_list('lobby');
SELECT user_id, connections, meta FROM presence_users('lobby');
SELECT * FROM presence_counts('lobby');
SELECT presence_count('lobby'), presence_anonymous_count('lobby');
SELECT room, connections, users, anonymous FROM presence.room_list ORDER BY room;

-- Where is somebody, and who of my friends is online?
SELECT presence_rooms('tab-1');
SELECT presence_user_rooms('bob');
SELECT presence_is_online('bob'), presence_is_online('carol');
SELECT user_id, connections FROM presence_online('{alice,bob,carol}');

-- Heartbeats
SELECT presence_touch('tab-1'), presence_touch('tab-99');
SELECT presence_touch_many('{tab-1,tab-2,tab-99}');
SELECT presence_receive('tab-1', '"heartbeat"') AS heartbeat, presence_receive('tab-1', '{"say": "hello"}') AS message;

-- Changes
SELECT presence_update('lobby', 'phone', '{"typing": true, "name": null}');
SELECT meta FROM presence_list('lobby') WHERE channel_name = 'phone';
SELECT presence_update('lobby', 'tab-99', '{}');
SELECT channel_name, user_id FROM presence_add('lobby', 'guest', 'carol');
SELECT jsonb_pretty(s - 'epoch' - 'seq' - 'members') AS snapshot,
	(SELECT jsonb_agg(m -> 'channel_name') FROM jsonb_array_elements(s -> 'members') m) AS members
FROM presence_snapshot('lobby') s;

-- Leaving
SELECT presence_remove('lobby', 'tab-2'), presence_remove('lobby', 'tab-2') AS again;
SELECT presence_leave_all('tab-1'), presence_leave_all('tab-1') AS again;
SELECT presence_leave_all_many('{phone,guest,nobody}');
SELECT * FROM presence_list('lobby');
SELECT prune_presences(), prune_presences(3600) AS older_than_an_hour, prune_rooms();
TABLE presence.room_list;
