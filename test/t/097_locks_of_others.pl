# Proves: a member's lock on a table blocks only what needs that table: the
# worker expires presences, announces state and obeys signals, commits return,
# and events, or a resync for them, arrive once the lock is released.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

# A session of a member that holds an exclusive lock on a table.
sub lock_as_member
{
	my ($node, $table) = @_;
	my $session = session($node);

	$session->query_safe('SET ROLE member');
	$session->query_safe('BEGIN');
	$session->query_safe("LOCK TABLE presence.$table IN ACCESS EXCLUSIVE MODE");
	return $session;
}

# The pid of the worker.
sub worker_of
{
	my ($node) = @_;

	return wait_until('a worker', sub {
		value($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'presence worker' AND datname = 'postgres'});
	});
}

# A new key of state that is announced while the lock is held.
my $keys = 0;

sub tells_state
{
	my ($node, $ears) = @_;
	my $key = 'key-' . ++$keys;

	value($node, "SELECT presence_set_state('board', '$key', '1', 600)");
	return $ears->wait_for("state $key", sub { exists $_[0]->{state}{$key} });
}

# ----------------------------------------------------------- with a worker

my $node = new_node('preloaded', conf => "presence.max_age = 2s\npresence.worker_idle_timeout = 0\nmax_prepared_transactions = 5\n");
$node->safe_psql('postgres', q{CREATE ROLE member; SELECT presence_grant('member')});
await_announcer($node);
my $listener = listen_to($node);
my $ears = listen_to($node, 'postgres', 'presence_state');

