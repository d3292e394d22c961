# Proves: admission rules are exact under concurrency, at each isolation level,
# and leave events carry their reason.
use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('admission', conf => q(
max_connections = 260
presence.bulk_threshold = 1000
));
my $dir = PostgreSQL::Test::Utils::tempdir();
my $listener = listen_to($node);

await_announcer($node);

# Add, and record the result.
value($node, q{
	CREATE TABLE outcomes (state text, detail text);
	CREATE FUNCTION try_add(room text, channel text, who text) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		about text;
	BEGIN
		PERFORM presence_add(room, channel, who);
		INSERT INTO outcomes VALUES ('in');
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS about = PG_EXCEPTION_DETAIL;
		INSERT INTO outcomes VALUES (SQLSTATE, about);
	END $$;
});

# Run a script once in each of several connections at the same time.
sub at_once
{
	my ($clients, $name, $sql) = @_;

	append_to_file("$dir/$name.sql", "$sql\n");
	$node->command_ok([ 'pgbench', '-n', '-c', $clients, '-j', 2, '-t', 1, '-f', "$dir/$name.sql", 'postgres' ], "$name: nobody fails otherwise");
	return;
}

# The results of the adds, as "PR001 100, in 100"; cleared by the call.
sub outcomes
{
	my $result = value($node, q{SELECT string_agg(state || ' ' || n, ', ' ORDER BY state COLLATE "C")
		FROM (SELECT state, count(*) AS n FROM outcomes GROUP BY state) s});

	value($node, 'TRUNCATE outcomes');
	return $result;
}

# Change settings that take effect on reload.
sub set
{
	my ($setting, $value) = @_;

	$node->append_conf('postgresql.conf', "$setting = '$value'");
	$node->reload;
	ok(wait_until("$setting arrives", sub { value($node, "SHOW $setting") eq $value }), "$setting = $value");
	return;
}

# 1. A room with 100 places, and 200 concurrent adds ---------------------------
for my $level ('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE')
{
	my $room = lc $level;
	my $clients = $level eq 'SERIALIZABLE' ? 60 : 200;
	my $places = $clients / 2;

	value($node, "SELECT presence_configure_room('$room', $places)");
	if ($level eq 'SERIALIZABLE')
	{
		# Here some may fail with 40001; the limit is never exceeded.
		append_to_file("$dir/serializable.sql", "SELECT try_add('$room', 'c' || :client_id, 'u' || :client_id);\n");
		$node->command_ok(
			[ 'pgbench', '-n', '--max-tries=1000', '-c', $clients, '-j', 2, '-t', 1, '-f', "$dir/serializable.sql",
				$node->connstr('postgres') . " options='-c default_transaction_isolation=serializable'" ],
			'serializable: all try');
		cmp_ok(value($node, "SELECT presence_count('$room')"), '<=', $places, 'serializable: not too many');
		unlike(outcomes(), qr/in (3[1-9]|[4-9]\d)/, 'serializable: nor was anybody told so');
		next;
	}
	at_once($clients, $room, qq(
BEGIN ISOLATION LEVEL $level;
SELECT count(*) FROM presence.presences;
SELECT try_add('$room', 'c' || :client_id, 'u' || :client_id);
COMMIT;));
	is(value($node, "SELECT DISTINCT detail ~ '^room: $room; user: u[0-9]+; limit: $places\$' FROM outcomes WHERE state <> 'in'"), 't', "$room: DETAIL");
	is(outcomes(), "PR001 $places, in $places", "$room: exactly $places get in");
	is(value($node, "SELECT presence_count('$room')"), $places, "$room: and are there");
}
my @events = $listener->drain;

