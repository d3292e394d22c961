-- Proves that presence_add returns whether it made the presence, that of equal names the last one counts where many
-- are added, and that many added at once are what they would be if they were added one by one.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

SELECT is((SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'presence.added'::regclass),
	(SELECT string_agg(attname, ' ' ORDER BY attnum) || ' created' FROM pg_attribute WHERE attrelid = 'presence.member'::regclass),
	'presence.added has the columns of presence.member, and created');
SELECT is((presence_add('made', 'c')).created, true, 'a new presence was created');
SELECT is((presence_add('made', 'c')).created, false, 'a sign of life created none');
SELECT is((presence_add('made', 'c', 'alice', '{"n":1}')).created, false, 'nor did a change');
SELECT presence_remove('made', 'c');
SELECT is((presence_add('made', 'c')).created, true, 'whoever comes back is new');

-- Equal names
SELECT is(presence_add_many('many', ARRAY['a', 'b', 'a', 'c', 'a', 'b'], '{u1,u2,u3,u4,u5,u6}',
	ARRAY['{"n":1}', '{"n":2}', '{"n":3}', '{"n":4}', '{"n":5}', '{"n":6}']::jsonb[]), 3::bigint, 'each channel counts once');
SELECT is((SELECT string_agg(concat_ws(' ', channel_name, user_id, meta), ', ' ORDER BY channel_name) FROM presence_list('many')),
	'a u5 {"n": 5}, b u6 {"n": 6}, c u4 {"n": 4}', 'the last of equal names counts');
SELECT is((SELECT count(*) FROM presence.presences WHERE room = 'many'), 3::bigint, 'one row each');
SELECT is(presence_add_many('lots', array_agg('c' || n % 100 ORDER BY n), array_agg('u' || n ORDER BY n)), 100::bigint, 'among a thousand, too')
FROM generate_series(1, 1000) n;
SELECT is_empty($$SELECT channel_name, user_id FROM presence_list('lots') WHERE user_id <> 'u' || (CASE channel_name WHEN 'c0' THEN 1000
	ELSE 900 + substr(channel_name, 2)::integer END)$$, 'and it is the last of each');
SELECT is(presence_add_many('many', '{a,a}', '{v1,NULL}'), 0::bigint, 'a last one without user');
SELECT is((SELECT user_id FROM presence_list('many') WHERE channel_name = 'a'), 'u5', 'leaves the user as it was');

-- All or nothing
SELECT presence_ban('refusing', 'banned');
SELECT is(pg_temp.state_of($$SELECT presence_add_many('refusing', '{a,b,c}', '{u1,banned,u3}')$$), 'PR002', 'one that is refused');
SELECT is_empty($$SELECT FROM presence.presences WHERE room = 'refusing'$$, 'undoes the call');
SELECT is(pg_temp.state_of($$SELECT presence_add_many('refusing', '{a,b,c}', NULL, ARRAY['{}', '[]', '{}']::jsonb[])$$), '22023', 'so does one that is wrong');
SELECT is_empty($$SELECT FROM presence.presences WHERE room = 'refusing'$$, 'nobody is in');

-- More than one statement adds, in an order that is not that of the names
SELECT is(presence_add_many('halls', array_agg('c' || n % 2500 ORDER BY n DESC), array_agg('u' || n ORDER BY n DESC),
		array_agg(jsonb_build_object('n', n) ORDER BY n DESC)), 2500::bigint, 'thousands, each twice')
FROM generate_series(1, 5000) n;
SELECT is_empty($$SELECT FROM presence_list('halls') WHERE user_id <> 'u' || (meta ->> 'n') OR channel_name <> 'c' || (meta ->> 'n')::integer % 2500
	OR (meta ->> 'n')::integer > 2500$$, 'have user and meta of the last');
SELECT is(presence_add_many('halls', array_agg('c' || n)), 100::bigint, 'some of whom are there') FROM generate_series(2400, 2599) n;

-- Who is present
SELECT presence_add_many('mixed', '{b,d,f,h}', '{bob,dave,frank,NULL}', ARRAY['{"n":1}', '{"n":1}', NULL, NULL]::jsonb[]);
SELECT presence_add_many('elsewhere', '{a,g}');
CREATE TEMP TABLE before AS SELECT p.*, p.ctid AS place FROM presence.presences p WHERE room = 'mixed';
SELECT is(presence_add_many('mixed', '{h,g,f,e,d,c,b,a}', '{hugo,gina,frank,NULL,NULL,carol,bert,alice}',
	ARRAY[NULL, '{"n":7}', NULL, NULL, '{"n":4}', NULL, NULL, '{"n":1}']::jsonb[]), 4::bigint, 'four of eight are new');
