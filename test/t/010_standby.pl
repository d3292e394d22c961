# Proves: on a standby reads show every presence and writes are refused with
# 25006; after promotion each presence gets one max_age, then silent ones
# expire.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $primary = new_node('primary', init => { allows_streaming => 1 }, conf => 'autovacuum = off');

declare_test_functions($primary);
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
ok(age_until($primary, 'the primary forgets', undef, sub { value($primary, q{SELECT count(*) FROM presence.presences}) == 0 }),
	'on the primary the silent die');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
is(value($standby, q{SELECT count(*) FROM presence.presences}), 0, 'and so on the standby');
value($primary, q{SELECT presence_add('r', 'beating'), presence_add('r', 'silent')});
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
for (1 .. 3)
{
	value($primary, q{SELECT presence_touch_many(ARRAY['beating', 'silent']), advance_clock(400 * 1000000)});
}
value($standby, q{SELECT advance_clock(7200 * 1000000::bigint)});
is(value($primary, q{SELECT presence_touch_many(ARRAY['beating', 'silent'])}), '{}', 'who beats lives on the primary');
is(value($standby, q{SELECT presence_count('r')}), 2, 'who beats on the primary lives on the standby');

# Promotion. Of max_age, which is ten minutes, the last one is for a slow
# machine.
$primary->stop('immediate');
$standby->promote;
is(value($standby, q{SELECT presence_count('r')}), 2, 'after promotion everybody lives');
is(value($standby, q{SELECT presence_touch('beating')}), 't', 'who beats stays');
my $listener = listen_to($standby);
value($standby, q{SELECT advance_clock(540 * 1000000)});
is(value($standby, q{SELECT presence_count('r')}), 2, 'nobody dies before a full max_age');
ok( age_until($standby, 'the silent die', q{ARRAY['beating']},
		sub { value($standby, q{SELECT count(*) FROM presence_list('r') WHERE channel_name = 'silent'}) == 0 }),
	'who does not dies');
ok( age_until($standby, 'leave', q{ARRAY['beating']}, sub {
		grep { $_->{event} eq 'leave' && $_->{removed}{channel_name} eq 'silent' && $_->{reason} eq 'expired' } $listener->events;
	}),
	'and leaves');
is(value($standby, q{SELECT string_agg(channel_name, ' ') FROM presence.presences WHERE room = 'r'}), 'beating',
	'who beats is still there');
value($standby, q{SELECT presence_add('r', 'new')});
ok($listener->wait_for('join', sub { $_[0]->{event} eq 'join' && $_[0]->{added}{channel_name} eq 'new' && defined $_[0]->{seq} }),
	'the new primary has a worker');

$listener->quit;
$standby->stop;
done_testing();