# So many at once may keep the worker from its work for a second; then listeners
# are told to read again.
my $again = grep { $_->{event} eq 'resync' } @events;
for my $room ('read committed', 'repeatable read')
{
	my @told = grep { ($_->{room} // '') eq $room } @events;

	ok($again || 100 == grep({ $_->{event} eq 'join' } @told), "$room: 100 joins are told");
	is((sort { $b <=> $a } map { $_->{connections} // 0 } @told)[0], 100, "$room: never more than 100 connections");
}

# Without a handler for errors: the adds that succeed have committed.
value($node, q{SELECT presence_configure_room('bare', 10)});
append_to_file("$dir/bare.sql", "SELECT presence_add('bare', 'c' || :client_id);\n");
$node->command_fails([ 'pgbench', '-n', '-c', 40, '-j', 2, '-t', 1, '-f', "$dir/bare.sql", 'postgres' ], 'some are refused');
is(value($node, q{SELECT presence_count('bare')}), 10, 'exactly 10 are in');

# Rows that a member inserts by plain SQL
value($node, q{
	CREATE ROLE writer;
	SELECT presence_grant('writer');
	GRANT INSERT ON outcomes TO writer;
	CREATE FUNCTION try_row(room text, channel text, who text) RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO presence.presences (room, channel_name, user_id) VALUES (room, channel, who);
		INSERT INTO public.outcomes VALUES ('in');
	EXCEPTION WHEN OTHERS THEN
		INSERT INTO public.outcomes VALUES (SQLSTATE);
	END $$;
	ALTER FUNCTION try_row OWNER TO writer;
	SELECT presence_configure_room('rows', 10)});
at_once(40, 'rows', q{SELECT try_row('rows', 'c' || :client_id, 'u' || :client_id);});
is(outcomes(), 'PR001 30, in 10', 'of rows, too, exactly 10 get in');

# A room that is left and entered continuously never exceeds its limit.
value($node, q{SELECT presence_configure_room('door', 3)});
append_to_file("$dir/door.sql", qq(
SELECT try_add('door', 'd' || :client_id, NULL);
\\sleep 20 ms
SELECT presence_remove('door', 'd' || :client_id);
));
$listener->clear;
$node->command_ok([ 'pgbench', '-n', '-c', 16, '-j', 2, '-t', 20, '-f', "$dir/door.sql", 'postgres' ], 'coming and going');
@events = grep { $_->{room} eq 'door' } $listener->drain;
is(scalar(grep { $_->{connections} > 3 } @events), 0, 'no event tells of more than 3 connections');
cmp_ok(scalar(grep { $_->{connections} == 3 } @events), '>', 0, 'though the room was full');
like(outcomes(), qr/^PR001 \d+, in \d+$/, 'some were refused, nobody failed otherwise');

# 2. Rate limits ---------------------------------------------------------------
set('presence.join_rate', 5);
at_once(50, 'rate', q{SELECT try_add('rated', 'c' || :client_id, 'alice');});
is(value($node, q{SELECT DISTINCT detail FROM outcomes WHERE state = 'PR003'}), 'room: rated; user: alice; limit: 5 in 3600 seconds', 'PR003 has its DETAIL');
is(outcomes(), 'PR003 45, in 5', 'exactly 5 get in');
at_once(20, 'rate_rows', q{SELECT try_row('rated rows', 'c' || :client_id, 'alice');});
is(outcomes(), 'PR003 15, in 5', 'by rows, too');
value($node, q{SELECT presence_configure_room('rated again')});
at_once(20, 'rate_repeatable', q{
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM presence.presences;
SELECT try_add('rated again', 'c' || :client_id, 'alice');
COMMIT;});
is(outcomes(), 'PR003 15, in 5', 'at REPEATABLE READ, too');
value($node, q{SELECT try_add('rated', c.channel_name, 'alice') FROM presence_list('rated') c});
is(outcomes(), 'in 5', 'who is in may add again');
value($node, q{SELECT presence_kick('rated', 'alice')});
value($node, q{SELECT try_add('rated', 'new', 'alice')});
is(outcomes(), 'PR003 1', 'who leaves gets no admission back');
value($node, q{SELECT try_add('rated', 'bob', 'bob'), try_add('elsewhere', 'c', 'alice')});
is(outcomes(), 'in 2', 'others may, and elsewhere');
value($node, q{SELECT try_add('rated', 'anonymous ' || i, NULL) FROM generate_series(1, 7) i});
is(outcomes(), 'in 7', 'nobody counts those without a user');
value($node, q{BEGIN; SELECT presence_add_many('undone', '{a,b,c,d,e}', '{u,u,u,u,u}'); ROLLBACK});
value($node, q{SELECT try_add('undone', 'c' || i, 'u') FROM generate_series(1, 6) i});
is(outcomes(), 'PR003 1, in 5', 'what is rolled back does not count');
value($node, q{CREATE ROLE rated; SELECT presence_grant('rated'); GRANT SELECT, INSERT ON outcomes TO rated});
value($node, q{SET ROLE rated; SELECT try_add('by a member', 'c' || i, 'u') FROM generate_series(1, 6) i});
is(outcomes(), 'PR003 1, in 5', 'a member need not see the admissions');
is(value($node, q{SELECT has_table_privilege('rated', 'presence.admissions', 'INSERT')}), 'f', 'nor may write any');
set('presence.join_rate_window', '1s');
ok(wait_until('the window has passed', sub {
		value($node, q{SELECT try_add('rated', 'new', 'alice')});
		return outcomes() eq 'in 1';
	}), 'when the window has passed the user may again');
ok(wait_until('they are forgotten', sub {
		value($node, 'SELECT prune_rooms()');
		return value($node, 'SELECT count(*) FROM presence.admissions') == 0;
	}), 'prune_rooms forgets old admissions');
set('presence.join_rate', 0);
value($node, q{SELECT try_add('rated', 'more ' || i, 'alice') FROM generate_series(1, 20) i});
is(outcomes(), 'in 20', '0 sets no limit');
is(value($node, 'SELECT count(*) FROM presence.admissions'), 0, 'and counts nothing');

# 3. A ban during adds ---------------------------------------------------------
append_to_file("$dir/ban.sql", "SELECT try_add('field', 'm' || :client_id || ' ' || clock_timestamp(), 'mallory');\n\\sleep 5 ms\n");
for my $scope ("'field'", 'NULL')
{
	my $run = IPC::Run::start(
		[ 'pgbench', '-n', '-c', 50, '-j', 2, '-T', 600, '-f', "$dir/ban.sql", $node->connstr('postgres') ],
		'>', \my $out, '2>', \my $err);

	ok(wait_until('some are in', sub { value($node, q{SELECT presence_count('field')}) > 50 }), 'some get in');
	cmp_ok(value($node, "SELECT presence_ban($scope, 'mallory')"), '>', 50, "a ban of $scope removes them");
	ok(wait_until('others are refused', sub { value($node, q{SELECT count(*) FROM outcomes WHERE state = 'PR002'}) > 100 }), 'the others are refused');
	ok(wait_until('none is left', sub { value($node, q{SELECT count(*) FROM presence.presences WHERE user_id = 'mallory'}) == 0 }), 'and none is left');
	$run->kill_kill;
	like(outcomes(), qr/^PR002 \d+, in \d+$/, 'nobody failed otherwise');
	value($node, "SELECT presence_unban($scope, 'mallory')");
	ok(wait_until('all have ended', sub {
			value($node, q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT try_add(%' AND pid <> pg_backend_pid()}) == 0;
		}), 'the end');
	value($node, q{SELECT presence_kick('field', 'mallory')});
	outcomes();
}

# 4. Reasons of leaves ---------------------------------------------------------
declare_test_functions($node);
value($node, 'DELETE FROM presence.presences');
value($node, q{SELECT presence_add_many(room, '{a1,a2,b1,x}', '{alice,alice,bob,NULL}') FROM unnest('{p,q}'::text[]) room});
value($node, q{SELECT presence_add_many('z', '{z1,z2}')});
$listener->drain;

# What is announced for a statement: "room channel reason", and * where the user
# has left.
sub leaves
{
	my ($sql) = @_;

	value($node, $sql);
	return [ sort map {
		$_->{event} eq 'leave' ? "$_->{room} $_->{removed}{channel_name} $_->{reason}" . ($_->{user_left} ? '*' : '') : "$_->{event} $_->{room}"
	} $listener->drain ];
}
is_deeply(leaves(q{SELECT presence_kick('p', 'alice', 'a1')}), ['p a1 kicked'], 'kicked, one channel');
is_deeply(leaves(q{SELECT presence_kick('p', 'alice')}), ['p a2 kicked*'], 'kicked, the last of the user');
is_deeply(leaves(q{SELECT presence_ban('q', 'alice', 'infinity', 'not told')}), [ 'q a1 banned', 'q a2 banned*' ], 'banned from a room');
is_deeply(leaves(q{SELECT presence_ban(NULL, 'bob')}), [ 'p b1 banned*', 'q b1 banned*' ], 'banned from all');
is_deeply(leaves(q{SELECT presence_remove('p', 'x')}), ['p x leave'], 'left');
is_deeply(leaves(q{DELETE FROM presence.rooms WHERE name = 'z'}), [ 'z z1 room_deleted', 'z z2 room_deleted' ], 'the room was deleted');
value($node, q{SELECT presence_add_many('w', '{w1,w2,w3}')});
$listener->drain;
is_deeply(leaves(q{BEGIN; SELECT presence_kick('w', NULL, 'w1'); SELECT presence_leave_all('w2'); DELETE FROM presence.presences WHERE channel_name = 'w3'; COMMIT}),
	[ 'w w1 kicked', 'w w2 leave', 'w w3 leave' ], 'each in a transaction has its own reason');
value($node, q{SELECT presence_add_many('w', '{w1,w2}')});
$listener->drain;
is_deeply(leaves(q{BEGIN; SAVEPOINT s; SELECT presence_kick('w', NULL, 'w1'); ROLLBACK TO s; SELECT presence_leave_all('w1'); COMMIT}),
	['w w1 leave'], 'a kick rolled back is none');
value($node, 'SELECT advance_clock(601000000)');
ok($listener->wait_for('the expiry', sub { $_[0]->{event} eq 'leave' && $_[0]->{removed}{channel_name} eq 'w2' }), 'who is silent leaves');
is_deeply([ map { $_->{reason} } grep { $_->{event} eq 'leave' && $_->{room} eq 'w' } $listener->events ], ['expired'], 'because it expired');

$listener->quit;
$node->stop;
done_testing();
