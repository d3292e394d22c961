-- Proves which short-lived state is kept, for how long, and which is refused.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

-- Set and get.
SELECT is(presence_get_state('none')::text, NULL, 'an unknown room has no state');
SELECT lives_ok($$SELECT presence_set_state('r', 'b', '{"n": 1}'), presence_set_state('r', 'a', '[1, 2]', 100),
	presence_set_state('r', 'ab', '"text"'), presence_set_state('other', 'a', 'true')$$, 'values of every kind');
SELECT results_eq($$SELECT key, value FROM presence_get_state('r')$$,
	$$VALUES ('a', '[1, 2]'::jsonb), ('ab', '"text"'), ('b', '{"n": 1}')$$, 'come back in the order of their keys');
SELECT results_eq($$SELECT key FROM presence_get_state('r', 'a')$$, $$VALUES ('a'), ('ab')$$, 'by prefix');
SELECT is_empty($$SELECT * FROM presence_get_state('r', 'abc')$$, 'or none');
SELECT results_eq($$SELECT key, value FROM presence_get_state('other')$$, $$VALUES ('a', 'true'::jsonb)$$, 'rooms are apart');
SELECT is(extract(epoch FROM expires_at - updated_at)::numeric(9, 3), CASE key WHEN 'a' THEN 100.000 ELSE 10.000 END,
	key || ' expires in time') FROM presence_get_state('r');
SELECT lives_ok($$SELECT presence_set_state('r', 'a', '3')$$, 'the latest value');
SELECT results_eq($$SELECT value FROM presence_get_state('r', 'a') WHERE key = 'a'$$, $$VALUES ('3'::jsonb)$$, 'wins');
SELECT is(presence_clear_state('r', 'a'), true, 'what was there is cleared');
SELECT is(presence_clear_state('r', 'a'), false, 'once');
SELECT is(presence_clear_state('nowhere', 'a'), false, 'and nothing elsewhere');
SELECT results_eq($$SELECT key FROM presence_get_state('r')$$, $$VALUES ('ab'), ('b')$$, 'the others stay');
SAVEPOINT before_set;
SELECT presence_set_state('r', 'rolled back', '1');
ROLLBACK TO before_set;
SELECT is((SELECT value FROM presence_get_state('r', 'rolled back')), '1', 'a rollback takes nothing back');

-- Names and values of every length, also those that fill many cells.
SELECT presence_set_state(repeat('ä', 255), repeat('ö', n), to_jsonb(repeat('ü', n)))
FROM generate_series(1, 255) n;
SELECT is((SELECT count(*) FROM presence_get_state(repeat('ä', 255)) WHERE value = to_jsonb(repeat('ü', char_length(key)))),
	255::bigint, 'names of 1 to 255 characters and values of each length come back whole');
SELECT presence_set_state(repeat('ä', 255), repeat('ö', n), to_jsonb(repeat('x', 2 * (255 - n))))
FROM generate_series(1, 255) n;
SELECT is((SELECT count(*) FROM presence_get_state(repeat('ä', 255)) WHERE value = to_jsonb(repeat('x', 2 * (255 - char_length(key))))),
	255::bigint, 'also when they grow and shrink');
SELECT is((SELECT count(*) FROM presence_get_state(repeat('ä', 255), repeat('ö', 200))), 56::bigint, 'prefixes of any length');
SELECT is((SELECT count(*) FILTER (WHERE presence_clear_state(repeat('ä', 255), repeat('ö', n))) FROM generate_series(1, 255) n),
	255::bigint, 'and all of them go');
SELECT is_empty($$SELECT * FROM presence_get_state(repeat('ä', 255))$$, 'leaving nothing');

-- Cursors.
SELECT presence_cursor_update('c', 'bob', 1.5, -2e300, '{"colour": "red"}'), presence_cursor_update('c', 'alice', 0, 5e-324);
SELECT results_eq($$SELECT user_id, x, y, meta FROM presence_cursors('c')$$,
	$$VALUES ('alice', 0::float8, 5e-324::float8, '{}'::jsonb), ('bob', 1.5, -2e300, '{"colour": "red"}')$$,
	'cursors come back exactly, by user');
