-- Proves which status users choose, what others see of it, and that the time when they were last seen is kept.
\ir lib/helpers.psql
SELECT no_plan();
DELETE FROM presence.presences;
DELETE FROM presence.people;

-- A person in short: "user status chosen message connections".
CREATE FUNCTION pg_temp.short(p presence.person) RETURNS text LANGUAGE sql AS
	$$ SELECT concat_ws(' ', p.user_id, p.status, coalesce(p.chosen_status, '-'), coalesce(p.custom_message, '-'), p.connections) $$;

-- Unknown, online, gone
SELECT is(presence_status('alice')::text, '(alice,offline,,,0,)', 'an unknown user is offline and was never seen');
SELECT presence_add('people', 'a1', 'alice'), presence_add('people2', 'a1', 'alice'), presence_add('people', 'x');
SELECT is(pg_temp.short(presence_status('alice')), 'alice online - - 1', 'a connection makes a user online; one channel in two rooms is one');
SELECT presence_add('people2', 'a2', 'alice');
SELECT is(pg_temp.short(presence_status('alice')), 'alice online - - 2', 'a second tab is another connection of the same user');
SELECT pg_temp.pass(3);
SELECT presence_touch('a2');
SELECT cmp_ok((SELECT last_seen FROM presence_status('alice')) - (SELECT joined_at FROM presence_list('people2') WHERE channel_name = 'a2'),
	'>=', interval '3 seconds', 'last_seen is the newest sign of life of all connections');
SELECT is_empty($$SELECT FROM presence.people$$, 'nothing is stored for those who chose nothing');

-- Chosen statuses
SELECT is(pg_temp.short(presence_set_status('alice', status)), format('alice %1$s %1$s - %2$s', status, connections), 'a user online may choose ' || status)
FROM (VALUES ('away', 2), ('busy', 2), ('offline', 0), ('online', 2)) v (status, connections);
SELECT is(pg_temp.short(presence_set_status('alice', 'busy', 'in a meeting')), 'alice busy busy in a meeting 2', 'with a message');
SELECT is(pg_temp.short(presence_status('alice')), 'alice busy busy in a meeting 2', 'which is stored');
SELECT ctid AS version FROM presence.people WHERE user_id = 'alice' \gset
SELECT presence_set_status('alice', 'busy', 'in a meeting');
SELECT is((SELECT ctid FROM presence.people WHERE user_id = 'alice'), :'version'::tid, 'the same choice again writes no row');
SELECT is(pg_temp.short(presence_set_status('alice', 'busy', 'back soon')), 'alice busy busy back soon 2', 'another message replaces it');
SELECT is(pg_temp.short(presence_set_status('alice', 'busy')), 'alice busy busy - 2', 'and none takes it away');
SELECT is(pg_temp.short(presence_set_status('alice', 'busy', '')), 'alice busy busy  2', 'an empty one is a message');
SELECT is(pg_temp.short(presence_set_status('alice', 'away', repeat('ä', 100))), 'alice away away ' || repeat('ä', 100) || ' 2',
	'100 characters of more than one byte fit');
SELECT is(pg_temp.short(presence_set_status('bob', 'away', 'on holiday')), 'bob offline away on holiday 0',
	'who chooses without a connection stays offline');
SELECT presence_add('people', 'b1', 'bob');
SELECT is(pg_temp.short(presence_status('bob')), 'bob away away on holiday 1', 'until one comes');
SELECT is(pg_temp.short(presence_set_status('bob', 'offline')), 'bob offline offline - 0', 'invisible: connected, and offline to others');
SELECT last_seen AS hidden FROM presence_status('bob') \gset
SELECT is(:'hidden'::timestamptz, (SELECT chosen_at FROM presence.people WHERE user_id = 'bob'), 'last seen when choosing that');
SELECT pg_temp.pass(5);
SELECT presence_touch('b1'), presence_touch('a2');
SELECT presence_add('people2', 'b2', 'bob');
SELECT presence_set_status('bob', 'offline', 'hiding'), presence_set_status('bob', 'offline');
SELECT is((SELECT last_seen FROM presence_status('bob')), :'hidden'::timestamptz, 'signs of life of the invisible move nothing');
SELECT presence_remove('people2', 'b2');
SELECT is(presence_is_online('bob'), true, 'though the connection is there');
SELECT presence_remove('people', 'b1');
SELECT is(pg_temp.short(presence_status('bob')), 'bob offline offline - 0', 'the choice stays when the user goes');
SELECT is((SELECT last_seen FROM presence_status('bob')), :'hidden'::timestamptz, 'and nobody sees when that was');
SELECT presence_set_status('bob', 'away');
CALL pg_temp.wait_for(format($$SELECT last_seen > %L FROM presence_status('bob')$$, :'hidden'));
SELECT cmp_ok((SELECT last_seen FROM presence_status('bob')), '>', :'hidden'::timestamptz, 'until the next choice');
SELECT presence_set_status('bob', 'offline');
SELECT is((SELECT count(*) FROM presence.rooms WHERE name LIKE 'people%'), 2::bigint, 'choosing makes no room');

