# Proves: whatever the hashes of names begin with, all processes of a server
# take the same lock for one room, with and without shared memory: a full room
# stays full.
use strict;
use warnings FATAL => 'all';

use PresenceTest;
use Test::More;

for my $preload ('presence', '')
{
	my $what = $preload ? 'with preload' : 'without';
	my $node = new_node('slots' . length($preload), preload => $preload);

	value($node, "SELECT presence_configure_room('small', max_members => 1)");
	my $first = session($node);
	my $second = session($node);
	my $pid = $second->query_safe('SELECT pg_backend_pid()');

	$first->query_safe('BEGIN');
	$first->query_safe("SELECT presence_add('small', 'first', 'alice')");
	$second->query_until(qr/asks/, "\\echo asks\nSELECT presence_add('small', 'second', 'bob');\n");
	ok(wait_until('it waits', sub { value($node, "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $pid") eq 't' }),
		"$what: another process waits for the place");
	$first->query_safe('COMMIT');
	$second->query('SELECT 1');
	is(value($node, "SELECT string_agg(channel_name, ' ') FROM presence.presences"), 'first', "$what: and does not get it");
	$_->quit for $first, $second;
	$node->stop;
}

done_testing();