SELECT is((SELECT value FROM presence_get_state('c', 'cursor:bob')), '{"x": 1.5, "y": -2e300, "meta": {"colour": "red"}}',
	'a cursor is a state, too');
SELECT is(extract(epoch FROM expires_at - updated_at), 10.0, 'which expires after presence.cursor_timeout')
FROM presence_get_state('c', 'cursor:bob');
SELECT presence_set_state('c', 'cursor:mallory', '{"x": "1"}'), presence_set_state('c', 'typing:mallory', '7');
SELECT is((SELECT count(*) FROM presence_cursors('c')), 2::bigint, 'what only has the key of a cursor is none');
SELECT is(presence_cursor_remove('c', 'bob'), true, 'a cursor is removed');
SELECT is(presence_cursor_remove('c', 'bob'), false, 'once');

-- Typing.
SELECT presence_typing('c', 'zoe', true), presence_typing('c', 'alice', true), presence_typing('c', 'bob', false);
SELECT results_eq($$SELECT presence_typing_users('c')$$, $$VALUES ('alice'), ('zoe')$$, 'who types, by name');
SELECT results_eq($$SELECT t || '!' FROM presence_typing_users('c') t$$, $$VALUES ('alice!'), ('zoe!')$$, 'as a table, too');
SELECT presence_typing('c', 'zoe', false);
SELECT results_eq($$SELECT presence_typing_users('c')$$, $$VALUES ('alice')$$, 'until told otherwise');

-- Time passes, on a slow server also without the test's doing.
SELECT pg_temp.pass(3);
SELECT results_eq($$SELECT presence_typing_users('c')$$, $$VALUES ('alice')$$, 'typing lasts for 6 seconds');
SELECT presence_cursor_update('c', 'alice', 1, 1);
SELECT pg_temp.pass(3.2);
SELECT is_empty($$SELECT presence_typing_users('c')$$, 'and ends by itself');
SELECT pg_temp.pass(4);
SELECT results_eq($$SELECT user_id, x FROM presence_cursors('c')$$, $$VALUES ('alice', 1::float8)$$,
	'a cursor lives on from its last update');
SELECT is_empty($$SELECT key FROM presence_get_state('r')$$, 'a state with the default time to live is gone');
SELECT is(presence_clear_state('r', 'b'), false, 'and cannot be cleared any more');
SELECT pg_temp.pass(3);
SELECT is_empty($$SELECT * FROM presence_cursors('c')$$, 'and then it is gone, too');
SELECT presence_set_state('r', 'short', '1', 0.5), presence_set_state('r', 'long', '1', 2592000);
SELECT pg_temp.pass(1);
SELECT results_eq($$SELECT key FROM presence_get_state('r')$$, $$VALUES ('long')$$, 'from half a second to 30 days');

-- What is refused, with which error.
SELECT is(pg_temp.error_of($$SELECT presence_set_state('r', 'k', 'null')$$),
	'22023 argument "value" must not be a JSON null | Listeners take null for a state that is gone. | Call presence_clear_state() to remove the state.',
	'null is for what is gone');
SELECT lives_ok($$SELECT presence_set_state('r', 'k', '[null]')$$, 'unless it is inside');
SELECT is(pg_temp.error_of(format('SELECT presence_set_state(%L, %L, %L)', 'r', 'k', to_jsonb(repeat('x', 2047)))),
	'54000 argument "value" is too large | The state has more than 2048 bytes as JSON text. | Pass less, or raise presence.max_state_size, which is 2048 bytes.',
	'a value beyond presence.max_state_size');
SELECT lives_ok(format('SELECT presence_set_state(%L, %L, %L, 3600)', 'r', 'k', to_jsonb(repeat('x', 2046))), 'not one of that size');
SELECT is(pg_temp.state_of(format('SELECT presence_cursor_update(%L, %L, 1, 2, %L)', 'r', 'u',
	jsonb_build_object('a', repeat('x', 2048)))), '54000', 'nor a cursor with too much meta');
SELECT is(pg_temp.error_of(format('SELECT presence_set_state(%L, %L, %L, %L)', 'r', 'k', '1', ttl)),
	format('22023 argument "ttl_in_seconds" must be greater than 0 and at most 2592000 | The value of type double precision is %s. | Pass for how many seconds the state lives, such as 10.', shown),
	'a time to live of ' || ttl)
