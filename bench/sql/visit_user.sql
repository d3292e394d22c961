-- One more visit of a user with so many connections.
\set n random(2000000000000000000, 9000000000000000000)
\set r random(1, 1000)
SELECT presence_add('room-' || :r, 'channel-000000000000-' || :n, 'connections-' || :connections, '{"name":"Alice"}');
SELECT presence_leave_all('channel-000000000000-' || :n);
