-- A heartbeat.  A connection touches a channel in each page of memory first.
\if :ready
\else
SELECT count(presence_touch_many(names)) FROM (SELECT array_agg('channel-000000000000-' || n) AS names FROM generate_series(1000000000000000000, 1000000000000000000 + :channels - 1, 20) n) b;
\set ready 1
\endif
\set n random(1000000000000000000, 1000000000000000000 + :channels - 1)
SELECT presence_touch('channel-000000000000-' || :n);
