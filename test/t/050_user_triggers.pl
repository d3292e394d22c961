# Proves: a user's own triggers on the tables of the extension may call its
# functions and catch their errors without harm to the server or the session.
use strict;
use warnings FATAL => 'all';

use PresenceTest;
use Test::More;

# No presence expires, however slow the machine.
my $node = new_node('user_triggers', conf => "presence.max_age = '1h'");

# 1. A trigger calls presence_add on a full room and catches the error, within
# the statement of another presence_add. More memory contexts are deleted after
# the one in which the failed call was made than are kept for reuse, so that
# later allocations overwrite it.
$node->safe_psql(
	'postgres', q{
	SELECT presence_configure_room('full', 1);
	SELECT presence_add('full', 'holder');
	CREATE FUNCTION try_deep(depth integer, channel text) RETURNS integer LANGUAGE plpgsql AS $$
	DECLARE
		result integer;
	BEGIN
		IF depth = 0 THEN
			PERFORM presence_add('full', channel, channel, '{"a": 1}');
		ELSE
			SELECT try_deep(depth - 1, channel) + count(*) INTO result FROM (VALUES (1)) v;
		END IF;
		RETURN result;
	EXCEPTION WHEN OTHERS THEN
		RETURN depth;
	END
	$$;
	CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$
	DECLARE
		big text[];
	BEGIN
		IF NEW.room <> 'full' THEN
			PERFORM try_deep(100, NEW.channel_name);
			big := array_agg(repeat('x', n)) FROM generate_series(1, 2000) n;
		END IF;
		RETURN NEW;
	END
	$$;
	CREATE TRIGGER follow AFTER INSERT OR UPDATE ON presence.presences
		FOR EACH ROW EXECUTE FUNCTION follow();
});

# What a psql session prints, even if a crash ends it.
sub answer_of
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql);

	return $rc == 0 ? $out : $err;
}

is(answer_of(q{
	SELECT count((presence_add('lobby', 'c' || n, 'u' || n, jsonb_build_object('text', repeat('x', 500)))).meta)
	FROM generate_series(1, 20) n
}), 20, 'an add whose trigger catches the error of another add returns its row');
is(answer_of(q{
	SELECT presence_add_many('many', array_agg('m' || n), array_agg('u' || n))
	FROM generate_series(1, 20) n
}), 20, 'so do many');
is(answer_of(q{
	SELECT count((presence_add('lobby', 'c' || n, 'v' || n, jsonb_build_object('text', repeat('y', 500)))).meta)
	FROM generate_series(1, 20) n
}), 20, 'and adds that replace what is there');
is(answer_of(q{
	SELECT jsonb_array_length(presence_snapshot('lobby') -> 'members') FROM presence_add('lobby', 'one more', 'w')
}), 21, 'and a snapshot afterwards');
unlike(log_slice($node), qr/terminated by signal|PANIC|TRAP/, 'and no process crashes');
$node->safe_psql('postgres', 'DROP TRIGGER follow ON presence.presences');

