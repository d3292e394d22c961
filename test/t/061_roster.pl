# Proves: the worker's memory of announced presences is bounded by a setting:
# the memory of quiet rooms is freed, and a room in use is not read again for
# each of its changes, however low the bound.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('roster', conf => q(
presence.roster_memory = 64kB
presence.max_age = 1h
autovacuum = off
));
my $listener = listen_to($node);

declare_test_functions($node);
await_announcer($node);

# How many rooms the worker has memory contexts for; 100 are listed at most.
sub rooms_remembered
{
	my $from = -s $node->logfile;

	value($node, 'SELECT pg_log_backend_memory_contexts(worker_pid) FROM presence.stats');
	wait_until('the worker lists its memory', sub { log_slice($node, $from) =~ /Grand total/ })
	  or BAIL_OUT('the worker does not list its memory');
	return scalar(() = log_slice($node, $from) =~ /presence roster room:/g);
}

# How many presences have been read so far.
sub reads
{
	return value($node, q{SELECT pg_stat_force_next_flush(); SELECT idx_tup_fetch + seq_tup_read
		FROM pg_stat_user_tables WHERE relname = 'presences'}) =~ s/^\s+//r;
}

# Two rooms in use, each of them larger than the bound. A room is quiet if it is
# not used for ten seconds: on a slow machine a few of the twenty joins may come
# as late as that.
my $members = 3000;
value($node, qq{INSERT INTO presence.presences (room, channel_name, user_id)
	SELECT r, 'c' || i, 'u' || i FROM generate_series(1, $members) i, unnest('{a,b}'::text[]) r});
$listener->drain;
my $before = reads();
my $session = session($node);
for my $i (1 .. 10)
{
	for my $room (qw(a b))
	{
		$session->query_safe("SELECT presence_add('$room', 'late $i')");
		my $join = $listener->wait_for('join', sub { $_[0]{room} eq $room && $_[0]{event} eq 'join' && $_[0]{added}{channel_name} eq "late $i" });
		is($join->{connections}, $members + $i, "join $i of room $room is counted");
	}
}
$session->quit;
cmp_ok(reads() - $before, '<', 10 * $members, 'a large room in use is not read again for each join');

# Many small rooms, each used once.
value($node, q{INSERT INTO presence.presences (room, channel_name)
	SELECT 'r' || i % 200, 'd' || i FROM generate_series(1, 4000) i});
$listener->drain;
is(rooms_remembered(), 100, 'rooms in use are remembered past the bound');
value($node, 'SELECT advance_clock(11000000)');
value($node, q{SELECT presence_add('r7', 'late')});
my ($event) = $listener->drain;
is($event->{connections}, 21, 'one of them is used later');
cmp_ok(rooms_remembered(), '<', 30, 'rooms that were quiet give their memory back');
value($node, q{SELECT presence_remove('r8', 'd8')});
($event) = $listener->drain;
is("$event->{event} $event->{connections}", 'leave 19', 'a room that was forgotten is read again');

# The index by which a room is read may be missing, or another one of its name.
value($node, 'ALTER INDEX presence.presences_pkey RENAME TO kept');
value($node, q{SELECT presence_remove('r9', 'd9')});
($event) = $listener->drain;
is("$event->{event} $event->{connections}", 'leave 19', 'a room is read without its index');
value($node, q{CREATE INDEX presences_pkey ON presence.presences (room, channel_name) WHERE room = 'nowhere'});
value($node, q{SELECT presence_remove('r10', 'd10')});
($event) = $listener->drain;
is("$event->{event} $event->{connections}", 'leave 19', 'and past one that has not all of its rows');

$listener->quit;
$node->stop;
done_testing();
