# Proves: with a publication FOR ALL TABLES all updates and deletes work, in
# sessions and in the worker, which is not restarted.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('publication', init => { allows_streaming => 'logical' }, conf => q(
max_worker_processes = 16
presence.max_age = 2s
presence.join_rate = 3
presence.join_rate_window = 1s
));
value($node, 'CREATE PUBLICATION everything FOR ALL TABLES');
await_announcer($node);

my $worker = value($node, 'SELECT worker_pid FROM presence.stats');
my $statuses = listen_to($node, 'postgres', 'presence_status');

# Each statement in a separate session.
sub lives
{
	my ($sql, $expected, $name) = @_;
	my ($status, $out, $err) = $node->psql('postgres', $sql);

	is("$out$err", $expected, $name);
	return;
}

lives(q{SELECT presence_ban('lobby', 'mallory')}, 0, 'a ban');
lives(q{SELECT presence_ban('lobby', 'mallory', '2999-01-01')}, 0, 'a ban that is changed');
lives(q{SELECT presence_ban(NULL, 'mallory')}, 0, 'a ban from every room');
lives(q{SELECT presence_unban('lobby', 'mallory'), presence_unban(NULL, 'mallory')}, 't|t', 'both are taken back');
lives(q{SELECT presence_invite('lobby', 'alice'), presence_uninvite('lobby', 'alice')}, 't|t', 'an invitation, and back');
lives(q{SELECT max_members FROM presence_configure_room('club', 5); SELECT max_members FROM presence_configure_room('club', 6)},
	"5\n6", 'a room is configured anew');
lives(q{SELECT status FROM presence_set_status('alice', 'away'); SELECT chosen_status FROM presence_set_status('alice', 'busy')},
	"offline\nbusy", 'a status is changed');

# The worker records when users went offline, by a leave or by expiry.
foreach my $round (1 .. 2)
{
	value($node, q{SELECT presence_add('lobby', 'c1', 'alice'); SELECT presence_add('lobby', 'c2', 'bob')});
	value($node, q{SELECT presence_leave_all('c1')});
	foreach my $user ('alice', 'bob')
	{
		ok($statuses->wait_for("$user goes offline", sub { $_[0]->{user_id} eq $user && $_[0]->{status} eq 'offline' }),
			"round $round: $user goes offline");
	}
	$statuses->clear;
}
is(value($node, q{SELECT string_agg(user_id, ' ' ORDER BY user_id) FROM presence.user_last_seen}), 'alice bob',
	'each is remembered in one row');
value($node, q{INSERT INTO presence.user_last_seen SELECT 'alice', '2001-01-01' FROM generate_series(1, 3)});
lives(q{SELECT prune_rooms() > 0, prune_presences(0)}, 't|0', 'rooms are pruned');
lives(q{DELETE FROM presence.user_last_seen; DELETE FROM presence.people; DELETE FROM presence.admissions;
	SELECT 'done'}, 'done', 'all can be forgotten');
is(value($node, 'SELECT worker_pid FROM presence.stats'), $worker, 'the worker is the one of the beginning');
unlike(slurp_file($node->logfile), qr/55000|replica identity/, 'and nothing was refused');

$statuses->quit;
$node->stop;
done_testing();
