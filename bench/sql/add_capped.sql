\set n random(2000000000000000000, 9000000000000000000)
\set r random(1, :rooms)
SELECT presence_add('capped-' || :r, 'channel-000000000000-' || :n, 'user-' || :n, '{"name":"Alice"}');
