-- Proves what presence_broadcast accepts and refuses; the TAP tests with listening clients prove that broadcasts
-- arrive.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

SELECT is(pg_temp.state_of('SELECT ' || call), 'no', left(call, 70))
FROM (VALUES ('presence_broadcast(''lobby'', ''ping'')'), ('presence_broadcast(''lobby'', ''ping'', ''{"a": 1}'', ''c1'')'),
	('presence_broadcast(''lobby'', ''ping'', ''[1, 2]'')'), ('presence_broadcast(''lobby'', ''ping'', ''"x"'')'),
	('presence_broadcast(''lobby'', ''ping'', ''null'', NULL)'),
	('presence_broadcast(room => ''lobby'', event => ''ping'', sender => ''c1'')'),
	('presence_broadcast(repeat(''ä'', 255), repeat(''€'', 255), ''{}'', repeat(''𝄞'', 255))')) AS v (call);
SELECT is_empty($$SELECT FROM presence.rooms WHERE name = 'lobby'$$, 'a broadcast makes no room');

SELECT is(pg_temp.error_of('SELECT ' || call), error, left(call, 70))
FROM (VALUES
	('presence_broadcast(NULL, ''ping'')', '22004 argument "room" must not be null | The value is NULL. | Pass a value for "room".'),
	('presence_broadcast('''', ''ping'')', '22023 argument "room" must not be empty | The value has 0 characters. | Pass a name of 1 to 255 characters.'),
	('presence_broadcast(repeat(''ä'', 256), ''ping'')',
		'22001 argument "room" is too long | The value has 256 characters. | Pass a name of 1 to 255 characters.'),
	('presence_broadcast(''lobby'', NULL)', '22004 argument "event" must not be null | The value is NULL. | Pass a value for "event".'),
	('presence_broadcast(''lobby'', '''')', '22023 argument "event" must not be empty | The value has 0 characters. | Pass a name of 1 to 255 characters.'),
	('presence_broadcast(''lobby'', repeat(''ä'', 256))',
		'22001 argument "event" is too long | The value has 256 characters. | Pass a name of 1 to 255 characters.'),
	('presence_broadcast(''lobby'', ''ping'', NULL)', '22004 argument "payload" must not be null | The value is NULL. | Pass a value for "payload".'),
	('presence_broadcast(''lobby'', ''ping'', ''{}'', '''')',
		'22023 argument "sender" must not be empty | The value has 0 characters. | Pass a name of 1 to 255 characters.'),
	('presence_broadcast(''lobby'', ''ping'', ''{}'', repeat(''ä'', 256))',
		'22001 argument "sender" is too long | The value has 256 characters. | Pass a name of 1 to 255 characters.')
) AS v (call, error);

-- As long as possible: ,"room":"lobby","event":"ping","payload":"…","sender":null} has 58 bytes besides the text.
SELECT is(pg_temp.state_of($$SELECT presence_broadcast('lobby', 'ping', to_jsonb(repeat('x', 7935 - 58)))$$), 'no', 'the longest broadcast');
SELECT is(pg_temp.error_of($$SELECT presence_broadcast('lobby', 'ping', to_jsonb(repeat('x', 7936 - 58)))$$),
	'54000 broadcast is too large | The notification would have more than the 7935 bytes that are possible. | '
	'Store the payload in a table and broadcast its key.', 'one byte more');
SELECT is(pg_temp.state_of($$SELECT presence_broadcast('lobby', 'ping', to_jsonb(repeat('ä', 3950)))$$), '54000', 'bytes count, not characters');
SELECT is(pg_temp.state_of($$SELECT presence_broadcast('lobby', 'ping', to_jsonb(repeat(chr(1), 1400)))$$), '54000', 'as JSON writes them');
SELECT is(pg_temp.state_of($$SELECT presence_broadcast('lobby', 'ping', to_jsonb(repeat('x', 10000000)))$$), '54000', 'far too many');

SELECT finish();
ROLLBACK;

-- The longest names and the longest payload pass NOTIFY, too.
SELECT presence_broadcast(repeat(chr(1), 255), repeat(chr(2), 255), '{}', repeat(chr(3), 255));
SELECT presence_broadcast('lobby', 'ping', to_jsonb(repeat('x', 7935 - 58)));
