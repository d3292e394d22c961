\set n random(2000000000000000000, 9000000000000000000)
SELECT presence_add('capped-' || :room, 'channel-000000000000-' || :n, 'user-' || :n, '{"name":"Alice"}');
