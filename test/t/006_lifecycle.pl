# Proves: a running worker blocks no statement, restarts and exits when it
# should, and joins succeed where no worker can run.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('life', conf => q(
allow_in_place_tablespaces = on
presence.worker_idle_timeout = 0
presence.max_age = 10min
));

my $patience = $PostgreSQL::Test::Utils::timeout_default;

# The pid of a database's worker, once it is (or is not) a given one.
sub worker_of
{
	my ($db) = @_;

	return value($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'presence worker' AND datname = '$db'");
}

sub await_worker
{
	my ($db, $not) = @_;

	return wait_until("a worker for $db", sub {
		my $pid = worker_of($db);

		$pid ne '' && $pid ne ($not // '') && $pid;
	});
}

sub await_no_worker
{
	my ($db) = @_;

	return wait_until("no worker for $db", sub { worker_of($db) eq '' });
}

# Run a statement that must not be delayed.
sub promptly
{
	my ($name, $sql, $db) = @_;
	my $began = time();
	my ($status, $out, $err) = $node->psql($db // 'postgres', $sql, timeout => $patience);

	is($status, 0, "$name succeeds") or diag($err);
	cmp_ok(time() - $began, '<', $patience / 2, "$name is not held up");
	return;
}

# Events of a database still arrive, with numbers: the worker announces them.
sub is_served
{
	my ($db, $name) = @_;
	my $listener = listen_to($node, $db);
	my $served = wait_until("the worker of $db tells", sub {
		my ($event) = do { value($node, q{SELECT presence_add('served', 'c' || txid_current())}, $db);
			grep { $_->{event} eq 'join' } $listener->drain };

		$event && defined $event->{seq};
	});

	ok($served, $name);
	$listener->quit;
	value($node, q{DELETE FROM presence.presences WHERE room LIKE 'mark%' OR room = 'served'}, $db);
	return;
}

sub make_database
{
	my ($db, $options) = @_;

	value($node, "CREATE DATABASE $db " . ($options // ''));
	value($node, 'CREATE EXTENSION IF NOT EXISTS presence', $db);
	value($node, q{SELECT presence_add('r', 'c')}, $db);
	return;
}

my $log_start = 0;

#
# Statements on databases
#

make_database('one');
my $pid = await_worker('one');
ok($pid, 'the first join starts a worker');

promptly('dropping another database', 'CREATE DATABASE other');
promptly('dropping another database', 'DROP DATABASE other');
is(worker_of('one'), $pid, 'the worker did not notice');

promptly('copying the database', 'CREATE DATABASE copy TEMPLATE one');
ok(await_worker('one', $pid), 'the worker of the template comes back');
is_served('one', 'and works');
is_served('copy', 'the copy gets one of its own');

promptly('renaming it', 'ALTER DATABASE one RENAME TO two');
is(value($node, q{SELECT presence_touch('c')}, 'two'), 't', 'heartbeats go on under the new name');
is_served('two', 'events, too');
value($node, q{SELECT presence_touch('c')}, 'two');
ok(await_worker('two'), 'the worker is back');

value($node, q{CREATE TABLESPACE elsewhere LOCATION ''});
promptly('moving it', 'ALTER DATABASE two SET TABLESPACE elsewhere');
is_served('two', 'the worker serves it in its new place');
ok(await_worker('two'), 'the worker is back');

# A DROP DATABASE that fails.
my $session = session($node, 'two');
$session->query('SELECT 1');
my ($status, $out, $err) = $node->psql('postgres', 'DROP DATABASE two', timeout => $patience);
like($err, qr/is being accessed by other users/, 'a database in use is not dropped');
unlike($err, qr/There are 2 other sessions/, 'the worker is not among those who use it');
is_served('two', 'its worker comes back');
is(value($node, q{SELECT presence_touch('c')}, 'two'), 't', 'nobody was lost');
($status, $out, $err) = $node->psql('postgres', 'CREATE DATABASE copy TEMPLATE two', timeout => $patience);
like($err, qr/already exists|being accessed/, 'a copy that fails');
is_served('two', 'lets the worker come back');
($status, $out, $err) = $node->psql('postgres', 'ALTER DATABASE two RENAME TO copy', timeout => $patience);
like($err, qr/already exists|being accessed/, 'a rename that fails');
is_served('two', 'lets the worker come back, too');
$session->quit;

ok(await_worker('two'), 'the worker is there');
promptly('dropping it', 'DROP DATABASE two');
ok(await_worker('copy'), 'the other has a worker');
my $idle = session($node, 'copy');
promptly('dropping by force', 'DROP DATABASE copy WITH (FORCE)');
eval { $idle->quit };
is(value($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'presence worker' AND datname <> 'postgres'}),
	0, 'no worker is left behind');
make_database('two');
is_served('two', 'a new database of an old name is served');

#
# DROP EXTENSION
#

make_database('ext');
$pid = await_worker('ext');
$session = session($node, 'ext');
$session->query('BEGIN');
$session->query('DROP EXTENSION presence');
$session->query('ROLLBACK');
is_served('ext', 'DROP EXTENSION rolled back changes nothing');
is(value($node, q{SELECT presence_touch('c')}, 'ext'), 't', 'nobody was lost');
promptly('DROP EXTENSION', 'DROP EXTENSION presence', 'ext');
promptly('CREATE EXTENSION again', 'CREATE EXTENSION presence', 'ext');
is(value($node, q{SELECT presence_touch('c')}, 'ext'), 'f', 'nobody survived');
is_served('ext', 'and all works again');
ok(await_worker('ext'), 'with a worker');
promptly('both in one transaction', 'BEGIN; DROP EXTENSION presence; CREATE EXTENSION presence; COMMIT', 'ext');
is_served('ext', 'all works again');
$session->query('BEGIN');
$session->query('DROP EXTENSION presence');
$session->query('CREATE EXTENSION presence');
$session->query(q{SELECT presence_add('r', 'never')});
$session->query('ROLLBACK');
is(value($node, q{SELECT presence_touch('never')}, 'ext'), 'f', 'what was rolled back did not happen');
is_served('ext', 'all works still');
$session->quit;

# A schema with the extension's name does not count as the extension.
value($node, 'CREATE DATABASE lookalike');
value($node, q{CREATE SCHEMA presence; CREATE TABLE presence.presences (id int); CREATE TABLE presence.rooms (name text)},
	'lookalike');

#
# Signals, and how a worker is shown
#

$pid = await_worker('two');
is( value($node, qq{SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND backend_type = 'presence worker'
		AND wait_event_type = 'Extension'}),
	1, 'the worker can be told by its type and wait event');
is(value($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'presence launcher'}), 1, 'so can the launcher');
ok( wait_until('an idle worker', sub {
		value($node, qq{SELECT count(*) FROM pg_stat_activity WHERE pid = $pid
			AND xact_start IS NULL AND backend_xmin IS NULL AND backend_xid IS NULL});
	}),
	'an idle worker holds neither transaction nor snapshot');
is(value($node, 'SELECT worker_pid FROM presence.stats', 'two'), $pid, 'presence.stats knows it');

for my $signal ('terminate', 'cancel')
{
	$pid = await_worker('two');
	is(value($node, "SELECT pg_${signal}_backend($pid)"), 't', "$signal the worker");
	is_served('two', 'another one takes over');
}
is(value($node, q{SELECT presence_touch('c')}, 'two'), 't', 'nobody was lost');
$pid = await_worker('two');
value($node, q{ALTER SYSTEM SET presence.worker_idle_timeout = '1s'});
kill('HUP', $pid);
$node->reload;
is(worker_of('two'), $pid, 'SIGHUP does not end a worker with channels');
is_served('two', 'nor its work');

# An idle worker exits, and the next join starts another. The worker checks
# periodically whether it is idle, or its extension was dropped.
value($node, q{ALTER SYSTEM SET presence.max_age = '6s'});
$node->reload;
value($node, q{SELECT presence_add('r', 'c')}, 'ext');
ok(await_worker('ext'), 'there is a worker');
promptly('DROP EXTENSION CASCADE', 'DROP EXTENSION presence CASCADE', 'ext');
ok(await_no_worker('ext'), 'the worker leaves with the extension');
value($node, q{SELECT presence_leave_all('c')}, 'two');
ok(await_no_worker('two'), 'an idle worker leaves');
value($node, q{SELECT presence_add('r', 'c')}, 'two');
ok(await_worker('two'), 'the next join starts another');
value($node, q{ALTER SYSTEM RESET presence.worker_idle_timeout});

#
# Restart with many databases
#

value($node, 'CREATE EXTENSION presence', 'template1');
value($node, q{SELECT presence_add('template', 'room')}, 'template1');
wait_until('nobody in template1', sub { value($node, 'SELECT count(*) FROM presence.presences', 'template1') == 0 });
ok(1, 'template1 has the extension');
for my $i (1 .. 50)
{
	value($node, "CREATE DATABASE many$i");
	value($node, q{SELECT presence_add('r', 'before')}, "many$i") if $i % 2;
}
$log_start = -s $node->logfile;
restart_node($node);
my $heard = 0;
my $answered = 0;
for my $i (1 .. 50)
{
	my $listener = listen_to($node, "many$i");

	$answered++ if value($node, q{SELECT channel_name FROM presence_add('r', 'after')}, "many$i") eq 'after';
	$heard++ if $listener->wait_for('join', sub { $_[0]->{event} eq 'join' && $_[0]->{added}{channel_name} eq 'after' });
	$listener->quit;
}
is($answered, 50, 'joins succeed in 50 databases with 8 worker processes');
is($heard, 50, 'and are heard in all of them');
ok( wait_until('expiry in all databases', sub {
		for my $i (1 .. 50)
		{
			return 0 if value($node, 'SELECT count(*) FROM presence.members', "many$i") > 0;
		}
		1;
	}),
	'nobody is seen beyond the time');
cmp_ok(() = log_slice($node, $log_start) =~ /presence worker/g, '<', 1000, 'no storm of restarts');
unlike(log_slice($node, $log_start), qr/lookalike/, 'the lookalike is left alone');
ok(log_slice($node) !~ /PANIC|TRAP|was terminated by signal/, 'and nothing crashed');

#
# No worker process at all
#

value($node, q{ALTER SYSTEM RESET presence.max_age});
restart_node($node, "max_worker_processes = 1\n");
my $listener = listen_to($node, 'two');
value($node, q{SELECT presence_add('r', 'alone', 'u', '{"n": 1}')}, 'two');
my $event = $listener->wait_for('join', sub { $_[0]->{event} eq 'join' && $_[0]->{added}{channel_name} eq 'alone' });
ok($event, 'without a worker the transaction tells');
is($event->{seq}, undef, 'without a number');
is($event->{connections}, 1, 'with counts');
cmp_ok(value($node, 'SELECT fallbacks FROM presence.stats', 'two'), '>=', 1, 'which is counted');
is(value($node, 'SELECT mode FROM presence.stats', 'two'), 'transaction', 'and said');
is(value($node, q{SELECT presence_touch('alone')}, 'two'), 't', 'heartbeats work');
declare_test_functions($node, 'two');
ok(age_until($node, 'alone is dead', undef, sub { value($node, q{SELECT presence_count('r')}, 'two') == 0 }, 'two'), 'reads are blind to the dead');
cmp_ok(value($node, 'SELECT prune_presences()', 'two'), '>=', 1, 'prune_presences removes them');
ok($listener->wait_for('leave', sub { $_[0]->{event} eq 'leave' && $_[0]->{reason} eq 'expired' }), 'and tells');
$listener->quit;

#
# Shutdown
#

restart_node($node, "max_worker_processes = 32\n");
value($node, q{SELECT presence_add('r', 'c')}, 'two');
await_worker('two');
$listener = listen_to($node, 'two');
my $began = time();
$node->stop('fast');
cmp_ok(time() - $began, '<', $patience / 2, 'fast shutdown is fast');
eval { $listener->quit };
$node->start;
value($node, q{SELECT presence_add('r', 'c')}, 'two');
await_worker('two');
$began = time();
$node->stop('immediate');
cmp_ok(time() - $began, '<', $patience / 2, 'immediate shutdown, too');
done_testing();
