# Proves: in every mode, listeners receive exactly what was committed, never
# before it is visible to them, and never in more than 7,999 bytes.
use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('events');
my $listener = listen_to($node);
my $mode;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Run statements and compare the events that they cause.
sub heard
{
	my ($name, $statements, @expected) = @_;

	sql($statements);
	is_deeply($listener->summary, \@expected, "$mode: $name");
	return;
}

# Choose how events are sent, and wait until that is in effect.
sub choose_mode
{
	my ($setting, $expected) = @_;

	$mode = $expected;
	sql("ALTER SYSTEM SET presence.notify = '$setting'");
	$node->reload;
	wait_until("mode $expected", sub {
			value($node, 'SELECT presence_add(\'mark-mode\', \'x\')');
			value($node, 'SELECT mode FROM presence.stats') eq $expected;
		})
	  or BAIL_OUT("mode $expected does not come");
	$listener->drain;
	return;
}

sub savepoints
{
	heard('savepoints', q{
		BEGIN;
		SELECT presence_add('r', 'a');
		SAVEPOINT s;
		SELECT presence_add('r', 'b');
		ROLLBACK TO s;
		SELECT presence_add('r', 'c');
		SAVEPOINT t;
		SELECT presence_add('r', 'd');
		RELEASE t;
		SAVEPOINT u;
		SAVEPOINT v;
		SELECT presence_add('r', 'e');
		RELEASE v;
		ROLLBACK TO u;
		COMMIT;
	}, 'join r a', 'join r c', 'join r d');
	heard('a rollback', q{BEGIN; SELECT presence_add('r', 'z'); SELECT presence_leave_all('a'); ROLLBACK;});
	heard('exceptions in exceptions', q{
		DO $$
		BEGIN
			PERFORM presence_add('r', 'f');
			BEGIN
				PERFORM presence_add('r', 'g');
				BEGIN
					PERFORM presence_add('r', 'h');
					RAISE 'inner';
				EXCEPTION WHEN OTHERS THEN
					PERFORM presence_add('r', 'i');
				END;
				RAISE 'outer';
			EXCEPTION WHEN OTHERS THEN
				PERFORM presence_add('r', 'j');
			END;
		END $$;
	}, 'join r f', 'join r j');
	heard('what comes and goes in one transaction', q{
		BEGIN; SELECT presence_add('r', 'k'); SELECT presence_remove('r', 'k'); COMMIT;});
	heard('a leave rolled back to its savepoint', q{
		BEGIN; SAVEPOINT s; SELECT presence_leave_all('a'); ROLLBACK TO s; COMMIT;});
	heard('a leave that is taken back by a rejoin', q{
		BEGIN; SELECT presence_remove('r', 'a'); SELECT presence_add('r', 'a'); COMMIT;},
		'leave r a leave', 'join r a');
	heard('an error', q{
		\set ON_ERROR_STOP 0
		BEGIN; SELECT presence_add('r', 'l'); SELECT 1 / (SELECT count(*) FROM presence.rooms WHERE name = 'none'); COMMIT;});
	sql(q{SELECT presence_leave_all_many(ARRAY['a', 'c', 'd', 'f', 'j'])});
	is_deeply([ sort @{ $listener->summary } ],
		[ map { "leave r $_ leave" } qw(a c d f j) ], "$mode: leaving together");
	return;
}

sub updates
{
	my @events;

	heard('a repetition says nothing', q{
		SELECT presence_add('u', 'a', 'alice', '{"n": 1}');
		SELECT presence_add('u', 'a', 'alice', '{"n": 1}');
		SELECT presence_add('u', 'a');
		SELECT presence_update('u', 'a', '{"n": 1}');
		SELECT presence_touch('a');
	}, 'join u a');
	sql(q{SELECT presence_update('u', 'a', '{"n": 2, "m": {"deep": true}}')});
	@events = $listener->drain;
	is(scalar @events, 1, "$mode: an update");
	is_deeply($events[0]{added}{meta}, { n => 2, m => { deep => JSON::PP::true } }, "$mode: with the meta as it is");
	ok(!exists $events[0]{previous}, "$mode: of the same user");
	sql(q{SELECT presence_add('u', 'a', 'bob')});
	@events = $listener->drain;
	is(scalar @events, 1, "$mode: another user");
	is($events[0]{event}, 'update', "$mode: is an update, not leave and join");
	is($events[0]{added}{user_id}, 'bob', "$mode: to the new one");
	is_deeply($events[0]{previous}, { user_id => 'alice' }, "$mode: from the previous");
	ok($events[0]{user_joined} && $events[0]{user_left}, "$mode: one came, one went");
	heard('two updates in one transaction', q{
		BEGIN; SELECT presence_update('u', 'a', '{"n": 3}'); SELECT presence_update('u', 'a', '{"n": 4}'); COMMIT;},
		'update u a');
	heard('a join and its update in one transaction', q{
		BEGIN; SELECT presence_add('u', 'b'); SELECT presence_update('u', 'b', '{"n": 3}'); COMMIT;}, 'join u b');
	heard('an update rolled back', q{
		BEGIN; SAVEPOINT s; SELECT presence_update('u', 'a', '{"n": 9}'); ROLLBACK TO s; COMMIT;});
	heard('an update of what leaves', q{
		BEGIN; SELECT presence_update('u', 'a', '{"n": 5}'); SELECT presence_leave_all('a'); COMMIT;}, 'leave u a leave');
	heard('the end of the room', q{SELECT presence_leave_all('b')}, 'leave u b leave');
	return;
}

