-- The join one writes by hand: a trigger tells it.
\set n random(2000000000000000000, 9000000000000000000)
\set r random(1, :rooms)
INSERT INTO peer.presences (room, channel_name, user_id, meta) VALUES ('room-' || :r, 'channel-000000000000-' || :n, 'user-' || :n, '{"name":"Alice"}') ON CONFLICT (room, channel_name) DO UPDATE SET last_seen = excluded.last_seen RETURNING *;