FROM (VALUES ('0', '0'), ('-1', '-1'), ('NaN', 'NaN'), ('infinity', 'Infinity'), ('2592001', '2.592e+06')) v (ttl, shown);
SELECT is(pg_temp.error_of(format('SELECT presence_cursor_update(%L, %L, %L, %L)', 'r', 'u', x, y)),
	format('22023 argument "%s" must be a finite number | The value of type double precision is %s. | Pass a coordinate.', argument, shown),
	format('a cursor at %s, %s', x, y))
FROM (VALUES ('NaN', '1', 'x', 'NaN'), ('1', 'NaN', 'y', 'NaN'), ('infinity', '1', 'x', 'infinite'), ('1', '-infinity', 'y', 'infinite')) v (x, y, argument, shown);
SELECT is(pg_temp.error_of($$SELECT presence_cursor_update('r', 'u', 1, 2, '[]')$$),
	'22023 argument "meta" must be a JSON object | The value is of JSON type array. | Pass an object, such as {"name": "Alice"}.',
	'a meta that is no object');

CREATE TEMP TABLE names (argument text, call text);
INSERT INTO names VALUES
	('room', 'presence_set_state(%s, ''k'', ''1'')'),
	('key', 'presence_set_state(''r'', %s, ''1'')'),
	('room', 'presence_get_state(%s)'),
	('room', 'presence_clear_state(%s, ''k'')'),
	('key', 'presence_clear_state(''r'', %s)'),
	('room', 'presence_cursor_update(%s, ''u'', 1, 2)'),
	('user_id', 'presence_cursor_update(''r'', %s, 1, 2)'),
	('room', 'presence_cursors(%s)'),
	('room', 'presence_cursor_remove(%s, ''u'')'),
	('user_id', 'presence_cursor_remove(''r'', %s)'),
	('room', 'presence_typing(%s, ''u'', true)'),
	('user_id', 'presence_typing(''r'', %s, true)'),
	('room', 'presence_typing_users(%s)');
SELECT is(pg_temp.error_of('SELECT * FROM ' || format(call, quote_literal(repeat('ä', 256)))),
	format('22001 argument "%s" is too long | The value has 256 characters. | Pass a name of 1 to 255 characters.', argument), call || ' with 256 characters')
FROM names;
SELECT is(pg_temp.error_of('SELECT * FROM ' || format(call, quote_literal(''))),
	format('22023 argument "%s" must not be empty | The value has 0 characters. | Pass a name of 1 to 255 characters.', argument), call || ' with none')
FROM names;
INSERT INTO names VALUES
	('value', 'presence_set_state(''r'', ''k'', %s)'),
	('ttl_in_seconds', 'presence_set_state(''r'', ''k'', ''1'', %s)'),
	('key_prefix', 'presence_get_state(''r'', %s)'),
	('x', 'presence_cursor_update(''r'', ''u'', %s, 1)'),
	('y', 'presence_cursor_update(''r'', ''u'', 1, %s)'),
	('meta', 'presence_cursor_update(''r'', ''u'', 1, 2, %s)'),
	('is_typing', 'presence_typing(''r'', ''u'', %s)');
SELECT is(pg_temp.error_of('SELECT * FROM ' || format(call, 'NULL')),
	format('22004 argument "%s" must not be null | The value is NULL. | Pass a value for "%1$s".', argument), call || ' with NULL')
FROM names;

-- What operators see.
SELECT presence_reset_stats();
SELECT cmp_ok(state_entries, '>=', 2::bigint, 'entries are counted') FROM presence.stats;
SELECT cmp_ok(state_bytes, '>', 2048::bigint, 'with their bytes') FROM presence.stats;
SELECT is(state_evictions, 0::bigint, 'and evictions') FROM presence.stats;
SELECT is_empty($$SELECT proname FROM pg_proc p WHERE proname ~ '^presence_(set_|get_|clear_|cursor|typing)' AND proname !~ '_status'
	AND (proparallel = 's' OR obj_description(oid, 'pg_proc') IS NULL)$$, 'every function is labelled and commented');
SELECT is((SELECT count(*) FILTER (WHERE presence_clear_state('r', key)) FROM presence_get_state('r')), 2::bigint, 'the rest goes');

SELECT finish();
ROLLBACK;