SELECT is((SELECT string_agg(concat_ws(' ', channel_name, user_id, meta), ', ' ORDER BY channel_name) FROM presence_list('mixed')),
	'a alice {"n": 1}, b bert {"n": 1}, c carol, d dave {"n": 4}, e, f frank, g gina {"n": 7}, h hugo', 'the others got what was given');
SELECT is((SELECT string_agg(channel_name, ' ' ORDER BY channel_name) FROM before b JOIN presence.presences p USING (room, channel_name, id, joined_at)),
	'b d f h', 'and are the same presences');
SELECT is((SELECT string_agg(channel_name, ' ') FROM before b JOIN presence.presences p USING (room, channel_name) WHERE b.place = p.ctid),
	CASE WHEN pg_temp.preloaded() THEN 'f' END, 'a row that nothing changes is not written, unless it keeps the heartbeat');
SELECT is((SELECT count(*) FROM presence.presences WHERE room = 'mixed' AND channel_name = 'f' AND xmax::text <> '0'),
	CASE WHEN pg_temp.preloaded() THEN 0 ELSE 1 END::bigint, 'nor locked');

-- Who has expired: the old presences go, here and in other rooms.
SELECT presence_add_many('aging', '{a,c,e}', '{old,old,old}'), presence_add_many('old too', '{c,d}');
SELECT pg_temp.pass(40);
SELECT presence_touch('e');
SELECT pg_temp.pass(30);
SELECT is(presence_add_many('aging', '{a,b,c,d,e,f}', '{new,new,new,new,NULL,new}'), 5::bigint, 'the expired are new again');
SELECT is((SELECT string_agg(channel_name || ' ' || user_id, ', ' ORDER BY channel_name) FROM presence_list('aging')),
	'a new, b new, c new, d new, e old, f new', 'and who gave a sign of life is not');
SELECT is_empty($$SELECT FROM presence.presences WHERE room = 'old too'$$, 'they are where they came back to and nowhere else');
SELECT pg_temp.pass(40);
SELECT presence_add_many('aging', '{a,b}', '{new,other}'), presence_touch('f');
SELECT pg_temp.pass(30);
SELECT is((SELECT string_agg(channel_name, ' ' ORDER BY channel_name) FROM presence_list('aging')), 'a b f', 'an add of who is present is a sign of life');

-- Rules of the room
SELECT presence_configure_room('club', NULL, NULL, true);
SELECT count(presence_invite('club', 'u' || n)) FROM generate_series(1, 20) n;
SELECT presence_ban('club', 'u7'), presence_ban(NULL, 'u20'), presence_ban('elsewhere', 'u3');
SELECT is(presence_add_many('club', '{c1,c2,c3}', '{u1,u2,u3}'), 3::bigint, 'the invited enter');
SELECT is(pg_temp.error_of($$SELECT presence_add_many('club', '{c9,c8,c7,c6}', '{u9,x2,x1,u6}')$$),
	'PR004 room is private | room: club; user: x1; limit: none | Call presence_invite() for the user first.', 'of two uninvited the first in order is named');
SELECT is(pg_temp.error_of($$SELECT presence_add_many('club', '{c6,c9}', '{u6,NULL}')$$),
	'PR004 room is private | room: club; user: anonymous; limit: none | Call presence_invite() for the user first.', 'nobody unnamed enters');
SELECT is(pg_temp.error_of($$SELECT presence_add_many('club', '{c6,c7,c8}', '{u20,u7,x1}')$$),
	'PR002 user is banned | room: club; user: u20; limit: none | See presence.bans for the end of the ban and its reason.', 'nor the banned');
SELECT is(presence_count('club'), 3::bigint, 'a refusal keeps all of them out');
SELECT is(pg_temp.state_of($$SELECT presence_add_many('club', '{c1,c2}', '{u1,u7}')$$), 'PR002', 'nor does anybody become a banned user');
SELECT presence_ban('open', 'u1');
SELECT is(pg_temp.state_of($$SELECT presence_add_many('open', '{c1,c2}', '{u2,u1}')$$), 'PR002', 'bans bind in open rooms, too');
SELECT presence_add_many('later', '{c1,c2}', '{u1,u2}');
INSERT INTO presence.bans (room, user_id, until) VALUES ('later', 'u1', 'infinity');
SELECT is(presence_add_many('later', '{c1,c2,c3}', '{u1,u2,u3}'), 1::bigint, 'who is in stays in');
SELECT presence_configure_room('small', 3);
SELECT is(presence_add_many('small', '{c1,c2}'), 2::bigint, 'as many as there are places');
SELECT is(pg_temp.error_of($$SELECT presence_add_many('small', '{c1,c2,c3,c4}', '{NULL,NULL,u3,u4}')$$),
	'PR001 room is full | room: small; user: u4; limit: 3 | Try again when somebody has left, or raise max_members by presence_configure_room().',
	'the first for whom there is none is named');

