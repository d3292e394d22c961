-- Proves which users may enter a room: its settings, its limit, its invitations, and the error of a refusal.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

-- Settings
SELECT is(r::text, format('(hall,,,f,f,,"%s")', r.created_at), 'configure makes a room, without settings') FROM presence_configure_room('hall') r;
SELECT created_at AS created FROM presence.rooms WHERE name = 'hall' \gset
CREATE FUNCTION pg_temp.short(r presence.room) RETURNS text LANGUAGE sql AS
	$$ SELECT concat_ws(' ', r.name, coalesce(r.max_members::text, '-'), r.private, r.persistent, coalesce(r.meta::text, '-')) $$;
SELECT is(pg_temp.short(presence_configure_room('hall', '3')), 'hall 3 f f -', 'max_members');
SELECT is(pg_temp.short(presence_configure_room('hall', NULL, 'true')), 'hall 3 f t -', 'persistent; NULL leaves what is set');
SELECT is(pg_temp.short(presence_configure_room('hall', NULL, NULL, 'true')), 'hall 3 t t -', 'private');
SELECT is(pg_temp.short(presence_configure_room('hall', NULL, NULL, NULL, '{"topic": "x"}')), 'hall 3 t t {"topic": "x"}', 'meta');
SELECT is(pg_temp.short(presence_configure_room('hall')), 'hall 3 t t {"topic": "x"}', 'nothing to set');
SELECT is(pg_temp.short(presence_configure_room('hall', 0, false, false, '{}')), 'hall - f f {}', '0 takes the limit away, false and {} the others');
SELECT is((SELECT row(name, max_members, private, persistent, meta, created_at)::text FROM presence.rooms WHERE name = 'hall'),
	row('hall', NULL, false, false, '{}'::jsonb, :'created'::timestamptz)::text, 'which is stored, in the room as it was made');
SELECT is(pg_temp.short(presence_configure_room('new', 0, NULL, NULL, NULL)), 'new - f f -', '0 in a new room');
SELECT is(pg_temp.short(presence_configure_room(repeat('ä', 255), 5, true, true, '{"a": 1}')), repeat('ä', 255) || ' 5 t t {"a": 1}', 'all at once');

SELECT is(string_agg(coalesce((presence_configure_room('told', announce => a)).announce, '-'), ' ' ORDER BY n), 'counts counts none all - -',
	'announce: NULL leaves it, default takes it away') FROM unnest('{counts,NULL,none,all,default,NULL}'::text[]) WITH ORDINALITY v (a, n);
SELECT is((presence_configure_room('told anew', announce => 'none')).announce, 'none', 'announce of a new room');
SELECT is((presence_configure_room('told too', announce => 'default')).announce, NULL, 'or none');
SELECT is((SELECT announce FROM presence.room_list WHERE room = 'told anew'), 'none', 'announce in the list of rooms');

