# Proves: after crashes, restarts, jumps of the wall clock and stopped processes
# no channel expires before a full max_age, and every silent one expires after
# it.
use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $max_age = 5;
my $node = new_node('crash', conf => qq(
presence.max_age = ${max_age}s
restart_after_crash = on
presence.bulk_threshold = 10000
));

declare_test_functions($node);

# Wait for the server to accept connections again.
sub await_server
{
	return wait_until('the server is back', sub {
		my ($status) = $node->psql('postgres', 'SELECT 1');

		$status == 0;
	}) || BAIL_OUT('the server does not come back');
}

# A channel joins, and then sends no heartbeats for a while.
sub join_silently
{
	my ($channel, $seconds) = @_;

	value($node, "SELECT presence_add('r', '$channel')");
	usleep($seconds * 1_000_000);
	return;
}

sub is_seen
{
	my ($channel) = @_;

	return value($node, "SELECT count(*) FROM presence_list('r') WHERE channel_name = '$channel'") == 1;
}

# Wait until a channel is not visible any more: not before a given time.
sub dies_not_before
{
	my ($name, $channel, $earliest) = @_;
	my $alive = time();
	my $gone = wait_until("$channel dies", sub {
		my $now = time();

		return 1 unless is_seen($channel);
		$alive = $now;
		return 0;
	});
	my $dead = time();

	ok($gone, "$name: the silent die");
	cmp_ok($dead, '>=', $earliest, "$name: not too early");
	ok(wait_until("the row of $channel goes",
			sub { value($node, "SELECT count(*) FROM presence.presences WHERE channel_name = '$channel'") == 0 }),
		"$name: and are removed");
	return;
}

# A backend is killed: the server restarts, and each channel gets a full
# max_age.
join_silently('a', 1);
my $session = session($node);
my $victim = $session->query('SELECT pg_backend_pid()');
my $began = time();
kill('KILL', $victim);
usleep(200_000);
await_server();
eval { $session->quit };
ok(is_seen('a'), 'crash: presences stay');
value($node, q{SELECT presence_add('r', 'new')});
dies_not_before('crash', 'a', $began + $max_age);
my $listener = listen_to($node);
value($node, q{SELECT presence_add('r', 'heard')});
ok($listener->wait_for('join', sub { defined $_[0]->{seq} && $_[0]->{event} eq 'join' }), 'crash: the worker tells again');
$listener->quit;

# The server is down for longer than max_age.
join_silently('b', 1);
join_silently('c', 1);
$node->stop('immediate');
usleep(($max_age + 1) * 1_000_000);
$began = time();
$node->start;
ok(is_seen('b'), 'restart: presences stay');
value($node, q{BEGIN; SELECT presence_add('elsewhere', 'b'); ROLLBACK});
is(value($node, q{SELECT presence_touch('c')}), 't', 'restart: who beats lives');
dies_not_before('restart', 'b', $began + $max_age);

# The worker is killed: same as above.
join_silently('d', 1);
$victim = wait_until('a worker', sub { value($node, 'SELECT worker_pid FROM presence.stats') });
$began = time();
kill('KILL', $victim);
usleep(200_000);
await_server();
ok(is_seen('d'), 'crash of the worker: presences stay');
dies_not_before('crash of the worker', 'd', $began + $max_age);

# The wall clock jumps.
for my $jump (3600, -7200)
{
	value($node, q{SELECT presence_add_many('r', ARRAY['silent', 'beating'])});
	$began = time();
	value($node, 'SELECT jump_wall_clock(' . $jump * 1_000_000 . ')');
	is(value($node, q{SELECT presence_count('r')}), 2, "jump of $jump seconds: nobody dies");
	is(value($node, q{SELECT presence_touch('beating')}), 't', 'heartbeats go on');
	dies_not_before("jump of $jump seconds", 'silent', $began + $max_age);
	wait_until('all are gone', sub { value($node, 'SELECT count(*) FROM presence.presences') == 0 });
}

# Processes are stopped for longer than max_age, idle and busy ones; a channel
# that sends a heartbeat afterwards has not expired.
my $dir = PostgreSQL::Test::Utils::tempdir();
my ($out, $err) = ('', '');
my $channels = "ARRAY(SELECT 'still ' || i FROM generate_series(1, 20) i)";

append_to_file("$dir/busy.sql", q{
SELECT presence_add('busy', 'busy ' || :client_id || ' ' || i) FROM generate_series(1, 10) i;
SELECT presence_leave_all('busy ' || :client_id || ' ' || i) FROM generate_series(1, 10) i;
});
for my $busy (0, 1)
{
	for my $whole (0, 1)
	{
		my $who = ($busy ? 'busy ' : 'idle ') . ($whole ? 'server' : 'worker');

		value($node, "SELECT presence_add_many('s', $channels)");
		my $bench = $busy && IPC::Run::start(
			[ 'pgbench', '-n', '-c', 4, '-T', 3600, '-f', "$dir/busy.sql", $node->connstr('postgres') ],
			'>', \$out, '2>', \$err);
		my $client = session($node);
		my $worker = wait_until('a worker', sub { value($node, 'SELECT worker_pid FROM presence.stats') });
		usleep(500_000) if $busy;
		my @pids = $whole ?
		  (slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/,
			split(/\n/, $client->query('SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()')),
			$client->query('SELECT pg_backend_pid()')) :
		  ($worker);

		stop_process(@pids);
		usleep(($max_age + 2) * 1_000_000);
		continue_process(reverse @pids);
		is($client->query("SELECT presence_touch_many($channels)"), '{}', "$who stopped: who beats afterwards lives");
		is($client->query("SELECT presence_count('s')"), 20, "$who stopped: all are seen");
		$bench->kill_kill if $bench;
		$client->quit;
	}
}
ok(wait_until('everybody is gone', sub { value($node, 'SELECT count(*) FROM presence.presences') == 0 }),
	'in the end everybody goes');
ok(log_slice($node) !~ /PANIC|TRAP|terminated by signal (?!9)/, 'nothing else crashed');

$node->stop;
done_testing();
