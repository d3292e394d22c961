-- Proves that state, cursors, typing and broadcasts of a room are available only to roles that see its row, where
-- presence.rooms has policies.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

CREATE ROLE presence_test_red;
CREATE ROLE presence_test_bypass BYPASSRLS;
SELECT presence_grant('presence_test_red'), presence_grant('presence_test_bypass');
SELECT presence_add('red:state', 'r1', 'rita'), presence_add('blue:state', 'b1', 'bill');

-- Every function that accesses a room's state, or sends something there.
CREATE TEMP TABLE calls (call text, needs_memory boolean);
INSERT INTO calls VALUES
	('presence_set_state(%L, ''k'', ''1'')', true), ('presence_get_state(%L)', true), ('presence_clear_state(%L, ''k'')', true),
	('presence_cursor_update(%L, ''u'', 1, 2)', true), ('presence_cursors(%L)', true), ('presence_cursor_remove(%L, ''u'')', true),
	('presence_typing(%L, ''u'', true)', true), ('presence_typing(%L, ''u'', false)', true), ('presence_typing_users(%L)', true),
	('presence_broadcast(%L, ''e'')', false);
UPDATE calls SET needs_memory = false WHERE pg_temp.preloaded();
GRANT SELECT ON calls TO PUBLIC;

-- The results of calls for a room; those that need shared memory fail with 55000 without it.
CREATE FUNCTION pg_temp.fares(room text, expected text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT is(pg_temp.state_of('SELECT ' || format('* FROM ' || call, room)),
			  CASE WHEN needs_memory THEN '55000' ELSE expected END,
			  format('%s as %s for tenant %s: %s', format(call, room), current_user, current_setting('app.tenant', true), expected))
	FROM calls ORDER BY call
$$;

-- 1. Without row-level security nothing is checked ------------------------------
SET LOCAL ROLE presence_test_red;
SELECT pg_temp.fares('red:state', 'no');
SELECT pg_temp.fares('blue:state', 'no');
SELECT pg_temp.fares('no such room', 'no');
RESET ROLE;

-- 2. Policies on presences alone do not apply to rooms ---------------------------
ALTER TABLE presence.presences ENABLE ROW LEVEL SECURITY;
SET LOCAL ROLE presence_test_red;
SELECT pg_temp.fares('blue:state', 'no');
RESET ROLE;
ALTER TABLE presence.presences DISABLE ROW LEVEL SECURITY;

-- 3. Policies on rooms do, in a session that checked before ------------------------
ALTER TABLE presence.rooms ENABLE ROW LEVEL SECURITY;
CREATE POLICY by_tenant ON presence.rooms TO presence_test_red USING (name LIKE current_setting('app.tenant') || ':%');
SET LOCAL ROLE presence_test_red;
SET LOCAL app.tenant = 'red';
SELECT pg_temp.fares('red:state', 'no');
SELECT pg_temp.fares('blue:state', '42501');
SELECT pg_temp.fares('red:none', '42501');
SET LOCAL app.tenant = 'blue';
SELECT pg_temp.fares('red:state', '42501');
SELECT pg_temp.fares('blue:state', 'no');
SELECT is(pg_temp.error_of($$SELECT presence_broadcast('red:state', 'e')$$),
	'42501 permission denied for room "red:state" | The row-level security of presence.rooms shows role "presence_test_red" no such room.'
	' | Let somebody enter the room first, which makes it, or change the policies.', 'the error says why');
SELECT is((presence_add('blue:new', 'b2')).room, 'blue:new', 'who enters a room');
SELECT pg_temp.fares('blue:new', 'no');

-- 4. Not for roles that bypass them ---------------------------------------------------
RESET ROLE;
SET LOCAL ROLE presence_test_bypass;
SELECT pg_temp.fares('red:state', 'no');
SELECT pg_temp.fares('red:none', 'no');
RESET ROLE;
SELECT pg_temp.fares('red:none', 'no');
ALTER ROLE presence_test_bypass NOBYPASSRLS;
SET LOCAL ROLE presence_test_bypass;
SELECT pg_temp.fares('red:state', '42501');
RESET ROLE;

-- 5. What was set exists, and without row-level security it is available to all again ------------
SELECT is((SELECT string_agg(key, ' ') FROM presence_get_state('blue:state')), 'cursor:u k typing:u', 'what the one tenant has set is there')
WHERE pg_temp.preloaded();
ALTER TABLE presence.rooms DISABLE ROW LEVEL SECURITY;
SET LOCAL ROLE presence_test_red;
SELECT pg_temp.fares('no such room', 'no');
RESET ROLE;

SELECT finish();
ROLLBACK;
