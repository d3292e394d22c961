# Proves: reading a large room, which is done in pieces, misses no key that
# exists all the time, whatever other sessions do meanwhile; and names inserted
# with the triggers disabled do no harm.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $keys = 400;
my $node = new_node('state_room', conf => q(
presence.state_interval = 1ms
presence.max_state_size = 4kB
));
await_announcer($node);
$node->safe_psql('postgres', qq(
	CREATE FUNCTION check_room() RETURNS void LANGUAGE plpgsql AS \$\$
	DECLARE
		total bigint;
		different bigint;
		good bigint;
	BEGIN
		SELECT count(*), count(DISTINCT key), count(*) FILTER (WHERE value->>'key' = key) INTO total, different, good
		FROM presence_get_state('big', 'keep');
		IF (total, different, good) <> ($keys, $keys, $keys) THEN
			RAISE EXCEPTION 'read % keys, % different, % with their values', total, different, good;
		END IF;
	END \$\$;
	CREATE FUNCTION put(key text) RETURNS void LANGUAGE sql AS
		\$\$ SELECT presence_set_state('big', key, jsonb_build_object('key', key, 'more', repeat('x', (random() * 1000)::int)), 1000) \$\$;
	SELECT put('keep' || i), put('churn' || i) FROM generate_series(1, $keys) i));

$node->pgbench('--no-vacuum --client=6 --jobs=2 --transactions=150', 0, [ qr/actually processed: 900/ ], [qr/^(?!.*ERROR)/s],
	'every read is whole, with others at work',
	{
		'068_read@2' => 'SELECT check_room();',
		'068_change@1' => "SELECT put('keep' || (1 + random() * ($keys - 1))::int) FROM generate_series(1, 20);",
		'068_churn@1' => "SELECT presence_clear_state('big', 'churn' || (random() * $keys)::int), put('churn' || (random() * $keys)::int) FROM generate_series(1, 20);"
	});
is(value($node, 'SELECT state_evictions FROM presence.stats'), 0, 'with room for all of it');
is(value($node, "SELECT string_agg(key, ',') = string_agg(key, ',' ORDER BY key COLLATE \"C\") FROM presence_get_state('big')"), 't', 'in order');

# Names that no function would accept, of users whose last connection leaves:
# one that fits into a payload, and one that does not.
my $listener = listen_to($node);
$listener->drain;
$node->safe_psql('postgres', q(
	BEGIN;
	ALTER TABLE presence.presences DISABLE TRIGGER USER;
	INSERT INTO presence.presences (room, channel_name, user_id) VALUES ('long', 'c1', repeat('u', 3000)), ('long', 'c2', repeat(chr(1), 3000));
	DO $$
	DECLARE
		name name;
	BEGIN
		FOR name IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'presence.presences'::regclass LOOP
			EXECUTE format('ALTER TABLE presence.presences ENABLE ALWAYS TRIGGER %I', name);
		END LOOP;
	END $$;
	COMMIT));
$node->safe_psql('postgres', q(DELETE FROM presence.presences WHERE room = 'long'));
my @events = $listener->drain;
is(scalar(grep { ($_->{room} // 'long') ne 'long' } @events), 0, 'their leaves are told, or all is to be read again');
cmp_ok(scalar(@events), '>', 0, 'one way or the other');
is(value($node, q(SELECT count(*) FROM presence_list('long'))), 0, 'they are gone');
unlike(log_slice($node), qr/terminated by signal|exited with exit code|TRAP/, 'and nobody died of them');

$listener->quit;
$node->stop;
done_testing();
