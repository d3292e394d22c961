-- A visit to a room with so many members.
\set n random(2000000000000000000, 9000000000000000000)
SELECT presence_add('members-' || :members, 'channel-000000000000-' || :n, 'user-' || :n, '{"name":"Alice"}');
SELECT presence_leave_all('channel-000000000000-' || :n);
