-- Proves which users kicks and bans remove and keep out, for how long, and that deleting a room removes all its
-- presences.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

-- The presences, as "room:channel".
CREATE FUNCTION pg_temp.present() RETURNS text LANGUAGE sql AS
	$$ SELECT string_agg(room || ':' || channel_name, ' ' ORDER BY room, channel_name) FROM presence.members $$;
DELETE FROM presence.presences;

-- Kick
SELECT presence_add_many(room, '{a1,a2,b1,x}', '{alice,alice,bob,NULL}') FROM unnest('{r,s}'::text[]) room;
SELECT is(presence_kick('r', 'alice'), 2::bigint, 'a user is kicked with all connections');
SELECT is(pg_temp.present(), 'r:b1 r:x s:a1 s:a2 s:b1 s:x', 'from that room alone');
SELECT is(presence_touch('a1'), true, 'still present elsewhere');
SELECT is(presence_kick('s', 'alice', 'a2'), 1::bigint, 'a channel of a user');
SELECT is(presence_touch('a2'), false, 'present nowhere any more');
SELECT is(presence_kick('s', 'alice', 'b1'), 0::bigint, 'not the channel of another user');
SELECT is(presence_kick('s', NULL, 'x'), 1::bigint, 'a channel, whoever is behind it');
SELECT is(presence_kick('s', channel_name => 'b1'), 1::bigint, 'by its name');
SELECT is(pg_temp.present(), 'r:b1 r:x s:a1', 'these and no others');
SELECT is(presence_kick('s', 'nobody'), 0::bigint, 'an unknown user');
SELECT is(presence_kick('s', NULL, 'nobody'), 0::bigint, 'an unknown channel');
SELECT is(presence_kick('nowhere', 'alice'), 0::bigint, 'an unknown room');
SELECT is_empty($$SELECT FROM presence.rooms WHERE name = 'nowhere'$$, 'which is not made');
SELECT is(presence_kick('s', 'alice'), 1::bigint, 'a kick');
SELECT lives_ok($$SELECT presence_add('s', 'a1', 'alice')$$, 'keeps nobody out');

-- Ban from a room
CREATE FUNCTION pg_temp.banned(room text, who text) RETURNS text LANGUAGE sql AS $$
	SELECT format('PR002 user is banned | room: %s; user: %s; limit: none | See presence.bans for the end of the ban and its reason.', room, who) $$;
DELETE FROM presence.presences;
SELECT presence_add_many(room, '{a1,a2,b1,x}', '{alice,alice,bob,NULL}') FROM unnest('{r,s,t}'::text[]) room;
SELECT is(presence_ban('r', 'alice'), 2::bigint, 'a ban removes the user''s connections');
SELECT is(pg_temp.present(), 'r:b1 r:x s:a1 s:a2 s:b1 s:x t:a1 t:a2 t:b1 t:x', 'from that room');
SELECT is((SELECT row(room, user_id, until, reason)::text FROM presence.bans), '(r,alice,infinity,)', 'and is stored');
SELECT is(pg_temp.error_of($$SELECT presence_add('r', 'a1', 'alice')$$), pg_temp.banned('r', 'alice'), 'the user may not enter');
SELECT is(pg_temp.state_of($$SELECT presence_add_many('r', '{n1,n2}', '{carol,alice}')$$), 'PR002', 'nor among others');
SELECT is(pg_temp.state_of($$SELECT presence_add('r', 'b1', 'alice')$$), 'PR002', 'nor on another''s connection');
SELECT is(pg_temp.state_of($$SELECT presence_add('r', 'x', 'alice')$$), 'PR002', 'nor by logging in when inside');
SELECT is(pg_temp.present(), 'r:b1 r:x s:a1 s:a2 s:b1 s:x t:a1 t:a2 t:b1 t:x', 'nobody came in');
SELECT is((SELECT user_id FROM presence_list('r') WHERE channel_name = 'x'), NULL, 'and nobody has another name');
SELECT lives_ok($$SELECT presence_add('r', 'c1', 'carol'), presence_add('r', 'x'), presence_add('r', 'y'), presence_add('r', 'b1', 'bob')$$, 'others may');
SELECT lives_ok($$SELECT presence_add('s', 'a3', 'alice'), presence_add('u', 'a3', 'alice')$$, 'and the user elsewhere');
SELECT is(presence_ban('nowhere', 'alice'), 0::bigint, 'a ban may come before the room');
SELECT is_empty($$SELECT FROM presence.rooms WHERE name = 'nowhere'$$, 'which it does not make');
SELECT is(pg_temp.state_of($$SELECT presence_add('nowhere', 'a1', 'alice')$$), 'PR002', 'and counts when somebody makes it');
SELECT is_empty($$SELECT FROM presence.rooms WHERE name = 'nowhere'$$, 'which who is refused does not');

