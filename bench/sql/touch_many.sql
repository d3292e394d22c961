-- A gateway with a thousand sockets sends their names as one array, again and again.
\if :ready
\else
\set first 1000000000000000000 + :client_id * 1000
SELECT array_agg('channel-000000000000-' || :first::bigint + n)::text AS names
FROM generate_series(0, 999) n \gset
\set ready 1
\endif
SELECT presence_touch_many(:names);