-- Many
SELECT presence_add('people', 'c1', 'carol');
SELECT results_eq($$SELECT pg_temp.short(s) FROM presence_statuses('{nobody,carol,bob,alice,carol,nobody}') s$$,
	ARRAY['nobody offline - - 0', 'carol online - - 1', 'bob offline offline - 0',
		'alice away away ' || repeat('ä', 100) || ' 2', 'carol online - - 1', 'nobody offline - - 0'],
	'one row for each user asked for, in that order, unknown and repeated ones too');
SELECT results_eq($$SELECT user_id FROM presence_statuses(ARRAY(SELECT 'u' || i FROM generate_series(1000, 1, -1) i))$$,
	$$SELECT ('u' || i) COLLATE "C" FROM generate_series(1000, 1, -1) i$$, '1,000 of them');
SELECT is_empty($$SELECT * FROM presence_statuses('{}')$$, 'nobody asked for');

-- The user list of an application: one join.
CREATE TEMP TABLE app_users (id int, name text);
INSERT INTO app_users VALUES (3, 'carol'), (1, 'alice'), (2, 'bob'), (4, 'dave');
SELECT results_eq($$SELECT u.id, u.name, s.status FROM app_users u, presence_status(u.name) s ORDER BY u.id$$,
	$$VALUES (1, 'alice', 'away'), (2, 'bob', 'offline'), (3, 'carol', 'online'), (4, 'dave', 'offline')$$,
	'a user list is a join with the application''s own table');

-- Last seen, however the last connection ended. After a commit the worker records it, if there is one.
CREATE FUNCTION pg_temp.remembers(whom text, seen timestamptz) RETURNS text LANGUAGE sql AS
	$$ SELECT CASE WHEN s.connections > 0 THEN 'is there'
		WHEN s.last_seen IS NULL THEN 'was never seen'
		WHEN abs(extract(epoch FROM s.last_seen - seen)) < 1 THEN 'was seen'
		ELSE format('was seen at %s instead of %s', s.last_seen, seen) END FROM presence_status(whom) s $$;

SELECT presence_add('people', 'd1', 'dave'), presence_add('people', 'd2', 'dave'), presence_add('people', 'e1', 'eve'), presence_add('people', 'f1', 'fay');
SELECT pg_temp.pass(20);
SELECT is(presence_touch_many('{d1,e1,f1}'), '{}', 'heartbeats');
SELECT (presence_status('dave')).last_seen AS seen \gset
SELECT pg_temp.pass(20);
SELECT presence_remove('people', 'd2');
SELECT is(pg_temp.remembers('dave', :'seen'), 'is there', 'a tab closes, the user is still there');
SELECT ok(abs(extract(epoch FROM (presence_status('dave')).last_seen - :'seen')) < 1, 'and last seen when the other tab beat');
SELECT presence_leave_all('d1'), presence_kick('people', 'eve');
CALL pg_temp.wait_for($$SELECT count(*) = 2 FROM presence_statuses('{dave,eve}') WHERE last_seen IS NOT NULL$$);
SELECT is(pg_temp.remembers('dave', :'seen'), 'was seen', 'gone by leave: last seen at the last heartbeat, not when it left');
SELECT is(pg_temp.remembers('eve', :'seen'), 'was seen', 'gone by kick');
SELECT pg_temp.pass(41);
SELECT prune_presences();
CALL pg_temp.wait_for($$SELECT connections = 0 AND last_seen IS NOT NULL FROM presence_status('fay')$$);
SELECT is(pg_temp.remembers('fay', :'seen'), 'was seen', 'gone by expiry');
SELECT is(pg_temp.short(presence_status('dave')), 'dave offline - - 0', 'who chose nothing has chosen nothing');
SELECT is(presence_status('fay')::text, (SELECT s::text FROM presence_statuses('{fay}') s), 'presence_statuses tells the same');

SELECT presence_add('people', 'd3', 'dave');
SELECT ok((SELECT last_seen FROM presence_status('dave')) > :'seen'::timestamptz + interval '40 seconds', 'who comes back was just seen');
SELECT (presence_status('dave')).last_seen AS seen \gset
SELECT presence_ban(NULL, 'dave');
CALL pg_temp.wait_for(format($$SELECT connections = 0 AND last_seen > %L::timestamptz - interval '1 second' FROM presence_status('dave')$$, :'seen'));
SELECT is(pg_temp.remembers('dave', :'seen'), 'was seen', 'gone by ban');
SELECT presence_unban(NULL, 'dave');
SELECT presence_set_status('dave', 'away');
SELECT is(pg_temp.remembers('dave', :'seen'), 'was seen', 'a choice is no sign of life, and forgets none');
SELECT presence_add('people', 'd4', 'dave'), presence_add('people', 'g1', 'gus');
SELECT pg_temp.pass(1.5);
SELECT (presence_status('dave')).last_seen AS seen \gset
DELETE FROM presence.rooms WHERE name = 'people';
CALL pg_temp.wait_for(format($$SELECT connections = 0 AND last_seen > %L::timestamptz - interval '1 second' FROM presence_status('dave')$$, :'seen'));
CALL pg_temp.wait_for($$SELECT connections = 0 AND last_seen IS NOT NULL FROM presence_status('gus')$$);
SELECT is(pg_temp.remembers('dave', :'seen'), 'was seen', 'gone with the room');
SELECT is(pg_temp.remembers('gus', :'seen'), 'was seen', 'all of its users');

