-- 4. The core: who enters, beats and leaves -------------------------------

CREATE FUNCTION presence_add(room text, channel_name text, user_id text DEFAULT NULL, meta jsonb DEFAULT NULL)
	RETURNS presence.added
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_add(text, text, text, jsonb) IS
	'adds a channel to a room, making both as needed; a sign of life where it is present already, as "created" tells';

CREATE FUNCTION presence_add_many(room text, channel_names text[], user_ids text[] DEFAULT NULL, metas jsonb[] DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_add_many(text, text[], text[], jsonb[]) IS
	'adds many channels to a room, or none where one is refused; of equal names the last counts; returns how many were new';

CREATE FUNCTION presence_update(room text, channel_name text, meta jsonb)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_update(text, text, jsonb) IS
	'merges top-level keys into the meta of a presence, null deletes a key; false: no such presence';

CREATE FUNCTION presence_remove(room text, channel_name text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_remove(text, text) IS
	'removes a channel from one room; false: it was not there';

CREATE FUNCTION presence_touch(channel_name text, ttl_in_seconds double precision DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_touch(text, double precision) IS
	'heartbeat of a channel in all its rooms: it lives for so many seconds, by default presence.max_age; false: it is not present, add it again';

CREATE FUNCTION presence_touch_many(channel_names text[], ttl_in_seconds double precision DEFAULT NULL)
	RETURNS text[]
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_touch_many(text[], double precision) IS
	'heartbeats of many channels, each as by presence_touch; returns those that are not present';

CREATE FUNCTION presence_receive(channel_name text, message text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_receive(text, text) IS
	'heartbeat for a message that came in; false when the message is the JSON literal "heartbeat", which needs no more work';

CREATE FUNCTION presence_hold(channel_name text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_hold(text) IS
	'keeps a channel alive for as long as this database session lasts, without heartbeats; false: it is not present';

CREATE FUNCTION presence_hold_many(channel_names text[])
	RETURNS text[]
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_hold_many(text[]) IS
	'holds many channels, each as by presence_hold; returns those that are not present';

CREATE FUNCTION presence_release(channel_name text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_release(text) IS
	'ends a hold of this session: from now on the channel needs heartbeats; false: this session did not hold it';

CREATE FUNCTION presence_release_all()
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_release_all() IS
	'ends all holds of this session, each as by presence_release; returns how many';

CREATE FUNCTION presence_leave_all(channel_name text, grace_in_seconds double precision DEFAULT 0)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_leave_all(text, double precision) IS
	'removes a channel from every room, after so many seconds without a sign of life; returns from how many';

CREATE FUNCTION presence_leave_all_many(channel_names text[], grace_in_seconds double precision DEFAULT 0)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_leave_all_many(text[], double precision) IS
	'removes many channels from every room, each as by presence_leave_all; returns how many presences go';

CREATE FUNCTION prune_presences(age_in_seconds double precision DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION prune_presences(double precision) IS
	'removes presences without a sign of life for so many seconds, by default those that have expired; returns how many';

CREATE FUNCTION prune_rooms()
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION prune_rooms() IS
	'removes empty rooms that are not persistent, at most 10,000 of them, and what presence.keep_last_seen lets go; returns how many rooms';
