-- Proves that memory which presence_add_many needs for one channel is freed before the next: only the changes
-- themselves remain.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

CREATE TEMP TABLE used (n serial, results bigint, others bigint);
CREATE FUNCTION pg_temp.note_memory() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	-- Results of queries, and all else but what the changes themselves need.
	INSERT INTO used (results, others)
	SELECT count(*) FILTER (WHERE name = 'SPI TupTable'),
		   sum(total_bytes) FILTER (WHERE name NOT LIKE 'presence xact%')
	FROM pg_backend_memory_contexts;
	RETURN NULL;
END
$$;
CREATE TRIGGER note_memory AFTER INSERT ON presence.presences
	FOR EACH ROW WHEN (NEW.channel_name ~ '000$') EXECUTE FUNCTION pg_temp.note_memory();

-- A ban in another room makes each add look for bans, a private room for invitations.
SELECT presence_ban('elsewhere', 'banned');
SELECT presence_configure_room('private', 10000, private => true);
INSERT INTO presence.invitations (room, user_id) SELECT 'private', 'u' || n FROM generate_series(1, 3000) n;
SELECT is(presence_add_many('private', array_agg('c' || n ORDER BY n), array_agg('u' || n - 10000 ORDER BY n),
		array_agg(jsonb_build_object('name', repeat('x', 200)) ORDER BY n)), 3000::bigint, 'many are added')
FROM generate_series(10001, 13000) n;
SELECT is((SELECT count(*) FROM used), 3::bigint, 'memory was looked at');
SELECT is_empty($$SELECT n, results FROM used WHERE results > 20$$, 'results of queries are freed');
SELECT cmp_ok((SELECT max(others) - min(others) FROM used WHERE n > 1), '<', 1000000::bigint, 'and nothing else grows with each');

SELECT finish();
ROLLBACK;
