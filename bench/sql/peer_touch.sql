-- The heartbeat one writes by hand: a HOT update of an unindexed column.
\set n random(1000000000000000000, 1000000000000000000 + :channels - 1)
UPDATE peer.presences SET last_seen = now() WHERE channel_name = 'channel-000000000000-' || :n;
