# Proves: on a standby reads show every presence and writes are refused with
# 25006; after promotion each presence gets one max_age, then silent ones
# expire.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;
use Time::HiRes qw(time);

my $max_age = 6;
my $primary = new_node('primary', init => { allows_streaming => 1 }, conf => qq(
presence.max_age = ${max_age}s
autovacuum = off
));

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

value($primary, q{SELECT presence_add('r', 'a', 'alice'), presence_add('r', 'b', 'bob')});
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));

# Reads.
is(value($standby, q{SELECT string_agg(channel_name, ' ') FROM presence_list('r')}), 'a b', 'a standby lists');
is(value($standby, q{SELECT presence_snapshot('r')->>'connections'}), 2, 'takes snapshots');
is(value($standby, q{SELECT presence_is_online('alice')}), 't', 'knows who is online');
is(value($standby, q{SELECT user_id FROM presence_online(ARRAY['bob', 'eve'])}), 'bob', 'also of many');
is(value($standby, q{SELECT connections FROM presence.room_list}), 2, 'and what rooms there are');
ok(value($standby, q{SELECT mode FROM presence.stats}) ne '', 'statistics can be read');

# Writes.
for my $call (
	q{presence_add('r', 'c')}, q{presence_add_many('r', ARRAY['c'])}, q{presence_update('r', 'a', '{}')},
	q{presence_remove('r', 'a')}, q{presence_touch('a')}, q{presence_touch_many(ARRAY['a'])},
	q{presence_receive('a', 'hello')}, q{presence_leave_all('a')}, q{presence_leave_all_many(ARRAY['a'])},
	q{prune_presences()}, q{prune_presences(0)}, q{prune_rooms()}, q{presence_start_worker()},
	q{presence_configure_room('r')}, q{presence_kick('r', 'alice')}, q{presence_ban('r', 'alice')},
	q{presence_set_status('alice', 'away')}, q{presence_broadcast('r', 'hello')})
{
	my ($status, $out, $err) = $standby->psql('postgres', "\\set VERBOSITY verbose\nSELECT $call");

	like($err, qr/ERROR:  25006:/, "$call is refused");
}

# Heartbeats are not replicated, so nothing expires on a standby.
ok( wait_until('the primary forgets', sub { value($primary, q{SELECT count(*) FROM presence.presences}) == 0 }),
	'on the primary the silent die');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
is(value($standby, q{SELECT count(*) FROM presence.presences}), 0, 'and so on the standby');
value($primary, q{SELECT presence_add('r', 'beating'), presence_add('r', 'silent')});
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
my $ended = time() + $max_age + 1;
while (time() < $ended)
{
	value($primary, q{SELECT presence_touch_many(ARRAY['beating', 'silent'])});
}
is(value($standby, q{SELECT presence_count('r')}), 2, 'who beats on the primary lives on the standby');

# Promotion.
$primary->stop('immediate');
my $began = time();
$standby->promote;
is(value($standby, q{SELECT presence_count('r')}), 2, 'after promotion everybody lives');
is(value($standby, q{SELECT presence_touch('beating')}), 't', 'who beats stays');
my $listener = listen_to($standby);
my $alive = time();
ok( wait_until('the silent die', sub {
		value($standby, q{SELECT presence_touch('beating')}) eq 't' or return 1;
		return 1 if value($standby, q{SELECT count(*) FROM presence_list('r') WHERE channel_name = 'silent'}) == 0;
		$alive = time();
		return 0;
	}),
	'who does not dies');
cmp_ok(time(), '>=', $began + $max_age, 'not before a full max_age');
ok( $listener->wait_for('leave', sub {
		$_[0]->{event} eq 'leave' && $_[0]->{removed}{channel_name} eq 'silent' && $_[0]->{reason} eq 'expired';
	}),
	'and leaves');
is(value($standby, q{SELECT string_agg(channel_name, ' ') FROM presence.presences WHERE room = 'r'}), 'beating',
	'who beats is still there')
  or diag('the machine is slow');
value($standby, q{SELECT presence_add('r', 'new')});
ok($listener->wait_for('join', sub { $_[0]->{event} eq 'join' && $_[0]->{added}{channel_name} eq 'new' && defined $_[0]->{seq} }),
	'the new primary has a worker');

$listener->quit;
$standby->stop;
done_testing();
