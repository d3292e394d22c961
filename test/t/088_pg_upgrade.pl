# Proves: pg_upgrade, with copies and with links, keeps all that the extension
# has, what roles may and what users put on its tables; who was present then has
# one max_age of grace, and functions, worker and events work.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PresenceCatalog;
use PresenceTest;
use Test::More;

# pg_upgrade refuses clusters that differ in these.
my @init = (extra => [ '--encoding=UTF8', '--no-locale' ]);
my $settings = q(
presence.keep_visits = 1d
presence.keep_last_seen = 0
presence.prune_rooms_interval = 0
autovacuum = off
);

# While pg_upgrade has the servers run: a worker would soon remove everybody.
my $meanwhile = "shared_preload_libraries = 'presence'\npresence.max_age = 100ms\n";

# A cluster in use: two databases, one with the functions in a schema of its own.
sub make_old
{
	my $node = new_node('old', conf => $settings);

	declare_test_functions($node);
	await_announcer($node);
	value($node, q{CREATE ROLE gateway; CREATE ROLE dashboard; CREATE ROLE tenant;
		SELECT presence_grant('gateway', 'admin'), presence_grant('dashboard', 'reader'), presence_grant('tenant');
		SELECT presence_add('hall', 'a', 'alice', '{"n": 1}'), presence_add('hall', 'b', 'bob'), presence_add('hall', 'c');
		SELECT presence_add('hall', 'gone', 'gil'); SELECT presence_leave_all('gone');
		SELECT presence_configure_room('quiet', announce => 'counts', persistent => true),
			presence_configure_room('small', max_members => 1, meta => '{"topic": "t"}'),
			presence_configure_room('closed', private => true), presence_invite('closed', 'alice');
		SELECT presence_add('small', 'a', 'alice');
		SELECT presence_ban('hall', 'eve', reason => 'noise'), presence_ban(NULL, 'mallory');
		SELECT presence_set_status('alice', 'busy', 'in a meeting');
		INSERT INTO presence.user_last_seen VALUES ('dora', '2001-02-03 04:05:06Z');
		INSERT INTO presence.admissions VALUES ('hall', 'alice', now());
		ALTER TABLE presence.presences ENABLE ROW LEVEL SECURITY;
		CREATE POLICY own_users ON presence.presences TO tenant USING (user_id = 'alice') WITH CHECK (user_id = 'alice');
		CREATE POLICY all_users ON presence.presences TO gateway USING (true);
		CREATE INDEX own_index ON presence.presences ((meta->>'n'));
		CREATE VIEW here AS SELECT room, channel_name FROM presence.members;
		CREATE DATABASE elsewhere});
	wait_until('gil is away', sub { value($node, q{SELECT count(*) FROM presence.user_last_seen WHERE user_id = 'gil'}) });
	value($node, q{CREATE SCHEMA app; CREATE EXTENSION presence SCHEMA app; SELECT app.presence_add('there', 'x', 'xenia')}, 'elsewhere');
	my $epoch = value($node, 'SELECT epoch FROM presence.stats');

	# All have been silent for long by now: in the rows, since no worker looks.
	restart_node($node, "shared_preload_libraries = ''\n");
	value($node, q{UPDATE presence.presences SET last_seen = '2001-02-03 04:05:06Z'}, $_) for 'postgres', 'elsewhere';
	return ($node, $epoch);
}

# A new cluster that pg_upgrade has filled from the old one, and that runs.
sub upgrade
{
	my ($old, $mode) = @_;
	my $new = PostgreSQL::Test::Cluster->new("new_$mode");
	my $bin = $old->config_data('--bindir');

	$new->init(@init);
	$new->append_conf('postgresql.conf', $settings . $meanwhile);
	# It writes files into the directory it is called in.
	chdir($new->basedir) or BAIL_OUT("cannot enter a directory: $!");
	ok(run_log([ 'pg_upgrade', '--no-sync', $mode eq 'link' ? '--link' : (), '-b', $bin, '-B', $bin, '-d', $old->data_dir, '-D', $new->data_dir,
		'-p', $old->port, '-P', $new->port, '-s', $new->host ]), "$mode: pg_upgrade")
	  or die 'pg_upgrade has failed';
	$new->append_conf('postgresql.conf', "presence.max_age = 10min\n");
	$new->start;
	return $new;
}

# An SQLSTATE with which a statement fails.
sub state_of
{
	my ($node, $sql) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	return $err =~ /ERROR:  (\w{5}):/ ? $1 : 'none';
}