sub people
{
	my @events;

	for my $call (
		q{add('p', 'tab 1', 'carol')}, q{add('p', 'tab 2', 'carol')}, q{add('p', 'anyone')},
		q{remove('p', 'tab 1')}, q{remove('p', 'tab 2')}, q{remove('p', 'anyone')})
	{
		sql("SELECT presence_$call");
		push @events, $listener->drain;
	}
	is(join(' ', map { join '', $_->{user_joined} ? '+' : '', $_->{user_left} ? '-' : '',
				$_->{connections}, $_->{users}, $_->{anonymous} } @events),
		'+110 210 311 211 -101 000', "$mode: a user comes with the first tab and goes with the last");
	return;
}

sub plain_sql
{
	sql(q{SELECT presence_add('q', 'renamed')});
	$listener->drain;
	heard('a row that is renamed', q{UPDATE presence.presences SET channel_name = 'new name' WHERE room = 'q'},
		'leave q renamed leave', 'join q new name');
	is(value($node, q{SELECT presence_touch('new name') || ' ' || presence_touch('renamed')}), 'true false',
		"$mode: heartbeats follow the name");
	heard('a row that moves', q{UPDATE presence.presences SET room = 'q2' WHERE room = 'q'},
		'leave q new name leave', 'join q2 new name');
	heard('COPY', qq{COPY presence.presences (room, channel_name) FROM stdin;\nq3\tcopied\nq3\tcopied too\n\\.\n},
		'join q3 copied', 'join q3 copied too');
	is(value($node, q{SELECT presence_touch('copied')}), 't', "$mode: what was copied beats");
	heard('INSERT', q{INSERT INTO presence.presences (room, channel_name) SELECT 'q4', 'inserted ' || i FROM generate_series(1, 3) i},
		map { "join q4 inserted $_" } 1 .. 3);
	heard('UPDATE of heartbeats', q{UPDATE presence.presences SET last_seen = now()});
	sql(q{DELETE FROM presence.presences WHERE room IN ('q3', 'q4') AND channel_name <> 'copied too'});
	is_deeply([ sort @{ $listener->summary } ], [ 'leave q3 copied leave', map { "leave q4 inserted $_ leave" } 1 .. 3 ],
		"$mode: DELETE, in whatever order");
	is(value($node, q{SELECT presence_touch('copied')}), 'f', "$mode: what was deleted does not");
	heard('TRUNCATE rolled back', q{BEGIN; TRUNCATE presence.presences; ROLLBACK;});
	is(value($node, q{SELECT presence_touch('copied too')}), 't', "$mode: changes nothing");
	heard('TRUNCATE', q{TRUNCATE presence.presences}, 'resync *');
	is(value($node, q{SELECT presence_touch('copied too')}), 'f', "$mode: nobody is left");
	heard('and on', q{SELECT presence_add('q', 'after')}, 'join q after');
	heard('and out', q{SELECT presence_leave_all('after')}, 'leave q after leave');
	return;
}

