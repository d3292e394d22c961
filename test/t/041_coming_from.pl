# Proves: the rows of docs/coming-from.md that concern listeners are correct,
# one assertion per row, and every test that the document names exists.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $top = "$FindBin::RealBin/../..";
my $node = new_node('coming_from', conf => q(
presence.join_rate = 100
presence.join_rate_window = 1h
presence.queue_size = 64kB
), init => { allows_streaming => 1 });
my ($changed, $status, $broadcast, $state) =
  map { listen_to($node, 'postgres', $_) } qw(presence_changed presence_status presence_broadcast presence_state);

sub run
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# The SQLSTATE that a statement raises.
sub state_of
{
	my ($sql, $where) = @_;
	my ($stdout, $stderr);

	($where // $node)->psql('postgres', "\\set VERBOSITY sqlstate\n$sql", stdout => \$stdout, stderr => \$stderr);
	return $stderr =~ /ERROR:  (\w{5})/ ? $1 : 'none';
}

# The next event on presence_changed that passes a check.
sub heard
{
	my ($what, $check) = @_;

	return $changed->wait_for($what, $check) // {};
}

declare_test_functions($node);
await_announcer($node);

# django-channels-presence
run(q{SELECT presence_add('lobby', 'c1', 'alice', '{"name": "Alice"}')});
my $event = heard('a join', sub { $_[0]{event} eq 'join' });
is("$event->{room} $event->{added}{channel_name} " . ($event->{removed} // 'null'), 'lobby c1 null',
	'presence_changed: added names the presence');
ok(!$event->{bulk_change}, 'presence_changed: bulk_change is false for one');
is("$event->{connections} $event->{users} $event->{anonymous}", '1 1 0', 'presence_changed: members and lurkers are counted in the event');
run(q{SELECT presence_remove('lobby', 'c1')});
$event = heard('a leave', sub { $_[0]{event} eq 'leave' });
is("$event->{removed}{channel_name} $event->{reason} " . ($event->{added} // 'null'), 'c1 leave null',
	'presence_changed: removed names the presence');
$changed->clear;
run(q{SELECT presence_add_many('lobby', ARRAY(SELECT 'm' || i FROM generate_series(1, 60) i))});
$event = heard('a bulk', sub { $_[0]{event} eq 'bulk' });
ok($event->{bulk_change} && !$event->{added} && !$event->{removed} && @{ $event->{joined} } == 60,
	'presence_changed: bulk_change, and yet they are named');
run(q{SELECT presence_leave_all_many(ARRAY(SELECT 'm' || i FROM generate_series(1, 60) i))});
heard('their leave', sub { $_[0]{event} eq 'bulk' && $_[0]{left} && @{ $_[0]{left} } == 60 });

$changed->clear;
run(q{SELECT presence_add('lobby', 'c2', 'bob'), presence_add('garden', 'c2', 'bob')});
heard('both joins', sub { $_[0]{event} eq 'join' && $_[0]{room} eq 'garden' });
run(q{SELECT presence_leave_all('c2')});
heard('both leaves', sub { $_[0]{event} eq 'leave' && $_[0]{room} eq 'garden' });
is(join(' ', sort map { $_->{room} } grep { $_->{event} eq 'leave' } $changed->events), 'garden lobby',
	'leave_all: one leave for each room');

$changed->clear;
run(q{SELECT presence_add('lobby', 'silent', 'sid', '{"name": "Sid"}')});
heard('a join', sub { $_[0]{event} eq 'join' });
run('SELECT advance_clock(601000000)');
run(q{SELECT presence_add('elsewhere', 'nudge')});
$event = heard('a death', sub { $_[0]{event} eq 'leave' && $_[0]{removed}{channel_name} eq 'silent' });
is($event->{reason} // '', 'expired', 'expiry is announced, and names the channel');
is($event->{removed}{meta}{name} // '', 'Sid', 'handle_presence_leave: with the meta');

# djust
$changed->clear;
run(q{SELECT presence_add('document:7', 'tab 1', 'alice', '{"name": "Alice"}')});
$event = heard('tab 1', sub { $_[0]{event} eq 'join' && $_[0]{room} eq 'document:7' });
ok($event->{user_joined} && $event->{added}{meta}{name} eq 'Alice', 'handle_presence_join: user_joined, with the meta');
run(q{SELECT presence_add('document:7', 'tab 2', 'alice')});
$event = heard('tab 2', sub { $_[0]{event} eq 'join' && $_[0]{added}{channel_name} eq 'tab 2' });
ok(!$event->{user_joined}, 'a second tab of a user is no user_joined');
run(q{SELECT presence_leave_all('tab 1')});
$event = heard('tab 1 closes', sub { $_[0]{event} eq 'leave' && $_[0]{removed}{channel_name} eq 'tab 1' });
ok(!$event->{user_left}, 'nor is closing one of two a user_left');
run(q{SELECT presence_leave_all('tab 2')});
$event = heard('tab 2 closes', sub { $_[0]{event} eq 'leave' && $_[0]{removed}{channel_name} eq 'tab 2' });
ok($event->{user_left}, 'handle_presence_leave: user_left with the last');
run(q{SELECT presence_add('document:7', 'tab 3')});
heard('tab 3', sub { $_[0]{event} eq 'join' && $_[0]{added}{channel_name} eq 'tab 3' });
run(q{SELECT presence_add('document:7', 'tab 3', 'carol')});
$event = heard('a login', sub { $_[0]{event} eq 'update' && $_[0]{user_joined} } );
is($event->{added}{user_id} // '', 'carol', 'a login on an open connection is an update');
ok(exists $event->{previous}{user_id} && !defined $event->{previous}{user_id}, 'that tells who it was before');
run(q{SELECT presence_update('document:7', 'tab 3', '{"color": "red"}')});
$event = heard('a change', sub { $_[0]{event} eq 'update' && ($_[0]{added}{meta}{color} // '') eq 'red' });
is("$event->{connections} $event->{users}", '1 1', '_on_presence_change: every event carries the counts');
run(q{SELECT presence_broadcast('document:7', 'saved', '{"version": 3}', 'tab 3')});
$event = $broadcast->wait_for('the broadcast', sub { $_[0]{event} eq 'saved' }) // {};
is("$event->{room} $event->{payload}{version} $event->{sender}", 'document:7 3 tab 3', 'broadcast_to_presence: event, payload and sender');
run(q{SELECT presence_add('board', 'b', 'alice'); SELECT presence_cursor_update('board', 'alice', 1, 2)});
ok($state->wait_for('a cursor', sub { $_[0]{room} eq 'board' && ($_[0]{state}{'cursor:alice'}{x} // 0) == 1 }),
	'handle_cursor_move: positions are told to listeners');
run(q{SELECT presence_leave_all('b')});
ok($state->wait_for('its end', sub { exists $_[0]{state}{'cursor:alice'} && !defined $_[0]{state}{'cursor:alice'} }),
	'a cursor goes with its user');
is(value($node, q{SELECT count(*) FROM presence_cursors('board')}), 0, 'none is left');

# The tutorial
run(q{SELECT presence_add('users', 'ann 1', 'ann')});
$event = $status->wait_for('ann online', sub { $_[0]{user_id} eq 'ann' }) // {};
is($event->{status} // '', 'online', 'login: listeners hear username and status');
$status->clear;
run(q{SELECT presence_add('users', 'ann 2', 'ann')});
run(q{SELECT presence_leave_all('ann 1')});
run(q{SELECT presence_leave_all('ann 2')});
$event = $status->wait_for('ann offline', sub { $_[0]{user_id} eq 'ann' }) // {};
is($event->{status} // '', 'offline', 'logout: with the last connection, not the first');

# The chat
run(q{SELECT presence_add('chat', 'u1', 'una')});
$status->clear;
run(q{SELECT presence_set_status('una', 'away', 'lunch')});
$event = $status->wait_for('una away', sub { $_[0]{user_id} eq 'una' && $_[0]{status} eq 'away' }) // {};
is("$event->{status} $event->{custom_message}", 'away lunch', 'user_status_changed: status and message, with the user to leave out');
is(value($node, q{SELECT presence_add_many('busy', ARRAY(SELECT 'r' || i FROM generate_series(1, 100) i), array_fill('rob'::text, ARRAY[100]))}),
	100, 'check_rate_limit: 100 in an hour');
is(state_of(q{SELECT presence_add('busy', 'r101', 'rob')}), 'PR003', 'check_rate_limit: the 101st is refused, close code 4029');
is(state_of(q{SELECT presence_add('chat', 'r101', 'rob')}), 'none', 'check_rate_limit: user and room are counted');
run(q{BEGIN; CREATE TABLE messages (body text); INSERT INTO messages VALUES ('hello');
	SELECT presence_broadcast('chat', 'message', '{"body": "hello", "client_id": "x7"}', 'u1'); ROLLBACK});
run(q{SELECT presence_broadcast('chat', 'message', '{"body": "second", "client_id": "x8"}', 'u1')});
$broadcast->wait_for('the message', sub { $_[0]{event} eq 'message' });
is(join(' ', map { $_->{payload}{client_id} } grep { $_->{event} eq 'message' } $broadcast->events), 'x8',
	'group_send: a message goes out only if it was saved');
is(state_of(q{SELECT presence_broadcast('chat', 'message', jsonb_build_object('body', repeat('x', 8000)))}), '54000',
	'group_send: what is too large is refused, not lost');
run(q{SELECT presence_ban('chat', 'rob')});
$event = heard('the ban', sub { $_[0]{event} eq 'leave' && ($_[0]{removed}{user_id} // '') eq 'rob' && $_[0]{room} eq 'chat' });
is($event->{reason} // '', 'banned', 'a ban tells the gateway which sockets to close');
run(q{SELECT presence_add('user_42', 'n1', '42'); SELECT presence_broadcast('user_42', 'notification', '{"title": "Hi"}')});
$event = $broadcast->wait_for('a notification', sub { $_[0]{room} eq 'user_42' }) // {};
is($event->{payload}{title} // '', 'Hi', 'NotificationConsumer: a room for each user');

# A full queue, a restart, a promotion
$changed->clear;
run(q{SELECT presence_add_many('crowd', ARRAY(SELECT 'a name of some length ' || i FROM generate_series(1, 5000) i))});
$event = heard('a resync', sub { $_[0]{event} eq 'resync' });
ok($event->{bulk_change}, 'capacity: what does not fit is announced as resync');
$_->quit foreach $changed, $status, $broadcast, $state;

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('coming_from_standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
# the row says that max_age has passed, and the machine was started again
run(q{SELECT presence_leave_all_many(ARRAY(SELECT channel_name FROM presence.presences));
	SELECT presence_add('chat', 'survivor', 'sue');
	UPDATE presence.presences SET last_seen = '2001-01-01'});
$standby->start;
$node->wait_for_catchup($standby);
$node->stop;
is(value($standby, q{SELECT presence_count('chat')}), 1, 'a standby shows everybody as alive');
is(state_of(q{SELECT presence_touch('survivor')}, $standby), '25006', 'and refuses heartbeats');
$standby->promote;
is(value($standby, q{SELECT presence_touch('survivor')}), 't', 'a promotion: one max_age of grace');
$standby->stop;
$node->start;
is(value($node, q{SELECT presence_touch('survivor')}), 't', 'a restart: one max_age of grace');

# The document refers to tests as `file: test name`
my $document = slurp_file("$top/docs/coming-from.md");
my (@rows, @wrong, %seen);

foreach my $line (split /\n/, $document)
{
	next unless $line =~ /^\|/ && $line !~ /^\|(?:---|\s*theirs\b)/;
	push @rows, $line;
	my @named = $line =~ m{`((?:test|docs)/[^`: ]+): ([^`]+)`}g;
	push @wrong, "names no test: $line" unless @named;
	while (my ($file, $name) = splice(@named, 0, 2))
	{
		my $text = -e "$top/$file" ? ($seen{$file} //= slurp_file("$top/$file")) : '';

		push @wrong, "no \"$name\" in $file"
		  unless index($text, $file =~ /\.md$/ ? "<!-- $name" : "'$name") >= 0;
	}
}
cmp_ok(scalar @rows, '>', 60, 'docs/coming-from.md has its rows');
is(join("\n", @wrong), '', 'every row names tests that exist');

$node->stop;
done_testing();
