# Proves: with more channels than presence.max_channels heartbeats are written
# to rows: live channels stay, silent ones expire, reads are correct.
use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('overflow', conf => q(
presence.max_channels = 16
presence.bulk_threshold = 1000
));
my $dir = PostgreSQL::Test::Utils::tempdir();
my $listener = listen_to($node);
my $beating = q{ARRAY(SELECT 'beating ' || i FROM generate_series(1, 50) i)};

declare_test_functions($node);
value($node, "SELECT presence_add_many('r', $beating)");
value($node, q{SELECT presence_add('r', 'silent ' || i) FROM generate_series(1, 50) i});
is(value($node, 'SELECT channels FROM presence.stats'), 16, 'shared memory is full');
is(value($node, q{SELECT presence_count('r')}), 100, 'everybody is there');
is(value($node, q{SELECT count(*) FROM generate_series(1, 50) i WHERE presence_touch('silent ' || i)}), 50, 'everybody can beat');
is(value($node, q{SELECT presence_touch('nobody')}), 'f', 'nobody cannot');
like(log_slice($node), qr/presence keeps no heartbeats of further channels in memory/, 'the log says so');
is(() = log_slice($node) =~ /presence keeps no heartbeats/g, 1, 'once');

append_to_file("$dir/beat.sql", "SELECT presence_touch_many($beating);\n");
my $beater = IPC::Run::start(
	[ 'pgbench', '-n', '-c', 1, '-R', 10, '-T', 3600, '-f', "$dir/beat.sql", $node->connstr('postgres') ],
	'>', \my $out, '2>', \my $err);
ok( age_until($node, 'the silent are gone', $beating, sub {
		value($node, q{SELECT count(*) FROM presence.presences WHERE channel_name LIKE 'silent%'}) == 0;
	}),
	'the silent go');
is(value($node, q{SELECT count(*) FROM presence_list('r')}), 50, 'who beats stays');
is(scalar(grep { $_->{event} eq 'leave' && $_->{reason} eq 'expired' } $listener->drain), 50, 'each leave is heard');

# Rows are written at intervals only, of a quarter of max_age: 150 seconds.
# Those of channels in memory are not written at all.
my $versions = q{SELECT string_agg(ctid::text, ' ' ORDER BY channel_name) FROM presence.presences WHERE room = 'r'};
my $older = value($node, $versions);
value($node, "SELECT advance_clock(160 * 1000000), presence_touch_many($beating)");
my $newer = value($node, $versions);
my @written = grep { (split / /, $older)[$_] ne (split / /, $newer)[$_] } 0 .. 49;
cmp_ok(scalar(@written), '>=', 50 - 16, 'heartbeats write rows');
cmp_ok(scalar(@written), '<', 50, 'but not those of channels in memory');
value($node, "SELECT presence_touch_many($beating) FROM generate_series(1, 20)");
is(value($node, $versions), $newer, 'and not again until a quarter of max_age has passed');
is(value($node, q{SELECT count(*) FROM presence_list('r')}), 50, 'who beats still stays');

# Removal frees memory for other channels.
is(value($node, "SELECT presence_leave_all_many($beating)"), 50, 'all leave');
$beater->kill_kill;
ok(wait_until('memory is free', sub { value($node, 'SELECT channels FROM presence.stats') <= 1 }), 'memory is free again');
value($node, q{SELECT presence_add('r', 'last')});
is(value($node, q{SELECT presence_touch('last')}), 't', 'for others');
ok(age_until($node, 'the last dies', undef, sub { value($node, q{SELECT count(*) FROM presence.presences}) == 0 }), 'who die, too');

# A heartbeat in a row is visible once it is committed: listeners that read
# before that, and found the channel expired, are sent a resync.
my $full = q{ARRAY(SELECT 'full ' || i FROM generate_series(1, 16) i)};
value($node, "SELECT presence_add_many('full', $full)");
value($node, q{SELECT presence_add('rows', 'row')});
my $slow = session($node);
value($node, 'SELECT advance_clock(300 * 1000000)');
$slow->query_safe('BEGIN');
is($slow->query_safe(q{SELECT presence_touch('row')}), 't', 'a heartbeat in a slow transaction');
# a row without an entry expires after 750 seconds
value($node, "SELECT presence_touch_many($full), advance_clock(500 * 1000000)");
is(value($node, q{SELECT presence_count('rows')}), 0, 'comes too late for readers');
$listener->clear;
$slow->query_safe('COMMIT');
is($slow->query_safe(q{SELECT presence_count('rows')}), 1, 'committed, it is seen');
ok($listener->wait_for('resync', sub { $_[0]->{event} eq 'resync' && !defined $_[0]->{room} }), 'and listeners read again');
$slow->quit;

$listener->quit;
$node->stop;
done_testing();
