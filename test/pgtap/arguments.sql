-- Proves that every function refuses bad arguments with the documented SQLSTATE, naming argument, value and remedy.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

-- Each argument in a call, with %s in its place.
CREATE TEMP TABLE names (argument text, call text, required boolean);
INSERT INTO names VALUES
	('room', 'presence_add(%s, ''c'')', true),
	('channel_name', 'presence_add(''r'', %s)', true),
	('user_id', 'presence_add(''r'', ''c'', %s)', false),
	('room', 'presence_add_many(%s, ''{c}'')', true),
	('room', 'presence_update(%s, ''c'', ''{}'')', true),
	('channel_name', 'presence_update(''r'', %s, ''{}'')', true),
	('room', 'presence_remove(%s, ''c'')', true),
	('channel_name', 'presence_remove(''r'', %s)', true),
	('channel_name', 'presence_touch(%s)', true),
	('channel_name', 'presence_receive(%s, ''hello'')', true),
	('channel_name', 'presence_leave_all(%s)', true),
	('room', 'presence_list(%s)', true),
	('room', 'presence_page(%s)', true),
	('after_channel', 'presence_page(''r'', 1, %s)', false),
	('room', 'presence_users(%s)', true),
	('room', 'presence_count(%s)', true),
	('room', 'presence_anonymous_count(%s)', true),
	('room', 'presence_counts(%s)', true),
	('channel_name', 'presence_rooms(%s)', true),
	('user_id', 'presence_user_rooms(%s)', true),
	('user_id', 'presence_is_online(%s)', true),
	('room', 'presence_snapshot(%s)', true);

CREATE TEMP TABLE arrays (argument text, call text, nulls boolean);
INSERT INTO arrays VALUES
	('channel_names', 'presence_add_many(''r'', %s)', false),
	('user_ids', 'presence_add_many(''r'', ''{a,b}'', %s)', true),
	('channel_names', 'presence_touch_many(%s)', false),
	('channel_names', 'presence_leave_all_many(%s)', false),
	('user_ids', 'presence_online(%s)', false);

-- Each row is one call that must fail, and its error.
CREATE TEMP TABLE refusals (call text, error text);

INSERT INTO refusals
SELECT format(call, 'NULL'),
	format('22004 argument "%1$s" must not be null | The value is NULL. | Pass a value for "%1$s".', argument)
FROM names WHERE required
UNION ALL
SELECT format(call, ''''''),
	format('22023 argument "%s" must not be empty | The value has 0 characters. | Pass a name of 1 to 255 characters.', argument)
FROM names
UNION ALL
SELECT format(call, 'repeat(''ä'', 256)'),
	format('22001 argument "%s" is too long | The value has 256 characters. | Pass a name of 1 to 255 characters.', argument)
FROM names
UNION ALL
SELECT format(call, 'NULL'),
	format('22004 argument "%1$s" must not be null | The value is NULL. | Pass a value for "%1$s".', argument)
FROM arrays WHERE NOT nulls
UNION ALL
SELECT format(call, '''{a,NULL}'''),
	format('22004 argument "%s" must not contain nulls | Element 2 of 2 is NULL. | Leave it out of the array.', argument)
FROM arrays WHERE NOT nulls
UNION ALL
SELECT format(call, '''{a,""}'''),
	format('22023 argument "%s" must not be empty | The value has 0 characters. | Pass a name of 1 to 255 characters.', argument)
FROM arrays
UNION ALL
SELECT format(call, 'ARRAY[''a'', repeat(''ä'', 256)]'),
	format('22001 argument "%s" is too long | The value has 256 characters. | Pass a name of 1 to 255 characters.', argument)
FROM arrays;

-- Metas: only objects.
INSERT INTO refusals
SELECT format(c.call, j.literal),
	format('22023 argument "%s" must be a JSON object | The value is of JSON type %s. | Pass an object, such as {"name": "Alice"}.', c.argument, j.kind)
FROM (VALUES ('meta', 'presence_add(''r'', ''c'', NULL, ''%s'')'),
			 ('meta', 'presence_update(''r'', ''c'', ''%s'')'),
			 ('metas', 'presence_add_many(''r'', ''{c}'', NULL, ARRAY[''%s'']::jsonb[])')) AS c (argument, call),
	(VALUES ('[]', 'array'), ('"x"', 'string'), ('1', 'number'), ('true', 'boolean'), ('null', 'null')) AS j (literal, kind);