SELECT is(pg_temp.error_of('SELECT ' || call), error, left(call, 70))
FROM (VALUES
	('presence_configure_room(''bad'', announce => ''some'')',
		'22023 argument "announce" must be all, counts, none or default | The value has 4 characters. | all announces each change, counts how many there are, none nothing; default is all within presence.announce_max.'),
	('presence_configure_room(''bad'', announce => '''')',
		'22023 argument "announce" must be all, counts, none or default | The value has 0 characters. | all announces each change, counts how many there are, none nothing; default is all within presence.announce_max.'),
	('presence_configure_room(NULL)', '22004 argument "room" must not be null | The value is NULL. | Pass a value for "room".'),
	('presence_configure_room('''')', '22023 argument "room" must not be empty | The value has 0 characters. | Pass a name of 1 to 255 characters.'),
	('presence_configure_room(repeat(''ä'', 256))',
		'22001 argument "room" is too long | The value has 256 characters. | Pass a name of 1 to 255 characters.'),
	('presence_configure_room(''bad'', -1)',
		'22023 argument "max_members" must not be negative | The value of type integer is -1. | Pass the most connections to admit, or 0 for no limit.'),
	('presence_configure_room(''bad'', NULL, NULL, NULL, ''[1]'')',
		'22023 argument "meta" must be a JSON object | The value is of JSON type array. | Pass an object, such as {"name": "Alice"}.'),
	('presence_invite(NULL, ''u'')', '22004 argument "room" must not be null | The value is NULL. | Pass a value for "room".'),
	('presence_invite(''r'', NULL)', '22004 argument "user_id" must not be null | The value is NULL. | Pass a value for "user_id".'),
	('presence_invite(''r'', '''')', '22023 argument "user_id" must not be empty | The value has 0 characters. | Pass a name of 1 to 255 characters.'),
	('presence_invite(repeat(''ä'', 256), ''u'')',
		'22001 argument "room" is too long | The value has 256 characters. | Pass a name of 1 to 255 characters.'),
	('presence_uninvite(NULL, ''u'')', '22004 argument "room" must not be null | The value is NULL. | Pass a value for "room".'),
	('presence_uninvite('''', ''u'')', '22023 argument "room" must not be empty | The value has 0 characters. | Pass a name of 1 to 255 characters.'),
	('presence_uninvite(''r'', NULL)', '22004 argument "user_id" must not be null | The value is NULL. | Pass a value for "user_id".'),
	('presence_uninvite(''r'', repeat(''ä'', 256))',
		'22001 argument "user_id" is too long | The value has 256 characters. | Pass a name of 1 to 255 characters.')
) AS v (call, error);
SELECT is_empty($$SELECT FROM presence.rooms WHERE name = 'bad'$$, 'a refused call makes no room');

-- A full room
CREATE FUNCTION pg_temp.full(room text, who text, most int) RETURNS text LANGUAGE sql AS $$
	SELECT format('PR001 room is full | room: %s; user: %s; limit: %s | '
		'Try again when somebody has left, or raise max_members by presence_configure_room().', room, who, most) $$;
SELECT presence_configure_room('50% %s', 3);
SELECT is(presence_add_many('50% %s', '{c1,c2,c3}', '{alice,bob,NULL}'), 3::bigint, 'as many as a room admits');
SELECT is(pg_temp.error_of($$SELECT presence_add('50% %s', 'c4', 'carol')$$), pg_temp.full('50% %s', 'carol', 3), 'one more is refused');
SELECT is(pg_temp.error_of($$SELECT presence_add('50% %s', 'c4')$$), pg_temp.full('50% %s', 'anonymous', 3), 'also an anonymous one');
SELECT is(pg_temp.error_of($$SELECT presence_add('50% %s', 'c4', 'alice')$$), pg_temp.full('50% %s', 'alice', 3),
	'also another tab of somebody who is in: connections count');
SELECT is(pg_temp.state_of($$INSERT INTO presence.presences (room, channel_name) VALUES ('50% %s', 'sql')$$), 'no', 'plain SQL asks nobody');
SELECT presence_remove('50% %s', 'sql');
SELECT is((SELECT row(id, user_id, meta)::text FROM presence_add('50% %s', 'c1', 'alice', '{"n": 1}')),
	(SELECT row(id, 'alice', '{"n": 1}'::jsonb)::text FROM presence_list('50% %s') WHERE channel_name = 'c1'),
	'who is in may add again, also with another meta');
SELECT is((SELECT user_id FROM presence_add('50% %s', 'c3', 'carol')), 'carol', 'or log in');
SELECT is(presence_add_many('50% %s', '{c1,c2,c3}'), 0::bigint, 'or all of them');
SELECT is(presence_remove('50% %s', 'c2'), true, 'one leaves');
SELECT is(pg_temp.state_of($$SELECT presence_add_many('50% %s', '{d1,d2}')$$), 'PR001', 'there is no place for two');
SELECT is_empty($$SELECT FROM presence_list('50% %s') WHERE channel_name LIKE 'd%'$$, 'and neither got one');
SELECT is((SELECT channel_name FROM presence_add('50% %s', 'd1')), 'd1', 'there is for one');
SELECT presence_configure_room('50% %s', 1);
SELECT is(presence_count('50% %s'), 3::bigint, 'a lower limit sends nobody away');
SELECT is(presence_add_many('50% %s', '{c1,d1}'), 0::bigint, 'who is in may still add again');
SELECT presence_remove('50% %s', 'd1');
SELECT is(pg_temp.error_of($$SELECT presence_add('50% %s', 'd1')$$), pg_temp.full('50% %s', 'anonymous', 1), 'nobody else may, not even who was there');
SELECT presence_configure_room('50% %s', 0);
SELECT is(presence_add_many('50% %s', ARRAY(SELECT 'm' || i FROM generate_series(1, 100) i)), 100::bigint, 'without a limit everybody may');

