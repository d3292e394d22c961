# Proves: a ban, and the deletion of a room, succeed while other transactions
# are adding: with a worker they wait for nothing, without one a ban waits for a
# bounded time, and however that wait ends the session remains usable.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('ban', conf => "presence.max_age = 1h\ndeadlock_timeout = 100ms");
my $listener = listen_to($node);

await_announcer($node);

# Wait until a room is empty.
sub gone
{
	my ($room) = @_;

	return wait_until("nobody is in $room",
		sub { value($node, "SELECT count(*) FROM presence.presences WHERE room = '$room'") == 0 });
}

# A session with an open transaction that has added.
sub adding
{
	my ($room, $channel, $user) = @_;
	my $session = session($node);

	$session->query('BEGIN');
	$session->query("SELECT id FROM presence_add('$room', '$channel', '$user')");
	return $session;
}

# 1. With a worker ---------------------------------------------------------------
my $slow = adding('field', 'c1', 'oscar');
is(value($node, q{SET statement_timeout = '30s'; SELECT presence_ban('field', 'oscar')}),
	0, 'a ban does not wait for an add that is open');
is(value($node, q{SELECT presence_ban(NULL, 'mallory')}), 0, 'nor does one of somebody else');
$slow->query('COMMIT');
ok(gone('field'), 'who has entered beside a ban is removed');
ok($listener->wait_for('the leave', sub { $_[0]->{event} eq 'leave' && $_[0]->{reason} eq 'banned' && $_[0]->{removed}{channel_name} eq 'c1' }),
	'and listeners are told why');

# Whom the worker removes leaves a place.
value($node, q{SELECT presence_configure_room('narrow', 1)});
my $taken = adding('narrow', 'n1', 'nick');
value($node, q{SELECT presence_ban('narrow', 'nick')});
my ($status, $out, $err) = $node->psql('postgres', q{SELECT presence_add('narrow', 'n2')});
like($err, qr/room is full/, 'who has entered takes the only place');
$taken->query('COMMIT');
ok(gone('narrow'), 'he is removed');
($status, $out, $err) = $node->psql('postgres', q{SELECT channel_name FROM presence_add('narrow', 'n2')});
is($out, 'n2', 'and his place is free');
($status, $out, $err) = $node->psql('postgres', q{SELECT presence_add('narrow', 'n3')});
like($err, qr/room is full/, 'once');
$taken->quit;

# The same as another user, and in the opposite order.
value($node, q{SELECT presence_unban('field', 'oscar'); SELECT presence_add('field', 'c2')});
$slow = adding('field', 'c2', 'oscar');
value($node, q{SELECT presence_ban('field', 'oscar')});
$slow->query('COMMIT');
ok(gone('field'), 'who has become a banned user beside the ban is removed');

# Many channels, more than one batch, while the worker is replaced.
$slow = session($node);
$slow->query('BEGIN');
$slow->query(q{SELECT presence_add_many('crowd', array_agg('m' || n), array_agg('eve'::text)) FROM generate_series(1, 2500) n});
value($node, q{SELECT presence_ban(NULL, 'eve')});
value($node, q{SELECT pg_terminate_backend(worker_pid) FROM presence.stats});
$slow->query('COMMIT');
ok(gone('crowd'), 'also where the worker that knew of the ban is gone, and they are many');

# A row that another session has locked is removed later, and delays no others.
value($node, q{SELECT presence_unban(NULL, 'eve'); SELECT presence_add('crowd', 'a', 'eve'), presence_add('crowd', 'b', 'eve')});
my $locker = session($node);
$locker->query('BEGIN');
$locker->query(q{SELECT id FROM presence.presences WHERE channel_name = 'a' FOR UPDATE});
$slow = adding('crowd', 'c', 'eve');
# by plain SQL, because presence_ban() would wait for the row
value($node, q{INSERT INTO presence.bans (user_id) VALUES ('eve')});
value($node, q{SELECT pg_terminate_backend(worker_pid) FROM presence.stats});
$slow->query('COMMIT');
ok(wait_until('the others are gone', sub { value($node, q{SELECT string_agg(channel_name, ' ') FROM presence.presences WHERE room = 'crowd'}) eq 'a' }),
	'a locked row stays, the others go');
$locker->query('COMMIT');
ok(gone('crowd'), 'and goes when it is free');

