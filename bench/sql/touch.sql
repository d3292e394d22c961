\set n random(1000000000000000000, 1000000000000000000 + :channels - 1)
SELECT presence_touch('channel-000000000000-' || :n);
