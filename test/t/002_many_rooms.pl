# Proves: one transaction can enter 10,000 rooms with the default
# max_locks_per_transaction, from 8 sessions at once.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $sessions = 8;
my $rooms = 10_000;
my $node = new_node('rooms');
my $dir = PostgreSQL::Test::Utils::tempdir();

is(value($node, 'SHOW max_locks_per_transaction'), 64, 'the default');

# All sessions use the same order; none of the rooms exists yet.
append_to_file("$dir/enter.sql",
	"SELECT count(presence_add('room ' || i, 'socket ' || :client_id)) FROM generate_series(1, $rooms) i;\n");
$node->command_ok(
	[ 'pgbench', '-n', '-c', $sessions, '-j', 2, '-t', 1, '-f', "$dir/enter.sql", 'postgres' ],
	"$sessions sessions enter $rooms rooms");
is(value($node, 'SELECT count(*) FROM presence.presences'), $sessions * $rooms, 'all presences are there');
is(value($node, 'SELECT count(*) FROM presence.rooms'), $rooms, 'all rooms are there');

# Each session uses its own order; the rooms exist.
append_to_file("$dir/shuffle.sql",
	"SELECT count(presence_add('room ' || i, 'other ' || :client_id)) FROM "
	  . "(SELECT i FROM generate_series(1, $rooms) i ORDER BY random()) s;\n");
$node->command_ok(
	[ 'pgbench', '-n', '-c', $sessions, '-j', 2, '-t', 1, '-f', "$dir/shuffle.sql", 'postgres' ],
	"and each in an order of its own");

# Neither the entering nor the leaving transaction holds one lock per room.
my $session = session($node);
$session->query('BEGIN');
$session->query("SELECT count(presence_add('hall ' || i, 'socket')) FROM generate_series(1, $rooms) i");
cmp_ok($session->query('SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()'), '<', 40,
	'a handful of locks while entering');
is($session->query("SELECT presence_leave_all('socket')"), $rooms, 'leaves as many');
cmp_ok($session->query('SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()'), '<', 40,
	'a handful of locks while leaving');
$session->query('ROLLBACK');
$session->quit;

is(value($node, "SELECT presence_leave_all('socket 0')"), $rooms, 'leaves them at once');
is(value($node, 'SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()'), 0, 'no deadlock');

$node->stop;
done_testing();
