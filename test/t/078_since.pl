# Proves: a listener that was cut off finds each event in what presence_since
# returns, or gets it by NOTIFY; where events are not all known any more, or
# were sent without a number, the answer is one resync.
use strict;
use warnings FATAL => 'all';

use JSON::PP ();
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('since', conf => q(
presence.replay_size = 256kB
presence.worker_idle_timeout = 0
restart_after_crash = on
));
my $json = JSON::PP->new->utf8->canonical;

sub quoted { return defined $_[0] ? "'$_[0]'" : 'NULL'; }

# What presence_since returns.
sub since
{
	my ($epoch, $seq, $stream, $db) = @_;
	my $arguments = join ', ', quoted($epoch), $seq // 'NULL', quoted($stream // 'presence_changed');

	return map { $json->decode($_) } split /\n/, value($node, "SELECT * FROM presence_since($arguments)", $db);
}

# The position of a stream: epoch and seq.
sub position
{
	my ($stream, $db) = @_;
	my ($resync) = since(undef, undef, $stream, $db);

	return ($resync->{epoch}, $resync->{seq});
}

# Whether an answer is one resync, which says from where to go on.
sub is_resync
{
	my ($name, $stream, $db, @answer) = @_;
	my ($epoch, $seq) = position($stream, $db);

	is_deeply(\@answer, [ { epoch => $epoch, seq => $seq, event => 'resync', room => undef, added => undef,
				removed => undef, bulk_change => JSON::PP::true, user_joined => JSON::PP::false,
				user_left => JSON::PP::false, connections => undef, users => undef, anonymous => undef } ], $name);
	return;
}

# The events in short.
sub in_short { return join ', ', map { PresenceTest::Listener::describe($_) } @_; }

sub set_mode
{
	my ($setting, $mode) = @_;

	value($node, "ALTER SYSTEM SET presence.notify = '$setting'");
	$node->reload;
	wait_until("mode $mode", sub { value($node, 'SELECT mode FROM presence.stats') eq $mode })
	  or BAIL_OUT("mode $mode does not come");
	return;
}

await_announcer($node);
my $witness = listen_to($node);
$witness->drain;

# ---- Who resumes is told what who stayed was told.

my ($epoch, $first) = position();