# A room that is deleted during an add is created again.
$slow = adding('cellar', 'c3', 'peggy');
value($node, q{DELETE FROM presence.rooms WHERE name = 'cellar'});
$slow->query('COMMIT');
ok(wait_until('the room is back', sub { value($node, q{SELECT connections FROM presence.room_list WHERE room = 'cellar'}) eq '1' }),
	'a room deleted beside an add has a row again');

# 2. Without one -------------------------------------------------------------------
$node->append_conf('postgresql.conf', 'presence.notify = transaction');
$node->reload;
ok(wait_until('transactions announce', sub { value($node, 'SELECT mode FROM presence.stats') eq 'transaction' }), 'transactions announce');
value($node, 'DELETE FROM presence.bans; DELETE FROM presence.presences');

$slow = adding('field', 'slow', 'oscar');
my ($code, $stdout, $stderr) = $node->psql('postgres', q{\set VERBOSITY verbose
SELECT presence_ban('field', 'mallory')});
like($stderr, qr/55P03: could not ban the user now.*DETAIL:  A transaction that adds presences.*HINT:  Repeat the call/s, 'a ban is held up, boundedly');
is(value($node, 'SELECT count(*) FROM presence.bans'), 0, 'and is not half done');

# However the wait ends, the session continues, and what it does then takes
# effect.
value($node, 'CREATE TABLE t (what text)');
my $session = session($node);

# Statements of one transaction after the ban has failed with an error that is
# caught.
sub survives
{
	my ($name, $setting, $condition) = @_;

	$session->query("SET $setting") if $setting;
	$session->query(qq{DO \$\$
		BEGIN
			PERFORM presence_ban('field', 'mallory');
			RAISE EXCEPTION 'not held up';
		EXCEPTION WHEN $condition THEN
			INSERT INTO t VALUES ('$name');
		END
		\$\$});
	$session->query('RESET ALL');
	$session->query("INSERT INTO t VALUES ('after $name')");
	is(value($node, "SELECT string_agg(what, ', ' ORDER BY what) FROM t"), "after $name, $name", "$name: caught, and later statements are committed");
	value($node, 'TRUNCATE t');
	$session->query("SET $setting") if $setting;
	$session->query(q{SELECT presence_ban('field', 'mallory')});
	$session->query('RESET ALL');
	is($session->query('SELECT 1 AS one'), '1', "$name: not caught, and the session goes on");
	return;
}
survives('limit', undef, 'lock_not_available');
survives('lock_timeout', "lock_timeout = '100ms'", 'lock_not_available');
survives('statement_timeout', "statement_timeout = '300ms'", 'query_canceled');

# pg_cancel_backend arrives during the wait, which is long enough here.
$session->query("SET deadlock_timeout = '10min'");
my $pid = $session->query('SELECT pg_backend_pid()');
$session->query_until(qr/begun/, "\\echo begun\nSELECT presence_ban('field', 'mallory');\n");
ok(wait_until('the ban waits', sub {
			value($node, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = $pid AND wait_event_type = 'Lock'") eq 't'
		}), 'a ban that waits is cancelled');
$session->query('RESET ALL');
is($session->query('SELECT 1 AS one'), '1', 'and the session goes on');

# A deadlock with the adding transaction.
$session->query('BEGIN');
$session->query('LOCK TABLE t');
$slow->query_until(qr/begun/, "\\echo begun\nSELECT count(*) FROM t;\n");
ok(wait_until('the adder waits', sub { value($node, q{SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 't'::regclass}) > 0 }), 'the adder waits');
$session->query(q{SELECT presence_ban('field', 'mallory')});
$session->query('ROLLBACK');
$slow->query('ROLLBACK');
is($session->query('SELECT 1 AS one'), '1', 'a deadlock ends neither session');
is($slow->query('SELECT 1 AS one'), '1', 'nor the other');
unlike(log_slice($node), qr/unexpected state|TRAP|PANIC|terminated by signal/, 'the log is clean');

is(value($node, q{SELECT presence_ban('field', 'mallory')}), 0, 'once nobody is adding the ban succeeds');
$slow = adding('cellar', 'c4', 'peggy');
value($node, q{DELETE FROM presence.rooms WHERE name = 'cellar'});
$slow->query('COMMIT');
value($node, 'SELECT prune_rooms()');
is(value($node, q{SELECT connections FROM presence.room_list WHERE room = 'cellar'}), 1, 'prune_rooms gives a room back its row');

$session->quit;
$slow->quit;
$node->stop;
done_testing();
