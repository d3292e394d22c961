# Proves: with more channels than presence.max_channels heartbeats are written
# to rows: live channels stay, silent ones expire, reads are correct.
use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('overflow', conf => q(
presence.max_channels = 16
presence.max_age = 8s
presence.bulk_threshold = 1000
));
my $dir = PostgreSQL::Test::Utils::tempdir();
my $listener = listen_to($node);

value($node, q{SELECT presence_add_many('r', ARRAY(SELECT 'beating ' || i FROM generate_series(1, 50) i))});
value($node, q{SELECT presence_add('r', 'silent ' || i) FROM generate_series(1, 50) i});
is(value($node, 'SELECT channels FROM presence.stats'), 16, 'shared memory is full');
is(value($node, q{SELECT presence_count('r')}), 100, 'everybody is there');
is(value($node, q{SELECT count(*) FROM generate_series(1, 50) i WHERE presence_touch('silent ' || i)}), 50, 'everybody can beat');
is(value($node, q{SELECT presence_touch('nobody')}), 'f', 'nobody cannot');
like(log_slice($node), qr/presence keeps no heartbeats of further channels in memory/, 'the log says so');
is(() = log_slice($node) =~ /presence keeps no heartbeats/g, 1, 'once');

append_to_file("$dir/beat.sql",
	"SELECT presence_touch_many(ARRAY(SELECT 'beating ' || i FROM generate_series(1, 50) i));\n");
my $beater = IPC::Run::start(
	[ 'pgbench', '-n', '-c', 1, '-R', 10, '-T', 3600, '-f', "$dir/beat.sql", $node->connstr('postgres') ],
	'>', \my $out, '2>', \my $err);
ok( wait_until('the silent are gone', sub {
		value($node, q{SELECT count(*) FROM presence.presences WHERE channel_name LIKE 'silent%'}) == 0;
	}),
	'the silent go');
is(value($node, q{SELECT count(*) FROM presence_list('r')}), 50, 'who beats stays');
$listener->events;
is(scalar(grep { $_->{event} eq 'leave' && $_->{reason} eq 'expired' } $listener->drain), 50, 'each leave is heard');

# Rows are written at intervals only.
my $updates = value($node, q{SELECT pg_stat_get_tuples_updated('presence.presences'::regclass)});
my $began = time();
select(undef, undef, undef, 6);
my $more = value($node, q{SELECT pg_stat_get_tuples_updated('presence.presences'::regclass)}) - $updates;
cmp_ok($more, '<=', 50 * ((time() - $began) / 2 + 2), 'heartbeats write a row a few times in max_age');
is(value($node, q{SELECT count(*) FROM presence_list('r')}), 50, 'who beats still stays');

# Removal frees memory for other channels.
is(value($node, q{SELECT presence_leave_all_many(ARRAY(SELECT 'beating ' || i FROM generate_series(1, 50) i))}), 50, 'all leave');
$beater->kill_kill;
ok(wait_until('memory is free', sub { value($node, 'SELECT channels FROM presence.stats') <= 1 }), 'memory is free again');
value($node, q{SELECT presence_add('r', 'last')});
is(value($node, q{SELECT presence_touch('last')}), 't', 'for others');
ok(wait_until('the last dies', sub { value($node, q{SELECT count(*) FROM presence.presences}) == 0 }), 'who die, too');

# A heartbeat in a row is visible once it is committed: listeners that read
# before that, and found the channel expired, are sent a resync.
append_to_file("$dir/full.sql",
	"SELECT presence_touch_many(ARRAY(SELECT 'full ' || i FROM generate_series(1, 16) i));\n");
value($node, q{SELECT presence_add_many('full', ARRAY(SELECT 'full ' || i FROM generate_series(1, 16) i))});
$beater = IPC::Run::start(
	[ 'pgbench', '-n', '-c', 1, '-R', 10, '-T', 3600, '-f', "$dir/full.sql", $node->connstr('postgres') ],
	'>', \$out, '2>', \$err);
value($node, q{SELECT presence_add('rows', 'row')});
my $slow = session($node);
select(undef, undef, undef, 4);
$slow->query_safe('BEGIN');
is($slow->query_safe(q{SELECT presence_touch('row')}), 't', 'a heartbeat in a slow transaction');
ok(wait_until('it dies', sub { value($node, q{SELECT presence_count('rows')}) == 0 }), 'comes too late for readers');
$listener->clear;
$slow->query_safe('COMMIT');
is($slow->query_safe(q{SELECT presence_count('rows')}), 1, 'committed, it is seen');
ok($listener->wait_for('resync', sub { $_[0]->{event} eq 'resync' && !defined $_[0]->{room} }), 'and listeners read again');
$beater->kill_kill;
$slow->quit;

$listener->quit;
$node->stop;
done_testing();