-- A room with max_members takes many by one statement, as long as it has places for all who may be new.
CREATE TEMP TABLE statements (n serial);
CREATE FUNCTION pg_temp.count_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO statements DEFAULT VALUES;
	RETURN NULL;
END
$$;
CREATE TRIGGER count_statement AFTER INSERT ON presence.presences FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.count_statement();
CREATE FUNCTION pg_temp.statements() RETURNS bigint LANGUAGE sql AS $$
	WITH gone AS (DELETE FROM statements RETURNING 1) SELECT count(*) FROM gone
$$;
SELECT presence_configure_room('capped', 12);
SELECT is(presence_add_many('capped', '{a1,a2,a3,a4,a5}', '{u1,u2,u3,u4,u5}'), 5::bigint, 'five of twelve');
SELECT is(pg_temp.statements(), 1::bigint, 'come by one statement');
SELECT is(presence_add_many('capped', '{a1,a2,a3,a4,a5,b1}', '{v1,v2,v3,v4,v5,w1}'), 1::bigint, 'one comes, five become others');
SELECT is(pg_temp.statements(), 1::bigint, 'by one statement');
SELECT is(pg_temp.error_of($$SELECT presence_add_many('capped', '{b1,q1,q2,q3,q4,q5,q6,q7,q8}', '{w1,x1,x2,x3,x4,x5,x6,x7,x8}')$$),
	'PR001 room is full | room: capped; user: x7; limit: 12 | Try again when somebody has left, or raise max_members by presence_configure_room().',
	'if there are not enough places the first without one is named');
SELECT is(presence_count('capped'), 6::bigint, 'and nobody is in');
SELECT pg_temp.statements();
SELECT is(presence_add_many('capped', '{a1,b1,q1,q2,q3,q4,q5,q6}'), 6::bigint, 'the places that were not needed are free');
SELECT is(pg_temp.statements(), 1::bigint, 'and who is present takes none');
SELECT is(presence_add_many('capped', '{a1,b1,q1,q2}', '{y1,w1,y3,y4}'), 0::bigint, 'in a full room users change');
SELECT is(pg_temp.state_of($$SELECT presence_add('capped', 'd1')$$), 'PR001', 'nobody else enters');
SELECT is(presence_leave_all_many('{q1,q2,q3,q4}'), 4::bigint, 'when four leave');
SAVEPOINT places;
SELECT is(presence_add_many('capped', '{d1,d2,d3,d4}'), 4::bigint, 'four come');
ROLLBACK TO places;
SELECT is(presence_add_many('capped', '{d5,d6,d7}'), 3::bigint, 'if they are rolled back, others do');
SELECT is(pg_temp.state_of($$SELECT presence_add_many('capped', '{e1,e2}')$$), 'PR001', 'but two do not get the last place');
SELECT is(presence_add_many('capped', '{e1}'), 1::bigint, 'which one gets');
SELECT pg_temp.statements();
SELECT pg_temp.pass(70);
SELECT is(presence_add_many('capped', array_agg('f' || n)), 12::bigint, 'when all have expired as many come as there are places') FROM generate_series(1, 12) n;
SELECT is(pg_temp.state_of($$SELECT presence_add_many('capped', '{f1,g1}')$$), 'PR001', 'and no more');
SELECT pg_temp.pass(70);
SELECT is(presence_add_many('capped', array_agg('f' || n)), 12::bigint, 'when these have expired they come again') FROM generate_series(1, 12) n;
SELECT presence_leave_all_many(array_agg('f' || n)) FROM generate_series(1, 12) n;
SELECT is(presence_add_many('capped', array_agg('h' || n)), 10::bigint, 'ten come') FROM generate_series(1, 10) n;
CREATE FUNCTION pg_temp.bring() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.channel_name = 'h11' THEN
		PERFORM presence_add('capped', 'brought');
	END IF;
	RETURN NULL;
