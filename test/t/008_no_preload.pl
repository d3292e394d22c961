# Proves: without shared_preload_libraries everything works in the caller's
# transaction, and presence_start_worker() starts a worker that expires silent
# channels.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('plain', preload => '');
my $listener = listen_to($node);
my @events;

is(value($node, 'SELECT mode FROM presence.stats'), 'transaction', 'the mode is said');
value($node, q{SELECT presence_add('r', 'a', 'alice', '{"n": 1}')});
@events = $listener->drain;
is(scalar @events, 1, 'a join is heard');
is($events[0]{seq}, undef, 'without a number');
is($events[0]{epoch}, undef, 'and epoch');
is_deeply([ @{ $events[0] }{qw(connections users anonymous)} ], [ 1, 1, 0 ], 'with counts');
ok($events[0]{user_joined}, 'and whose first it is');
value($node, q{BEGIN; SELECT presence_add('r', 'b', 'alice'); SAVEPOINT s; SELECT presence_add('r', 'c'); ROLLBACK TO s; COMMIT});
is_deeply($listener->summary, ['join r b'], 'savepoints are respected');
value($node, q{SELECT presence_update('r', 'a', '{"n": 2}'); SELECT presence_remove('r', 'b')});
is_deeply($listener->summary, [ 'update r a', 'leave r b leave' ], 'update and leave');
is(value($node, q{SELECT presence_touch('a')}), 't', 'heartbeats work');
is(value($node, q{SELECT presence_touch_many(ARRAY['a', 'b'])}), '{b}', 'in arrays, too');
is(value($node, q{SELECT presence_receive('a', '"heartbeat"')}), 'f', 'and as messages');

# Channels with heartbeats stay, others are hidden, and prune_presences
# announces their removal.  Only this session sees that time has passed.
my $later = session($node);
declare_test_functions($node);
value($node, q{SELECT presence_add('r', 'silent')});
is($later->query_safe(q{SELECT string_agg(channel_name, ' ' ORDER BY channel_name) FROM presence_list('r')}), 'a silent', 'both are seen');
$later->query_safe('SELECT advance_clock(400 * 1000000)');
is($later->query_safe(q{SELECT presence_touch('a')}), 't', 'one beats');
$later->query_safe('SELECT advance_clock(400 * 1000000)');
is($later->query_safe(q{SELECT count(*) FROM presence_list('r') WHERE channel_name = 'silent'}), 0, 'the silent are not seen');
is($later->query_safe(q{SELECT string_agg(channel_name, ' ') FROM presence_list('r')}), 'a', 'who beats is');
is($later->query_safe(q{SELECT presence_touch('silent')}), 'f', 'the dead cannot be touched');
$listener->clear;
cmp_ok($later->query_safe('SELECT prune_presences()'), '>=', 1, 'they are removed');
$later->quit;
ok($listener->wait_for('leave', sub { $_[0]->{event} eq 'leave' && $_[0]->{removed}{channel_name} eq 'silent' && $_[0]->{reason} eq 'expired' }),
	'and leave');
value($node, q{SELECT presence_leave_all('a')});
cmp_ok(value($node, 'SELECT prune_rooms()'), '>=', 0, 'rooms can be pruned');

# A worker can be started, but only one.  It sees time pass as it does.
set_max_age($node, '2s');
is(value($node, 'SELECT presence_start_worker()'), 't', 'a worker starts');
is(value($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'presence worker'}), 1, 'there it is');
value($node, 'SELECT presence_start_worker()');
ok( wait_until('a single worker', sub {
		value($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'presence worker'}) == 1;
	}),
	'a second call changes nothing');
value($node, q{SELECT presence_add('r', 'silent')});
ok( $listener->wait_for('leave', sub {
		$_[0]->{event} eq 'leave' && $_[0]->{removed}{channel_name} eq 'silent' && $_[0]->{reason} eq 'expired';
	}),
	'the silent expire by themselves');
ok( wait_until('an idle worker', sub {
		value($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'presence worker'
			AND xact_start IS NULL AND backend_xmin IS NULL});
	}),
	'the idle worker holds no snapshot');

# The worker must not block other statements.
my $pid = value($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'presence worker'});
value($node, "SELECT pg_terminate_backend($pid)");
ok( wait_until('no worker', sub {
		value($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'presence worker'}) == 0;
	}),
	'it can be terminated');
is(value($node, 'SELECT presence_start_worker()'), 't', 'and started again');
value($node, 'DROP EXTENSION presence');
ok( wait_until('no worker', sub {
		value($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'presence worker'}) == 0;
	}),
	'it leaves with the extension');

# After a restart each channel gets a full max_age.
value($node, 'CREATE EXTENSION presence');
set_max_age($node, '10min');
value($node, q{SELECT presence_add('r', 'survivor');
	UPDATE presence.presences SET last_seen = now() - interval '1 hour'});
$node->stop('immediate');
$node->start;
is(value($node, q{SELECT presence_count('r')}), 1, 'nobody dies while the server is away');
is(value($node, q{SELECT prune_presences()}), 0, 'and nobody is removed');
set_max_age($node, '1s');
ok(wait_until('the survivor dies', sub { value($node, q{SELECT presence_count('r')}) == 0 }), 'but later');

eval { $listener->quit };
$node->stop;
done_testing();
