# Proves: pg_dump and pg_restore keep the configured rooms and leave out the
# presences, which belonged to connections of the dumped server.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('dump');
my $dir = PostgreSQL::Test::Utils::tempdir();

value($node, q{
	SELECT presence_add('plain', 'c', 'alice', '{"n": 1}');
	SELECT presence_add('configured', 'c', 'alice');
	INSERT INTO presence.rooms (name, persistent) VALUES ('lasting', true);
	INSERT INTO presence.rooms (name, private, meta) VALUES ('closed', true, '{"topic": "it''s a \"secret\""}');
	UPDATE presence.rooms SET max_members = 5 WHERE name = 'configured';
	INSERT INTO presence.rooms (name, announce) VALUES ('quiet', 'counts');
	CREATE TABLE own (room text);
	CREATE VIEW own_view AS SELECT m.channel_name FROM own o JOIN presence.members m ON m.room = o.room;
	INSERT INTO own VALUES ('plain');
	SELECT presence_set_status('alice', 'busy', 'in a meeting');
	INSERT INTO presence.user_last_seen VALUES ('bob', '2001-02-03 04:05:06+00');
	INSERT INTO presence.visits (room, channel_name, user_id, joined_at, left_at, reason)
	SELECT 'r', 'c' || i, NULLIF('u' || i, 'u2'), '2001-02-03 04:05:06Z', '2002-02-03 04:05:06Z', 'kicked' FROM generate_series(1, 3) i;
});
my $rooms = q{SELECT string_agg(concat_ws(' ', name, persistent, private, max_members, announce, meta), ', ' ORDER BY name) FROM presence.rooms};
my $expected = value($node, $rooms . q{ WHERE name <> 'plain'});
my $visits = q{SELECT string_agg(v::text, ' ' ORDER BY id) FROM presence.visits v};
my $visited = value($node, $visits);

for my $format ('custom', 'plain', 'directory')
{
	my $file = "$dir/$format";
	my $db = "restored_$format";

	$node->command_ok([ 'pg_dump', '-F', $format, '-f', $file, 'postgres' ], "$format: dumps");
	value($node, "CREATE DATABASE $db");
	if ($format eq 'plain')
	{
		$node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-d', $db, '-f', $file ], 'plain: loads');
	}
	else
	{
		$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $db, $file ], "$format: restores");
	}
	is(value($node, $rooms, $db), $expected, "$format: configured rooms are kept");
	is(value($node, 'SELECT count(*) FROM presence.presences', $db), 0, "$format: presences are not");
	is(value($node, q{SELECT concat_ws(' ', status, chosen_status, custom_message) FROM presence_status('alice')}, $db),
		'offline busy in a meeting', "$format: what users chose is");
	is(value($node, q{SELECT last_seen = '2001-02-03 04:05:06+00' FROM presence_status('bob')}, $db), 't', "$format: so is when they were last seen");
	is(value($node, $visits, $db), $visited, "$format: so are visits");
	is(value($node, q{INSERT INTO presence.visits (room, channel_name, joined_at, left_at, reason) VALUES ('r', 'next', now(), now(), 'leave') RETURNING id > 3}, $db),
		't', "$format: which go on with new ids");
	is(value($node, 'SELECT count(*) FROM own_view', $db), 0, "$format: views on presence.members work");
	my $listener = listen_to($node, $db);
	value($node, q{SELECT presence_add('plain', 'd')}, $db);
	is_deeply($listener->summary, ['join plain d'], "$format: and all works");
	is(value($node, 'SELECT count(*) FROM own_view', $db), 1, "$format: with the views");
	$listener->quit;
}

# A data-only restore, into an existing extension.
$node->command_ok([ 'pg_dump', '--data-only', '-f', "$dir/data", 'postgres' ], 'data alone: dumps');
value($node, 'CREATE DATABASE data');
value($node, 'CREATE EXTENSION presence; CREATE TABLE own (room text)', 'data');
$node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-d', 'data', '-f', "$dir/data" ], 'data alone: loads');
is(value($node, $rooms, 'data'), $expected, 'data alone: the rooms are there');

# The schema chosen for the functions is kept.
value($node, 'CREATE DATABASE elsewhere');
value($node, 'CREATE SCHEMA "my app"; CREATE EXTENSION presence SCHEMA "my app"', 'elsewhere');
$node->command_ok([ 'pg_dump', '-F', 'custom', '-f', "$dir/elsewhere", 'elsewhere' ], 'another schema: dumps');
value($node, 'CREATE DATABASE elsewhere2');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', 'elsewhere2', "$dir/elsewhere" ], 'another schema: restores');
is(value($node, q{SELECT channel_name FROM "my app".presence_add('r', 'c')}, 'elsewhere2'), 'c', 'another schema: works');

$node->stop;
done_testing();