END
$$;
CREATE TRIGGER bring AFTER INSERT ON presence.presences FOR EACH ROW EXECUTE FUNCTION pg_temp.bring();
SELECT is(pg_temp.state_of($$SELECT presence_add_many('capped', '{h11,h12}')$$), 'PR001', 'a trigger gets no place that is taken');
SELECT presence_remove('capped', 'h1');
SELECT is(presence_add_many('capped', '{h11,h12}'), 2::bigint, 'a free one it does');
SELECT is(presence_count('capped'), 12::bigint, 'the room is full');
DROP TRIGGER bring ON presence.presences;
DROP TRIGGER count_statement ON presence.presences;

-- Errors that are caught
SELECT is((SELECT string_agg(pg_temp.state_of(format($q$SELECT presence_add_many(%L, '{a,b,c,d}', '{u2,u3,u4,u1}')$q$, 'open')), ' ')
	FROM generate_series(1, 3)), 'PR002 PR002 PR002', 'a call that fails can be repeated');
SELECT is(presence_add_many('open', '{a,b,c}', '{u2,u3,u4}'), 3::bigint, 'and then succeeds without who was refused');
SELECT count(*) AS rooms FROM presence.presences WHERE channel_name IN ('a', 'b', 'c') \gset
SELECT is(presence_leave_all_many('{a,b,c}'), :'rooms'::bigint, 'all leave all rooms');
SELECT is_empty($$SELECT FROM presence.presences WHERE channel_name IN ('a', 'b', 'c')$$, 'and are gone');

-- Triggers of users
CREATE FUNCTION pg_temp.rewrite() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.user_id := upper(NEW.user_id);
	RETURN NEW;
END
$$;
CREATE TRIGGER rewrite BEFORE INSERT ON presence.presences FOR EACH ROW EXECUTE FUNCTION pg_temp.rewrite();
SELECT is(presence_add_many('rewritten', '{a,b}', '{u2,u3}'), 2::bigint, 'a trigger changes the rows');
SELECT is((SELECT string_agg(user_id, ' ' ORDER BY channel_name) FROM presence_list('rewritten')), 'U2 U3', 'as it likes');
DROP TRIGGER rewrite ON presence.presences;
CREATE FUNCTION pg_temp.meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.room = 'meddled' AND NEW.channel_name = 'ma' THEN
		PERFORM presence_remove('meddled', 'mc'), presence_add('meddled', 'mb', 'again'), presence_add('meddled', 'mz', 'last');
		DELETE FROM presence.presences WHERE room = 'meddled' AND channel_name = 'md';
		INSERT INTO presence.presences (room, channel_name, user_id) VALUES ('meddled', 'md', 'other');
	END IF;
	RETURN NULL;
END
$$;
CREATE TRIGGER meddle AFTER INSERT ON presence.presences FOR EACH ROW EXECUTE FUNCTION pg_temp.meddle();
SELECT is(presence_add_many('meddled', '{ma,mb,mc,md,me}', '{u2,u3,u4,u5,u6}'), 5::bigint, 'a trigger adds and removes others of the same call');
SELECT is((SELECT string_agg(channel_name || ' ' || user_id, ', ' ORDER BY channel_name) FROM presence_list('meddled')),
	'ma u2, mb again, md other, me u6, mz last', 'and has the last word');
DROP TRIGGER meddle ON presence.presences;
SELECT is(presence_leave_all_many('{ma,mb,mc,md,me,mz}'), 5::bigint, 'they leave');

-- Other constraints and privileges
CREATE UNIQUE INDEX one_each ON presence.presences (user_id) WHERE room = 'unique';
SELECT is(pg_temp.state_of($$SELECT presence_add_many('unique', '{a,b}', '{u2,u2}')$$), '23505', 'a constraint of the application''s own holds');
CREATE ROLE store_writer;
GRANT USAGE ON SCHEMA presence TO store_writer;
GRANT SELECT, INSERT (name) ON presence.rooms TO store_writer;
GRANT SELECT, INSERT (room, channel_name, user_id, meta, joined_at, last_seen), UPDATE (last_seen) ON presence.presences TO store_writer;
GRANT EXECUTE ON FUNCTION presence_add_many TO store_writer;
SET LOCAL ROLE store_writer;
SELECT is(presence_add_many('written', '{a,b}', '{u2,u3}'), 2::bigint, 'who may not update users adds');
SELECT is(presence_add_many('written', '{a,b,c}', '{u2,u3,u4}'), 1::bigint, 'and adds again');
SELECT is(pg_temp.state_of($$SELECT presence_add_many('written', '{a,b,c}', '{u2,u4,u5}')$$), '42501', 'but may not change any');
RESET ROLE;

SELECT finish();
ROLLBACK;
