# Proves: whatever the hashes of names begin with, all processes of a server
# find the same places, or take the same lock, for one room, with and without
# shared memory: a full room stays full.  A name that is too long for shared
# memory is a room like any other.
use strict;
use warnings FATAL => 'all';

use PresenceTest;
use Test::More;

# While a transaction holds the last place, another process is refused, or waits.
sub last_place
{
	my ($node, $what, $room, $waits) = @_;

	value($node, "SELECT name FROM presence_configure_room('$room', max_members => 1)");
	my $first = session($node);
	my $second = session($node);
	my $pid = $second->query_safe('SELECT pg_backend_pid()');

	$first->query_safe('BEGIN');
	$first->query_safe("SELECT presence_add('$room', 'first', 'alice')");
	if ($waits)
	{
		$second->query_until(qr/asks/, "\\echo asks\nSELECT presence_add('$room', 'second', 'bob');\n");
		ok(wait_until('it waits', sub { value($node, "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $pid") eq 't' }),
			"$what: another process waits for the place");
	}
	else
	{
		my (undef, undef, $error) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT presence_add('$room', 'second', 'bob')");

		like($error, qr/PR001.*an open transaction may hold the place/s, "$what: another process is refused, and told why");
	}
	$first->query_safe('COMMIT');
	$second->query('SELECT 1');
	is(value($node, "SELECT string_agg(channel_name, ' ') FROM presence.presences WHERE room = '$room'"), 'first', "$what: and does not get it");
	$_->quit for $first, $second;
	return;
}

for my $preload ('presence', '')
{
	my $what = $preload ? 'with preload' : 'without';
	my $node = new_node('slots' . length($preload), preload => $preload);

	last_place($node, $what, 'small', !$preload);
	last_place($node, "$what, a long name", 'ä' x 128, 1);
	$node->stop;
}

done_testing();
