# Proves: 200 concurrent adds of one pair make one row and one join; 200
# concurrent adds of different pairs make 200 of each.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $clients = 200;
my $node = new_node('adds', conf => qq(
max_connections = 260
presence.bulk_threshold = 1000
));
my $listener = listen_to($node);

await_announcer($node);

# Run a script once in each of several connections at the same time.
sub at_once
{
	my ($name, $sql) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . "/$name.sql";

	append_to_file($file, "$sql\n");
	$node->command_ok(
		[ 'pgbench', '-n', '-c', $clients, '-j', 2, '-t', 1, '-f', $file, 'postgres' ],
		"$name: every client succeeds");
	return;
}

at_once('identical', q{SELECT presence_add('lobby', 'socket', 'alice', '{"name": "Alice"}');});
is(value($node, 'SELECT count(*) FROM presence.presences'), 1, 'one row');
is(value($node, 'SELECT count(*) FROM presence.rooms'), 1, 'one room');
my @events = $listener->drain;
is(scalar @events, 1, 'one event');
is($events[0]{event}, 'join', 'it is a join');
is($events[0]{added}{channel_name}, 'socket', 'of that channel');
is($events[0]{connections}, 1, 'with one connection');
ok($events[0]{user_joined}, 'the first of its user');

at_once('different', q{SELECT presence_add('hall', 'socket ' || :client_id, 'user ' || :client_id % 20);});
is(value($node, q{SELECT count(*) FROM presence.presences WHERE room = 'hall'}), $clients, '200 rows');
is(value($node, q{SELECT connections || ' ' || users || ' ' || anonymous FROM presence_counts('hall')}),
	"$clients 20 0", '200 connections of 20 users');
@events = $listener->drain;
is(scalar(grep { $_->{event} eq 'join' && $_->{room} eq 'hall' } @events), $clients, '200 joins');
is(scalar(@events), $clients, 'and nothing else');
is(scalar(keys %{ { map { $_->{added}{channel_name} => 1 } @events } }), $clients, 'each of another channel');
is(scalar(grep { $_->{user_joined} } @events), 20, 'each user joins once');
is($events[-1]{connections}, $clients, 'the last says how many there are');

# Removal by several sessions at the same time, each removing all channels.
at_once('leaving', q{SELECT presence_leave_all('socket ' || (:client_id / 10));});
@events = $listener->drain;
is(scalar(grep { $_->{event} eq 'leave' } @events), 20, 'whom ten remove at once leaves once');
is(scalar(@events), 20, 'and nothing else');

$listener->quit;
$node->stop;
done_testing();