sub bulk
{
	my @events;

	sql(q{SELECT presence_add_many('b', ARRAY(SELECT 'c' || i FROM generate_series(1, 50) i))});
	is(scalar(grep { $_->{event} eq 'join' } $listener->drain), 50, "$mode: 50 joins stay single");
	sql(q{SELECT presence_add_many('b', ARRAY(SELECT 'd' || i FROM generate_series(1, 51) i))});
	@events = $listener->drain;
	is(scalar @events, 1, "$mode: 51 fold into one");
	is($events[0]{event}, 'bulk', "$mode: a bulk");
	ok($events[0]{bulk_change}, "$mode: that says so");
	is(scalar @{ $events[0]{joined} }, 51, "$mode: with those who joined");
	is(scalar @{ $events[0]{left} }, 0, "$mode: nobody left");
	is($events[0]{connections}, 101, "$mode: and how many there are");
	sql(q{BEGIN; SELECT presence_leave_all_many(ARRAY(SELECT 'd' || i FROM generate_series(1, 40) i));
		SELECT presence_add_many('b', ARRAY(SELECT 'e' || i FROM generate_series(1, 20) i)); COMMIT;});
	@events = $listener->drain;
	is_deeply([ map { PresenceTest::Listener::describe($_) } @events ], ['bulk b 20 40'], "$mode: both ways");
	is($events[0]{connections}, 81, "$mode: counted");
	sql(q{SELECT presence_add_many('b', ARRAY(SELECT repeat('x', 200) || i FROM generate_series(1, 60) i))});
	@events = $listener->drain;
	is(scalar @events, 1, "$mode: long names fold, too");
	ok(!defined $events[0]{joined} && !defined $events[0]{left}, "$mode: but are not listed");
	is($events[0]{joined_count}, 60, "$mode: only counted");
	sql(q{DELETE FROM presence.presences WHERE room = 'b'});
	is(($listener->drain)[0]{connections}, 0, "$mode: all gone");
	return;
}

