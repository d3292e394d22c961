-- A heartbeat with a time to live, of channels that beside have none.
\set n random(:first, :first + :channels - 1)
SELECT presence_touch('channel-000000000000-' || :n, 1500);