-- A refused add is not a heartbeat, and writes nothing.
SELECT presence_configure_room('full', 1);
SELECT presence_add('full', 'f1'), presence_add('other', 'f2');
SELECT last_seen AS seen FROM presence_list('other') \gset
SELECT pg_temp.pass(10);
SELECT is(pg_temp.state_of($$SELECT presence_add('full', 'f2')$$), 'PR001', 'a channel that is elsewhere');
SELECT ok((SELECT last_seen FROM presence_list('other')) - :'seen' < interval '1 second', 'a refusal is no sign of life');
SELECT results_eq($$SELECT presence_rooms('f2')$$, ARRAY['other'], 'and lets nobody in');

-- Expired presences take no place.
SELECT presence_configure_room('aging', 2);
SELECT presence_add_many('aging', '{old1,old2}');
SELECT pg_temp.pass(40);
SELECT presence_touch('old2');
SELECT pg_temp.pass(30);
SELECT is((SELECT count(*) FROM presence.presences WHERE room = 'aging'), 2::bigint, 'two rows');
SELECT is((SELECT channel_name FROM presence_add('aging', 'young')), 'young', 'one of which has expired, so there is a place');
SELECT is(pg_temp.state_of($$SELECT presence_add('aging', 'old1')$$), 'PR001', 'which the expired one has lost');
SELECT is((SELECT channel_name FROM presence_add('aging', 'old2')), 'old2', 'not so who gave a sign of life');

-- Private rooms
CREATE FUNCTION pg_temp.private(room text, who text) RETURNS text LANGUAGE sql AS $$
	SELECT format('PR004 room is private | room: %s; user: %s; limit: none | Call presence_invite() for the user first.', room, who) $$;
SELECT presence_add('club', 'i1', 'insider'), presence_add('club', 'i2');
SELECT presence_configure_room('club', NULL, NULL, true);
SELECT is(presence_add_many('club', '{i1,i2}'), 0::bigint, 'who is in when a room becomes private stays in');
SELECT is(pg_temp.error_of($$SELECT presence_add('club', 'a1', 'alice')$$), pg_temp.private('club', 'alice'), 'nobody enters uninvited');
SELECT is(pg_temp.error_of($$SELECT presence_add('club', 'i3', 'insider')$$), pg_temp.private('club', 'insider'), 'not with a new connection either');
SELECT is(pg_temp.error_of($$SELECT presence_add('club', 'x')$$), pg_temp.private('club', 'anonymous'), 'nor does anybody unnamed');
SELECT is(pg_temp.error_of($$SELECT presence_add('club', 'i2', 'mallory')$$), pg_temp.private('club', 'mallory'),
	'nor on a connection that is in as somebody else');