-- Another user on the same connection: the first one was last seen at that time.
SELECT presence_add('people', 'h1', 'hal');
SELECT (presence_status('hal')).last_seen AS seen \gset
SELECT presence_add('people', 'h1', 'ian');
SELECT is(pg_temp.short(presence_status('ian')), 'ian online - - 1', 'a login on an open connection');
CALL pg_temp.wait_for($$SELECT last_seen IS NOT NULL FROM presence_status('hal')$$);
SELECT is(pg_temp.remembers('hal', :'seen'), 'was seen', 'the user it had before is gone, and was seen');

-- Refusals
SELECT is(pg_temp.error_of('SELECT * FROM ' || call), error, left(call, 70))
FROM (VALUES
	('presence_set_status(NULL, ''away'')', '22004 argument "user_id" must not be null | The value is NULL. | Pass a value for "user_id".'),
	('presence_set_status('''', ''away'')',
		'22023 argument "user_id" must not be empty | The value has 0 characters. | Pass a name of 1 to 255 characters.'),
	('presence_set_status(repeat(''ä'', 256), ''away'')',
		'22001 argument "user_id" is too long | The value has 256 characters. | Pass a name of 1 to 255 characters.'),
	('presence_set_status(''u'', NULL)', '22004 argument "status" must not be null | The value is NULL. | Pass a value for "status".'),
	('presence_set_status(''u'', ''Away'')',
		'22023 argument "status" must be online, away, busy or offline | The value has 4 characters. | Choose offline to be invisible.'),
	('presence_set_status(''u'', '''')',
		'22023 argument "status" must be online, away, busy or offline | The value has 0 characters. | Choose offline to be invisible.'),
	('presence_set_status(''u'', ''away'', repeat(''ä'', 101))',
		'22001 argument "custom_message" is too long | The value has 101 characters. | Pass a message of at most 100 characters.'),
	('presence_status(NULL)', '22004 argument "user_id" must not be null | The value is NULL. | Pass a value for "user_id".'),
	('presence_status('''')', '22023 argument "user_id" must not be empty | The value has 0 characters. | Pass a name of 1 to 255 characters.'),
	('presence_status(repeat(''ä'', 256))',
		'22001 argument "user_id" is too long | The value has 256 characters. | Pass a name of 1 to 255 characters.'),
	('presence_statuses(NULL)', '22004 argument "user_ids" must not be null | The value is NULL. | Pass a value for "user_ids".'),
	('presence_statuses(''{u,NULL}'')',
		'22004 argument "user_ids" must not contain nulls | Element 2 of 2 is NULL. | Leave it out of the array.'),
	('presence_statuses(''{u,""}'')',
		'22023 argument "user_ids" must not be empty | The value has 0 characters. | Pass a name of 1 to 255 characters.')
) AS v (call, error);
SELECT is_empty($$SELECT FROM presence.people WHERE user_id = 'u'$$, 'a refused choice is not stored');
SELECT is(pg_temp.state_of($$INSERT INTO presence.people (user_id, chosen_status) VALUES ('u', 'asleep')$$), '23514',
	'plain SQL cannot store another status');
SELECT is(pg_temp.state_of($$INSERT INTO presence.people (user_id, custom_message) VALUES ('u', repeat('ä', 101))$$), '23514',
	'nor a longer message');

-- Row-level security: users set a status only for themselves, and when others were last seen is recorded all the same.
CREATE FUNCTION pg_temp.as_sam(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	CREATE ROLE presence_test_people;
	PERFORM presence_grant('presence_test_people');
	ALTER TABLE presence.people ENABLE ROW LEVEL SECURITY;
	CREATE POLICY mine ON presence.people USING (user_id = 'sam');
	SET LOCAL ROLE presence_test_people;
	EXECUTE query INTO result;
	RESET ROLE;
	RAISE EXCEPTION 'undo';
EXCEPTION WHEN OTHERS THEN
	RESET ROLE;
	RETURN CASE SQLERRM WHEN 'undo' THEN result ELSE SQLSTATE END;
END
$$;
SELECT presence_add('people', 'r1', 'rita');
SELECT is(pg_temp.as_sam($$SELECT (presence_set_status('sam', 'busy')).chosen_status$$), 'busy', 'a policy lets users choose for themselves');
SELECT is(pg_temp.as_sam($$SELECT presence_set_status('rita', 'offline')$$), '42501', 'not for others');
SELECT is(pg_temp.as_sam($$SELECT presence_leave_all('r1')$$), '1', 'but somebody else''s connection can be closed');

DELETE FROM presence.presences;
DELETE FROM presence.people;
DELETE FROM presence.rooms;
SELECT finish();
