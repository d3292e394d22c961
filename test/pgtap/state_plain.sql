-- Proves that without preload every function of short-lived state fails with 55000 and a hint.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

CREATE TEMP TABLE calls (call text);
INSERT INTO calls VALUES
	($$presence_set_state('r', 'k', '1')$$),
	($$presence_get_state('r')$$),
	($$presence_clear_state('r', 'k')$$),
	($$presence_cursor_update('r', 'u', 1, 2)$$),
	($$presence_cursors('r')$$),
	($$presence_cursor_remove('r', 'u')$$),
	($$presence_typing('r', 'u', true)$$),
	($$presence_typing_users('r')$$);

SELECT CASE WHEN pg_temp.preloaded() THEN skip('the library is preloaded', 1)
	ELSE is(pg_temp.error_of('SELECT * FROM ' || call),
		'55000 presence keeps no short-lived state on this server'
		' | It needs shared memory, which the library reserves when it is preloaded.'
		' | Add presence to shared_preload_libraries and restart the server.', call) END
FROM calls;

SELECT finish();
ROLLBACK;
