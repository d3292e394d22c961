# Proves: changes of short-lived state are announced once per interval and in
# the end completely: newest values, expiries, last leaves, evictions, of any
# size; memory is bounded; an exit of the worker, a restart, DROP and a standby
# lose only what they are documented to lose.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_node('state', init => { allows_streaming => 1 }, conf => q(
presence.state_memory = 64kB
presence.state_interval = 1min
presence.cursor_timeout = 10min
presence.max_state_size = 7000
));
declare_test_functions($node);
my $listener = listen_to($node, 'postgres', 'presence_state');
my $run = session($node);

# Advance the clocks; a change in another room wakes the worker.
sub push_clock
{
	my ($seconds) = @_;

	$run->query(sprintf('SELECT advance_clock(%d)', $seconds * 1_000_000));
	$run->query("SELECT presence_set_state('nudge', 'now', to_jsonb(clock_timestamp()), 1)");
	return;
}

# The payloads for a room so far.
sub payloads
{
	my ($room) = @_;

	return grep { ($_->{room} // '') eq $room } $listener->events;
}

# The state that listeners derive from the payloads for a room: the newest value
# of each key.
sub told
{
	my ($room) = @_;

	return { map { %{ $_->{state} } } payloads($room) };
}

# Wait until something about a key has been announced.
sub wait_told
{
	my ($room, $key, $check) = @_;

	return $listener->wait_for("$key in $room",
		sub { ($_[0]->{room} // '') eq $room && exists $_[0]->{state}{$key} && $check->($_[0]->{state}{$key}) });
}

sub wait_gone
{
	my ($room, $key) = @_;

	return wait_told($room, $key, sub { !defined $_[0] });
}

# Coalescing. The first change after a pause is announced at once; those that
# follow within the interval are announced together. The clock is advanced past
# its end.
my $start = time();
$run->query("SELECT presence_cursor_update('r', 'alice', 0, 0)");
ok(wait_told('r', 'cursor:alice', sub { $_[0]{x} == 0 }), 'the first change goes');
cmp_ok(time() - $start, '<', 50, 'at once');
$run->query(q(SELECT presence_cursor_update('r', 'alice', i, -i, '{"colour": "red"}') FROM generate_series(1, 1000) i));
$run->query("SELECT presence_set_state('r', 'typing:bob', 'true', 600), presence_typing('r', 'carol', true), presence_typing('r', 'carol', false)");
push_clock(60);
ok(wait_told('r', 'cursor:alice', sub { $_[0]{x} == 1000 }), 'the newest of 1,000 more follows');
my @payloads = payloads('r');
is(scalar(@payloads), 2, 'in one notification');
is_deeply($payloads[1],
	{ room => 'r', pid => $payloads[1]{pid},
		state => { 'cursor:alice' => { x => 1000, y => -1000, meta => { colour => 'red' } },
			'typing:bob' => JSON::PP::true, 'typing:carol' => undef } },
	'which has all that changed, and null for what is gone again');
is($payloads[1]{pid}, value($node, 'SELECT worker_pid FROM presence.stats'), 'from the worker');

# The interval between announcements for a room.
sub set_interval
{
	my ($interval) = @_;

	$node->append_conf('postgresql.conf', "presence.state_interval = $interval");
	$node->reload;
	wait_until('the interval', sub { $run->query('SHOW presence.state_interval') eq $interval });
	return;
}

set_interval('300ms');

# Many changes over some time, from two sessions: at most one announcement per
# interval.
$listener->clear;
$start = time();
while (time() - $start < 2)
{
	$run->query(sprintf("SELECT presence_cursor_update('r', 'alice', %f, 0)", time() - $start));
	usleep(5_000);
}
my $seen = scalar(payloads('r'));
cmp_ok($seen, '<=', (time() - $start) / 0.3 + 2, 'two seconds of changes make no more than one an interval');
ok(wait_until('two of them', sub { payloads('r') >= 2 }), 'but some');

# An unchanged value is not announced again, but its expiry is extended.
$run->query(q(SELECT presence_set_state('calm', 'k', '{"a": [1]}', 500)));
ok(wait_told('calm', 'k', sub { 1 }), 'a value');
$listener->clear;
push_clock(400);
$run->query(q(SELECT presence_set_state('calm', 'k', '{"a": [1]}', 500), presence_set_state('calm', 'l', '1', 5000)));
ok(wait_told('calm', 'l', sub { 1 }), 'and another');
ok(!exists told('calm')->{k}, 'the first is not told again');
push_clock(400);
is($run->query(q(SELECT key FROM presence_get_state('calm', 'k'))), 'k', 'but lives on');
push_clock(200);
ok(wait_gone('calm', 'k'), 'until it expires');
is($run->query(q(SELECT key FROM presence_get_state('calm'))), 'l', 'the other one stays');

# Expiry without any call: no clock is advanced here.
$listener->clear;
$run->query("SELECT presence_set_state('brief', 'k', '1', 0.4), presence_set_state('brief', 'l', '1', 30)");
ok(wait_gone('brief', 'k'), 'expiry is announced by itself');
$run->query("SELECT presence_typing('brief', 'dave', true), presence_cursor_update('brief', 'dave', 1, 2)");
ok(wait_told('brief', 'cursor:dave', sub { 1 }), 'a cursor');
push_clock(6.1);
ok(wait_gone('brief', 'typing:dave'), 'typing ends by itself');
is(told('brief')->{'cursor:dave'}{y}, 2, 'the cursor stays');
push_clock(600);
ok(wait_gone('brief', 'cursor:dave'), 'and then goes');

# The last leave of a user removes cursor and typing, the first does not.
$listener->clear;
$run->query(q(SELECT presence_add('room', 'tab 1', 'alice'), presence_add('room', 'tab 2', 'alice'),
	presence_add('room', 'phone', 'bob'), presence_add('other', 'phone', 'bob')));
$run->query(qq(SELECT presence_cursor_update(r, u, 1, 1), presence_set_state(r, 'typing:' || u, 'true', 600)
	FROM unnest('{room,other}'::text[]) r, unnest('{alice,bob}'::text[]) u));
wait_until('the joins have been told', sub { $run->query('SELECT queue_bytes FROM presence.stats') == 0 });
$run->query("SELECT presence_remove('room', 'tab 1')");
ok(wait_told('room', 'cursor:alice', sub { 1 }), 'cursors in a room');
$run->query("SELECT presence_remove('room', 'tab 2')");
ok(wait_gone('room', 'cursor:alice'), 'the cursor goes with the last tab');
ok(wait_gone('room', 'typing:alice'), 'and the typing');
is($run->query("SELECT string_agg(key, ' ') FROM presence_get_state('room')"), 'cursor:bob typing:bob', 'of that user');
is($run->query("SELECT count(*) FROM presence_get_state('other')"), 4, 'in that room');
my @before = grep { exists $_->{state}{'cursor:alice'} && !defined $_->{state}{'cursor:alice'} } payloads('room');
is(scalar(@before), 1, 'only then');

# The same when the leave is one of many in a bulk, and when the user changes.
$node->safe_psql('postgres', q(SELECT presence_add_many('bulk', ARRAY(SELECT 'c' || i FROM generate_series(1, 200) i),
	ARRAY(SELECT 'u' || i FROM generate_series(1, 200) i))));
$run->query("SELECT presence_cursor_update('bulk', 'u7', 1, 1), presence_cursor_update('bulk', 'stranger', 1, 1)");
wait_until('the joins have been told', sub { $run->query('SELECT queue_bytes FROM presence.stats') == 0 });
$run->query("SELECT presence_leave_all_many(ARRAY(SELECT 'c' || i FROM generate_series(1, 200) i))");
ok(wait_gone('bulk', 'cursor:u7'), 'a bulk takes cursors along');
is(told('bulk')->{'cursor:stranger'}{x}, 1, 'of those who left');
$run->query("SELECT presence_add('bulk', 'c', 'u'), presence_cursor_update('bulk', 'u', 1, 1)");
ok(wait_told('bulk', 'cursor:u', sub { 1 }), 'a cursor of a user');
wait_until('the join has been told', sub { $run->query('SELECT queue_bytes FROM presence.stats') == 0 });
$run->query("SELECT presence_add('bulk', 'c', 'v')");
ok(wait_gone('bulk', 'cursor:u'), 'which a change of the user takes along');

# Large payloads are split, each into valid JSON of less than 8,000 bytes.
$listener->clear;
my $long = 'x' x 3000;
$run->query(qq(SELECT presence_set_state('large', 'k' || i, to_jsonb('$long' || i)) FROM generate_series(1, 5) i));
ok(wait_told('large', 'k5', sub { 1 }), 'five large values');
is(join(' ', map { told('large')->{"k$_"} eq "$long$_" ? 'ok' : 'bad' } 1 .. 5), 'ok ok ok ok ok', 'come whole');
cmp_ok(scalar(payloads('large')), '>=', 3, 'in several notifications');
is(scalar(grep { length > 7999 } @{ $listener->{payloads} }), 0, 'none longer than 7,999 bytes');

# A value that does not fit into a payload is refused before anything is set.
my ($status, $out, $error) = $node->psql('postgres',
	q(SELECT presence_set_state(repeat(chr(1), 200), repeat(chr(1), 200), to_jsonb(repeat('x', 6000)))));
like($error, qr/state is too large to be announced/, 'a value that fits no notification is refused');
is($run->query(q(SELECT count(*) FROM presence_get_state(repeat(chr(1), 200)))), 0, 'and not set');
$run->query(q(SELECT presence_set_state(repeat(chr(1), 200), repeat(chr(1), 200), to_jsonb(repeat('x', 5500)))));
ok(wait_told(chr(1) x 200, chr(1) x 200, sub { length $_[0] == 5500 }), 'one that just fits is told');

# Memory is bounded: the least recently updated entry is evicted, and its
# removal is announced.
push_clock(5000);
wait_until('everything has expired', sub { $run->query('SELECT state_entries FROM presence.stats') == 0 });
$listener->clear;
$run->query("SELECT presence_reset_stats()");
$run->query("SELECT presence_set_state('old', 'oldest', '1', 1000), presence_set_state('old', 'kept', '1', 1000)");
ok(wait_told('old', 'oldest', sub { defined $_[0] }), 'two old values');
$run->query("SELECT presence_set_state('full', 'k' || i, to_jsonb(i), 1000) FROM generate_series(1, 270) i");
ok(wait_told('full', 'k270', sub { 1 }), 'many more');
is($run->query('SELECT state_entries, state_evictions FROM presence.stats'), '272|0', 'fit beside them');
$run->query("SELECT presence_set_state('old', 'kept', '1', 1000)");
$run->query("SELECT presence_set_state('full', 'k' || i, to_jsonb(i), 1000) FROM generate_series(271, 300) i");
ok(wait_gone('old', 'oldest'), 'where memory ends the least recently updated value of all gives way');
ok(wait_told('full', 'k300', sub { $_[0] == 300 }), 'to the newest');
ok(!defined told('full')->{k1} && !defined told('full')->{k5}, 'and then the next ones');
is($run->query("SELECT string_agg(key, ' ') FROM presence_get_state('old')"), 'kept', 'what is kept alive stays');
is(scalar(grep { $_->{resync} } $listener->events), 0, 'and listeners know all that');

# More changes than can be remembered until they are announced, after their end.
set_interval('1min');
for my $i (1 .. 20)
{
	$run->query("SELECT presence_set_state('full', 'k' || i, to_jsonb(i), 1000) FROM generate_series(300 + $i * 50, 349 + $i * 50) i");
	$run->query("SELECT presence_set_state('old', 'kept', '1', 1000)");
}
$run->query('SELECT advance_clock(60 * 1000000)');
$node->reload;    # wakes the worker
ok(wait_told('full', 'k1349', sub { $_[0] == 1349 }), 'the end of a flood is told');
ok($listener->wait_for('resync', sub { $_[0]->{resync} && !defined $_[0]->{room} }), 'with the request to read again');
my ($entries, $bytes, $evictions) = split /\|/, $run->query('SELECT state_entries, state_bytes, state_evictions FROM presence.stats');
cmp_ok($entries, '>', 200, "memory holds $entries values");
cmp_ok($bytes, '<', 64 * 1024, "of $bytes bytes");
is($evictions, 1302 - $entries, 'all others have been evicted');
is($run->query("SELECT count(*), min(substr(key, 2)::int) + count(*) FROM presence_get_state('full')"),
	($entries - 1) . '|1350', 'the newest remain');
is($run->query("SELECT count(*) FROM presence_get_state('old')"), 1, 'and what is kept alive');

set_interval('300ms');

# A value as large as memory allows is still stored, among others as large.
for my $i (1 .. 30)
{
	$run->query("SELECT presence_set_state('huge', 'k$i', to_jsonb(repeat('x', 6900) || '$i'))");
}
cmp_ok($run->query("SELECT count(*) FROM presence_get_state('huge')"), '>=', 4, 'large values displace small ones');
is($run->query("SELECT length(value::text) FROM presence_get_state('huge', 'k30')"), 6904, 'the newest is whole');

# The worker ends in between: its successor continues.
$listener->clear;
my $pid = value($node, 'SELECT worker_pid FROM presence.stats');
$run->query("SELECT pg_terminate_backend($pid)");
$run->query("SELECT presence_set_state('again', 'k', '1', 1000)");
ok(wait_told('again', 'k', sub { 1 }), 'another worker goes on where one ended');
isnt((payloads('again'))[0]{pid}, $pid, 'another one indeed');

# Off: nothing is announced, all functions work.
$node->append_conf('postgresql.conf', 'presence.notify = off');
$node->reload;
wait_until('the setting is there', sub { $run->query('SHOW presence.notify') eq 'off' });
# a new worker has the setting, too
value($node, 'SELECT pg_terminate_backend(worker_pid, 10000) FROM presence.stats');
$listener->clear;
$run->query("SELECT presence_set_state('quiet', 'k' || i, '1', 0.3), presence_clear_state('quiet', 'k' || i) FROM generate_series(1, 2000) i");
$run->query("SELECT presence_set_state('quiet', 'k', '1', 600)");
is($run->query("SELECT key FROM presence_get_state('quiet')"), 'k', 'a value is kept where nothing is announced');
$run->query('SELECT advance_clock(601 * 1000000)');
ok(wait_until('it is gone', sub { $run->query("SELECT count(*) FROM presence_get_state('quiet')") == 0 }), 'and expires');
is(scalar(payloads('quiet')), 0, 'in silence');
$node->append_conf('postgresql.conf', "presence.notify = transaction\n");
$node->reload;
wait_until('the setting is there', sub { $run->query('SHOW presence.notify') eq 'transaction' });
$run->query("SELECT presence_add('own', 'c', 'u'), presence_cursor_update('own', 'u', 1, 1)");
ok(wait_told('own', 'cursor:u', sub { defined $_[0] }), 'announced where transactions announce the rest themselves');
$run->query("SELECT presence_leave_all('c')");
ok(wait_gone('own', 'cursor:u'), 'the last leave takes the cursor along there, too');

# DROP EXTENSION and DROP DATABASE free all state.
$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->safe_psql('second', 'CREATE EXTENSION presence');
$node->safe_psql('second', "SELECT presence_set_state('r', 'k' || i, '1', 1000) FROM generate_series(1, 50) i");
is(value($node, "SELECT count(*) FROM presence_get_state('r')", 'second'), 50, 'another database');
is($run->query("SELECT count(*) FROM presence_get_state('r', 'k')"), 0, 'has a state of its own');
wait_until('its worker runs', sub { value($node, 'SELECT worker_pid IS NOT NULL FROM presence.stats', 'second') eq 't' });
$node->safe_psql('second', 'DROP EXTENSION presence');
wait_until('its worker has left', sub {
	value($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'presence worker' AND datname = 'second'") == 0 });
$node->safe_psql('second', 'CREATE EXTENSION presence');
is(value($node, 'SELECT state_entries FROM presence.stats', 'second'), 0, 'DROP EXTENSION takes the state along');
$node->safe_psql('second', "SELECT presence_set_state('r', 'k' || i, '1', 1000) FROM generate_series(1, 50) i");
$node->safe_psql('postgres', 'DROP DATABASE second');
$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->safe_psql('second', 'CREATE EXTENSION presence');
is(value($node, "SELECT count(*) FROM presence_get_state('r')", 'second'), 0, 'so does DROP DATABASE');
$listener->quit;
$run->quit;

# A standby can read state, and refuses changes.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
is(value($standby, "SELECT count(*) FROM presence_get_state('r')"), 0, 'a standby has nothing to read');
is(value($standby, "SELECT count(*) FROM presence_cursors('r')"), 0, 'nor cursors');
for my $call ("presence_set_state('r', 'k', '1')", "presence_clear_state('r', 'k')", "presence_cursor_update('r', 'u', 1, 1)",
	"presence_cursor_remove('r', 'u')", "presence_typing('r', 'u', true)")
{
	($status, $out, $error) = $standby->psql('postgres', "\\set VERBOSITY verbose\nSELECT $call");
	like($error, qr/ERROR:  25006: cannot execute presence_\w+\(\) during recovery/, "a standby refuses $call");
}
$standby->stop;

# A restart, or a crash, discards all state.
$node->safe_psql('postgres', "SELECT presence_set_state('r', 'k', '1', 1000)");
restart_node($node, '', 'immediate');
is(value($node, "SELECT count(*) FROM presence_get_state('r')"), 0, 'a restart forgets');
$node->safe_psql('postgres', "SELECT presence_set_state('r', 'k', '1', 1000)");
is(value($node, "SELECT count(*) FROM presence_get_state('r')"), 1, 'and begins anew');

$node->stop;
done_testing();
