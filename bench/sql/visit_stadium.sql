-- A visit to a large room, which is announced in one way or another.
\set n random(2000000000000000000, 9000000000000000000)
SELECT presence_add('stadium-' || :announce, 'channel-000000000000-' || :n, 'user-' || :n, '{"name":"Alice"}');
SELECT presence_leave_all('channel-000000000000-' || :n);
