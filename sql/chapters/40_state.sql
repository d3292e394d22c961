-- 7. Short-lived state: cursors, typing and whatever lives for seconds ----

CREATE FUNCTION presence_set_state(room text, key text, value jsonb, ttl_in_seconds double precision DEFAULT 10)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_set_state(text, text, jsonb, double precision) IS
	'keeps a value in shared memory for so many seconds, at most 30 days: not transactional, not in the WAL, gone at restart';

CREATE FUNCTION presence_get_state(room text, key_prefix text DEFAULT '')
	RETURNS TABLE (key text, value jsonb, updated_at timestamptz, expires_at timestamptz)
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_get_state(text, text) IS
	'the values of a room whose keys begin with a prefix, by key; never an expired one';

CREATE FUNCTION presence_clear_state(room text, key text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_clear_state(text, text) IS
	'removes a value of a room; false: there was none';

CREATE FUNCTION presence_cursor_update(room text, user_id text, x double precision, y double precision, meta jsonb DEFAULT '{}')
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_cursor_update(text, text, double precision, double precision, jsonb) IS
	'moves a user''s cursor in a room; it expires presence.cursor_timeout after the last update';

CREATE FUNCTION presence_cursors(room text)
	RETURNS TABLE (user_id text, x double precision, y double precision, meta jsonb, updated_at timestamptz)
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_cursors(text) IS 'the cursors of a room, by user_id';

CREATE FUNCTION presence_cursor_remove(room text, user_id text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_cursor_remove(text, text) IS
	'removes a user''s cursor from a room; false: there was none; the user''s last leave does so too';

CREATE FUNCTION presence_typing(room text, user_id text, is_typing boolean)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_typing(text, text, boolean) IS
	'says that a user types in a room, which ends by itself 6 seconds later, or no longer does';

CREATE FUNCTION presence_typing_users(room text)
	RETURNS SETOF text
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_typing_users(text) IS 'the users who type in a room, by name';