value($node, q{SELECT presence_add('r', 'a', 'alice', '{"n": "é\u0001\"", "deep": [1, {"b": null}]}')});
$witness->drain;
my ($none, $middle) = position();
value($node, q{SELECT presence_update('r', 'a', '{"n": 2}')});
value($node, q{SELECT presence_add_many('bulk', array_agg('c' || i)) FROM generate_series(1, 60) i});
value($node, q{SELECT presence_leave_all('a')});
value($node, q{SELECT presence_add('end', 'end')});
$witness->wait_for('the end', sub { ($_[0]->{room} // '') eq 'end' });
my @told = map { my %event = %$_; delete $event{pid}; \%event } $witness->events;
my @missed = since($epoch, $middle);
is(in_short(grep { $_->{room} !~ /^mark/ } since($epoch, $first)),
	'join r a, update r a, bulk bulk 60 0, leave r a leave, join end end', 'all events after a number, in order');
is($missed[0]{seq}, $middle + 1, 'beginning with the next one');
is_deeply(\@missed, [ grep { $_->{seq} > $middle } @told ], 'each as the listener got it who stayed');
is_deeply([ since($epoch, $missed[-1]{seq}) ], [], 'who has missed nothing gets nothing');
is_deeply([ since($epoch, $missed[-1]{seq} - 1) ], [ $missed[-1] ], 'who has missed one gets that one');
$witness->clear;

# ---- Positions that are none.

is_resync('no epoch', undef, undef, since(undef, $first));
is_resync('another epoch', undef, undef, since('0000000000000000', $first));
is_resync('what is no epoch', undef, undef, since("it''s", $first));
is_resync('no number', undef, undef, since($epoch, undef));
is_resync('a number of the future', undef, undef, since($epoch, $missed[-1]{seq} + 1));
is_resync('the highest number', undef, undef, since($epoch, '9223372036854775807'));
is_resync('a negative number', undef, undef, since($epoch, -1));

# ---- Each stream has numbers of its own, whatever its NOTIFY channel is.

# A first event of each: nobody can resume from before the worker's resync.
value($node, q{SELECT presence_broadcast('s', 'first')});
value($node, q{SELECT presence_add('status', 'first', 'first')});
$witness->drain;
my (undef, $status) = position('presence_status');
my (undef, $broadcast) = position('presence_broadcast');

value($node, "ALTER SYSTEM SET presence.notify_channel = 'elsewhere'");
$node->reload;
my $elsewhere = listen_to($node, undef, 'elsewhere');
wait_until('the new channel is used', sub { value($node, q{SELECT presence_add('move', gen_random_uuid()::text)}); $elsewhere->events });
value($node, q{SELECT presence_add('s', 's', 'sue')});
value($node, q{SELECT presence_set_status('sue', 'busy')});
value($node, q{SELECT presence_broadcast('s', 'hello', '{"to": "all"}')});
$elsewhere->wait_for('sue', sub { ($_[0]->{room} // '') eq 's' });
wait_until('the broadcast is sent', sub { (position('presence_broadcast'))[1] > $broadcast });
wait_until('both statuses are sent', sub { (position('presence_status'))[1] > $status + 1 });
is(join(' ', map { "$_->{user_id} $_->{status}" } since($epoch, $status, 'presence_status')), 'sue online sue busy', 'statuses');
is(join(' ', map { "$_->{room} $_->{event} $_->{payload}{to}" } since($epoch, $broadcast, 'presence_broadcast')), 's hello all', 'broadcasts');
is(in_short((since($epoch, $missed[-1]{seq}))[-1]), 'join s s', 'changes, whatever their channel is called');
value($node, 'ALTER SYSTEM RESET presence.notify_channel');
$node->reload;
wait_until('the old channel is used', sub { value($node, q{SELECT presence_add('move', gen_random_uuid()::text)}); $witness->events });
$witness->drain;

# ---- A delivery that has committed, but is not published: a new listener skips
# its NOTIFY, so the answer must have it.

declare_test_functions($node);
value($node, q{CREATE FUNCTION pause_publication(boolean) RETURNS void LANGUAGE c AS 'presence', 'presence_test_pause_publication'});
(undef, $first) = position();
value($node, 'SELECT pause_publication(true)');
value($node, q{SELECT presence_add('third', 'case')});
wait_until('the delivery has committed', sub {
	value($node, q{SELECT count(*) FROM presence.stats JOIN pg_stat_activity ON pid = worker_pid
		JOIN pg_locks l USING (pid) WHERE backend_xid IS NULL AND l.locktype = 'transactionid'}) > 0 });
my $late = session($node);
$late->query_safe('LISTEN presence_changed');
$late->query_until(qr/asked/, qq{BEGIN;\nLOCK TABLE presence.bans, presence.invitations;\n\\echo asked
SELECT 'answer ' || e::text FROM presence_since('$epoch', $first) e;\n});
wait_until('it waits', sub {
	value($node, q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT ''answer%' AND wait_event_type = 'Lock'}) > 0 });
my ($status_code, $out, $err) = $node->psql('postgres', "SET statement_timeout = '100ms'; SELECT presence_since('$epoch', $first)");
like($err, qr/canceling statement due to statement timeout/, 'who waits can be cancelled');
value($node, 'SELECT pause_publication(false)');
my $heard = $late->query('COMMIT') . $late->query('SELECT 1');
my ($answer) = $heard =~ /^answer (\{.*\})/m;
unlike($heard, qr/Asynchronous notification/, 'the NOTIFY was skipped, since the listener came late');
is($answer && in_short($json->decode($answer)), 'join third case', 'but the answer waited for its event');
$late->quit;
$witness->drain;

# ---- A delivery that is still running is not waited for: its NOTIFY arrives.

(undef, $first) = position();
my $holder = hold_deliveries($node);
value($node, q{SELECT presence_add('held', 'back')});
$late = session($node);
$late->query_safe('LISTEN presence_changed');
is(value($node, "SELECT count(*) FROM presence_since('$epoch', $first)"), 0, 'what is not delivered yet is in no answer');
$holder->query_safe('COMMIT');
$holder->quit;
wait_until('it is delivered', sub { $late->query('SELECT 1') =~ /"room":"held"/ });
pass('and arrives by NOTIFY');
$late->quit;
$witness->drain;

# ---- Holes: changes that were announced without a number, or not at all.

my %at;

sub note_positions { ($epoch, $at{$_}) = position($_) foreach qw(presence_changed presence_status presence_broadcast); return; }

note_positions();
set_mode('transaction', 'transaction');
value($node, q{SELECT presence_add('hole', 'h1')});
is_resync('who asks from before an event without a number', undef, undef, since($epoch, $at{presence_changed}));
$witness->wait_for('the join without a number', sub { ($_[0]->{room} // '') eq 'hole' && !defined $_[0]->{seq} });
set_mode('auto', 'worker');
$witness->clear;
value($node, q{SELECT presence_add('after', 'h2')});
$witness->wait_for('a number again', sub { ($_[0]->{room} // '') eq 'after' && defined $_[0]->{seq} });
is_resync('the same once events have numbers again', undef, undef, since($epoch, $at{presence_changed}));
my ($after) = grep { ($_->{room} // '') eq 'after' } $witness->events;
is_deeply([ since($epoch, $after->{seq}) ], [], 'who has seen an event after the hole resumes');
is_resync('a hole in the changes may be one in the statuses', 'presence_status', undef, since($epoch, $at{presence_status}, 'presence_status'));
$witness->drain;

note_positions();
set_mode('transaction', 'transaction');
wait_until('the worker has sent what was left', sub { value($node, 'SELECT queue_bytes FROM presence.stats') == 0 });
value($node, q{SELECT presence_add('flush', 'flush')});	# the pending resync
set_mode('auto', 'worker');
value($node, q{SELECT presence_add('flushed', 'flushed')});
$witness->drain;
note_positions();
set_mode('off', 'off');
value($node, q{SELECT presence_add('untold', 'untold')});
is_resync('what is not announced at all', undef, undef, since($epoch, $at{presence_changed}));
set_mode('auto', 'worker');
$witness->drain;

# An idle worker leaves, and the next transaction announces itself.
value($node, 'CREATE DATABASE idle');
value($node, 'CREATE EXTENSION presence', 'idle');
await_announcer($node, 'idle');
value($node, q{SELECT presence_broadcast('r', 'first')}, 'idle');
wait_until('the broadcast has a number', sub { (position('presence_broadcast', 'idle'))[1] == 1 });
value($node, q{ALTER SYSTEM SET presence.worker_idle_timeout = '1s'});
$node->reload;
wait_until('the idle worker leaves', sub { value($node, 'SELECT mode FROM presence.stats', 'idle') eq 'transaction' });
is_deeply([ since($epoch, 1, 'presence_broadcast', 'idle') ], [], 'a worker that left makes no hole');
value($node, q{SELECT presence_broadcast('r', 'second')}, 'idle');
is_resync('a broadcast without a number does', 'presence_broadcast', 'idle', since($epoch, 1, 'presence_broadcast', 'idle'));
is_deeply([ since($epoch, 0, 'presence_changed', 'idle') ], [], 'but none in the changes');
value($node, q{ALTER SYSTEM SET presence.worker_idle_timeout = 0});
$node->reload;

# A resync of all rooms stands for lost statuses and broadcasts.
note_positions();
value($node, 'TRUNCATE presence.presences');
$witness->wait_for('the resync', sub { $_[0]->{event} eq 'resync' });
is((since($epoch, $at{presence_changed}))[0]{event}, 'resync', 'a resync that was sent is in the answer');
is_resync('and broadcasts before it cannot be resumed', 'presence_broadcast', undef, since($epoch, $at{presence_broadcast}, 'presence_broadcast'));
value($node, q{SELECT presence_broadcast('r', 'after')});
wait_until('a broadcast after it', sub { (position('presence_broadcast'))[1] > $at{presence_broadcast} });
is_deeply([ since($epoch, $at{presence_broadcast} + 1, 'presence_broadcast') ], [], 'those after it can');
$witness->drain;

# ---- Rights.

$node->safe_psql('postgres', q{
	CREATE ROLE outsider; CREATE ROLE reader; CREATE ROLE tenant;
	SELECT presence_grant('reader', 'reader'); SELECT presence_grant('tenant', 'admin');});

sub as_role
{
	my ($role, $sql) = @_;
	my ($code, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSET ROLE $role;\n$sql");

	return $code == 0 ? $out : $err;
}

note_positions();
like(as_role('outsider', "SELECT presence_since('$epoch', $at{presence_changed})"), qr/42501/, 'nobody has the right before presence_grant');
is(as_role('reader', "SELECT count(*) FROM presence_since('$epoch', $at{presence_changed})"), '0', 'a reader has it');
$node->safe_psql('postgres', 'ALTER TABLE presence.presences ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON presence.presences TO tenant USING (true)');
like(as_role('tenant', "SELECT presence_since('$epoch', $at{presence_changed})"), qr/42501.*HINT/s, 'not where policies apply to him');
is(as_role('pg_read_all_data', 'SELECT 1'), '1', 'other roles work');
is(value($node, "SELECT count(*) FROM presence_since('$epoch', $at{presence_changed})"), 0, 'the owner is free of them');
$node->safe_psql('postgres', 'ALTER TABLE presence.presences DISABLE ROW LEVEL SECURITY; DROP POLICY mine ON presence.presences');

# ---- A ring that was overwritten: 16 blocks of 16 kB.

sub flood
{
	my ($count, $db) = @_;
	my $before = (position('presence_broadcast', $db))[1];

	value($node, "SELECT presence_broadcast('hall', 'noise', to_jsonb(i || repeat('x', 900))) FROM generate_series(1, $count) i", $db);
	wait_until('the flood is sent', sub { (position('presence_broadcast', $db))[1] >= $before + $count });
	return;
}

note_positions();
value($node, q{SELECT presence_add('rare', 'event')});
$witness->drain;
flood(1000);
my $last = $at{presence_broadcast} + 1000;
is_resync('what was overwritten', 'presence_broadcast', undef, since($epoch, $at{presence_broadcast}, 'presence_broadcast'));
is(in_short((since($epoch, $at{presence_changed}))[0]), 'join rare event', 'a flood of broadcasts leaves the changes alone');
my @some = since($epoch, $last - 100, 'presence_broadcast');
is(join(' ', map { $_->{seq} } @some), join(' ', $last - 99 .. $last), 'what was not overwritten is there, through several blocks');
is($some[-1]{payload}, '1000' . ('x' x 900), 'with its content');
my $most = value($node, 'SELECT replay_bytes FROM presence.stats');
cmp_ok($most, '>', 150_000, 'the ring is full');
cmp_ok($most, '<=', 14 * 16 * 1024, 'to the share of one database');

# ---- Shares: others keep what they have, and find a place in a full ring.

foreach my $db (map { "tenant_$_" } 1 .. 4)
{
	value($node, "CREATE DATABASE $db");
	value($node, 'CREATE EXTENSION presence', $db);
	await_announcer($node, $db);
	value($node, q{SELECT presence_add('r', 'a')}, $db);
	wait_until("an event in $db", sub { (position(undef, $db))[1] > 0 });
}
flood(1000);
foreach my $db (map { "tenant_$_" } 1 .. 4)
{
	is(in_short(since($epoch, 0, 'presence_changed', $db)), 'join r a', "$db resumes beside a flood");
}
value($node, 'DROP DATABASE tenant_4 WITH (FORCE)');
flood(1000);
is(in_short(since($epoch, 0, 'presence_changed', 'tenant_1')), 'join r a', 'and after a drop');

# ---- DROP EXTENSION: numbers go on, and nobody resumes from before.

(undef, $first) = position(undef, 'tenant_2');
value($node, 'DROP EXTENSION presence', 'tenant_2');
value($node, 'CREATE EXTENSION presence', 'tenant_2');
await_announcer($node, 'tenant_2');
wait_until('its worker has told all to read again', sub { (position(undef, 'tenant_2'))[1] > $first });
is_resync('who was there before the extension was dropped', undef, 'tenant_2', since($epoch, $first, 'presence_changed', 'tenant_2'));

# ---- A reader that is overtaken: what it has read is right, or it is told so.
# A block has space for a few of these events, so many are overwritten while read.

value($node, 'ALTER SYSTEM SET presence.notify_interval = 0');
$node->reload;
$node->safe_psql('postgres', q{
	CREATE PROCEDURE flood() LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 1 .. 100000 LOOP
			PERFORM presence_broadcast('flood', 'n', jsonb_build_object('fill', ARRAY(SELECT 0 FROM generate_series(1, 500 + i * 37 % 1500))));
			COMMIT;
		END LOOP;
	END $$;
	-- How many answers were whole, how many a resync, and how many wrong.
	CREATE PROCEDURE resume(INOUT whole integer, INOUT resyncs integer, INOUT wrong integer) LANGUAGE plpgsql AS $$
	DECLARE
		back bigint := 10;		-- hovers about how far back the ring reaches
		ended timestamptz := clock_timestamp() + interval '4 seconds';
		start jsonb;
		seq bigint;
		answer jsonb[];
	BEGIN
		WHILE clock_timestamp() < ended OR whole < 20 OR resyncs < 20 LOOP
			SELECT e INTO start FROM presence_since(NULL, NULL, 'presence_broadcast') e;
			seq := (start->>'seq')::bigint - back;
			SELECT array_agg(e) INTO answer FROM presence_since(start->>'epoch', seq, 'presence_broadcast') e;
			IF answer[1]->>'event' = 'resync' THEN
				resyncs := resyncs + 1;
				back := greatest(back - 1, 1);
				wrong := wrong + (cardinality(answer) <> 1)::integer;
			ELSE
				whole := whole + 1;
				back := back + 1;
				wrong := wrong + (SELECT count(*) FROM unnest(answer) WITH ORDINALITY u (e, i)
					WHERE e->>'room' IS DISTINCT FROM 'flood' OR (e->>'seq')::bigint <> seq + i);
			END IF;
			COMMIT;
		END LOOP;
	END $$});
my $flood = $node->background_psql('postgres', on_error_stop => 0);
my $flooder = $flood->query('SELECT pg_backend_pid()');
$flood->query_until(qr/floods/, "\\echo floods\nCALL flood();\n");
wait_until('the ring is full', sub { value($node, q{SELECT replay_bytes > 100000 FROM presence.stats}) eq 't' });
my ($whole, $resyncs, $wrong) = split /\|/, $node->safe_psql('postgres', 'CALL resume(0, 0, 0)');
value($node, "SELECT pg_terminate_backend($flooder)");
eval { $flood->quit };
note("$whole whole answers, $resyncs resyncs");
is($wrong, 0, 'who is overtaken gets no event of another place');

# ---- A crash, a restart, no ring.

sub await_new_epoch
{
	my ($what) = @_;
	my $old = $epoch;

	wait_until("the server is back after $what", sub { $node->poll_query_until('postgres', 'SELECT true') });
	await_announcer($node);
	note_positions();
	isnt($epoch, $old, "$what begins a new epoch");
	is_resync("and who comes from before $what reads again", undef, undef, since($old, 1));
	return;
}

$witness->quit;
my $pid = value($node, q{SELECT worker_pid FROM presence.stats});
kill 'KILL', $pid;
wait_until('the server has crashed', sub { log_slice($node) =~ /all server processes terminated; reinitializing/ });
await_new_epoch('a crash');
value($node, q{SELECT presence_add('new', 'life')});
wait_until('events are kept again', sub { grep { ($_->{room} // '') eq 'new' } since($epoch, 0) });
restart_node($node, 'presence.replay_size = 0');
await_new_epoch('a restart');
value($node, q{SELECT presence_add('no', 'ring')});
wait_until('the event is sent', sub { (position())[1] > 0 });
is_resync('without a ring', undef, undef, since($epoch, (position())[1]));
is(value($node, 'SELECT replay_bytes FROM presence.stats'), 0, 'nothing is kept');
restart_node($node, "shared_preload_libraries = ''\npresence.replay_size = 0");
is(join(' ', map { $_->{event} . (defined $_->{epoch} || defined $_->{seq} ? '!' : '') } since($epoch, 1)), 'resync',
	'without preload the answer is a resync without a number');

$node->stop;
done_testing();
