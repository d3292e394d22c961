-- Proves that the statements of the extension use indexes whatever the session's settings, and that a user's triggers
-- are planned with the session's settings.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

-- A user's trigger sees the session's own planner settings.
CREATE TEMP TABLE seen (what text, settings text);
CREATE FUNCTION pg_temp.settings() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(current_setting(name), ' ' ORDER BY name)
	FROM unnest('{enable_bitmapscan,enable_hashjoin,enable_indexscan,enable_mergejoin,enable_nestloop,enable_seqscan}'::text[]) name $$;
CREATE FUNCTION pg_temp.note_settings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO seen VALUES (TG_OP || ' ' || TG_TABLE_NAME, pg_temp.settings());
	RETURN coalesce(NEW, OLD);
END
$$;
DO $$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY '{rooms,presences,invitations,bans}'::text[] LOOP
		EXECUTE format('CREATE TRIGGER note_settings BEFORE INSERT OR UPDATE OR DELETE ON presence.%I
			FOR EACH ROW EXECUTE FUNCTION pg_temp.note_settings()', name);
		EXECUTE format('CREATE TRIGGER note_settings_after AFTER INSERT OR UPDATE OR DELETE ON presence.%I
			FOR EACH ROW EXECUTE FUNCTION pg_temp.note_settings()', name);
	END LOOP;
END
$$;

CREATE FUNCTION pg_temp.play() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM presence_add('planner', 'c1', 'alice');
	PERFORM presence_add('planner', 'c1', 'alice', '{"n":1}');
	PERFORM presence_add_many('planner', '{c2,c3,c4,c5}', '{bob,carol,dave,erin}');
	PERFORM presence_update('planner', 'c1', '{"n":2}');
	PERFORM presence_touch('c1');
	PERFORM presence_invite('planner', 'alice');
	PERFORM presence_uninvite('planner', 'alice');
	PERFORM presence_remove('planner', 'c1');
	PERFORM presence_leave_all('c2');
	PERFORM presence_kick('planner', 'carol');
	PERFORM presence_kick('planner', channel_name => 'c4');
	PERFORM presence_kick('planner', 'erin', 'c5');
	PERFORM presence_ban('planner', 'alice');
	PERFORM presence_unban('planner', 'alice');
END
$$;
SELECT pg_temp.play();
DELETE FROM presence.rooms WHERE name = 'planner';
SELECT results_eq($$SELECT DISTINCT what FROM seen ORDER BY 1$$, ARRAY['DELETE bans', 'DELETE invitations', 'DELETE presences',
	'DELETE rooms', 'INSERT bans', 'INSERT invitations', 'INSERT presences', 'INSERT rooms', 'UPDATE presences'], 'triggers fired');
SELECT is_empty($$SELECT DISTINCT what, settings FROM seen WHERE settings <> 'on on on on on on'$$, 'with the planner as it is');
DELETE FROM seen;

SET enable_mergejoin = off;
SET enable_indexscan = off;
SELECT pg_temp.play();
SELECT is_empty($$SELECT DISTINCT what, settings FROM seen WHERE settings <> 'on on off off on on'$$, 'or as the session has set it');
RESET enable_mergejoin;
RESET enable_indexscan;

-- Settings are restored when planning fails.
ALTER TABLE presence.presences RENAME meta TO meta_gone;
SELECT is(pg_temp.state_of($$SELECT presence_update('planner', 'c1', '{}')$$), '42703', 'a statement that cannot be planned');
SELECT is(pg_temp.settings(), 'on on on on on on', 'leaves the settings as they were');
ALTER TABLE presence.presences RENAME meta_gone TO meta;

-- No table is scanned sequentially, whatever invalidates a plan and whatever the session's settings for index scans.
CREATE TEMP VIEW scans AS
	SELECT relname, seq_scan FROM pg_stat_xact_user_tables WHERE schemaname = 'presence' AND relname IN ('presences', 'rooms');
CREATE TEMP TABLE before (relname name, seq_scan bigint);
CREATE FUNCTION pg_temp.reads_whole(way text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM before;
	INSERT INTO before SELECT * FROM scans;
	FOR i IN 1..7 LOOP
		PERFORM pg_temp.play();
	END LOOP;
	RETURN QUERY SELECT s.relname::text FROM scans s JOIN before b USING (relname) WHERE s.seq_scan > b.seq_scan;
END
$$;
TRUNCATE presence.presences, presence.rooms;
ANALYZE presence.presences, presence.rooms, presence.people, presence.bans, presence.invitations;
SELECT is_empty($$SELECT pg_temp.reads_whole('')$$, 'no table is read whole');
ALTER TABLE presence.presences SET (fillfactor = 79);
SELECT is_empty($$SELECT pg_temp.reads_whole('')$$, 'nor after the table was changed');
SET search_path = pg_catalog, public;
SELECT is_empty($$SELECT pg_temp.reads_whole('')$$, 'nor with another search_path');
RESET search_path;
SET enable_indexscan = off;
SET enable_bitmapscan = off;
ALTER TABLE presence.presences SET (fillfactor = 80);
SELECT is_empty($$SELECT pg_temp.reads_whole('')$$, 'nor where the session forbids indexes');
RESET enable_indexscan;
RESET enable_bitmapscan;
SET plan_cache_mode = force_generic_plan;
SELECT is_empty($$SELECT pg_temp.reads_whole('')$$, 'nor with generic plans');

SELECT finish();
ROLLBACK;