-- Time
SELECT is(presence_ban('r', 'alice', now() + interval '1 hour', 'spam'), 0::bigint, 'a second ban replaces the first');
SELECT is((SELECT row(until, reason)::text FROM presence.bans WHERE room = 'r'), row(now() + interval '1 hour', 'spam')::text, 'with its end and reason');
SELECT is(pg_temp.state_of($$SELECT presence_add('r', 'a1', 'alice')$$), 'PR002', 'and keeps out until then');
SELECT is(presence_ban('r', 'alice', clock_timestamp() + interval '6 seconds'), 0::bigint, 'a short one');
SELECT is(pg_temp.state_of($$SELECT presence_add('r', 'a1', 'alice')$$), 'PR002', 'keeps out');
SELECT pg_sleep_until(until) FROM presence.bans WHERE room = 'r' AND user_id = 'alice';
SELECT lives_ok($$SELECT presence_add('r', 'a1', 'alice')$$, 'until it ends, in the same transaction, too');
SELECT is(presence_ban('r', 'alice', now() - interval '1 second'), 0::bigint, 'a ban that has ended removes nobody');
SELECT lives_ok($$SELECT presence_add('r', 'a2', 'alice')$$, 'and keeps nobody out');
SELECT is(presence_ban('r', 'alice', '-infinity'), 0::bigint, 'nor does one that ended long ago');

-- Unban
SELECT is(presence_ban('r', 'alice', 'infinity', 'again'), 2::bigint, 'banned');
SELECT is(presence_unban(NULL, 'alice'), false, 'a ban from one room is not one from all');
SELECT is(presence_unban('s', 'alice'), false, 'nor from another');
SELECT is(presence_unban('r', 'bob'), false, 'nor another user''s');
SELECT is(pg_temp.state_of($$SELECT presence_add('r', 'a1', 'alice')$$), 'PR002', 'so it holds');
SELECT is(presence_unban('r', 'alice'), true, 'until it is ended');
SELECT is(presence_unban('r', 'alice'), false, 'once');
SELECT lives_ok($$SELECT presence_add('r', 'a1', 'alice')$$, 'and lets the user in');

-- From every room
SELECT count(*) AS connections FROM presence.presences WHERE user_id = 'alice' \gset
SELECT is(presence_ban(NULL, 'alice', 'infinity', 'enough'), :connections::bigint, 'a ban from every room removes every connection');
SELECT is(presence_is_online('alice'), false, 'the user is offline');
SELECT is(pg_temp.error_of($$SELECT presence_add('s', 'a1', 'alice')$$), pg_temp.banned('s', 'alice'), 'and may enter none');
SELECT is(pg_temp.error_of($$SELECT presence_add('brand new', 'a1', 'alice')$$), pg_temp.banned('brand new', 'alice'), 'not even a new one');
SELECT is(presence_unban('s', 'alice'), false, 'one room cannot be taken from it');
SELECT presence_ban(NULL, 'alice', 'infinity', 'really');
SELECT results_eq($$SELECT reason FROM presence.bans WHERE room IS NULL AND user_id = 'alice'$$, ARRAY['really'], 'there is one such ban at a time');
SELECT presence_ban('t', 'alice');
SELECT is(presence_unban(NULL, 'alice'), true, 'it ends');
SELECT is(pg_temp.state_of($$SELECT presence_add('t', 'a1', 'alice')$$), 'PR002', 'which leaves the one from a room');
SELECT lives_ok($$SELECT presence_add('s', 'a1', 'alice')$$, 'and opens the others');

