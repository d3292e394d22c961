# Proves: the last leave of a user removes cursor and typing, whatever the value
# of presence.notify, but not what another connection has set since.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $users = 40;
my $node = new_node('state_leave', conf => 'presence.bulk_threshold = 10000');
declare_test_functions($node);
await_announcer($node);
my $listener = listen_to($node);
my $run = session($node);

sub states
{
	my ($room) = @_;

	return $run->query("SELECT string_agg(key || '=' || coalesce(value->>'x', value::text), ' ') FROM presence_get_state('$room')");
}

# A new connection replaces the old one, in one transaction and in two: the
# worker reads both changes together, after the cursor has been set.
for my $case ([ one => 'NULL' ], [ two => 'COMMIT' ])
{
	my ($count, $between) = @$case;

	value($node, qq(SELECT count(presence_add('$count' || i, 'old' || i, 'u' || i)) FROM generate_series(1, $users) i));
	$listener->drain;
	my $holder = hold_deliveries($node);
	value($node, qq(DO \$\$
		BEGIN
			FOR i IN 1..$users LOOP
				PERFORM presence_remove('$count' || i, 'old' || i);
				$between;
				PERFORM presence_add('$count' || i, 'new' || i, 'u' || i);
				COMMIT;
				PERFORM presence_cursor_update('$count' || i, 'u' || i, 1, 1), presence_set_state('$count' || i, 'typing:u' || i, 'true', 100);
			END LOOP;
		END \$\$));
	$holder->query_safe('COMMIT');
	$holder->quit;
	my @leaves = grep { $_->{event} eq 'leave' } $listener->drain;
	is(scalar(grep { $_->{user_left} } @leaves), $users, "$count: the last connections of $users users leave") unless $count eq 'one';
	is($run->query("SELECT count(*) FROM generate_series(1, $users) i, presence_typing_users('$count' || i)"), $users,
		"$count: all of them type on, for others have come");
}

# Set by a connection whose join is not committed when the leave is announced.
value($node, q(SELECT presence_add('late', 'old', 'alice')));
$run->query(q(SELECT presence_set_state('late', 'cursor:alice', '{"x": 1}', 100), presence_set_state('late', 'typing:alice', 'true', 100)));
$listener->drain;
my $holder = hold_deliveries($node);
value($node, q(SELECT presence_remove('late', 'old')));
$run->query(q(BEGIN; SELECT presence_add('late', 'new', 'alice'); SELECT presence_set_state('late', 'cursor:alice', '{"x": 2}', 100)));
$holder->query_safe('COMMIT');
$holder->quit;
ok($listener->wait_for('the leave', sub { $_[0]{event} eq 'leave' && $_[0]{room} eq 'late' && $_[0]{user_left} }), 'the last leave is told');
ok(wait_until('the typing is gone', sub { states('late') !~ /typing/ }), 'what was set before it goes');
is(states('late'), 'cursor:alice=2', 'what was set after it stays');
$run->query('COMMIT');
value($node, q(SELECT presence_remove('late', 'new')));
ok(wait_until('the cursor is gone', sub { states('late') eq '' }), 'until its own user leaves');

# With announcements disabled.
$node->append_conf('postgresql.conf', 'presence.notify = off');
$node->reload;
wait_until('mode off', sub { value($node, 'SELECT mode FROM presence.stats') eq 'off' });
my $set = q(SELECT presence_set_state(r, k || u, 'true', 1000) FROM unnest('{a,b}'::text[]) r, unnest('{cursor:,typing:}'::text[]) k, unnest('{alice,bob}'::text[]) u);
value($node, q(SELECT presence_add(r, c, u) FROM (VALUES ('a', 'c1', 'alice'), ('a', 'c2', 'alice'), ('a', 'c3', 'bob'), ('b', 'c1', 'alice'), ('b', 'c3', 'bob')) v (r, c, u)));
$run->query($set);
my %all = map { $_ => join(' ', map { "$_=true" } qw(cursor:alice cursor:bob typing:alice typing:bob)) } qw(a b);
is(states('a'), $all{a}, 'off: states');
value($node, q(SELECT presence_remove('a', 'c2')));
is(states('a'), $all{a}, 'off: stay while there is another connection');
value($node, q(BEGIN; SELECT presence_remove('a', 'c1'); ROLLBACK));
is(states('a'), $all{a}, 'off: or the leave is rolled back');
value($node, q(SELECT presence_remove('a', 'c1')));
is(states('a'), 'cursor:bob=true typing:bob=true', 'off: and go with the last');
is(states('b'), $all{b}, 'off: of that room');
value($node, q(SELECT presence_add('b', 'c1', 'carol')));
is(states('b'), 'cursor:bob=true typing:bob=true', 'off: also when the connection gets another user');
value($node, q(SELECT presence_kick('b', 'bob')));
is(states('b'), '', 'off: or a kick takes it');
value($node, q(SELECT presence_add('a', 'c4', 'dora'); DELETE FROM presence.rooms WHERE name = 'a'));
is(states('a'), '', 'off: or the room goes');
value($node, q(SELECT presence_add('a', 'c1', 'alice')));
$run->query($set);
value($node, 'SELECT advance_clock(601000000)');
ok(wait_until('alice has expired', sub { states('a') !~ /alice/ }), 'off: or the connection expires');
is(states('a'), 'cursor:bob=true typing:bob=true', 'off: others, who never came, stay');

$run->quit;
$listener->quit;
$node->stop;
done_testing();