INSERT INTO refusals VALUES
	('presence_update(''r'', ''c'', NULL)',
	 '22004 argument "meta" must not be null | The value is NULL. | Pass a value for "meta".'),
	('presence_receive(''c'', NULL)',
	 '22004 argument "message" must not be null | The value is NULL. | Pass a value for "message".'),
	('presence_add_many(''r'', ''{a,b}'', ''{u}'')',
	 '22023 arguments "channel_names" and "user_ids" must have the same length | "channel_names" has 2 elements, "user_ids" has 1. | Pass one element for each channel, NULL where there is nothing to say.'),
	('presence_add_many(''r'', ''{a,b}'', NULL, ''{}'')',
	 '22023 arguments "channel_names" and "metas" must have the same length | "channel_names" has 2 elements, "metas" has 0. | Pass one element for each channel, NULL where there is nothing to say.'),
	('prune_presences(-0.5)',
	 '22023 argument "age_in_seconds" must not be negative | The value of type double precision is -0.5. | Pass an age of 0 seconds or more, or NULL for presence.max_age.'),
	('prune_presences(''NaN'')',
	 '22023 argument "age_in_seconds" must not be negative | The value of type double precision is NaN. | Pass an age of 0 seconds or more, or NULL for presence.max_age.'),
	('prune_presences(''-Infinity'')',
	 '22023 argument "age_in_seconds" must not be negative | The value of type double precision is -Infinity. | Pass an age of 0 seconds or more, or NULL for presence.max_age.'),
	('presence_grant(NULL)',
	 '22004 argument "role" must not be null | The value is NULL. | Pass a value for "role".'),
	('presence_grant(current_user::regrole, NULL)',
	 '22004 argument "level" must not be null | The value is NULL. | Pass a value for "level".'),
	('presence_grant(current_user::regrole, ''owner'')',
	 '22023 argument "level" must be reader, member or admin | The value has 5 characters. | A reader reads, a member also enters and leaves, an admin also prunes and moderates.'),
	('presence_revoke(NULL)',
	 '22004 argument "role" must not be null | The value is NULL. | Pass a value for "role".'),
	('presence_schedule_pruning(NULL)',
	 '22004 argument "schedule" must not be null | The value is NULL. | Pass a value for "schedule".');

SELECT is(pg_temp.error_of('SELECT * FROM ' || call), error, left(call, 60))
FROM refusals ORDER BY ctid;

-- Nor is a refused call a heartbeat, which no rollback would revert.
SELECT presence_add('r', 'c');
SELECT last_seen AS seen FROM presence_list('r') \gset
SELECT pg_temp.pass(10);
SELECT is(pg_temp.state_of(call), state, 'refused: ' || call)
FROM (VALUES ('SELECT presence_add(''r'', ''c'', NULL, ''[]'')', '22023'),
			 ('SELECT presence_add_many(''r'', ''{c,NULL}'')', '22004'),
			 ('SELECT presence_add_many(''r'', ''{c}'', NULL, ''{1}'')', '22023'),
			 ('SELECT presence_update(''r'', ''c'', ''1'')', '22023'),
			 ('SELECT presence_touch_many(''{c,""}'')', '22023'),
			 ('SELECT presence_receive(''c'', NULL)', '22004')) AS v (call, state);
SELECT ok((SELECT last_seen FROM presence_list('r')) - :'seen' < interval '1 second',
	'no refused call gave a sign of life');
SELECT presence_touch('c');
SELECT ok((SELECT last_seen FROM presence_list('r')) - :'seen' >= interval '10 seconds',
	'a good one does');

-- Arguments that are optional, and empty arrays.
SELECT lives_ok($$SELECT presence_add('r', 'c', NULL, NULL)$$, 'NULL user and meta are fine');
SELECT is(presence_add_many('r', '{a,b}', '{NULL,u}', ARRAY[NULL, '{}']::jsonb[]), 2::bigint,
	'so are NULLs in user_ids and metas');
SELECT is(presence_add_many('r', '{}'), 0::bigint, 'nobody to add');
SELECT is(presence_touch_many('{}'), '{}', 'nobody to touch');
SELECT is(presence_leave_all_many('{}'), 0::bigint, 'nobody to leave');
SELECT is_empty($$SELECT * FROM presence_online('{}')$$, 'nobody to ask for');

SELECT finish();
ROLLBACK;
