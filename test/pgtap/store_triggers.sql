-- Proves that a row which a user's own trigger suppresses is reported as such, and that presence_update returns true
-- only where the row contains what was requested.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

CREATE FUNCTION pg_temp.suppress() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;

SELECT presence_add('suppress', 'there', 'alice', '{"n":1}');

-- INSERT
CREATE TRIGGER a_suppressor BEFORE INSERT ON presence.presences FOR EACH ROW EXECUTE FUNCTION pg_temp.suppress();
SELECT is(pg_temp.error_of($$SELECT presence_add('suppress', 'new')$$),
	'09000 could not add channel "new" to room "suppress" | Trigger "a_suppressor" of presence.presences, or another one, suppressed the insertion of its row. | Have the trigger return the row, or raise an error that says why it refuses it.',
	'an add whose row a trigger suppresses says so');
SELECT is(pg_temp.state_of($$SELECT presence_add_many('suppress', '{there,new}')$$), '09000', 'as one of many, too');
SELECT is((presence_add('suppress', 'there', 'alice', '{"n":2}')).meta, '{"n":2}', 'one that is in is changed all the same');
DROP TRIGGER a_suppressor ON presence.presences;
SELECT is((presence_add('suppress', 'new')).created, true, 'without the trigger it comes in');

-- UPDATE
CREATE TRIGGER a_suppressor BEFORE UPDATE ON presence.presences FOR EACH ROW EXECUTE FUNCTION pg_temp.suppress();
SELECT is(pg_temp.error_of($$SELECT presence_add('suppress', 'there', 'bob')$$),
	'09000 could not add channel "there" to room "suppress" | Trigger "a_suppressor" of presence.presences, or another one, suppressed the update of its row. | Have the trigger return the row, or raise an error that says why it refuses it.',
	'an add that changes a presence says what keeps it from that');
SELECT is((presence_add('suppress', 'there', 'alice')).created, false, 'one that changes nothing is a sign of life');
SELECT is(presence_update('suppress', 'there', '{"n":3}'), false, 'an update that is suppressed answers false');
SELECT is(presence_update('suppress', 'there', '{"n":2}'), true, 'one that changes nothing true');
SELECT is(presence_update('suppress', 'there', '{"none":null}'), true, 'nor does one of a key that is not there');
SELECT is(presence_update('suppress', 'nobody', '{"n":2}'), false, 'of a presence that is not there: false');
SELECT is((SELECT meta FROM presence_list('suppress') WHERE channel_name = 'there'), '{"n":2}', 'nothing was changed');
DROP TRIGGER a_suppressor ON presence.presences;
SELECT is(presence_update('suppress', 'there', '{"n":3}'), true, 'without the trigger it is');

-- Rooms
CREATE TRIGGER a_suppressor BEFORE INSERT ON presence.rooms FOR EACH ROW EXECUTE FUNCTION pg_temp.suppress();
SELECT is(pg_temp.error_of($$SELECT presence_add('no room', 'c')$$),
	'09000 could not make room "no room" | Trigger "a_suppressor" of presence.rooms, or another one, suppressed its row. | Have the trigger return the row, or raise an error that says why it refuses it.',
	'nobody enters a room that is not there');
SELECT is((presence_add('suppress', 'c')).created, true, 'only one that is');
DROP TRIGGER a_suppressor ON presence.rooms;

-- The extension's own trigger is disabled.
ALTER TABLE presence.presences DISABLE TRIGGER presence_capture_row;
SELECT is((SELECT row(room, channel_name, user_id, meta, created)::text FROM presence_add('silent', 'a', 'alice', '{"n":1}')),
	'(silent,a,alice,"{""n"": 1}",t)', 'an add without it returns its row');
SELECT is(presence_add_many('silent', '{a,b,c}', '{alice,bob,NULL}'), 2::bigint, 'and many are counted');
SELECT is((SELECT string_agg(concat_ws(' ', channel_name, user_id), ', ' ORDER BY channel_name) FROM presence.presences WHERE room = 'silent'),
	'a alice, b bob, c', 'they are there');
DELETE FROM presence.presences WHERE room = 'silent';
ALTER TABLE presence.presences ENABLE ALWAYS TRIGGER presence_capture_row;

-- Policies: the presence of another user is visible, and not changed.
CREATE ROLE store_member;
SELECT presence_grant('store_member', 'member');
ALTER TABLE presence.presences ENABLE ROW LEVEL SECURITY;
CREATE POLICY see ON presence.presences FOR SELECT TO store_member USING (true);
CREATE POLICY join_in ON presence.presences FOR INSERT TO store_member WITH CHECK (user_id = 'member');
CREATE POLICY change ON presence.presences FOR UPDATE TO store_member USING (user_id = 'member');
SELECT presence_add('theirs', 'shared', 'alice', '{"n":1}');
SELECT presence_add('theirs', 'mine', 'member', '{"n":1}');
SELECT presence_add('ours', 'shared', 'member', '{"n":1}');
SET ROLE store_member;
SELECT is(presence_update('suppress', 'there', '{"n":4}'), false, 'another one''s presence is not updated');
SELECT is(presence_update('theirs', 'shared', '{"n":4}'), false, 'nor where the channel is one''s own in another room');
SELECT is(presence_update('theirs', 'shared', '{"n":1}'), false, 'nor where there is nothing to change');
SELECT is(presence_update('ours', 'shared', '{"n":1}'), true, 'one''s own is, with nothing to change');
SELECT is(presence_update('ours', 'shared', '{"n":4}'), true, 'and with something');
SELECT is(presence_touch('there'), false, 'nor is another one''s touched');
SELECT presence.note_touchable('there', n) FROM generate_series(1, 100) n;
SELECT is(presence_touch('there'), false, 'whatever was noted before');
SELECT is(pg_temp.state_of($$SELECT presence_add('theirs', 'shared', 'member', '{"n":5}')$$), '42501', 'nor replaced');
SELECT is(pg_temp.state_of($$SELECT presence_add('theirs', 'shared')$$), '42501', 'nor entered for again');
RESET ROLE;
SELECT is((SELECT string_agg(room || channel_name || meta, ' ' ORDER BY room, channel_name) FROM presence.presences WHERE room IN ('theirs', 'ours')),
	'oursshared{"n": 4} theirsmine{"n": 1} theirsshared{"n": 1}', 'that is what the table says');

-- A policy that calls functions, which check policies themselves and fail: each uses its own result.
CREATE FUNCTION public.store_policy(channel text, owner text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF channel = 'there' THEN
		BEGIN
			PERFORM presence_touch('mine');
			PERFORM presence_update('theirs', 'mine', '{"n":1}');
			RAISE division_by_zero;
		EXCEPTION WHEN division_by_zero THEN
			NULL;
		END;
	END IF;
	RETURN owner = 'member';
END
$$;
DROP POLICY change ON presence.presences;
CREATE POLICY change ON presence.presences FOR UPDATE TO store_member USING (public.store_policy(channel_name, user_id));
SET ROLE store_member;
SELECT is(presence_touch('there'), false, 'a policy that touches something else makes nothing touchable');
SELECT is(presence_touch('mine'), true, 'what is one''s own is');
RESET ROLE;

SELECT finish();
ROLLBACK;