# 2. A trigger on each table calls functions that fail in each layer, and
# catches the errors. The session's user, privileges and settings stay as they
# were; the announced events match what happened.
$node->safe_psql(
	'postgres', q{
	SELECT presence_configure_room('private', private => true);
	SELECT presence_ban(NULL, 'banned');
	ALTER SYSTEM SET presence.join_rate = 100;
	ALTER SYSTEM SET presence.keep_visits = '1d';
	SELECT pg_reload_conf();
	CREATE ROLE member;
	SELECT presence_grant('member', 'admin');

	-- Everything that is of the moment.
	CREATE FUNCTION public.moment() RETURNS text LANGUAGE sql AS $$
		SELECT concat_ws(' ', session_user, current_user, has_table_privilege('pg_authid', 'SELECT'),
			string_agg(name || '=' || setting, ' ' ORDER BY name))
		FROM pg_settings WHERE name ~ '^enable_|timeout$|^row_security$' $$;
	CREATE TABLE public.caught (fired text, tried text, state text);
	CREATE TABLE changed (fired text, before text, after text);
	GRANT ALL ON caught, changed TO member;

	CREATE FUNCTION public.fail(fired text) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		query text;
		before text := public.moment();
		state text;
	BEGIN
		FOREACH query IN ARRAY ARRAY[
			$q$SELECT public.presence_add(NULL, 'c')$q$,
			$q$SELECT public.presence_add('full', 'nobody', 'nobody')$q$,
			$q$SELECT public.presence_add('private', 'nobody', 'nobody')$q$,
			$q$SELECT public.presence_add('lobby', 'nobody', 'banned')$q$,
			$q$SELECT public.presence_add_many('private', '{n1,n2}', '{x,y}')$q$,
			$q$SELECT public.presence_add('refused', 'nobody')$q$,
			$q$SELECT public.presence_update('refused', 'there', '{"n":1}')$q$,
			$q$SELECT public.presence_remove('refused', 'there')$q$,
			$q$SELECT public.presence_leave_all('there')$q$,
			$q$SELECT public.presence_kick('refused', 'there')$q$,
			$q$SELECT public.prune_presences(-1)$q$,
			$q$SELECT public.presence_broadcast('lobby', 'e', to_jsonb(repeat('x', 9000)))$q$] LOOP
			BEGIN
				EXECUTE query;
				state := 'none';
			EXCEPTION WHEN OTHERS THEN
				state := SQLSTATE;
			END;
			INSERT INTO public.caught VALUES (fired, query, state);
			IF public.moment() <> before THEN
				INSERT INTO public.changed VALUES (fired || ': ' || query, before, public.moment());
			END IF;
		END LOOP;
	END
	$$;
	CREATE FUNCTION public.meddle() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		-- Rows of this room refuse everything, and those made below stay out of it.
		IF current_setting('test.meddling', true) = 'on' THEN
			IF TG_TABLE_NAME = 'presences' AND coalesce(NEW.room, OLD.room) = 'refused' THEN
				RAISE EXCEPTION 'refused';
			END IF;
			RETURN coalesce(NEW, OLD);
		END IF;
		PERFORM set_config('test.meddling', 'on', true);
		PERFORM public.fail(TG_WHEN || ' ' || TG_OP || ' ' || TG_TABLE_NAME);
		PERFORM set_config('test.meddling', 'off', true);
		RETURN coalesce(NEW, OLD);
	END
	$$;
	SELECT presence_add('refused', 'there', 'there');
	DO $$
	DECLARE
		name text;
		moment text;
	BEGIN
		FOREACH name IN ARRAY '{rooms,presences,people,bans,invitations,user_last_seen,admissions,visits}'::text[] LOOP
			FOREACH moment IN ARRAY '{BEFORE,AFTER}'::text[] LOOP
				EXECUTE format('CREATE TRIGGER meddle_%1$s %1$s INSERT OR UPDATE OR DELETE ON presence.%2$I
					FOR EACH ROW EXECUTE FUNCTION meddle()', moment, name);
			END LOOP;
		END LOOP;
	END
	$$;
});
my $listener = listen_to($node);

foreach my $role (qw(postgres member))
{
	is($node->safe_psql(
			'postgres', qq{
		SET ROLE $role;
		SELECT created FROM presence_add('lobby-$role', '$role-1', 'alice', '{"n":1}');
		SELECT presence_add_many('lobby-$role', '{$role-2,$role-3,$role-4}', '{bob,carol,dave}');
		SELECT (presence_add('lobby-$role', '$role-1', 'alice', '{"n":2}')).meta;
		SELECT presence_update('lobby-$role', '$role-1', '{"m":1}');
		SELECT (presence_set_status('alice', 'away', '$role')).status;
		SELECT presence_invite('lobby-$role', 'alice');
		SELECT presence_uninvite('lobby-$role', 'alice');
		SELECT presence_remove('lobby-$role', '$role-1');
		SELECT presence_leave_all('$role-2');
		SELECT presence_kick('lobby-$role', 'carol');
		SELECT presence_ban('lobby-$role', 'dave');
		SELECT presence_unban('lobby-$role', 'dave');
		SELECT current_user;
	}), join("\n", 't', 3, '{"n": 2}', 't', 'away', 't', 't', 't', 1, 1, 1, 't', $role),
		"$role: every function does what it should, whatever triggers try beside it");
	is_deeply(
		[ grep { / lobby-$role / } @{ $listener->summary } ],
		[
			(map { "join lobby-$role $role-$_" } 1 .. 4),
			(map { "update lobby-$role $role-1" } 1 .. 2),
			"leave lobby-$role $role-1 leave",
			"leave lobby-$role $role-2 leave",
			"leave lobby-$role $role-3 kicked",
			"leave lobby-$role $role-4 banned"
		],
		'and listeners hear that, with the right reasons');
}
is(value($node, q{SELECT count(*) FROM changed}), 0, 'role, rights and settings stay as they were')
  or diag(value($node, 'SELECT DISTINCT fired FROM changed'));
is(value($node, q{
	SELECT string_agg(DISTINCT state, ' ' ORDER BY state) FROM caught WHERE tried !~ 'leave_all|kick|remove'
}), '22004 22023 54000 P0001 PR001 PR002 PR004', 'for errors of every layer were caught')
  or diag(value($node, 'SELECT DISTINCT tried, state FROM caught ORDER BY 1, 2'));
# The worker records when users were last seen, in a separate transaction.
wait_until('the worker has met triggers, too',
	sub { value($node, q{SELECT count(*) FROM caught WHERE fired ~ 'user_last_seen'}) > 0 });
is(value($node, q{
	SELECT string_agg(DISTINCT split_part(fired, ' ', 3), ' ' ORDER BY split_part(fired, ' ', 3)) FROM caught
}), 'admissions bans invitations people presences rooms user_last_seen visits', 'in triggers on every table');
is(value($node, q{SELECT count(*) FROM presence.presences WHERE channel_name IN ('nobody', 'n1', 'n2')}),
	0, 'nobody came in that way');
unlike(log_slice($node), qr/terminated by signal|PANIC|TRAP|worker ERROR/, 'and no process crashes');

$listener->quit;
$node->stop;
done_testing();