sub sizes
{
	my @events;
	my $longest = 0;

	$listener->clear;
	# 255 characters of 4 bytes, each 6 bytes long in JSON.
	for my $character (q{U&'\+01F600'}, q{chr(1)}, q{'"'}, q{chr(127)}, q{'\'})
	{
		my $name = "repeat($character, 255)";

		for my $call (
			qq{add($name, $name, $name, jsonb_build_object('big', repeat('y', 5000)))},
			qq{add($name, $name, repeat($character, 254))},
			qq{add_many($name, ARRAY(SELECT repeat($character, 250) || i FROM generate_series(1, 60) i))},
			qq{leave_all($name)})
		{
			sql("SELECT presence_$call");
			push @events, $listener->drain;
		}
	}
	for my $call (
		q{add('m', 'c', 'u', jsonb_build_object('big', repeat('y', 1000000)))},
		q{update('m', 'c', '{"big": null, "small": 1}')},
		q{update('m', 'c', jsonb_build_object('big', repeat('y', 1000000)))},
		q{leave_all('c')})
	{
		sql("SELECT presence_$call");
		push @events, $listener->drain;
	}
	for my $payload (@{ $listener->{payloads} })
	{
		$longest = length($payload) if length($payload) > $longest;
	}
	cmp_ok($longest, '<=', 7999, "$mode: no payload is too long");
	cmp_ok($longest, '>', 4500, "$mode: though some are long");
	my @named = grep { $_->{event} ne 'bulk' && $_->{room} ne 'm' } @events;

	@events = grep { $_->{room} eq 'm' } @events;
	is(join(' ', map { $_->{truncated} ? 'truncated' : 'whole' } @events), 'truncated whole truncated truncated',
		"$mode: a meta of 1 MB is left out");
	is_deeply($events[1]{added}{meta}, { small => 1 }, "$mode: and only that");
	is(scalar @named, 15, "$mode: join, update and leave of each name");
	is(scalar(grep { length(($_->{added} // $_->{removed})->{channel_name}) == 255 } @named), 15,
		"$mode: with whole names");
	sql(q{DELETE FROM presence.presences});
	$listener->drain;
	return;
}

# The ids in the events of one kind for a room, single and in lists.
sub ids_told
{
	my ($kind, $member, $list, $room, @events) = @_;
	my @single = grep { $_->{event} eq $kind && $_->{room} eq $room } @events;
	my @listed = grep { $_->{event} eq 'bulk' && $_->{room} eq $room } @events;

	return map { $_->{id} } (map { $_->{$member} } @single), (map { @{ $_->{$list} // [] } } @listed);
}

# How many of these rows are visible.
sub count_rows
{
	my ($reader, @ids) = @_;

	return $reader->query('SELECT count(*) FROM presence.presences WHERE id = ANY (ARRAY[' . join(',', @ids) . ']::bigint[])');
}

# A listener that re-reads on each event sees the change that the event
# announces. On a slow machine joins are collapsed into a bulk, whose lists may
# be left out: then it has the number of joins. After a resync it is unknown
# which joins were announced.
sub reread
{
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my ($out, $seen, $missing, $extra, $unknown) = ('', 0, 0, 0, 0);
	my $reader = session($node);
	my $take = sub {
		my @new = @_;
		my @there = ids_told('join', 'added', 'joined', 'x', @new);
		my @gone = ids_told('leave', 'removed', 'left', 'y', @new);

		$seen += @there;
		$seen += $_->{joined_count} foreach grep { $_->{event} eq 'bulk' && $_->{room} eq 'x' && !$_->{joined} } @new;
		$unknown += grep { $_->{event} eq 'resync' && ($_->{room} // 'x') eq 'x' } @new;
		$missing += @there - count_rows($reader, @there);
		$missing++ if $seen > $reader->query(q{SELECT count(*) FROM presence.presences WHERE room = 'x'});
		$extra += count_rows($reader, @gone);
	};

	append_to_file("$dir/reread.sql", q{
SELECT presence_add('x', 'x ' || :client_id || ' ' || txid_current());
SELECT presence_add('y', 'y ' || :client_id);
SELECT presence_remove('y', 'y ' || :client_id);
});
	$listener->clear;
	my $bench = IPC::Run::start(
		[ 'pgbench', '-n', '-c', 8, '-j', 2, '-t', 60, '-f', "$dir/reread.sql", $node->connstr('postgres') ],
		'>&', \$out);
	while ($bench->pumpable)
	{
		$bench->pump_nb;
		$listener->events;
		$take->(splice(@{ $listener->{events} }));
	}
	ok($bench->finish, "$mode: everybody enters and leaves") or diag($out);
	$take->($listener->drain);
	ok($unknown ? $seen <= 480 : $seen == 480, "$mode: every join came, once") or diag("$seen, $unknown resyncs");
	is($missing, 0, "$mode: whoever joined was there to be read");
	is($extra, 0, "$mode: whoever left was not");
	$reader->quit;
	sql(q{DELETE FROM presence.presences});
	$listener->drain;
	return;
}

for my $setting ([ 'auto', 'worker' ], [ 'transaction', 'transaction' ])
{
	choose_mode(@$setting);
	savepoints();
	updates();
	people();
	plain_sql();
	bulk();
	sizes();
	reread();
}

# A transaction that keeps its first snapshot counts the current members, not
# those of its snapshot.
for my $setting ([ 'auto', 'worker' ], [ 'transaction', 'transaction' ])
{
	choose_mode(@$setting);
	sql(q{SELECT presence_add('old', 'first', 'u'), presence_add('old', 'second')});
	$listener->drain;
	my $late = session($node);
	$late->query(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM presence.presences});
	sql(q{SELECT presence_leave_all('first'), presence_leave_all('second')});
	$late->query(q{SELECT presence_add('old', 'first', 'v'); COMMIT});
	$late->quit;
	my ($join) = grep { $_->{event} eq 'join' } $listener->drain;
	is(join(' ', map { $join->{$_} ? 1 : 0 } qw(user_joined user_left)) . " $join->{connections} $join->{users} $join->{anonymous}",
		'1 0 1 1 0', "$setting->[1]: a join from an old snapshot is counted as things are");
	sql(q{SELECT presence_leave_all('first')});
	$listener->drain;
}

# A worker that reads while rows are truncated does not count the room as empty
# before it has announced the truncation.
choose_mode('auto', 'worker');
sql(q{SELECT presence_add_many('t', ARRAY['a', 'b', 'c'])});
$listener->drain;
value($node, 'SELECT pg_terminate_backend(worker_pid, 10000) FROM presence.stats');
await_announcer($node);
my $truncator = session($node);
$listener->drain;
my $holder = hold_deliveries($node);
sql(q{SELECT presence_remove('t', 'a')});
$truncator->query('BEGIN; TRUNCATE presence.presences');
$holder->query_safe('COMMIT');
$holder->quit;
my $since = value($node, 'SELECT clock_timestamp()');
ok(wait_until('the worker tries to tell it', sub {
	value($node, qq{SELECT query = 'delivering events' AND query_start > '$since'
		FROM presence.stats JOIN pg_stat_activity ON pid = worker_pid}) eq 't';
}), 'the worker tries to deliver beside TRUNCATE');
is(value($node, 'SELECT queue_bytes > 0 FROM presence.stats'), 't', 'in vain');
$truncator->query('COMMIT');
$truncator->quit;
my @told = $listener->drain;
is(scalar(grep { $_->{event} eq 'resync' } @told), 1, 'TRUNCATE is told');
my $void = (grep { $told[$_]{event} eq 'resync' } 0 .. $#told)[0] // -1;
is(join(' ', map { $_->{connections} } @told[ 0 .. $void - 1 ]) =~ s/^2$//r, '',
	'and nothing that came before it counts on it');

# Joins that have not been announced when their rows are truncated never are,
# neither by the worker nor by the transaction.
$holder = hold_deliveries($node);
sql(q{SELECT presence_add_many('void', ARRAY['a', 'b', 'c'])});
sql('TRUNCATE presence.presences');
$holder->query_safe('COMMIT');
$holder->quit;
@told = $listener->drain;
is(join(' ', map { $_->{event} } grep { ($_->{room} // 'void') eq 'void' } @told), 'resync', 'truncated joins are not announced');
choose_mode('transaction', 'transaction');
$listener->drain;
sql(q{BEGIN; SELECT presence_add_many('void', ARRAY['a', 'b', 'c']); TRUNCATE presence.presences; COMMIT});
@told = $listener->drain;
is(join(' ', map { $_->{event} } grep { ($_->{room} // 'void') eq 'void' } @told), 'resync', 'nor by their own transaction');

# The pause between deliveries follows from what they cost: it is no longer than
# notify_interval, and here much shorter.
choose_mode('auto', 'worker');
sql(q{ALTER SYSTEM SET presence.notify_interval = '1min'});
$node->reload;
wait_until('notify_interval', sub { value($node, 'SHOW presence.notify_interval') eq '1min' });
$listener->drain;
my $began = time();
for my $i (1 .. 3)
{
	sql("SELECT presence_add('soon', 'c$i')");
	$listener->drain;
}
cmp_ok(time() - $began, '<', 60, 'three deliveries need no pause of a minute');
sql(q{ALTER SYSTEM RESET presence.notify_interval});
$node->reload;
wait_until('notify_interval', sub { value($node, 'SHOW presence.notify_interval') eq '10ms' });

# Within one epoch, sequence numbers rise by one, without a gap.
choose_mode('auto', 'worker');
sql(q{SELECT presence_add('n', 'n ' || i) FROM generate_series(1, 20) i});
$listener->drain;
sql(q{SELECT presence_leave_all('n ' || i) FROM generate_series(1, 20) i});
my @events = $listener->drain;
is(scalar(grep { $events[$_]{seq} == $events[ $_ - 1 ]{seq} + 1 && $events[$_]{epoch} eq $events[ $_ - 1 ]{epoch} } 1 .. $#events),
	$#events, 'numbers rise by one');
my ($seq, $epoch) = split /\|/, value($node, q{SELECT presence_snapshot('n')->>'seq', presence_snapshot('n')->>'epoch'});
cmp_ok($seq, '>=', $events[-1]{seq}, 'a snapshot tells up to which it goes');
is($epoch, $events[-1]{epoch}, 'and of which epoch');

# Metas can be left out of notifications; the channel name can be changed.
sql(q{ALTER SYSTEM SET presence.notify_meta = off});
$node->reload;
wait_until('notify_meta', sub { value($node, 'SHOW presence.notify_meta') eq 'off' });
my $private = wait_until('a join without meta', sub {
	sql(q{SELECT presence_leave_all('secret')});
	sql(q{SELECT presence_add('n', 'secret', 'u', '{"secret": 1}')});
	my ($join) = grep { $_->{event} eq 'join' } $listener->drain;
	!defined $join->{added}{meta} && $join;
});
ok($private && !$private->{truncated}, 'a meta that is private is not called truncated');
sql(q{SELECT presence_leave_all('secret')});
ok(!defined(($listener->drain)[0]{removed}{meta}), 'nor told when its owner leaves');

# With "off" nothing is sent.
$listener->clear;
sql(q{ALTER SYSTEM SET presence.notify = 'off'});
$node->reload;
wait_until('mode off', sub { value($node, 'SELECT mode FROM presence.stats') eq 'off' });
sql(q{SELECT presence_add('off', 'unheard')});
$listener->clear;
sql(q{SELECT presence_add('off', 'c'); SELECT presence_leave_all('c'); NOTIFY presence_changed, '{"event": "end"}'});
$listener->wait_for('the end', sub { $_[0]->{event} eq 'end' });
is(scalar @{ $listener->{events} }, 1, 'off: nothing is heard');

$listener->quit;
$node->stop;
done_testing();
