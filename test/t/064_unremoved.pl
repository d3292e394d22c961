# Proves: expired presences that are not yet removed are not counted in events,
# as they are not in reads: when their user joins again, user_joined is set, and
# their leaves are announced first.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

# One event in short, with what it says about the user and the room.
sub describe
{
	my ($event) = @_;

	return PresenceTest::Listener::describe($event) .
	  ($event->{user_joined} ? ' +' : '') . ($event->{user_left} ? ' -' : '') .
	  " $event->{connections}";
}

# Without shared memory, where they may never be removed.
my $node = new_node('dead_rows', preload => '');

declare_test_functions($node);
my $listener = listen_to($node);
my $statuses = listen_to($node, undef, 'presence_status');
my $session = session($node);

$session->query_safe(q{SELECT presence_add('r', 'c1', 'alice'), presence_add('r', 'd1', 'bob')});
$session->query_safe(q{SELECT presence_add('r', 'n1')});
$listener->wait_for('n1', sub { ($_[0]->{added}{channel_name} // '') eq 'n1' });
$statuses->wait_for('bob', sub { $_[0]->{user_id} eq 'bob' });
$listener->clear;
$statuses->clear;
$session->query_safe(q{SELECT advance_clock(3600000000)});
$session->query_safe(q{SELECT presence_add('r', 'c2', 'alice', '{"n": 2}')});
is($session->query_safe(q{SELECT presence_count('r')}), 1, 'who reads sees one');
$listener->wait_for('c2', sub { ($_[0]->{added}{channel_name} // '') eq 'c2' });
is_deeply([ map { describe($_) } $listener->events ], [ 'leave r c1 expired - 0', 'join r c2 + 1' ],
	'so do listeners, and hear first who is not there any more');
ok(($listener->events)[0]{removed}{joined_at}, 'as it was');
ok($statuses->wait_for('alice', sub { $_[0]->{user_id} eq 'alice' }), 'and that the user is online');
$listener->clear;
$session->query_safe(q{SELECT presence_add('r', 'c3', 'alice')});
$listener->wait_for('c3', sub { ($_[0]->{added}{channel_name} // '') eq 'c3' });
is_deeply([ map { describe($_) } $listener->events ], ['join r c3 2'], 'a second one is no news of the user');

# Their removal announces only the leaves that were not announced before;
# user_joined and user_left alternate.
$listener->clear;
$session->query_safe('SELECT prune_presences()');
$listener->wait_for('bob', sub { ($_[0]->{removed}{channel_name} // '') eq 'd1' });
my %left = map { $_->{removed}{channel_name} => describe($_) } $listener->events;
is($left{d1}, 'leave r d1 expired - ' . ($left{d1} =~ /(\d+)$/)[0], 'a removed one takes its user along');
unlike($left{c1} // '', qr/-/, 'a user who came anew stays');
is((sort map { $_->{connections} } $listener->events)[0], 2, 'the room is what it was');
ok($statuses->wait_for('bob', sub { $_[0]->{user_id} eq 'bob' && $_[0]->{status} eq 'offline' }), 'bob is offline');
$_->quit for $listener, $statuses, $session;
$node->stop;

# In a database that was copied with rows in it.
$node = new_node('copied_rows', conf => 'presence.max_age = 1h');
declare_test_functions($node);
await_announcer($node);
value($node, q{SELECT presence_add('r', 'c1', 'alice')});
value($node, 'CREATE DATABASE copy TEMPLATE postgres', 'template1');
value($node, 'SELECT advance_clock(5000000000)');
$listener = listen_to($node, 'copy');
$statuses = listen_to($node, 'copy', 'presence_status');
value($node, q{SELECT presence_add('r', 'c2', 'alice')}, 'copy');
my $join = $listener->wait_for('c2', sub { ($_[0]->{added}{channel_name} // '') eq 'c2' });
is(describe($join), 'join r c2 + 1', 'a copied row counts as little');
ok($statuses->wait_for('alice', sub { $_[0]->{user_id} eq 'alice' && $_[0]->{status} eq 'online' }),
	'and the user is online');
wait_until('the worker has removed it', sub { value($node, 'SELECT count(*) FROM presence.presences', 'copy') == 1 });
$listener->drain;
$_->quit for $listener, $statuses;
$node->stop;
done_testing();