-- A deleted room
DELETE FROM presence.presences;
SELECT presence_configure_room('gone', 2, NULL, true), presence_invite('gone', 'alice'), presence_invite('gone', 'bob'), presence_ban('gone', 'carol');
SELECT presence_add('gone', 'a1', 'alice'), presence_add('gone', 'b1', 'bob'), presence_add('other', 'a1', 'alice');
DELETE FROM presence.rooms WHERE name = 'gone';
SELECT is(pg_temp.present(), 'other:a1', 'a deleted room leaves nobody in it');
SELECT is(presence_touch_many('{a1,b1}'), '{b1}', 'who was nowhere else is not present');
SELECT is((SELECT row(count(*), (SELECT count(*) FROM presence.bans WHERE room = 'gone'))::text FROM presence.invitations WHERE room = 'gone'), '(2,1)',
	'invitations and bans stay');
SELECT is(presence_add_many('gone', '{x,y,z}'), 3::bigint, 'the next room of that name knows nothing of the limit and the privacy');
SELECT is(pg_temp.state_of($$SELECT presence_add('gone', 'c1', 'carol')$$), 'PR002', 'but of the bans');

-- Refusals
SELECT is(pg_temp.error_of('SELECT ' || call), error, left(call, 70))
FROM (VALUES
	('presence_kick(''r'')', '22004 argument "user_id" must not be null | The value is NULL. | Pass a value for "user_id".'),
	('presence_kick(NULL, ''u'')', '22004 argument "room" must not be null | The value is NULL. | Pass a value for "room".'),
	('presence_kick('''', ''u'')', '22023 argument "room" must not be empty | The value has 0 characters. | Pass a name of 1 to 255 characters.'),
	('presence_kick(''r'', '''')', '22023 argument "user_id" must not be empty | The value has 0 characters. | Pass a name of 1 to 255 characters.'),
	('presence_kick(''r'', ''u'', '''')',
		'22023 argument "channel_name" must not be empty | The value has 0 characters. | Pass a name of 1 to 255 characters.'),
	('presence_kick(''r'', NULL, repeat(''ä'', 256))',
		'22001 argument "channel_name" is too long | The value has 256 characters. | Pass a name of 1 to 255 characters.'),
	('presence_ban(''r'', NULL)', '22004 argument "user_id" must not be null | The value is NULL. | Pass a value for "user_id".'),
	('presence_ban(''r'', '''')', '22023 argument "user_id" must not be empty | The value has 0 characters. | Pass a name of 1 to 255 characters.'),
	('presence_ban('''', ''u'')', '22023 argument "room" must not be empty | The value has 0 characters. | Pass a name of 1 to 255 characters.'),
	('presence_ban(repeat(''ä'', 256), ''u'')',
		'22001 argument "room" is too long | The value has 256 characters. | Pass a name of 1 to 255 characters.'),
	('presence_ban(''r'', ''u'', NULL)', '22004 argument "until" must not be null | The value is NULL. | Pass a value for "until".'),
	('presence_unban(''r'', NULL)', '22004 argument "user_id" must not be null | The value is NULL. | Pass a value for "user_id".'),
	('presence_unban('''', ''u'')', '22023 argument "room" must not be empty | The value has 0 characters. | Pass a name of 1 to 255 characters.'),
	('presence_unban(''r'', repeat(''ä'', 256))',
		'22001 argument "user_id" is too long | The value has 256 characters. | Pass a name of 1 to 255 characters.')
) AS v (call, error);
SELECT is_empty($$SELECT FROM presence.bans WHERE user_id = 'u'$$, 'a refused ban is not stored');

-- The trigger function works on its own table only.
CREATE TEMP TABLE mine (n int);
CREATE TRIGGER t AFTER DELETE ON mine FOR EACH ROW EXECUTE FUNCTION presence.room_deleted();
INSERT INTO mine VALUES (1);
SELECT is(pg_temp.error_of('DELETE FROM mine'), '39P01 this function serves the trigger of presence.rooms only |  | '
	'Leave the trigger as CREATE EXTENSION presence made it.', 'another table''s trigger is refused');

SELECT finish();
ROLLBACK;
