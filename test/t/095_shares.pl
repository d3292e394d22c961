# Proves: one database cannot take the queue, the registry or the memory of
# short-lived state from another: the database that uses too much bears the loss
# itself, also where memory was freed by discarding the queue, by DROP EXTENSION
# or by DROP DATABASE.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('shares', extension => 0, conf => q(
presence.queue_size = 1MB
presence.max_channels = 160
presence.state_memory = 64kB
presence.worker_idle_timeout = 0
));

# A database with presence and a worker.
sub make_database
{
	my ($db) = @_;

	value($node, "CREATE DATABASE $db");
	value($node, 'CREATE EXTENSION presence', $db);
	await_announcer($node, $db);
	return;
}

make_database($_) for 'hog', 'neighbour';

# A statistic of a database.
sub figure
{
	my ($db, $column) = @_;

	return value($node, "SELECT $column FROM presence.stats", $db);
}

# ---- The queue: 64 blocks, of which eight are reserved.

# Put the given number of events of about a kilobyte into the hog's queue.
sub flood
{
	my ($count) = @_;

	value($node, "SELECT presence_broadcast('hall', 'noise', to_jsonb(to_char(i, 'FM0000') || repeat('x', 850))) FROM generate_series(1, $count) i", 'hog');
	return figure('hog', 'queue_bytes');
}

my $listener = listen_to($node, 'neighbour');
my $hog_listener = listen_to($node, 'hog');
value($node, "SELECT presence_add('hall', 'first')", $_) for 'hog', 'neighbour';
$_->drain for $listener, $hog_listener;
my $hog_worker = await_sleep($node, 'hog');
stop_process($hog_worker);

# As much as it can have: the next events make its queue be discarded.
my ($count, $most) = (600, flood(600));
while ($count < 2000)
{
	my $now = flood(8);

	last if $now < $most;
	$most = $now;
	$count += 8;
}
cmp_ok($most, '>', 50 * 16 * 1024, 'one database has most of the queue');
is(figure('hog', 'queue_bytes'), 0, 'where it wants more, all that waits is cut');
is(flood($count), $most, 'then it has as much again');

value($node, "SELECT presence_add('hall', 'guest ' || i) FROM generate_series(1, 10) i", 'neighbour');
my @events = $listener->drain;
is(scalar(grep { $_->{event} eq 'join' } @events), 10, 'all events of another database arrive');
is(scalar(grep { $_->{event} eq 'resync' } @events), 0, 'and none is lost');
is(figure('neighbour', 'resyncs'), 0, 'as its figures say');

continue_process($hog_worker);
ok($hog_listener->wait_for('resync', sub { $_[0]->{event} eq 'resync' }), 'who filled the queue reads again');
ok(wait_until('all is told', sub { figure('hog', 'queue_bytes') == 0 }), 'and his queue becomes empty');
$_->quit for $listener, $hog_listener;

# ---- The registry: beside 160 channels 23 are reserved for databases with up
# to eleven.

# Add channels until the given number was added; how many have entries.
sub enter
{
	my ($db, $channels) = @_;

	value($node, "SELECT presence_add('hall', 'channel ' || i) FROM generate_series(1, $channels) i", $db);
	return figure($db, 'channels');
}

# All channels leave.
sub leave
{
	my ($db) = @_;

	value($node, 'SELECT presence_leave_all(channel_name) FROM presence.presences', $db);
	ok(wait_until('all have left', sub { figure($db, 'channels') == 0 }), "$db: all leave");
	return;
}

leave($_) for 'hog', 'neighbour';
is(enter('hog', 300), 160, 'one database has most of the channels');
is(value($node, q{SELECT count(*) FROM generate_series(1, 300) i WHERE presence_touch('channel ' || i)}, 'hog'), 300, 'and all its heartbeats count');
is(enter('neighbour', 10), 10, 'those of another one are kept in memory');
leave('hog');
is(enter('neighbour', 30), 30, 'what is given back is for all');
is(enter('hog', 300), 130, 'the rest is for the first one');
value($node, 'DROP EXTENSION presence CASCADE', 'hog');
value($node, 'CREATE EXTENSION presence', 'hog');
await_announcer($node, 'hog');
is(enter('hog', 300), 130, 'and counted when the extension has gone and come');
leave('neighbour');
is(enter('hog', 400), 160, 'it takes what it can');
is(enter('neighbour', 15), 11, 'and the other one its share');

# ---- Short-lived state: the database that has most has entries evicted.

# Set states of a database for the given number of seconds.
sub set
{
	my ($db, $prefix, $count) = @_;

	value($node, "SELECT presence_set_state('hall', '$prefix' || i, to_jsonb(i), 1000) FROM generate_series(1, $count) i", $db);
	return;
}

# How many states there are.
sub states
{
	my ($db, $prefix) = @_;

	return value($node, "SELECT count(*) FROM presence_get_state('hall', '$prefix')", $db);
}

my $state_listener = listen_to($node, 'neighbour', 'presence_state');
set('neighbour', 'old', 10);
set('hog', 'new', 2000);
is(states('neighbour', 'old'), 10, 'the states of a small database survive a large one');
is(figure('neighbour', 'state_evictions'), 0, 'as its figures say');
my $large = figure('hog', 'state_entries');
is(figure('hog', 'state_evictions'), 2000 - $large, 'the large one gives its own');
set('neighbour', 'more', 20);
is(figure('neighbour', 'state_entries'), 30, 'the small one may grow');
cmp_ok(figure('hog', 'state_entries'), '<', $large, 'at the expense of the large one');
set('neighbour', 'many', 1000);
is(states('neighbour', 'old'), 0, 'until it has as much');
cmp_ok(abs(figure('hog', 'state_entries') - figure('neighbour', 'state_entries')), '<', 20, 'then it gives its own');

# Removed state that is not announced yet uses memory, too. The small database
# has less of it, however late its worker is.
for my $last (1 .. 2)
{
	value($node, "SELECT presence_set_state('hall', 'last', '$last', 1000)", 'neighbour');
	ok($state_listener->wait_for('the last state', sub { ($_[0]->{state}{last} // 0) == $last }), 'states are told');
}
$state_listener->clear;
$hog_worker = await_sleep($node, 'hog');
my $neighbour_worker = await_sleep($node, 'neighbour');
stop_process($hog_worker, $neighbour_worker);
value($node, "SELECT presence_clear_state('hall', key) FROM (SELECT key FROM presence_get_state('hall', 'many') LIMIT 10) k", 'neighbour');
value($node, "SELECT presence_set_state('hall', 'gone' || i, '1', 1000), presence_clear_state('hall', 'gone' || i) FROM generate_series(1, 2000) i", 'hog');
value($node, q{SELECT presence_set_state('hall', 'last', '3', 1000)}, 'neighbour');
continue_process($neighbour_worker);
ok($state_listener->wait_for('the last state', sub { ($_[0]->{state}{last} // 0) == 3 }), 'those of another database are told');
is(scalar(grep { $_->{resync} } $state_listener->events), 0, 'and none is lost');
continue_process($hog_worker);
$state_listener->quit;

# ---- A dropped database occupies nothing.

value($node, 'DROP DATABASE hog');
is(enter('neighbour', 300), 160, 'a database that is gone has no channels');
set('neighbour', 'alone', 1000);
cmp_ok(figure('neighbour', 'state_entries'), '>', 250, 'and no states');

$node->stop;
done_testing();
