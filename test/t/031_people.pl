# Proves: listeners on presence_status receive each change of a user's visible
# status once, whatever caused it, from the worker and from transactions; with
# many connections of one user online and offline strictly alternate.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('people', conf => q(
presence.bulk_threshold = 100000
));
my $dir = PostgreSQL::Test::Utils::tempdir();
my $marks = 0;
my ($listener, $seq);

declare_test_functions($node);
$listener = listen_to($node, undef, 'presence_status');
await_announcer($node);

# The statuses announced since the last call: those that arrive no later than
# that of a user who joins now.
sub statuses
{
	my $mark = 'mark-' . ++$marks;

	value($node, "SELECT id FROM presence_add('$mark', '$mark', '$mark')");
	$listener->wait_for("status of $mark", sub { $_[0]->{user_id} eq $mark })
	  or BAIL_OUT('statuses do not arrive any more');
	my @events = $listener->events;
	check_numbers(\@events);
	$listener->clear;
	return grep { $_->{user_id} !~ /^mark-/ } @events;
}

# From the worker the numbers rise by one; transactions send none.
sub check_numbers
{
	my ($events) = @_;

	for my $event (@$events)
	{
		my $wrong = defined $event->{epoch} != defined $event->{seq};

		$wrong = 1 if defined $seq && defined $event->{seq} && $event->{seq} != $seq + 1;
		fail("number of a status: " . ($event->{seq} // 'null') . ' after ' . ($seq // 'null')) if $wrong;
		$seq = $event->{seq};
	}
	return;
}

# The same in short: "alice away back soon", ordered by user.
sub summary
{
	my %of;

	push @{ $of{ $_->{user_id} } }, join(' ', grep { defined } @$_{qw(user_id status custom_message)}) for statuses();
	return [ map { @{ $of{$_} } } sort keys %of ];
}

# Run SQL, and compare what is announced.
sub tells
{
	my ($sql, $expected, $name) = @_;

	value($node, $sql);
	is_deeply(summary(), $expected, $name);
	return;
}

sub switch_to
{
	my ($notify, $mode) = @_;

	$node->append_conf('postgresql.conf', "presence.notify = $notify");
	$node->reload;
	ok(wait_until("mode $mode", sub { value($node, 'SELECT mode FROM presence.stats') eq $mode }), "mode $mode");
	undef $seq;
	return;
}

sub run_all
{
	my ($mode) = @_;

	tells(q{SELECT presence_add('r', 'a1', 'alice', '{"x": 1}'), presence_add('r', 'x')}, ['alice online'], "$mode: the first connection");
	tells(q{SELECT presence_add('r', 'a1', 'alice'), presence_touch('a1'), presence_update('r', 'a1', '{"x": 2}')}, [], "$mode: nothing new");
	tells(q{SELECT presence_add('r', 'a2', 'alice'), presence_add('s', 'a3', 'alice')}, [], "$mode: more tabs are the same person");
	is(value($node, q{SELECT users || ' ' || connections FROM presence_counts('r')}), '1 3', "$mode: one person in the room");
	tells(q{SELECT presence_remove('r', 'a1')}, [], "$mode: a tab closes");
	tells(q{SELECT presence_set_status('alice', 'online')}, [], "$mode: chosen what was shown");
	tells(q{SELECT presence_set_status('alice', 'away', 'back soon')}, ['alice away back soon'], "$mode: a choice");
	tells(q{SELECT presence_set_status('alice', 'away', 'back soon')}, [], "$mode: the same again");
	tells(q{SELECT presence_set_status('alice', 'away', E'back "later" \u00e4')}, ["alice away back \"later\" \x{e4}"], "$mode: another message");
	tells(q{SELECT presence_set_status('alice', 'busy')}, ['alice busy'], "$mode: another status");
	tells(q{BEGIN; SELECT presence_set_status('alice', 'away'); SAVEPOINT s; SELECT presence_set_status('alice', 'online'); ROLLBACK TO s; COMMIT},
		['alice away'], "$mode: a savepoint rolled back");
	tells(q{BEGIN; SELECT presence_set_status('alice', 'busy'); ROLLBACK}, [], "$mode: a rollback");
	tells(q{BEGIN; SELECT presence_set_status('alice', 'busy'); SELECT presence_set_status('alice', 'away'); COMMIT}, [], "$mode: there and back");

	value($node, q{SELECT presence_set_status('alice', 'offline', 'hiding')});
	my ($hidden) = grep { $_->{user_id} eq 'alice' } statuses();
	is("$hidden->{status} " . ($hidden->{custom_message} // '-'), 'offline -', "$mode: invisible looks gone, and tells no message");
	is(value($node, qq{SELECT last_seen = '$hidden->{last_seen}' AND last_seen = chosen_at FROM presence_status('alice') JOIN presence.people USING (user_id)}),
		't', "$mode: and was last seen when choosing that");
	tells(q{SELECT presence_set_status('alice', 'offline', 'still hiding')}, [], "$mode: what the invisible say is not told");
	tells(q{SELECT presence_add('r', 'a4', 'alice')}, [], "$mode: nor that they come");
	tells(q{SELECT presence_leave_all_many('{a2,a3,a4}')}, [], "$mode: nor that they go");
	tells(q{SELECT presence_add('r', 'a1', 'alice')}, [], "$mode: the choice lasts");
	tells(q{SELECT presence_set_status('alice', 'busy', 'here')}, ['alice busy here'], "$mode: until the next one");
	tells(q{SELECT presence_leave_all('a1')}, ['alice offline'], "$mode: gone by leave");
	tells(q{SELECT presence_set_status('alice', 'away', 'out')}, [], "$mode: choices of those who are gone are not told");
	tells(q{SELECT presence_add('r', 'a1', 'alice')}, ['alice away out'], "$mode: but when they come");

	tells(q{SELECT presence_kick('r', 'alice')}, ['alice offline'], "$mode: gone by kick");
	value($node, q{SELECT presence_add('r', 'a1', 'alice'), presence_add('s', 'a1', 'alice')});
	statuses();
	tells(q{SELECT presence_ban('r', 'alice')}, [], "$mode: banned from one room, online in another");
	tells(q{SELECT presence_ban(NULL, 'alice')}, ['alice offline'], "$mode: gone by ban");
	tells(q{SELECT presence_unban(NULL, 'alice'), presence_unban('r', 'alice')}, [], "$mode: unbanned");
	tells(q{SELECT presence_add('hall', 'a1', 'alice'), presence_add('hall', 'b1', 'bob')}, [ 'alice away out', 'bob online' ], "$mode: two come");
	tells(q{DELETE FROM presence.rooms WHERE name = 'hall'}, [ 'alice offline', 'bob offline' ], "$mode: gone with the room");

	# A login on an open connection, then as another user, and a join whose user
	# changes.
	tells(q{SELECT presence_add('r', 'l', NULL), presence_add('s', 'l', NULL)}, [], "$mode: nobody comes");
	tells(q{SELECT presence_add('r', 'l', 'carol')}, ['carol online'], "$mode: and logs in");
	tells(q{SELECT presence_add('s', 'l', 'carol')}, [], "$mode: in each room, as one person");
	tells(q{SELECT presence_add('r', 'l', 'dave')}, ['dave online'], "$mode: another user on one of them");
	tells(q{SELECT presence_add('s', 'l', 'dave')}, ['carol offline'], "$mode: the first is gone when it has none");
	tells(q{BEGIN; SELECT presence_add('r', 'l', 'erin'); SELECT presence_add('s', 'l', 'erin'); COMMIT},
		[ 'dave offline', 'erin online' ], "$mode: in one transaction");
	tells(q{SELECT presence_leave_all('l')}, ['erin offline'], "$mode: who left was the last of them");
	tells(q{BEGIN; SELECT presence_add('r', 'l', 'fay'); SELECT presence_add('r', 'l', 'gus'); COMMIT}, ['gus online'], "$mode: only the last is told");
	tells(q{BEGIN; SELECT presence_add('r', 'm', 'hal'); SELECT presence_leave_all('m'); COMMIT}, [], "$mode: who came and went is no news");

	# last_seen is the time of the last heartbeat, here half a minute ago.
	my $start = time();
	tells(q{SELECT presence_add('r', 'i', 'ian')}, ['ian online'], "$mode: one who will be silent");
	value($node, 'SELECT advance_clock(30000000)');
	value($node, q{SELECT presence_leave_all('i')});
	my ($gone) = statuses();
	is("$gone->{user_id} $gone->{status}", 'ian offline', "$mode: and leaves");
	my $silence = value($node, qq{SELECT extract(epoch FROM (SELECT last_seen FROM presence_add('clock', 'clock')) - '$gone->{last_seen}')});
	ok($silence > 29 && $silence < 31 + time() - $start, "$mode: was seen half a minute ago") or diag($silence);
	ok(wait_until('it is remembered', sub {
			value($node, qq{SELECT abs(extract(epoch FROM last_seen - '$gone->{last_seen}')) < 1 FROM presence_status('ian')}) eq 't';
		}), "$mode: which is remembered");

	value($node, 'SELECT advance_clock(571000000)');
	$listener->wait_for('gus is gone', sub { $_[0]->{user_id} eq 'gus' && $_[0]->{status} eq 'offline' });
	is_deeply(summary(), ['gus offline'], "$mode: gone by expiry");
	return;
}

# How many rows record when users were last seen.
sub last_seen_rows
{
	my ($users) = @_;

	return value($node, "SELECT count(*) FROM presence.user_last_seen WHERE user_id = ANY ('{$users}')");
}

# Transactions that choose statuses, remove users or read when they were last
# seen stay open: announcing and recording the leaves of other users waits for
# none of them.
sub nobody_waits
{
	my ($mode) = @_;
	my @open = map { session($node) } 1 .. 3;

	tells(q{SELECT presence_add('r', 'k' || i, 'kim'), presence_add('r', 'l' || i, 'lea') FROM generate_series(1, 4) i},
		[ 'kim online', 'lea online' ], "$mode: two come");
	tells(q{SELECT presence_leave_all_many('{k1,k2,k3,k4}')}, ['kim offline'], "$mode: one goes");
	ok(wait_until('it is remembered', sub { last_seen_rows('kim') == 1 }), "$mode: and is remembered");
	$_->query_safe(q{SET statement_timeout = '60s'}) for @open;

	$open[0]->query_safe('BEGIN');
	$open[0]->query_safe(q{SELECT FROM presence.user_last_seen FOR UPDATE});
	$open[0]->query_safe(q{SELECT presence_set_status('kim', 'busy'), presence_set_status('lea', 'busy')});
	tells(q{SELECT presence_add('r', 'k' || i, 'kim') FROM generate_series(1, 4) i}, ['kim online'], "$mode: one comes back beside a choice");
	tells(q{SELECT presence_leave_all_many('{k1,k2,k3,k4,l1,l2,l3,l4}')}, [ 'kim offline', 'lea offline' ], "$mode: both go beside it");
	ok(wait_until('both are remembered', sub { last_seen_rows('kim,lea') == 3 }), "$mode: and are remembered") or diag(last_seen_rows('kim,lea'));
	value($node, 'SELECT prune_rooms()');
	$open[0]->query_safe('COMMIT');
	summary();

	tells(q{SELECT presence_add('r', 'k' || i, 'kim'), presence_add('r', 'l' || i, 'lea') FROM generate_series(1, 4) i},
		[ 'kim busy', 'lea busy' ], "$mode: they come again");
	$open[2]->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$open[2]->query_safe('SELECT count(*) FROM presence.user_last_seen');
	$open[$_]->query_safe('BEGIN') for 0, 1;
	$open[0]->query_safe(q{SELECT presence_leave_all('k1')});
	$open[1]->query_safe(q{SELECT presence_leave_all('l1')});
	$open[0]->query_safe(q{SELECT presence_leave_all('l2')});
	$open[1]->query_safe(q{SELECT presence_leave_all('k2')});
	$open[2]->query_safe(q{SELECT presence_leave_all_many('{k3,l3}')});
	$open[$_]->query_safe('COMMIT') for 0 .. 2;
	tells(q{SELECT presence_leave_all_many('{k4,l4}')}, [ 'kim offline', 'lea offline' ], "$mode: all go, in any order");
	if ($mode eq 'transaction')
	{
		cmp_ok(last_seen_rows('kim,lea'), '>', 3, "$mode: each transaction remembered for itself");
		value($node, 'SELECT prune_rooms()');
		is(last_seen_rows('kim,lea'), 2, "$mode: prune_rooms keeps one row for each");
	}
	is(value($node, q{SELECT count(*) FROM presence_statuses('{kim,lea}') WHERE last_seen > now() - interval '1 minute'}), 2,
		"$mode: the newest counts");
	$_->quit for @open;
	return;
}

# Many connections of two users join, leave and change users in several rooms:
# the statuses of each user begin with online, end with offline, and alternate.
sub alternates
{
	my ($name, $script) = @_;
	my %told = (ann => [], ben => []);

	append_to_file("$dir/$name.sql", $script);
	$node->command_ok([ 'pgbench', '-n', '-c', 16, '-j', 2, '-t', 40, '-f', "$dir/$name.sql", 'postgres' ], "$name: nobody fails");
	push @{ $told{ $_->{user_id} } }, $_->{status} for statuses();
	for my $user (sort keys %told)
	{
		my @statuses = @{ $told{$user} };
		my @wrong = grep { $statuses[$_] ne ($_ % 2 ? 'offline' : 'online') } 0 .. $#statuses;

		is(scalar(@wrong), 0, "$name: $user alternates") or diag("@statuses");
		cmp_ok(scalar(@statuses), '>', 1, "$name: $user is told");
		is($statuses[-1], 'offline', "$name: $user is gone in the end");
	}
	return;
}

value($node, q{SELECT presence_add('warm', 'up')});
switch_to('auto', 'worker');
$listener->clear;
run_all('worker');
nobody_waits('worker');

alternates('tabs', q(
\set r random(1, 3)
\set u random(0, 1)
SELECT presence_add('room ' || :r, 'c' || :client_id, (ARRAY['ann', 'ben'])[:u + 1]);
SELECT presence_add('room ' || :r % 3 + 1, 'c' || :client_id, (ARRAY['ann', 'ben'])[:u + 1]);
SELECT presence_leave_all('c' || :client_id);
));
alternates('logins', q(
\set r random(1, 3)
\set u random(0, 1)
SELECT presence_add('room ' || :r, 'c' || :client_id);
SELECT presence_add('room ' || :r, 'c' || :client_id, (ARRAY['ann', 'ben'])[:u + 1]);
SELECT presence_add('room ' || :r, 'c' || :client_id, (ARRAY['ben', 'ann'])[:u + 1]);
SELECT presence_leave_all('c' || :client_id);
));

value($node, 'DELETE FROM presence.people; DELETE FROM presence.user_last_seen');
switch_to('transaction', 'transaction');
$listener->clear;
run_all('transaction');
nobody_waits('transaction');

$listener->quit;
$node->stop;
done_testing();