SELECT is((SELECT user_id FROM presence_list('club') WHERE channel_name = 'i2'), NULL, 'which stays what it was');
SELECT is(presence_invite('club', 'alice'), true, 'an invitation');
SELECT is(presence_invite('club', 'alice'), false, 'once');
SELECT is((SELECT user_id FROM presence_add('club', 'a1', 'alice')), 'alice', 'lets the user in');
SELECT is((SELECT user_id FROM presence_add('club', 'i2', 'alice')), 'alice', 'on any connection');
SELECT is(pg_temp.state_of($$SELECT presence_add('club', 'b1', 'alicea')$$), 'PR004', 'that user alone');
SELECT is(presence_uninvite('club', 'bob'), false, 'there was no invitation to take back');
SELECT is(presence_uninvite('club', 'alice'), true, 'an invitation taken back');
SELECT is(presence_uninvite('club', 'alice'), false, 'once');
SELECT is((SELECT user_id FROM presence_add('club', 'a1', 'alice', '{}')), 'alice', 'sends nobody away');
SELECT is(pg_temp.state_of($$SELECT presence_add('club', 'a2', 'alice')$$), 'PR004', 'but lets nobody in any more');
SELECT is(presence_invite('secret', 'alice'), true, 'an invitation may come before the room');
SELECT is_empty($$SELECT FROM presence.rooms WHERE name = 'secret'$$, 'which it does not make');
SELECT presence_configure_room('secret', NULL, NULL, true);
SELECT lives_ok($$SELECT presence_add('secret', 'a1', 'alice')$$, 'and counts when it is there');
SELECT presence_configure_room('club', NULL, NULL, false);
SELECT lives_ok($$SELECT presence_add('club', 'x')$$, 'a room that is private no more is open to all');

-- Of several reasons the one that does not end by waiting is reported.
SELECT presence_configure_room('strict', 1, NULL, true), presence_invite('strict', 'alice'), presence_invite('strict', 'bob'), presence_ban('strict', 'bob');
SELECT presence_add('strict', 'a1', 'alice');
SELECT is(pg_temp.state_of($$SELECT presence_add('strict', 'b1', 'bob')$$), 'PR002', 'banned from a full room');
SELECT is(pg_temp.state_of($$SELECT presence_add('strict', 'c1', 'carol')$$), 'PR004', 'not invited to it');
SELECT is(pg_temp.state_of($$SELECT presence_add('strict', 'a2', 'alice')$$), 'PR001', 'invited, but it is full');

-- What prune_rooms removes
DELETE FROM presence.presences;
DELETE FROM presence.rooms;
SELECT presence_configure_room('kept private', NULL, NULL, true), presence_configure_room('kept persistent', NULL, true),
	presence_configure_room('kept silent', announce => 'none'),
	presence_configure_room('plain'), presence_configure_room('capped', 5), presence_add('used', 'c');
SELECT is(prune_rooms(), 2::bigint, 'empty rooms go');
SELECT results_eq($$SELECT name FROM presence.rooms ORDER BY name$$, ARRAY['kept persistent', 'kept private', 'kept silent', 'used'] COLLATE "C",
	'but not private ones, which would be open to all when they come back, nor silent ones, which would be heard, nor persistent ones');

-- Row-level security: the limit counts all presences, not those that the caller sees.
CREATE ROLE presence_test_rls;
SELECT presence_grant('presence_test_rls');
SELECT presence_configure_room('full', 2), presence_configure_room('club', NULL, NULL, true), presence_invite('club', 'alice');
SELECT presence_add('full', 'f1', 'alice'), presence_add('full', 'f2', 'bob'), presence_ban('open', 'bob');
ALTER TABLE presence.presences ENABLE ROW LEVEL SECURITY;
ALTER TABLE presence.bans ENABLE ROW LEVEL SECURITY;
ALTER TABLE presence.invitations ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON presence.presences USING (user_id = current_setting('app.user_id', true));
SET LOCAL ROLE presence_test_rls;
SET LOCAL app.user_id = 'carol';
SELECT is(presence_count('full'), 0::bigint, 'carol sees nobody');
SELECT is(pg_temp.state_of($$SELECT presence_add('full', 'c1', 'carol')$$), 'PR001', 'and yet finds the room full');
SET LOCAL app.user_id = 'bob';
SELECT is(pg_temp.state_of($$SELECT presence_add('open', 'b1', 'bob')$$), 'PR002', 'bans count that nobody may see');
SET LOCAL app.user_id = 'alice';
SELECT is((SELECT user_id FROM presence_add('club', 'a1', 'alice')), 'alice', 'and invitations');
SELECT is(current_user::text, 'presence_test_rls', 'the caller stays who it was');

SELECT finish();
ROLLBACK;
