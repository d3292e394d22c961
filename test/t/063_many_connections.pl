# Proves: the cost of a user's event does not depend on the number of the user's
# connections, as with a user_id that all guests share.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('connections', conf => q(
presence.queue_size = 64MB
autovacuum = off
));
my $listener = listen_to($node, undef, 'presence_status');

await_announcer($node);

my $marks = 0;

# The statuses announced so far, in short.
sub statuses
{
	my $mark = 'mark' . ++$marks;

	value($node, "SELECT presence_add('$mark', '$mark', '$mark')");
	$listener->wait_for("status of $mark", sub { $_[0]->{user_id} eq $mark })
	  or BAIL_OUT('statuses do not arrive');
	my @events = grep { $_->{user_id} !~ /^mark/ } $listener->events;
	$listener->clear;
	return join ', ', map { "$_->{user_id} $_->{status}" } @events;
}

# How many index entries of the table have been read so far.
sub reads
{
	return value($node, q{SELECT pg_stat_force_next_flush(); SELECT sum(idx_tup_read)
		FROM pg_stat_user_indexes WHERE relname = 'presences'}) =~ s/^\s+//r;
}

my $guests = 20_000;
value($node, qq{INSERT INTO presence.presences (room, channel_name, user_id)
	SELECT 'r' || i % 1000, 'g' || i, 'guest' FROM generate_series(1, $guests) i});
is(statuses(), 'guest online', 'many come, who are one user');
value($node, q{SELECT presence_add('other', 'g', 'guest')});
is(statuses(), '', 'one more is no news');
my $before = reads();
value($node, q{SELECT presence_add('other', 'h', 'guest')});
is(statuses(), '', 'and one more');
value($node, q{SELECT presence_leave_all('h')});
is(statuses(), '', 'nor is one less');
cmp_ok(reads() - $before, '<', 500, 'and nobody counts the others');
value($node, q{DELETE FROM presence.presences WHERE user_id = 'guest' AND room <> 'other'});
is(statuses(), '', 'when all but one have gone');
value($node, q{SELECT presence_leave_all('g')});
is(statuses(), 'guest offline', 'the last one counts');

$listener->quit;
$node->stop;
done_testing();
