# Proves: changes of presences applied by logical replication are announced like
# local ones, and the presences expire where they get no heartbeats.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('logical', init => { allows_streaming => 'logical' }, conf => q(
max_worker_processes = 16
presence.keep_visits = 1d
));

# Two databases of one server: the slot is created separately, because otherwise
# the two sides would wait for each other.
value($node, 'CREATE DATABASE there');
value($node, 'CREATE EXTENSION presence', 'there');
value($node, q{CREATE PUBLICATION p FOR TABLE presence.presences;
	SELECT pg_create_logical_replication_slot('s', 'pgoutput')});
value($node, q{SELECT presence_add('r', 'local', 'alice')}, 'there');
my $listener = listen_to($node, 'there');
value($node, "CREATE SUBSCRIPTION s CONNECTION '"
	  . $node->connstr('postgres') =~ s/'/''/gr . "' PUBLICATION p WITH (create_slot = false, slot_name = 's', copy_data = false)", 'there');

# Wait for an event about a channel.
sub heard
{
	my ($kind, $channel) = @_;

	return $listener->wait_for("$kind of $channel", sub {
		my $who = $_[0]->{added} // $_[0]->{removed};

		$_[0]->{event} eq $kind && $who && $who->{channel_name} eq $channel;
	});
}

value($node, q{SELECT presence_add('r', 'remote', 'bob', '{"n": 1}')});
my $event = heard('join', 'remote');
ok($event, 'a replicated join is heard');
is($event->{connections}, 2, 'and counted with the local ones');
is_deeply($event->{added}{meta}, { n => 1 }, 'with its meta');
ok(defined $event->{seq}, 'told by the worker');
is(value($node, q{SELECT string_agg(channel_name, ' ' ORDER BY channel_name) FROM presence_list('r')}, 'there'), 'local remote',
	'it is listed');
is(value($node, q{SELECT presence_touch('remote')}, 'there'), 't', 'and beats');

value($node, q{SELECT presence_update('r', 'remote', '{"n": 2}')});
ok($event = heard('update', 'remote'), 'a replicated update is heard');
is_deeply($event->{added}{meta}, { n => 2 }, 'with the new meta');

value($node, q{SELECT presence_add('r', 'remote', 'carol')});
ok($listener->wait_for('another user', sub { $_[0]->{event} eq 'update' && $_[0]->{previous} && $_[0]->{previous}{user_id} eq 'bob' }),
	'a replicated change of user names the previous one');

value($node, q{SELECT presence_leave_all('remote')});
ok(heard('leave', 'remote'), 'a replicated leave is heard');
is(value($node, q{SELECT presence_touch('remote')}, 'there'), 'f', 'nobody is left to beat');
is(value($node, q{SELECT channel_name, user_id, reason FROM presence.visits}), 'remote|carol|leave', 'it was a visit at the origin');
is(value($node, q{SELECT count(*) FROM presence.visits}, 'there'), 0, 'not once more where it is replicated');
value($node, q{BEGIN; SELECT presence_add('r', 'never'); ROLLBACK; SELECT presence_add('r', 'at last')});
ok(heard('join', 'at last'), 'and so on');
is(scalar(grep { $_->{added} && $_->{added}{channel_name} eq 'never' } $listener->events), 0, 'without what was rolled back');

# Who comes in by replication asks for no place, but takes one.
sub entry
{
	my ($channel) = @_;
	my ($status, $out, $err) = $node->psql('there', "SELECT channel_name FROM presence_add('full', '$channel')");

	return $out || $err =~ s/^psql:.*?ERROR: +//sr =~ s/\n.*//sr;
}
value($node, q{SELECT name FROM presence_configure_room('full', 2)}, 'there');
is(entry('one'), 'one', 'a room with two places: one is taken');
value($node, q{SELECT presence_add('full', 'from afar')});
ok(heard('join', 'from afar'), 'the other by a replicated join');
is(entry('two'), 'room is full', 'so nobody else comes in');
value($node, q{SELECT presence_add('full', 'from afar too')});
ok(heard('join', 'from afar too'), 'replication is never refused');
value($node, q{SELECT presence_leave_all('from afar')});
ok(heard('leave', 'from afar'), 'one leaves');
is(entry('two'), 'room is full', 'and leaves no place, as there was one too many');
value($node, q{SELECT presence_leave_all('from afar too')});
ok(heard('leave', 'from afar too'), 'the other leaves, too');
is(entry('two'), 'two', 'and leaves a place');
is(entry('three'), 'room is full', 'but one');

# Heartbeats are not replicated: after two thirds of max_age, twice, only the
# origin sends one.
declare_test_functions($node);
foreach (1, 2)
{
	value($node, q{SELECT advance_clock(667 * setting::bigint) FROM pg_settings WHERE name = 'presence.max_age'});
	is(value($node, q{SELECT presence_touch('at last')}), 't', 'the origin beats');
}
ok($event = age_until($node, 'leave', q{ARRAY['at last']}, sub {
		(grep { $_->{event} eq 'leave' && $_->{removed}{channel_name} eq 'at last' } $listener->events)[0];
	}), 'a follower for whom nobody beats lets it go');
is($event->{reason}, 'expired', 'as expired');
is(value($node, q{SELECT presence_count('r')}), 1, 'the origin keeps it');
$listener->clear;
value($node, q{TRUNCATE presence.presences});
ok($listener->wait_for('resync', sub { $_[0]->{event} eq 'resync' }), 'a replicated TRUNCATE is a resync');

value($node, 'ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s', 'there');
$listener->quit;
$node->stop;
done_testing();
