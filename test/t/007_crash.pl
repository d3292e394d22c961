# Proves: after crashes, restarts, jumps of the wall clock and stopped processes
# no channel expires before a full max_age, and every silent one expires after
# it.
use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_node('crash', conf => q(
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

# A channel joins and sends no heartbeats. The row, which is all that a crash
# leaves, says that it was last seen long ago: longer than max_age, and before the
# machine started.
sub join_silently
{
	my ($channel) = @_;

	value($node, qq{SELECT presence_add('r', '$channel');
		UPDATE presence.presences SET last_seen = '2001-01-01' WHERE channel_name = '$channel'});
	return;
}

sub is_seen
{
	my ($channel) = @_;

	return value($node, "SELECT count(*) FROM presence_list('r') WHERE channel_name = '$channel'") == 1;
}

# From now on a channel has a full max_age, of ten minutes, but not more. The
# clocks are advanced by nine of them: the tenth is for a slow machine.
sub dies_not_before
{
	my ($name, $channel) = @_;

	value($node, 'SELECT advance_clock(540 * 1000000)');
	ok(is_seen($channel), "$name: the silent do not die too early");
	ok(age_until($node, "$channel dies", undef, sub { !is_seen($channel) }), "$name: they die");
	ok( age_until($node, "the row of $channel goes", undef,
			sub { value($node, "SELECT count(*) FROM presence.presences WHERE channel_name = '$channel'") == 0 }),
		"$name: and are removed");
	return;
}

# A backend is killed: the server restarts, and each channel gets a full
# max_age.
join_silently('a');
my $session = session($node);
my $victim = $session->query('SELECT pg_backend_pid()');
kill('KILL', $victim);
usleep(200_000);
await_server();
eval { $session->quit };
ok(is_seen('a'), 'crash: presences stay');
value($node, q{SELECT presence_add('r', 'new')});
dies_not_before('crash', 'a');
my $listener = listen_to($node);
value($node, q{SELECT presence_add('r', 'heard')});
ok($listener->wait_for('join', sub { defined $_[0]->{seq} && $_[0]->{event} eq 'join' }), 'crash: the worker tells again');
$listener->quit;

# The server is down for longer than max_age, as the rows say.
join_silently('b');
join_silently('c');
$node->stop('immediate');
$node->start;
ok(is_seen('b'), 'restart: presences stay');
value($node, q{BEGIN; SELECT presence_add('elsewhere', 'b'); ROLLBACK});
is(value($node, q{SELECT presence_touch('c')}), 't', 'restart: who beats lives');
dies_not_before('restart', 'b');

# The worker is killed: same as above.
join_silently('d');
$victim = wait_until('a worker', sub { value($node, 'SELECT worker_pid FROM presence.stats') });
kill('KILL', $victim);
usleep(200_000);
await_server();
ok(is_seen('d'), 'crash of the worker: presences stay');
dies_not_before('crash of the worker', 'd');

# The wall clock jumps.
for my $jump (3600, -7200)
{
	value($node, q{SELECT presence_add_many('r', ARRAY['silent', 'beating'])});
	value($node, 'SELECT jump_wall_clock(' . $jump * 1_000_000 . ')');
	is(value($node, q{SELECT presence_count('r')}), 2, "jump of $jump seconds: nobody dies");
	is(value($node, q{SELECT presence_touch('beating')}), 't', 'heartbeats go on');
	dies_not_before("jump of $jump seconds", 'silent');
	age_until($node, 'all are gone', undef, sub { value($node, 'SELECT count(*) FROM presence.presences') == 0 });
}

# Processes are stopped for longer than max_age: first the workers of two
# databases, then the whole server. A channel that sends a heartbeat afterwards
# has not expired, whether its database is idle or busy. Here time has to pass,
# but no step before or after the stop takes as long as max_age.
my $max_age = 20;
my $dir = PostgreSQL::Test::Utils::tempdir();
my ($out, $err) = ('', '');
my $channels = "ARRAY(SELECT 'still ' || i FROM generate_series(1, 20) i)";

append_to_file("$dir/busy.sql", q{
SELECT presence_add('busy', 'busy ' || :client_id || ' ' || i) FROM generate_series(1, 10) i;
SELECT presence_leave_all('busy ' || :client_id || ' ' || i) FROM generate_series(1, 10) i;
});
value($node, 'CREATE DATABASE busy');
value($node, 'CREATE EXTENSION presence', 'busy');
$node->safe_psql('postgres', "ALTER SYSTEM SET presence.max_age = '${max_age}s'");
$node->reload;
wait_until('max_age', sub { value($node, 'SHOW presence.max_age') eq "${max_age}s" });
for my $whole (0, 1)
{
	my $bench = IPC::Run::start(
		[ 'pgbench', '-n', '-c', 4, '-T', 3600, '-f', "$dir/busy.sql", $node->connstr('busy') ],
		'>', \$out, '2>', \$err);
	my %client = map { $_ => session($node, $_) } qw(postgres busy);
	await_announcer($node, $_) for sort keys %client;
	wait_until('all are at work', sub { value($node, q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%''busy ''%' AND pid <> pg_backend_pid()}) == 4 });
	my @pids = $whole ? (slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/) : ();

	push @pids, split(/\n/, $client{postgres}->query('SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()'
			  . ($whole ? '' : q{ AND backend_type = 'presence worker'})));
	push @pids, $client{postgres}->query('SELECT pg_backend_pid()') if $whole;
	$client{$_}->query("SELECT presence_add_many('s', $channels)") for sort keys %client;
	stop_process(@pids);
	usleep(($max_age + 2) * 1_000_000);
	continue_process(reverse @pids);
	for my $database (sort keys %client)
	{
		my $who = ($database eq 'busy' ? 'busy ' : 'idle ') . ($whole ? 'server' : 'worker');

		is($client{$database}->query("SELECT presence_touch_many($channels)"), '{}', "$who stopped: who beats afterwards lives");
		is($client{$database}->query("SELECT presence_count('s')"), 20, "$who stopped: all are seen");
	}
	$bench->kill_kill;
	$_->quit for values %client;
}
for my $database ('postgres', 'busy')
{
	ok(age_until($node, 'everybody is gone', undef, sub { value($node, 'SELECT count(*) FROM presence.presences', $database) == 0 }),
		"$database: in the end everybody goes");
}
ok(log_slice($node) !~ /PANIC|TRAP|terminated by signal (?!9)/, 'nothing else crashed');

$node->stop;
done_testing();
