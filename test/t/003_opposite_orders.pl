# Proves: sessions that leave the same 500 rooms in opposite orders never
# deadlock, even while the worker expires channels continuously; nor do sessions
# that add, change and remove the same channels by arrays in opposite orders.
# PRESENCE_TEST_SECONDS sets the duration.
use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('orders', conf => q(
presence.max_age = 200ms
deadlock_timeout = 10ms
log_lock_waits = off
));
my $dir = PostgreSQL::Test::Utils::tempdir();

# Each session moves one channel through the same rooms in its own order, and
# another channel that both sessions remove.
for my $side ([ 'up', 'ASC', q(ARRAY['up too', 'down too']) ], [ 'down', 'DESC', q(ARRAY['down too', 'up too']) ])
{
	my ($name, $order, $both) = @$side;
	my $rooms = "(SELECT 'room ' || i AS room FROM generate_series(1, 500) i ORDER BY i $order) s";

	append_to_file("$dir/$name.sql", qq(
SELECT count(presence_add(room, '$name')) FROM $rooms;
SELECT count(presence_add(room, '$name too')) FROM $rooms;
SELECT count(presence_remove(room, '$name')) FROM $rooms;
SELECT presence_leave_all_many($both);
SELECT count(presence_add(room, '$name too')) FROM $rooms;
SELECT count(presence_add(room, '$name')) FROM $rooms;
SELECT presence_leave_all('down too');
SELECT presence_leave_all('$name');
SELECT count(presence_add(room, '$name too')) FROM $rooms;
SELECT prune_presences(0.05);
\\sleep 250 ms
));
}

# Many channels of one room, whose ids are in another order than their names:
# updated in one call, removed in another.
my $many = join(', ', map { "'m$_'" } 1 .. 9);
my $back = join(', ', map { "'m$_'" } reverse 1 .. 9);
append_to_file("$dir/many.sql", join('', map { "SELECT presence_add('room 1', 'm$_');\n" } reverse 1 .. 9) . qq(
SELECT presence_add_many('room 1', ARRAY[$many], ARRAY(SELECT 'user ' || (random() * 100)::int FROM generate_series(1, 9)));
SELECT presence_add_many('room 1', ARRAY[$back], ARRAY(SELECT 'user ' || (random() * 100)::int FROM generate_series(1, 9)));
SELECT presence_leave_all_many(ARRAY[$many]);
));

# The same with hundreds of channels, half of which have expired when they are
# added again, some of them with rows in another room.
my $crowd = q(ARRAY(SELECT 'n' || i FROM generate_series(1, 300) i WHERE random() < 0.7 ORDER BY random()));
append_to_file("$dir/crowd.sql", qq(
SELECT presence_add_many('room 2', $crowd);
SELECT presence_add_many('room 3', names, ARRAY(SELECT 'user ' || (random() * 3)::int FROM unnest(names))) FROM (SELECT $crowd AS names) n;
SELECT count(presence_touch_many($crowd));
\\sleep 150 ms
SELECT presence_add_many('room 2', names, ARRAY(SELECT 'user ' || (random() * 3)::int FROM unnest(names))) FROM (SELECT $crowd AS names) n;
SELECT presence_add('room 3', 'n' || (random() * 300)::int, 'user');
SELECT presence_leave_all_many(ARRAY(SELECT 'n' || i FROM generate_series(1, 300) i WHERE random() < 0.2 ORDER BY random()));
SELECT presence_add_many('room 3', names, ARRAY(SELECT 'user ' || (random() * 3)::int FROM unnest(names))) FROM (SELECT $crowd AS names) n;
\\sleep 100 ms
));

# The rooms exist already: creating rooms in opposite orders is not tested here.
value($node, q{INSERT INTO presence.rooms (name) SELECT 'room ' || i FROM generate_series(1, 500) i});

my %clients = (up => 1, down => 1, many => 2, crowd => 3);
my @clients = map {
	my $out = '';

	{
		name => $_,
		out => \$out,
		run => IPC::Run::start(
			[ 'pgbench', '-n', '-c', $clients{$_}, '-j', $clients{$_}, '-T', tap_seconds(12), '-f', "$dir/$_.sql", $node->connstr('postgres') ],
			'>&', \$out, IPC::Run::timer(tap_seconds(12) + 5 * $PostgreSQL::Test::Utils::timeout_default))
	}
} sort keys %clients;
for my $client (@clients)
{
	ok($client->{run}->finish, "nobody fails: $client->{name}") or diag(${ $client->{out} });
}
is(value($node, 'SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()'), 0, 'no deadlock');
ok(log_slice($node) !~ /deadlock detected|PANIC|TRAP|was terminated by signal/, 'the log agrees');
cmp_ok(value($node, 'SELECT expirations FROM presence.stats'), '>', 0, 'the worker took part');

ok( wait_until('everybody is gone', sub {
		value($node, 'SELECT count(*) FROM presence.presences') == 0;
	}),
	'in the end everybody is gone');
ok( wait_until('the registry is empty', sub {
		value($node, 'SELECT channels FROM presence.stats') == 0;
	}),
	'also from shared memory');

$node->stop;
done_testing();
