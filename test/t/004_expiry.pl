# Proves: a channel without heartbeats leaves on time and stays expired, a
# channel with heartbeats stays, and reads hide an expired channel before the
# worker removes it.
use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('expiry', conf => 'presence.bulk_threshold = 1000');
my $dir = PostgreSQL::Test::Utils::tempdir();
my $listener = listen_to($node);

declare_test_functions($node);

# The leaves that have arrived, of all channels or of one.
sub leaves
{
	my ($channel) = @_;

	return grep { $_->{event} eq 'leave' && $_->{removed}{channel_name} eq ($channel // $_->{removed}{channel_name}) } $listener->events;
}

# Some channels send heartbeats all the time.
my $beating = q{ARRAY(SELECT 'beating ' || i FROM generate_series(1, 20) i)};
append_to_file("$dir/beat.sql", "SELECT presence_touch_many($beating);\n");
value($node, "SELECT presence_add_many('r', $beating)");
my $beater = IPC::Run::start(
	[ 'pgbench', '-n', '-c', 1, '-R', 20, '-T', 3600, '-f', "$dir/beat.sql", $node->connstr('postgres') ],
	'>', \my $beat_out, '2>', \my $beat_err);

# Others stop, at different times.
my $old_id;
my $joiner = session($node);
for my $i (1 .. 20)
{
	$old_id = $joiner->query_safe("SELECT id FROM presence_add('r', 'silent $i', 'user ' || $i % 5, '{\"n\": $i}')");
}
$joiner->quit;
ok(age_until($node, 'all have left', $beating, sub { leaves() >= 20 }), 'the silent leave');
is(value($node, 'SELECT expirations FROM presence.stats'), 20, 'the expirations are counted');
my @events = $listener->drain;
my @leaves = grep { $_->{event} eq 'leave' } @events;
is(scalar @leaves, 20, 'each once');
is(scalar(grep { $_->{reason} eq 'expired' } @leaves), 20, 'because they expired');
is(scalar(grep { $_->{user_left} } @leaves), 5, 'each user leaves once');
is($leaves[-1]{connections}, 20, 'who beats is counted');
is((grep { $_->{removed}{channel_name} eq 'silent 1' } @leaves)[0]{removed}{meta}{n}, 1, 'the leave carries the meta');
is(value($node, 'SELECT count(*) FROM presence.presences WHERE room = \'r\''), 20, 'who beats stays');

# Expired channels stay expired until they are added again.
is(value($node, "SELECT presence_touch('silent 20')"), 'f', 'the dead cannot be touched');
is(value($node, "SELECT presence_touch_many(ARRAY['silent 1', 'beating 1'])"), '{"silent 1"}',
	'nor in an array');
is(value($node, "SELECT presence_receive('silent 20', '\"hello\"')"), 't', 'what they say is still to be processed');
cmp_ok(value($node, "SELECT id FROM presence_add('r', 'silent 20')"), '>', $old_id, 'a rejoin has a new id');
is(value($node, "SELECT presence_touch('silent 20')"), 't', 'and can be touched');
is_deeply($listener->summary, ['join r silent 20'], 'a rejoin is a join');

# While the worker is stopped, reads hide expired channels themselves.
my $worker = await_sleep($node);
stop_process($worker);
value($node, "SELECT presence_add('s', 'slow'), presence_add('s', 'gone'), presence_add('r', 'silent 20')");
ok(age_until($node, 'the dead are invisible', $beating, sub { value($node, "SELECT presence_count('s')") == 0 }),
	'the dead are invisible though the worker does not run');
is(value($node, "SELECT count(*) FROM presence.presences WHERE room = 's'"), 2, 'their rows are still there');
is( value($node, q{SELECT (SELECT count(*) FROM presence_list('s')) + (SELECT count(*) FROM presence_rooms('gone'))
		+ (SELECT connections FROM presence_counts('s')) + (presence_snapshot('s')->>'connections')::int
		+ (SELECT connections FROM presence.room_list WHERE room = 's')}),
	0, 'to every read');

# Once the worker is overdue, the whole server might have been stopped: a
# heartbeat is accepted.
ok(wait_until('the worker is overdue', sub { value($node, "SELECT presence_touch('slow')") eq 't' }), 'who speaks lives');
is(value($node, "SELECT string_agg(channel_name, ' ') FROM presence_list('s') WHERE channel_name = 'slow'"),
	'slow', 'and is seen');
$listener->clear;
continue_process($worker);
$listener->wait_for('resync', sub { $_[0]->{event} eq 'resync' });
ok(age_until($node, 'the other leaves', $beating, sub { leaves('gone') }),
	'who does not leaves, once the worker runs again');

# A change of presence.max_age takes effect at once: the clocks do not advance by
# twelve days here.
value($node, "SELECT presence_add('t', 'short')");
set_max_age($node, '12d');
value($node, "SELECT presence_touch('short')");
set_max_age($node, '10min');
ok(age_until($node, 'the leave', $beating, sub { leaves('short') }), 'a shorter one');
is(value($node, "SELECT count(*) FROM presence.members WHERE room = 'r'"), 20, 'who beats still stays');

$beater->kill_kill;
ok(age_until($node, 'everybody is gone', undef, sub { value($node, 'SELECT count(*) FROM presence.presences') == 0 }),
	'without heartbeats everybody goes');

# On a busy machine the server itself may be late: of several expiries at least
# one must be on time. No clock is advanced here.
set_max_age($node, '1s');
ok( wait_until('the worker is on time', sub {
		return 1 if value($node, 'SELECT last_expiry_lag < interval \'0.5 s\' FROM presence.stats') eq 't';
		value($node, "SELECT presence_add('r', 'late')");
		wait_until('it goes', sub { value($node, 'SELECT count(*) FROM presence.presences') == 0 });
		return 0;
	}),
	'the worker is not late');

# A removal with an old snapshot does not affect the heartbeats of channels
# added since.
set_max_age($node, '10min');
value($node, "SELECT presence_add('old', 'late')");
value($node, 'TRUNCATE presence.presences');
value($node, "SELECT presence_add('old', 'late')");
my $past = session($node);
$past->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$past->query_safe('SELECT count(*) FROM presence.presences');
value($node, "SELECT presence_add('new', 'late')");
value($node, 'SELECT advance_clock(60 * 1000000)');
is($past->query_safe('SELECT prune_presences(30)'), 1, 'the past: the row it sees goes');
$past->query_safe('COMMIT');
$past->quit;
is(value($node, 'SELECT channels FROM presence.stats'), 1, 'the past: the channel is still known');
is(value($node, "SELECT string_agg(room, ' ') FROM presence.members WHERE channel_name = 'late'"), 'new', 'the past: and present where it came later');

# A removal that is rolled back to a savepoint does not affect the heartbeats of
# the rows that are restored. TRUNCATE leaves the number of rows of an entry
# unknown.
value($node, 'BEGIN; TRUNCATE presence.presences; SELECT presence_add(\'old\', \'late\'); COMMIT');
value($node, 'SELECT advance_clock(60 * 1000000)');
my $undecided = session($node);
$undecided->query_safe('BEGIN; SAVEPOINT s');
is($undecided->query_safe('SELECT prune_presences(30)'), 1, 'a savepoint: a row goes');
is(value($node, "SELECT presence_touch('late')"), 'f', 'a savepoint: and beats no more');
$undecided->query_safe('ROLLBACK TO s');
is(value($node, "SELECT presence_touch('late')"), 't', 'a savepoint: until it is there again');
$undecided->query_safe('COMMIT');
is(value($node, 'SELECT channels FROM presence.stats'), 1, 'a savepoint: the channel stays known');
$_->quit foreach $undecided, $listener;
$node->stop;
done_testing();
