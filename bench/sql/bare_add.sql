-- The same INSERT into the same tables, nothing attached, nobody told.
\set n random(2000000000000000000, 9000000000000000000)
\set r random(1, :rooms)
INSERT INTO bare.presences (room, channel_name, user_id, meta) VALUES ('room-' || :r, 'channel-000000000000-' || :n, 'user-' || :n, '{"name":"Alice"}') ON CONFLICT (room, channel_name) DO NOTHING RETURNING *;
