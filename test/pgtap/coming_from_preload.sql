-- Proves the rows of docs/coming-from.md about cursors and typing: one assertion per row.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

-- djust: CursorTracker and LiveCursorMixin
SELECT presence_cursor_update('doc:123', 'alice', 450, 200, '{"color": "#e74c3c"}');
SELECT results_eq($$SELECT user_id, x, y, meta, updated_at IS NOT NULL FROM presence_cursors('doc:123')$$,
	$$VALUES ('alice', 450::float8, 200::float8, '{"color": "#e74c3c"}'::jsonb, true)$$, 'get_cursors: user, x, y, time and meta');
SELECT presence_cursor_update('doc:123', 'alice', 1, 2);
SELECT results_eq($$SELECT x, y FROM presence_cursors('doc:123')$$, $$VALUES (1::float8, 2::float8)$$, 'update_cursor: the latest position wins');
SELECT is(presence_cursor_remove('doc:123', 'alice'), true, 'remove_cursor');
SELECT is(current_setting('presence.cursor_timeout'), '10s', 'cursors time out after 10 s');
SELECT presence_cursor_update('doc:123', 'bob', 1, 2);
SELECT pg_temp.pass(9);
SELECT is((SELECT count(*) FROM presence_cursors('doc:123')), 1::bigint, 'a cursor is there for 10 s');
SELECT pg_temp.pass(2);
SELECT is((SELECT count(*) FROM presence_cursors('doc:123')), 0::bigint, 'and never longer');
SELECT is(pg_temp.state_of($$SELECT presence_cursor_update('doc:123', 'bob', 'NaN', 0)$$), '22023', 'a cursor is somewhere');

-- The chat: typing
SELECT presence_typing('chat', 'alice', true), presence_typing('chat', 'bob', true);
SELECT results_eq($$SELECT * FROM presence_typing_users('chat')$$, $$VALUES ('alice'), ('bob')$$, 'typing: who types');
SELECT presence_typing('chat', 'bob', false);
SELECT results_eq($$SELECT * FROM presence_typing_users('chat')$$, $$VALUES ('alice')$$, 'typing: false ends it');
SELECT pg_temp.pass(7);
SELECT is_empty($$SELECT * FROM presence_typing_users('chat')$$, 'typing: it ends by itself');

SELECT finish();
ROLLBACK;
