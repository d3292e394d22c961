-- Proves: short-lived state whose text would be far longer than its jsonb is refused at once, and numbers outside the
-- range of double precision make no cursor.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();
SET LOCAL statement_timeout = '60s';

-- All texts here together would be 14 GB.
CREATE TEMPORARY TABLE huge AS
	SELECT ('{"list": [' || repeat(number || ',', 50000) || '1]}')::jsonb AS value FROM (VALUES ('1e131000'), ('-1e131000'), ('1e-16000')) AS n (number);
SELECT is(pg_temp.error_of(format(call, i)),
	format('54000 argument "%s" is too large | The state has more than 2048 bytes as JSON text. | '
		   'Pass less, or raise presence.max_state_size, which is 2048 bytes.', argument), argument || ' ' || i)
FROM (VALUES ('SELECT presence_set_state(''r'', ''k'', (SELECT value FROM huge LIMIT 1 OFFSET %s))', 'value'),
	('SELECT presence_cursor_update(''r'', ''u'', 1, 1, (SELECT value FROM huge LIMIT 1 OFFSET %s))', 'meta')) AS v (call, argument),
	generate_series(0, 2) i;
SELECT is_empty($$SELECT * FROM presence_get_state('r')$$, 'and nothing is set');

-- What is not a cursor is not shown as one, and does not disturb others.
SELECT lives_ok(format('SELECT presence_set_state(%L, %L, %L)', 'board', 'cursor:' || value, value), value)
FROM (VALUES ('{"x": 1e400, "y": 0, "meta": {}}'), ('{"x": 0, "y": -1e400, "meta": {}}'), ('{"x": 1e-400, "y": 0, "meta": {}}'),
	('{"x": 0, "y": -1e-400, "meta": {}}'), ('{"x": 1e1800, "y": 0, "meta": {}}'), ('{"x": "1", "y": 0, "meta": {}}'),
	('{"y": 0, "meta": {}}'), ('{"x": 0, "y": 0}'), ('{"x": 0, "y": 0, "meta": []}'), ('[]'), ('1'), ('"x"')) AS v (value);
SELECT presence_cursor_update('board', 'alice', 1.7976931348623157e308, -5e-324), presence_cursor_update('board', 'bob', 2.2e-308, 0, '{"a": 1}');
SELECT results_eq($$SELECT user_id, x, y, meta FROM presence_cursors('board')$$,
	$$VALUES ('alice', 1.7976931348623157e308::float8, -5e-324::float8, '{}'::jsonb), ('bob', 2.2e-308, 0, '{"a": 1}')$$,
	'only cursors are cursors');
SELECT is((SELECT count(*) FILTER (WHERE presence_clear_state('board', key)) FROM presence_get_state('board')), 14::bigint, 'all of it is state');

-- A value of the greatest possible depth.
SELECT lives_ok(format('SELECT presence_set_state(%L, %L, %L)', 'deep', 'k', repeat('[', 1000) || repeat(']', 1000)), 'a value of 1,000 levels');
SELECT is((SELECT value FROM presence_get_state('deep')), (repeat('[', 1000) || repeat(']', 1000))::jsonb, 'comes back');
SELECT presence_clear_state('deep', 'k');

SELECT finish();
ROLLBACK;
