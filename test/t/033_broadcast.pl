# Proves: broadcasts arrive as they were sent, in order with the presence events
# of the same transaction, only after it commits, and never above the size
# limit.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('broadcast', conf => q(
presence.bulk_threshold = 10
max_prepared_transactions = 5
));
my $listener = listen_to($node);
my $seq;

$listener->{psql}->query('LISTEN presence_broadcast');
await_announcer($node);

# Run SQL, and compare what is announced, in order: broadcasts as "room:event",
# changes as "join room channel".
sub tells
{
	my ($sql, $expected, $name) = @_;
	my @events;

	value($node, $sql);
	@events = $listener->drain;
	check_numbers(@events);
	is_deeply([ map { exists $_->{payload} ? "$_->{room}:$_->{event}" : PresenceTest::Listener::describe($_) } @events ], $expected, $name);
	return @events;
}

# The worker numbers broadcasts separately; transactions send no numbers.
sub check_numbers
{
	for my $event (grep { exists $_->{payload} } @_)
	{
		fail('number of a broadcast: ' . ($event->{seq} // 'null'))
		  if defined $event->{epoch} != defined $event->{seq} || (defined $seq && defined $event->{seq} && $event->{seq} != $seq + 1);
		$seq = $event->{seq};
	}
	return;
}

sub switch_to
{
	my ($notify, $mode) = @_;

	$node->append_conf('postgresql.conf', "presence.notify = $notify");
	$node->reload;
	ok(wait_until("mode $mode", sub { value($node, 'SELECT mode FROM presence.stats') eq $mode }), "mode $mode");
	$listener->drain;
	undef $seq;
	return;
}

sub run_all
{
	my ($mode) = @_;
	my @told;

	value($node, 'DELETE FROM presence.rooms');
	$listener->drain;

	# What arrives
	($told[0]) = tells(q{SELECT presence_broadcast('r', 'ping', '{"n": 1, "list": [null, "x"]}', 'socket 1')}, ['r:ping'], "$mode: a broadcast");
	is_deeply([ sort keys %{ $told[0] } ], [qw(epoch event payload pid room sender seq)], "$mode: has these members");
	is_deeply($told[0]{payload}, { n => 1, list => [ undef, 'x' ] }, "$mode: carries its payload");
	is($told[0]{sender}, 'socket 1', "$mode: and its sender");
	($told[0]) = tells(q{SELECT presence_broadcast('r', 'ping')}, ['r:ping'], "$mode: with defaults");
	is_deeply($told[0]{payload}, {}, "$mode: an empty payload");
	is($told[0]{sender}, undef, "$mode: and no sender");
	($told[0]) = tells(q{SELECT presence_broadcast(E'r"\n\\\\\u00e4', E'"e"\t', '"\u20ac\n\""', E's"\x01')}, ["r\"\n\\\x{e4}:\"e\"\t"], "$mode: any characters");
	is("$told[0]{payload}|$told[0]{sender}", "\x{20ac}\n\"|s\"\x01", "$mode: in payload and sender, too");
	is(value($node, q{SELECT count(*) FROM presence.rooms WHERE name NOT LIKE 'mark-%'}), 0, "$mode: a room is not made by it");

	# Order
	tells(q{BEGIN;
		SELECT presence_broadcast('r', 'before'), presence_add('r', 'c1', 'alice');
		SELECT presence_broadcast('r', 'between'), presence_update('r', 'c1', '{"a": 1}'), presence_add('r', 'c2');
		SELECT presence_broadcast('r', 'after'); COMMIT},
		[ 'r:before', 'join r c1', 'r:between', 'join r c2', 'r:after' ], "$mode: in order with the changes of its transaction");
	tells(q{BEGIN; SELECT presence_broadcast('r', 'bye', '{}', 'c2'), presence_remove('r', 'c2'); SELECT presence_broadcast('r', 'gone'); COMMIT},
		[ 'r:bye', 'leave r c2 leave', 'r:gone' ], "$mode: leaves, too");
	tells(q{BEGIN; SELECT presence_broadcast('a', '1'); SELECT presence_broadcast('b', '1'); SELECT presence_broadcast('a', '2');
		SELECT presence_add('b', 'x'); SELECT presence_broadcast('b', '2'); COMMIT},
		[ 'a:1', 'a:2', 'b:1', 'join b x', 'b:2' ], "$mode: in order in each room");
	tells(join('', map { "SELECT presence_broadcast('r', '$_');" } 1 .. 30), [ map { "r:$_" } 1 .. 30 ], "$mode: one transaction after the other");
	tells(q{BEGIN; SELECT presence_broadcast('r', 'early'); SELECT presence_add_many('r', ARRAY(SELECT 'm' || i FROM generate_series(1, 11) i));
		SELECT presence_broadcast('r', 'late'); COMMIT}, [ 'bulk r 11 0', 'r:early', 'r:late' ], "$mode: after a bulk that holds what came before");

	# What is rolled back is never sent.
	tells(q{BEGIN; SELECT presence_broadcast('r', 'no'); ROLLBACK}, [], "$mode: rolled back");
	tells(q{BEGIN; SELECT presence_broadcast('r', 'yes'); SAVEPOINT s; SELECT presence_broadcast('r', 'no'); ROLLBACK TO s;
		SAVEPOINT t; SELECT presence_broadcast('r', 'too'); RELEASE t; COMMIT}, [ 'r:yes', 'r:too' ], "$mode: a savepoint rolled back, one released");
	$node->psql('postgres', q{BEGIN; SELECT presence_broadcast('r', 'no'); SELECT presence_broadcast('r', 'big', to_jsonb(repeat('x', 8000))); COMMIT});
	tells('SELECT 1', [], "$mode: with one that is too large nothing is said");
	tells(q{DO $$
		BEGIN
			PERFORM presence_broadcast('r', 'first');
			BEGIN
				PERFORM presence_broadcast('r', 'second');
				PERFORM presence_broadcast('r', 'big', to_jsonb(repeat('x', 8000)));
			EXCEPTION WHEN program_limit_exceeded THEN
				PERFORM presence_broadcast('r', 'sorry');
			END;
		END $$}, [ 'r:first', 'r:sorry' ], "$mode: unless its error is caught");
	my ($code, $stdout, $stderr) = $node->psql('postgres', q{BEGIN; SELECT presence_broadcast('r', 'prepared'); PREPARE TRANSACTION 'p'});
	like($stderr, qr/cannot PREPARE a transaction that has changed presences/, "$mode: it cannot be prepared");
	tells('SELECT 1', [], "$mode: and nothing is said");

	# The largest one possible: 58 bytes are not payload.
	($told[0]) = tells(q{SELECT presence_broadcast('lobby', 'ping', to_jsonb(repeat('x', 7935 - 58)))}, ['lobby:ping'], "$mode: the longest");
	is(length $told[0]{payload}, 7935 - 58, "$mode: arrives whole");
	return;
}

value($node, q{SELECT presence_add('warm', 'up')});
switch_to('auto', 'worker');
run_all('worker');
my @same = tells(q{BEGIN; SELECT presence_broadcast('r', 'ping'), presence_broadcast('r', 'ping'), presence_broadcast('r', 'ping'); COMMIT},
	[ ('r:ping') x 3 ], 'worker: equal ones are not folded');
is(scalar(keys %{ { map { $_->{seq} => 1 } @same } }), 3, 'worker: they differ by their numbers');
@same = tells(q{SELECT presence_broadcast('r', 'ping'); SELECT presence_broadcast('r', 'ping')}, [ ('r:ping') x 2 ], 'worker: not in two transactions either');
is($same[1]{seq}, $same[0]{seq} + 1, 'worker: the numbers rise by one');

switch_to('transaction', 'transaction');
run_all('transaction');
@same = tells(q{BEGIN; SELECT presence_broadcast('r', 'ping'), presence_broadcast('r', 'ping'); SELECT presence_broadcast('q', 'ping');
	SAVEPOINT s; SELECT presence_broadcast('r', 'ping'); ROLLBACK TO s; SELECT presence_broadcast('r', 'ping'); COMMIT},
	[ ('r:ping') x 3, 'q:ping' ], 'transaction: equal ones are not folded either');
is_deeply([ map { $_->{n} } @same ], [ undef, 2, 3, 4 ], 'transaction: they are counted from the second on');

$listener->quit;
$node->stop;
done_testing();
