# Proves: a room that is announced by its counts gets at most one event in each
# presence.counts_interval, with exact numbers; one that is not announced gets
# none; each switch, by the room's row or by presence.announce_max, is one resync,
# after which a listener's copy is right again; and so it is when the worker ends.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use PresenceTest;
use Test::More;

# An interval ends only when the clock of the extension is advanced.
my $hour = 3600;
my $node = new_node('announce', conf => qq(
presence.max_age = 10d
presence.counts_interval = ${hour}s
presence.notify_interval = 0
presence.worker_idle_timeout = 0
presence.bulk_threshold = 1000000
));
declare_test_functions($node);
await_announcer($node);
my $listener = listen_to($node);
my $statuses = listen_to($node, undef, 'presence_status');

sub run { return value($node, $_[0]); }

sub set
{
	my ($name, $setting) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET $name = '$setting'");
	$node->reload;
	wait_until("$name arrives", sub { value($node, "SHOW $name") eq $setting }) or BAIL_OUT('the setting does not arrive');
	return;
}

# An event in short, with what this test is about.
sub describe
{
	my ($event) = @_;

	return join(' ', 'counts', $event->{room}, @$event{qw(connections users anonymous)}) if $event->{event} eq 'counts';
	return join(' ', 'resync', $event->{room} // '*', $event->{announce} // ()) if $event->{event} eq 'resync';
	return PresenceTest::Listener::describe($event);
}

sub heard { return [ map { describe($_) } $listener->drain ]; }

# Let an interval end; what comes of it.
sub next_counts
{
	run("SELECT advance_clock(${hour}::bigint * 1000000)");
	return heard();		# its mark has the worker look at the clock
}

sub add
{
	my ($room, $from, $to) = @_;

	return run("SELECT presence_add_many('$room', array_agg('c' || n), array_agg('u' || n / 2)) FROM generate_series($from, $to) n");
}

sub leave
{
	my ($room, $from, $to) = @_;

	return run("DELETE FROM presence.presences WHERE room = '$room' AND channel_name = ANY (SELECT 'c' || n FROM generate_series($from, $to) n)");
}

sub configure
{
	my ($room, $announce) = @_;

	return run("SELECT announce FROM presence_configure_room('$room', announce => '$announce')");
}

# --- A room announced by its counts
is(configure('arena', 'counts'), 'counts', 'configured');
is_deeply(heard(), ['resync arena counts'], 'a listener is told');
add('arena', 1, 1);
is_deeply(heard(), ['counts arena 1 1 0'], 'the first change is announced at once');
run("SELECT (presence_add('arena', 'anon' || n)).id FROM generate_series(1, 3) n");
add('arena', 2, 40);
leave('arena', 11, 40);
run(q{SELECT presence_update('arena', 'c1', '{"a": 1}')});
is_deeply(heard(), [], 'a storm is not, within the interval');
is_deeply(next_counts(), ['counts arena 13 6 3'], 'then it is, exactly, and once');
is_deeply(heard(), [], 'and that is all');
run(qq{SELECT advance_clock(${hour}::bigint * 1000000)});
is_deeply(heard(), [], 'nothing changes, nothing is announced');
run(q{SELECT presence_update('arena', 'c1', '{"a": 2}')});
is_deeply(heard(), [], 'nor is a change of meta');
run(q{SELECT id FROM presence_add('arena', 'c2', 'other')});
is_deeply(heard(), ['counts arena 13 7 3'], 'one of a user is');
run(q{SELECT id FROM presence_add('arena', 'brief', 'x')});
run(q{SELECT presence_remove('arena', 'brief')});
is_deeply(next_counts(), ['counts arena 13 7 3'], 'also who came and went: somebody may have read the room in between');
run(q{SELECT presence_broadcast('arena', 'goal')});
is(run("SELECT count(*) FROM presence_list('arena')"), 13, 'reads show who is there');
my $snapshot = JSON::PP::decode_json(run("SELECT presence_snapshot('arena', 0)"));
is_deeply([ @$snapshot{qw(connections users anonymous)} ], [ 13, 7, 3 ], 'a snapshot of nobody has the same counts');

# --- One that is not announced
configure('vault', 'none');
is_deeply(heard(), ['resync vault none'], 'a listener is told, once');
$statuses->clear;
add('vault', 1, 100);
leave('vault', 1, 50);
run(q{SELECT presence_kick('vault', 'u30')});
run(q{SELECT id FROM presence_add('vault', 'secret', 'agent')});
run(qq{SELECT advance_clock(2 * ${hour}::bigint * 1000000)});
is_deeply(heard(), [], 'nothing of it is announced, now or later');
ok($statuses->wait_for('a status', sub { $_[0]->{user_id} eq 'agent' }), 'but statuses are');
run(q{SELECT presence_set_state('vault', 'typing:agent', '1', 3600), presence_remove('vault', 'secret')});
wait_until('state goes', sub { run(q{SELECT count(*) FROM presence_get_state('vault')}) == 0 });

# --- Back to all, by each way
configure('arena', 'all');
is_deeply(heard(), ['resync arena all'], 'one resync');
run(q{SELECT id FROM presence_add('arena', 'c1', 'other')});
run(q{SELECT presence_remove('arena', 'anon1')});
is_deeply(heard(), [ 'update arena c1', 'leave arena anon1 leave' ], 'then each change: the roster was right');
configure('arena', 'default');
is(run(q{SELECT announce IS NULL FROM presence.rooms WHERE name = 'arena'}), 't', 'a room may have none of its own again');
is_deeply(heard(), [], 'which changes nothing here');
is(run(q{SELECT coalesce(announce, '-') FROM presence_configure_room('vault', max_members => 500)}), 'none', 'NULL leaves it as it is');
run(q{UPDATE presence.rooms SET announce = NULL WHERE name = 'vault'});
is_deeply(heard(), ['resync vault all'], 'plain SQL does as well');
my $left = run(q{SELECT count(*) FROM presence_list('vault')});
run(q{SELECT id FROM presence_add('vault', 'seen', 'agent')});
my ($join) = $listener->drain;
is_deeply([ $join->{event}, $join->{connections}, $join->{user_joined} ], [ 'join', $left + 1, JSON::PP::true ], 'with counts that are right');
configure('vault', 'none');
run(q{DELETE FROM presence.rooms WHERE name = 'vault'});
run(q{SELECT id FROM presence_add('vault', 'seen', 'agent')});
$listener->wait_for('the room says nothing any more', sub { $_[0]->{event} eq 'resync' && ($_[0]->{room} // '') eq 'vault' && $_[0]->{announce} eq 'all' });
heard();
run(q{SELECT presence_remove('vault', 'seen')});
is_deeply(heard(), ['leave vault seen leave'], 'the next room of a name is not silent');
is(run(q{SELECT announce FROM presence_configure_room('later', announce => 'counts')}), 'counts', 'a room that nobody was in');
add('later', 1, 1);
is_deeply([ grep { !/^resync/ } @{ heard() } ], ['counts later 1 1 0'], 'begins like that');
leave('later', 1, 1);
is_deeply(next_counts(), ['counts later 0 0 0'], 'and when it is empty');
is(run('SELECT prune_rooms()') >= 0 && run(q{SELECT count(*) FROM presence.rooms WHERE name = 'later'}), 1, 'is not pruned');

# --- presence.announce_max
set('presence.announce_max', '10');
heard();
add('stadium', 1, 10);
is_deeply([ sort @{ heard() } ], [ sort map { "join stadium c$_" } 1 .. 10 ], 'ten are announced one by one');
add('stadium', 11, 11);
is_deeply(heard(), ['resync stadium counts'], 'the next one is not, and listeners are told');
add('stadium', 12, 30);
my @storm = @{ heard() };
is_deeply(\@storm, ['counts stadium 30 16 0'], 'counts from then on');
leave('stadium', 9, 30);
is_deeply(heard(), [], 'eight of ten: still counts');
is_deeply(next_counts(), ['counts stadium 8 5 0'], 'exact ones');
leave('stadium', 8, 8);
is_deeply(heard(), ['resync stadium all'], 'below that as before');
leave('stadium', 7, 7);
add('stadium', 8, 10);
is_deeply([ sort @{ heard() } ], [ sort 'leave stadium c7 leave', map { "join stadium c$_" } 8 .. 10 ], 'each of them, up to the maximum');
configure('stadium', 'all');
add('stadium', 11, 15);
is_deeply(heard(), [ map { "join stadium c$_" } 11 .. 15 ], 'a room of its own is not asked');
configure('stadium', 'default');
is_deeply(heard(), ['resync stadium counts'], 'until it has none any more');

# --- The worker ends while counts are due
add('stadium', 16, 16);
heard();
add('stadium', 17, 17);
is_deeply(heard(), [], 'counts are due');
my $pid = run('SELECT worker_pid FROM presence.stats');
run("SELECT pg_terminate_backend($pid)");
$listener->wait_for('a resync of all', sub { $_[0]->{event} eq 'resync' && !defined $_[0]->{room} });
pass('all rooms are to be read again');
await_announcer($node);
heard();
add('stadium', 18, 18);
is_deeply(heard(), ['resync stadium counts'], 'how it is announced is found out anew');
run("SELECT advance_clock(${hour}::bigint * 1000000)");
add('stadium', 19, 19);
is_deeply(heard(), ['counts stadium 18 10 0'], 'with the right numbers');
leave('stadium', 1, 15);
is_deeply(heard(), ['resync stadium all'], 'and back');
is(run(q{SELECT jsonb_array_length(presence_snapshot('stadium')->'members')}), 4, 'whoever reads the room then');
leave('stadium', 16, 16);
is_deeply(heard(), ['leave stadium c16 leave'], 'is told each change');

# --- Without a worker nothing is announced of these rooms
configure('arena', 'counts');
configure('vault', 'none');
heard();
set('presence.notify', 'transaction');
wait_until('transactions announce', sub { value($node, 'SELECT mode FROM presence.stats') eq 'transaction' });
heard();
run(q{SELECT id FROM presence_add('arena', 'late', 'l')});
run(q{SELECT id FROM presence_add('vault', 'late', 'l')});
run(q{SELECT presence_leave_all('late')});
is_deeply(heard(), [], 'transactions do not announce them');
configure('vault', 'all');
run(q{SELECT id FROM presence_add('vault', 'late', 'l')});
is_deeply(heard(), [ 'resync vault all', 'join vault late' ], 'but that one of them is announced again');

# --- The last numbers arrive, also of a room that is empty, though nothing more happens
set('presence.notify', 'auto');
set('presence.counts_interval', '5s');
set('presence.announce_max', '0');
await_announcer($node);
heard();
run('SELECT presence_leave_all_many(ARRAY(SELECT channel_name FROM presence.presences))');
ok($listener->wait_for('nobody is left', sub { $_[0]->{event} eq 'counts' && $_[0]->{connections} == 0 }), 'the last one leaves');
$listener->clear;
run(q{SELECT id FROM presence_add('arena', 'last', 'w')});
run(q{SELECT presence_leave_all('last')});
ok($listener->wait_for('nobody again', sub { $_[0]->{event} eq 'counts' && $_[0]->{connections} == 0 }), 'the last numbers arrive though nothing more happens');

$listener->quit;
$statuses->quit;
$node->stop;
done_testing();