# What the rules of rooms say, and policies.
sub prove_rules
{
	my ($node, $mode) = @_;

	is(state_of($node, q{SELECT presence_add('small', 'd', 'dan')}), 'PR001', "$mode: a full room");
	is(state_of($node, q{SELECT presence_add('hall', 'd', 'eve')}), 'PR002', "$mode: a ban");
	is(state_of($node, q{SELECT presence_add('other', 'd', 'mallory')}), 'PR002', "$mode: a ban from all rooms");
	is(state_of($node, q{SELECT presence_add('closed', 'd', 'dan')}), 'PR004', "$mode: a private room");
	is(state_of($node, q{SET ROLE tenant; SELECT presence_add('hall', 'd', 'dan')}), '42501', "$mode: a policy for rows");
	is(state_of($node, q{SET ROLE dashboard; SELECT presence_add('hall', 'd', 'dan')}), '42501', "$mode: who only reads");
	is(value($node, q{SET ROLE tenant; SELECT string_agg(channel_name, ' ') FROM presence_list('hall')}), 'a', "$mode: a policy for readers");
	is(value($node, q{SET ROLE gateway; SELECT string_agg(channel_name, ' ' ORDER BY channel_name) FROM presence_list('hall')}), 'a b c',
		"$mode: and one for others");
	is(value($node, q{SELECT concat_ws(' ', status, custom_message) FROM presence_status('alice')}), 'busy in a meeting', "$mode: a status");
	is(value($node, q{SELECT last_seen = '2001-02-03 04:05:06Z' FROM presence_status('dora')}), 't', "$mode: when a user was last seen");
	is(value($node, q{SELECT count(*) FROM here}), 4, "$mode: a view of a user's");
	return;
}

# Events are sent by the worker, and numbers of rows go on.
sub prove_events
{
	my ($node, $mode, $epoch) = @_;

	await_announcer($node);
	isnt(value($node, 'SELECT epoch FROM presence.stats'), $epoch, "$mode: the epoch is new");
	my $listener = listen_to($node);
	$listener->drain;
	value($node, q{SELECT presence_add('closed', 'e', 'alice')});
	is_deeply($listener->summary, ['join closed e'], "$mode: who is invited joins");
	value($node, q{SELECT presence_add('quiet', 'e', 'alice')});
	$listener->wait_for("$mode: counts", sub { $_[0]->{event} eq 'counts' && $_[0]->{room} eq 'quiet' && $_[0]->{users} == 1 });
	ok(!(grep { $_->{event} eq 'join' && $_->{room} eq 'quiet' } $listener->events), "$mode: a room that is announced by its counts");
	value($node, q{SELECT presence_leave_all('e')});
	is(value($node, q{SELECT (SELECT min(id) FROM presence.visits WHERE channel_name = 'e') >
		(SELECT max(id) FROM presence.visits WHERE channel_name = 'gone')}), 't', "$mode: visits go on");
	is(value($node, q{SELECT id > (SELECT max(id) FROM presence.presences WHERE room IN ('hall', 'small'))
		FROM presence_add('ids', 'i')}), 't', "$mode: and ids of presences");
	$listener->quit;
	return;
}

# Who was present has one max_age to be heard of again.
sub prove_grace
{
	my ($node, $mode) = @_;
	my $here = q{SELECT string_agg(channel_name, ' ' ORDER BY channel_name) FROM presence.members WHERE room = 'hall'};
	my $listener = listen_to($node);

	is(value($node, 'SELECT prune_presences()'), 0, "$mode: nobody has expired");
	is(value($node, $here), 'a b c', "$mode: all are here");
	is(value($node, q{SELECT count(*) FROM presence.members}, 'elsewhere'), 1, "$mode: in each database");
	value($node, q{SELECT presence_touch('b')});
	age_until($node, "$mode: the silent expire", q{ARRAY['b']},
		sub { value($node, q{SELECT string_agg(channel_name, ' ') FROM presence.presences WHERE room = 'hall'}) eq 'b' });
	is(value($node, $here), 'b', "$mode: who is heard of stays");
	foreach my $channel ('a', 'c')
	{
		$listener->wait_for("$mode: leave of $channel", sub {
			$_[0]->{event} eq 'leave' && $_[0]->{reason} eq 'expired' && $_[0]->{room} eq 'hall' && $_[0]->{removed}{channel_name} eq $channel });
	}
	wait_until("$mode: the silent of the other database expire", sub { value($node, 'SELECT count(*) FROM presence.presences', 'elsewhere') == 0 });
	is(value($node, q{SELECT user_id FROM app.presence_add('there', 'y', 'yves')}, 'elsewhere'), 'yves', "$mode: where functions work");
	$listener->quit;
	return;
}

my ($old, $epoch) = make_old();
my %catalogs = map { $_ => catalog($old, $_) } 'postgres', 'elsewhere';
my @full = map { value($old, "SELECT count(*) > 0 FROM presence.$_") } qw(rooms presences visits people user_last_seen invitations bans admissions);

is("@full", join(' ', ('t') x 8), 'each table has rows');
$old->stop;
$old->append_conf('postgresql.conf', $meanwhile);

# The old cluster of links is not to be started any more, so it comes last.
foreach my $mode ('copy', 'link')
{
	my $new = upgrade($old, $mode);

	foreach my $db ('postgres', 'elsewhere')
	{
		is_deeply(changes_of($catalogs{$db}, catalog($new, $db), 'identity', 'file'), [], "$mode: all is in $db as it was");
	}
	prove_rules($new, $mode);
	prove_grace($new, $mode);
	prove_events($new, $mode, $epoch);
	$new->stop;
}

done_testing();
