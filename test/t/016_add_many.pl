# Proves: presence_add_many can be cancelled at any time and leaves nothing
# behind, waits for others who add the same channels, needs no more memory for
# many than the changes themselves, and works where the registry is full.
use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

# A call in a session of its own, which goes on while the test does.
sub start_call
{
	my ($node, $sql) = @_;
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') . ' application_name=call', '-c', $sql ], '>', \$out, '2>', \$err);

	return { run => $run, out => \$out, err => \$err };
}

# What it printed, or its error.
sub end_call
{
	my ($call) = @_;

	$call->{run}->finish;
	return ${ $call->{err} } =~ /ERROR:\s+(.*)/ ? $1 : (split /\n/, ${ $call->{out} })[0];
}

# Wait until the call waits for a lock; returns its pid.
sub await_lock
{
	my ($node) = @_;

	return wait_until('the call waits', sub {
		value($node, q{SELECT pid FROM pg_stat_activity WHERE application_name = 'call' AND wait_event_type = 'Lock'}) });
}

my $many = q{ARRAY(SELECT 'c' || i FROM generate_series(1, 3000) i ORDER BY i DESC)};

for my $preload ('presence', '')
{
	my $how = $preload ? 'preloaded' : 'not preloaded';
	my $node = new_node("many_" . ($preload || 'plain'), preload => $preload, conf => "presence.bulk_threshold = 1000\n");
	my $listener = listen_to($node);
	my $other = session($node);

	await_announcer($node) if $preload;
	declare_test_functions($node);

	# 1. Another transaction adds the same channel, and rolls back or commits.
	for my $end ('ROLLBACK', 'COMMIT')
	{
		my $room = lc $end;

		$other->query_safe(qq{BEGIN; SELECT presence_add('$room', 'b', 'first')});
		my $call = start_call($node, qq{SELECT presence_add_many('$room', '{c,b,a}', '{carol,bob,alice}')});
		ok(await_lock($node), "$how, $end: the call waits for who adds the same");
		$other->query_safe($end);
		is(end_call($call), $end eq 'COMMIT' ? 2 : 3, 'and counts who is new');
		is(value($node, qq{SELECT string_agg(user_id, ' ' ORDER BY channel_name) FROM presence_list('$room')}), 'alice bob carol', 'the later one counts');
		is_deeply(
			[ sort @{ $listener->summary } ],
			[ (map { "join $room $_" } qw(a b c)), $end eq 'COMMIT' ? "update $room b" : () ],
			'and all is announced once');
	}
	value($node, q{DELETE FROM presence.presences});

	# 2. Cancelled while it waits, and while it works
	$other->query_safe(q{BEGIN; SELECT presence_add('hall', 'c2222')});
	my $call = start_call($node, qq{SELECT presence_add_many('hall', $many)});
	my $pid = await_lock($node);
	value($node, "SELECT pg_cancel_backend($pid)");
	like(end_call($call), qr/canceling statement due to user request/, "$how: it can be cancelled");
	$other->query_safe('ROLLBACK');
	$call = start_call($node, q{SET statement_timeout = 100; SELECT presence_add_many('hall', ARRAY(SELECT 'c' || i FROM generate_series(1, 400000) i))});
	like(end_call($call), qr/canceling statement due to statement timeout/, 'by a timeout, too');
	is(value($node, 'SELECT count(*) FROM presence.presences'), 0, 'nobody is there then');
	ok(wait_until('nothing is left in shared memory', sub { value($node, 'SELECT coalesce(channels, 0) FROM presence.stats') == 0 }), 'nor in shared memory');
	is(value($node, qq{SELECT presence_add_many('hall', $many)}), 3000, 'after that it succeeds');
	is(value($node, qq{SELECT presence_add_many('hall', $many)}), 0, 'once');
	is(value($node, qq{SELECT cardinality(presence_touch_many($many))}), 0, 'all are alive');
	is(value($node, qq{BEGIN; SAVEPOINT s; SELECT presence_leave_all_many($many); ROLLBACK TO s; SELECT presence_add_many('second', $many); COMMIT}),
		"3000\n3000", 'leaving is undone by a savepoint');
	is(value($node, qq{SELECT presence_leave_all_many($many)}), 6000, 'all leave both rooms');
	ok(wait_until('shared memory is free', sub { value($node, 'SELECT coalesce(channels, 0) FROM presence.stats') == 0 }), 'and shared memory');

	# 3. Memory, apart from the hints and pins that the transaction keeps
	my @used = map {
		[ split /\|/, (split /\n/, value($node, qq{
			SET client_min_messages = error; BEGIN;
			SELECT presence_add_many('warm', '{a,b}'), presence_add_many('warm', '{a,b}', '{u,u}');
			SELECT presence_add_many('memory', array_agg('c' || i), array_agg('u' || i), array_agg('{"n": 1}'::jsonb)) FROM generate_series(1, $_) i;
			SELECT presence_add_many('memory', array_agg('c' || i), array_agg('u' || i % 7)) FROM generate_series(1, $_) i;
			SELECT sum(total_bytes) FILTER (WHERE name LIKE 'presence xact%'),
				sum(total_bytes) FILTER (WHERE name NOT LIKE 'presence xact%' AND name NOT LIKE 'AfterTrigger%') FROM pg_backend_memory_contexts;
			ROLLBACK}))[-1] ]
	} 2000, 20000;
	cmp_ok($used[1][0], '<', 20000 * 1500, "$how: a change takes a limited amount of memory");
	cmp_ok($used[1][1] - $used[0][1], '<', 2_000_000, 'and nothing else does');

	$other->quit;
	$listener->quit;
	$node->stop;
}

# 4. A registry that is full: heartbeats of the others go to their rows.
my $node = new_node('many_full', conf => "presence.max_channels = 16\npresence.max_age = 60s\n");
my $crowd = q{ARRAY(SELECT 'm' || i FROM generate_series(1, 50) i)};
await_announcer($node);
declare_test_functions($node);
is(value($node, qq{SELECT presence_add_many('full', $crowd)}), 50, 'full: all enter');
is(value($node, 'SELECT channels FROM presence.stats'), 16, 'though few are in shared memory');
value($node, qq{SELECT presence_add_many('other', $crowd)});
for my $round (1 .. 3)
{
	value($node, 'SELECT advance_clock(40000000)');
	is(value($node, qq{SELECT presence_add_many('full', $crowd)}), 0, "round $round: who is there is not new");
	is(value($node, qq{SELECT presence_count('full') || ' ' || presence_count('other')}), '50 50', 'but gives a sign of life in all rooms');
}
value($node, 'SELECT advance_clock(100000000)');
is(value($node, qq{SELECT presence_add_many('full', $crowd)}), 50, 'who has expired is new');
is(value($node, qq{SELECT presence_count('full') || ' ' || presence_count('other')}), '50 0', 'and is nowhere else any more');
is(value($node, qq{SELECT presence_leave_all_many($crowd)}), 50, 'they leave');
ok(wait_until('it is free', sub { value($node, 'SELECT channels FROM presence.stats') == 0 }), 'shared memory is free again');
$node->stop;

done_testing();
