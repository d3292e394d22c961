-- A visit: as many channels after it as before.  A connection reads the table
-- and its indexes first.
\if :ready
\else
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT count(length(channel_name)) FROM (SELECT room, channel_name FROM presence.presences ORDER BY 1, 2 OFFSET 0) p;
SELECT count(length(channel_name)) FROM (SELECT channel_name FROM presence.presences ORDER BY 1 OFFSET 0) p;
SELECT count(length(user_id)) FROM (SELECT user_id FROM presence.presences WHERE user_id IS NOT NULL ORDER BY 1 OFFSET 0) p;
RESET ALL;
\set ready 1
\endif
\set n random(2000000000000000000, 9000000000000000000)
\set r random(1, 1000)
SELECT presence_add('room-' || :r, 'channel-000000000000-' || :n, 'user-' || :n, '{"name":"Alice"}');
SELECT presence_leave_all('channel-000000000000-' || :n);
