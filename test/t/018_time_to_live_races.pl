# Proves: a hold ends with the presences of its channel even if their rows are
# not counted; a sign of life after a new start of grace ends times to live when
# it should, and an add never earlier than without it; an add takes a goodbye
# back that came between two adds of a transaction; an add that is rolled back makes
# nobody live again.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('time_to_live_races', conf => 'presence.hold_grace = 100s');

sub add { value($node, "SELECT presence_add('r', '$_')") foreach @_; return; }

sub elapse { return value($node, "SELECT advance_clock($_[0] * 1000000::bigint)"); }

sub is_present { return value($node, "SELECT count(*) FROM presence.members WHERE channel_name = '$_[0]'") > 0; }

sub held { return value($node, 'SELECT held FROM presence.stats'); }

sub becomes_held
{
	my ($count, $name) = @_;

	return ok(wait_until("$count are held", sub { held() == $count }), $name);
}

declare_test_functions($node);

# After a restart entries are made from rows, and do not count them
value($node, q{SELECT presence_add_many('r', ARRAY['one', 'two', 'kept', 'repeatable', 'rolled'])});
value($node, q{SELECT presence_add('r2', 'two')});
restart_node($node);
await_announcer($node);

my $holder = session($node);
is($holder->query_safe(q{SELECT presence_hold_many(ARRAY['one', 'two', 'kept'])}), '{}', 'a session holds');
value($node, q{SELECT presence_remove('r', 'one')});
becomes_held(2, 'a hold ends with the last row');
value($node, q{SELECT presence_remove('r', 'two')});
elapse(599) foreach 1 .. 2;
ok(is_present('two') && is_present('kept'), 'but not before');
is(held(), 2, 'they are held');

# A hold that sees rows which are gone
add('repeatable');
my $old = session($node);
$old->query_safe(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1});
value($node, q{DELETE FROM presence.presences WHERE channel_name = 'repeatable'});
is($old->query_safe(q{SELECT presence_hold('repeatable')}), 't', 'a hold sees what its transaction sees');
becomes_held(2, 'but does not last without rows');
$old->quit;

value($node, q{SELECT presence_leave_all('two')});
becomes_held(1, 'a hold ends with all rooms');
add('one');
is(held(), 1, 'who is added again is held by nobody');

value($node, q{TRUNCATE presence.presences});
becomes_held(0, 'TRUNCATE ends holds');

# A hold in an add that is rolled back, of a channel whose rows are not counted
add(qw(rolled));
value($node, q{TRUNCATE presence.presences});
$holder->query_safe(q{BEGIN; SELECT presence_add('r', 'rolled'), presence_hold('rolled'); ROLLBACK});
becomes_held(0, 'nor does one of an add that is rolled back');
$holder->query_safe(q{BEGIN; SELECT presence_add('r', 'rolled'), presence_hold('rolled'); COMMIT});
$holder->query_safe(q{BEGIN; SAVEPOINT s; SELECT presence_add('r', 'new'), presence_hold('new'); ROLLBACK TO s; COMMIT});
is(held(), 1, 'one that is committed does');
$holder->quit;

# Grace begins anew after a jump of the wall clock: then signs of life count
value($node, q{DELETE FROM presence.presences});
add(qw(slow beats added));
value($node, q{SELECT presence_touch_many(ARRAY['slow', 'beats', 'added'], 20)});
value($node, q{SELECT jump_wall_clock(7200 * 1000000::bigint)});
elapse(10);
value($node, 'SELECT prune_presences()');
value($node, q{SELECT presence_touch('beats', 20)});
value($node, q{SELECT presence_add('r2', 'added')});
elapse(25);
ok(!is_present('beats'), 'a touch sets the time to live from now on');
ok(wait_until('it is removed', sub { value($node, q{SELECT count(*) FROM presence.presences WHERE channel_name = 'beats'}) == 0 }),
	'and the worker knows');
ok(is_present('slow'), 'who was not heard has the grace');
ok(is_present('added'), 'an add does not shorten it');

# Another session's goodbye between two adds of a transaction
add('g');
my $adder = session($node);
for my $i (1 .. 5)
{
	$adder->query_safe("BEGIN; SELECT presence_add('a$i', 'g')");
	value($node, q{SELECT presence_leave_all('g', 20)});
	$adder->query_safe("SELECT presence_add('b$i', 'g'); COMMIT");
	elapse(25);
	ok(is_present('g'), 'the second add takes the goodbye back');
}
$adder->quit;

# An expired channel, added again by a transaction that rolls back, while the
# grace of a start is not over
value($node, q{DELETE FROM presence.presences});
restart_node($node);
await_announcer($node);
my $locker = session($node);
$adder = session($node);
add(qw(revived));
value($node, q{SELECT presence_touch('revived', 20)});
$locker->query_safe(q{BEGIN; SELECT count(*) FROM (SELECT FROM presence.presences FOR UPDATE) p});
elapse(25);
$adder->query_until(qr/adding/, "\\echo adding\nBEGIN; SELECT presence_add('r2', 'revived');\n");
ok(wait_until('the add waits', sub { value($node, q{SELECT count(*) FROM pg_locks WHERE NOT granted}) == 1 }), 'an add waits');
$locker->query_safe('COMMIT');
$adder->query_safe('ROLLBACK');
ok(!is_present('revived'), 'who has expired does not live again by an add that is rolled back');
ok(wait_until('it is removed', sub { value($node, q{SELECT count(*) FROM presence.presences}) == 0 }), 'and the worker removes it');
$_->quit foreach $locker, $adder;
$node->stop;
done_testing();
