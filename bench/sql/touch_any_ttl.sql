-- A heartbeat that changes the time to live.
\set n random(:first, :first + :channels - 1)
\set ttl random(1000, 100000)
SELECT presence_touch('channel-000000000000-' || :n, :ttl);