for my $table ('people', 'presences')
{
	my $held = $table eq 'presences' ? 'held' : "$table-user";

	# Changes committed before the lock, and announced after it.  "dies" must not
	# expire before the lock is held, however slow the server is.
	my $lock;
	do
	{
		$lock->quit if $lock;
		value($node, q{SELECT presence_add('r', 'beats'), presence_add('r', 'dies')}) if $table eq 'people';
		$listener->clear;
		$lock = lock_as_member($node, $table);
	} until $table ne 'people' || value($node, q{SELECT presence_touch('dies')}) eq 't';

	value($node, "SELECT presence_broadcast('r', 'said while $table was locked')");
	ok(tells_state($node, $ears), "$table locked: state is told");
	if ($table eq 'people')
	{
		value($node, q{SELECT presence_add('r', 'late')});
		ok( wait_until('the dead are gone', sub {
				value($node, q{SELECT presence_touch_many('{beats,late}')});
				value($node, q{SELECT count(*) FROM presence.presences WHERE channel_name = 'dies'}) == 0;
			}, 30),
			'people locked: the dead are removed');
		is((grep { ($_->{removed}{channel_name} // '') eq 'dies' } $listener->events), 0, 'which is told later');
	}
	my $worker = worker_of($node);
	value($node, "SELECT pg_terminate_backend($worker)");
	ok(wait_until('it ends', sub { worker_of($node) != $worker }), "$table locked: the worker ends when told to, and another one comes");
	ok(tells_state($node, $ears), "$table locked: the new one works, too");
	$lock->query_safe('COMMIT');
	$lock->quit;
	if ($table eq 'people')
	{
		ok($listener->wait_for('leave', sub { ($_[0]->{removed}{channel_name} // '') eq 'dies' || $_[0]->{event} eq 'resync' }), 'people unlocked: it is told');
	}
	value($node, "SELECT presence_add('after', 'after $table')");
	ok($listener->wait_for('join', sub { ($_[0]->{added}{channel_name} // '') eq "after $table" }), "$table unlocked: events come");
}

# The same with a prepared transaction, whose lock no session holds.
value($node, q{SET ROLE member; BEGIN; LOCK TABLE presence.people IN ACCESS EXCLUSIVE MODE; PREPARE TRANSACTION 'stays'});
$node->stop('fast');
$node->start;
await_announcer($node);
$listener = listen_to($node);
$ears = listen_to($node, 'postgres', 'presence_state');
value($node, q{SELECT presence_add('r', 'dies')});
ok(wait_until('the dead are gone', sub { value($node, q{SELECT count(*) FROM presence.presences}) == 0 }), 'prepared: the dead are removed');
ok(tells_state($node, $ears), 'prepared: state is told');
value($node, q{ROLLBACK PREPARED 'stays'});
value($node, q{SELECT presence_add('r', 'more')});
ok($listener->wait_for('join', sub { ($_[0]->{added}{channel_name} // '') eq 'more' }), 'rolled back: events come');

# A transaction that is creating a room that must be created anew is not waited
# for either: one session adds to a room that is deleted meanwhile, and another
# creates it again and stays idle in transaction.
my ($adder, $maker) = map { session($node) } 1 .. 2;
value($node, q{SELECT presence_add('gone', 'old')});
$adder->query_safe(q{BEGIN; SELECT presence_add('gone', 'a')});
value($node, q{DELETE FROM presence.rooms WHERE name = 'gone'});
$maker->query_safe(q{BEGIN; SELECT presence_add('gone', 'b')});
$adder->query_safe('COMMIT');
value($node, q{SELECT presence_add('r', 'goes on')});
my $heard = listen_to($node);
value($node, qq{SELECT presence_add('r', 'goes on $_')}) for 1 .. 3;
ok($heard->wait_for('goes on 3', sub { ($_[0]->{added}{channel_name} // '') eq 'goes on 3' }), 'the worker goes on beside who makes a room');
ok(wait_until('an expiry', sub { value($node, q{SELECT count(*) FROM presence.presences WHERE channel_name LIKE 'goes on%'}) == 0 }),
	'and expires');
$maker->query_safe('COMMIT');
$_->quit for $adder, $maker, $heard;

# ------------------------------------------------ transactions that announce

# Whether a commit returns, and its messages.
sub commits
{
	my ($other, $what, $sql) = @_;
	my ($out, $err, $late);

	$other->psql('postgres', "SET statement_timeout = '10s'; $sql", stdout => \$out, stderr => \$err, timeout => 60, timed_out => \$late);
	ok(!$late, "$what: a commit returns");
	return $err;
}

# The result of a commit while a member has locked a table.
sub commit_beside
{
	my ($other, $table, $sql) = @_;
	my $lock = lock_as_member($other, $table);
	my $err = commits($other, "$table locked", $sql);

	like($err, qr/WARNING:  changes of presence are not announced because table presence\.$table is locked/, 'and says why nobody is told');
	$lock->query_safe('ROLLBACK');
	$lock->quit;
	return;
}

$node->append_conf('postgresql.conf', "presence.notify = transaction\npresence.max_age = 1h\n");
$node->reload;
ok(wait_until('transactions speak', sub { value($node, 'SELECT mode FROM presence.stats') eq 'transaction' }), 'transactions announce');
$listener->clear;
commit_beside($node, 'people', q{SELECT presence_add('r', 'untold', 'uma')});
value($node, q{SELECT presence_add('r', 'told')});
ok($listener->wait_for('resync', sub { $_[0]->{event} eq 'resync' && !defined $_[0]->{room} }), 'the next who speaks has listeners read again');
$node->stop;

my $plain = new_node('plain', preload => '', conf => "presence.max_age = 1h\n");
$plain->safe_psql('postgres', q{CREATE ROLE member; SELECT presence_grant('member')});
$listener = listen_to($plain);
commit_beside($plain, 'people', q{SELECT presence_add('r', 'untold', 'uma')});
commit_beside($plain, 'presences', q{SELECT presence_broadcast('r', 'unheard')});
is(value($plain, q{SELECT count(*) FROM presence.presences WHERE channel_name = 'untold'}), 1, 'what was not told is there');
is(scalar(grep { $_->{event} eq 'resync' } $listener->drain), 2, 'and listeners are to read it');

# Where only the time of last_seen cannot be recorded, the rest is announced.
my $owner = session($plain);
$owner->query_safe('BEGIN');
$owner->query_safe('LOCK TABLE presence.user_last_seen IN SHARE MODE');
commits($plain, 'user_last_seen locked', q{SELECT presence_leave_all('untold')});
is_deeply($listener->summary, ['leave r untold leave'], 'a leave is told without it');
$owner->query_safe('ROLLBACK');
$owner->quit;
value($plain, q{SELECT presence_add('r', 'told')});
is_deeply($listener->summary, ['join r told'], 'afterwards all is as before');

$listener->quit;
$plain->stop;
done_testing();
