# Proves: a channel lives for its time to live, leaves after the grace of a
# goodbye, and as long as a session that holds it; a session that ends, however,
# gives what it held presence.hold_grace; any sign of life takes that back.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_node('time_to_live', conf => q(
restart_after_crash = on
presence.hold_grace = 100s
presence.bulk_threshold = 1000
));
my $listener = listen_to($node);

declare_test_functions($node);
await_announcer($node);

sub add { value($node, "SELECT presence_add('r', '$_')") foreach @_; return; }

# Let seconds pass for the extension.
sub elapse { return value($node, "SELECT advance_clock($_[0] * 1000000::bigint)"); }

sub is_present { return value($node, "SELECT count(*) FROM presence_list('r') WHERE channel_name = '$_[0]'") == 1; }

# The reason for which a channel leaves; times out where it does not.
sub reason_of
{
	my ($channel) = @_;
	my $event = $listener->wait_for("$channel leaves", sub { $_[0]{event} eq 'leave' && $_[0]{removed}{channel_name} eq $channel });

	return $event ? $event->{reason} : 'none';
}

# Keep the worker from removing anybody: a read beside a removal shows who was
# there when it began.
my $locker = session($node);

sub lock_rows { $locker->query_safe('BEGIN; SELECT count(*) FROM (SELECT FROM presence.presences FOR UPDATE) p'); return; }

sub unlock_rows { $locker->query_safe('COMMIT'); return; }

sub clean { value($node, q{DELETE FROM presence.presences}); $listener->drain; return; }

# A time to live, shorter and longer than max_age (600 s)
add(qw(short long plain));
is(value($node, q{SELECT presence_touch('short', 30)}), 't', 'touch with a short time to live');
is(value($node, q{SELECT presence_touch_many(ARRAY['long', 'gone'], 3600)}), '{gone}', 'and many with a long one');
lock_rows();
elapse(31);
ok(!is_present('short'), 'it is over for reads at once');
is(value($node, q{SELECT presence_touch('short')}), 'f', 'and for heartbeats');
unlock_rows();
is(reason_of('short'), 'expired', 'the worker removes it in time');
ok(is_present('plain') && is_present('long'), 'others live on');
for my $i (1 .. 4)
{
	value($node, q{SELECT presence_touch('plain')});
	elapse(200);
}
value($node, q{SELECT presence_touch('plain')});
ok(is_present('long'), 'a long time to live is longer than max_age');
is(value($node, 'SELECT prune_presences()'), 0, 'and prune_presences knows it');
is(value($node, 'SELECT prune_presences(700)'), 1, 'but for an explicit age the last sign of life counts');
ok(!is_present('long') && is_present('plain'), 'so it goes');
$listener->drain;

# Changing it
add('c');
value($node, q{SELECT presence_touch('c', 20)});
value($node, q{SELECT presence_touch('c')});
elapse(30);
ok(is_present('c'), 'a touch without a time to live is one max_age');
value($node, q{SELECT presence_touch('c', 20)});
elapse(15);
value($node, q{SELECT presence_add('r2', 'c')});
elapse(15);
ok(is_present('c'), 'an add is a sign of life that does not shorten it');
value($node, q{SELECT presence_update('r', 'c', '{"a": 1}')});
elapse(15);
ok(is_present('c'), 'so is an update');
elapse(10);
is(reason_of('c'), 'expired', 'then it expires in its own time');
clean();

# Alternating beats of a short time to live are heard of once each
add('beater');
for my $i (1 .. 10)
{
	value($node, q{SELECT presence_touch('beater', 40)});
	elapse(30);
}
ok(is_present('beater'), 'a device that beats in time stays');
elapse(11);
is(reason_of('beater'), 'expired', 'and leaves when it stops');

# More than the worker is told singly
value($node, q{SELECT presence_add_many('r', ARRAY(SELECT 'many ' || i FROM generate_series(1, 500) i))});
value($node, q{SELECT presence_touch_many(ARRAY(SELECT 'many ' || i FROM generate_series(1, 500) i), 10)});
elapse(11);
ok(wait_until('all leave', sub { value($node, q{SELECT count(*) FROM presence.presences WHERE channel_name LIKE 'many %'}) == 0 }),
	'many short times to live end in time');
clean();

# Goodbyes
add(qw(g h));
value($node, q{SELECT presence_add('r2', 'g')});
is(value($node, q{SELECT presence_leave_all('g', 50)}), 2, 'a goodbye says how many will go');
ok(is_present('g'), 'nobody goes yet');
lock_rows();
elapse(51);
ok(!is_present('g'), 'then they do');
unlock_rows();
is(reason_of('g'), 'leave', 'with the reason leave');
is(value($node, q{SELECT presence_leave_all('nobody', 50)}), 0, 'who is not there says no goodbye');
for my $sign (q{presence_touch('h')}, q{(presence_add('r', 'h')).created}, q{presence_update('r', 'h', '{"x": 1}')},
	q{presence_receive('h', 'hello')}, q{presence_hold('h')})
{
	is(value($node, q{SELECT presence_leave_all_many(ARRAY['h', 'nobody'], 20)}), 1, 'goodbye of some');
	value($node, "SELECT $sign");
	elapse(25);
	ok(is_present('h'), "$sign takes a goodbye back");
}
value($node, q{SELECT presence_touch('h', 30)});
value($node, q{SELECT presence_leave_all('h', 500)});
elapse(31);
is(reason_of('h'), 'leave', 'a goodbye is never later than the deadline it had');
add('rolled');
value($node, q{BEGIN; SELECT presence_leave_all('rolled', 20); ROLLBACK});
elapse(21);
is(reason_of('rolled'), 'leave', 'a goodbye is not transactional');
value($node, q{BEGIN; SELECT presence_add('r', 'same'); SELECT presence_leave_all('same', 20); COMMIT});
elapse(21);
is(reason_of('same'), 'leave', 'it works in the transaction that adds');
clean();

# Holds
my $holder = session($node);
add(qw(a b c d e f));
is($holder->query_safe(q{SELECT presence_hold('a')}), 't', 'a session holds a channel');
is($holder->query_safe(q{SELECT presence_hold_many(ARRAY['b', 'c', 'd', 'nobody'])}), '{nobody}', 'and many');
is($holder->query_safe(q{SELECT presence_hold('nobody')}), 'f', 'who is not present cannot be held');
$holder->query_safe(q{BEGIN; SELECT presence_add('r', 'own'), presence_hold('own'); COMMIT});
$holder->query_safe(q{BEGIN; SELECT presence_add('r', 'undone'), presence_hold('undone'); ROLLBACK});
is(value($node, 'SELECT held FROM presence.stats'), 5, 'presence.stats counts them');
elapse(250) foreach 1 .. 4;
ok(wait_until('the others leave', sub { !is_present('e') }), 'who is not held expires');
is(value($node, q{SELECT string_agg(channel_name, ' ' ORDER BY channel_name) FROM presence_list('r')}), 'a b c d own', 'who is held does not');
is(value($node, q{SELECT now() - last_seen < interval '60 seconds' FROM presence_list('r') WHERE channel_name = 'a'}), 't', 'and was seen just now');
value($node, 'SELECT prune_presences()');
is(value($node, 'SELECT prune_presences(0)'), 0, 'nothing prunes it');
value($node, q{SELECT presence_touch('a', 20)});
elapse(30);
ok(is_present('a'), 'a touch leaves it held');
is($holder->query_safe(q{SELECT presence_release('b')}), 't', 'a session releases a channel');
is($holder->query_safe(q{SELECT presence_release('b')}), 'f', 'once');
is(value($node, q{SELECT presence_release('a')}), 'f', 'but only its own');
elapse(299);
ok(is_present('b'), 'it has a max_age from there');
elapse(302);
is(reason_of('b'), 'expired', 'and not more');
is($holder->query_safe(q{SELECT presence_leave_all('d')}), 1, 'who is held can leave');
add('d');
$holder->query_safe(q{SELECT presence_hold('c')});

# Another session takes a hold over
my $second = session($node);
is($second->query_safe(q{SELECT presence_hold('c')}), 't', 'another session takes a hold over');
is($holder->query_safe(q{SELECT presence_release('c')}), 'f', 'the first has it no more');
my $pid = $holder->query_safe('SELECT pg_backend_pid()');
value($node, "SELECT pg_terminate_backend($pid)");
ok(wait_until('the holder is gone', sub { value($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid") == 0 }), 'the first session ends');
eval { $holder->quit };
is(value($node, 'SELECT held FROM presence.stats'), 1, 'what it held is not held any more');
ok(is_present('a') && is_present('own'), 'and has the grace');
value($node, q{SELECT presence_touch('own')});
elapse(101);
is(reason_of('a'), 'disconnected', 'then it leaves, disconnected');
ok(is_present('own'), 'but not who was touched in time');
ok(is_present('c'), 'nor what another session holds');
is($second->query_safe('DISCARD ALL'), '', 'DISCARD ALL');
is(value($node, 'SELECT held FROM presence.stats'), 0, 'ends holds, too');
is(value($node, q{SELECT presence_hold('c')}), 't', 'in the grace anybody may hold it');
elapse(101);
is(reason_of('c'), 'disconnected', 'a session of one statement holds for its grace');

# A session that is killed with its client, and one that ends for good
clean();
add(qw(k l));
$second->query_safe(q{SELECT presence_hold('k')});
kill('KILL', $second->{run}{KIDS}[0]{PID});
ok(wait_until('the session is gone', sub { value($node, 'SELECT held FROM presence.stats') == 0 }), 'kill -9 of the client ends its session');
elapse(101);
is(reason_of('k'), 'disconnected', 'and its holds');
eval { $second->quit };
$second = session($node);
$second->query_safe(q{SELECT presence_hold('l')});
is($second->query_safe('SELECT presence_release_all()'), 1, 'presence_release_all says how many');
$second->quit;
elapse(101);
ok(is_present('l'), 'who was released does not depend on the session');

# Stopped processes and jumps of the clock
clean();
add('held');
$second = session($node);
$second->query_safe(q{SELECT presence_hold('held')});
my $worker = await_sleep($node);
stop_process($worker);
elapse(3000);
continue_process($worker);
value($node, q{SELECT jump_wall_clock(7200 * 1000000::bigint)});
await_announcer($node);
elapse(10);
ok(is_present('held'), 'SIGSTOP of the worker and jumps of the clocks kill nobody who is held');

# A crash of the server: one max_age
$locker->quit;
kill('KILL', $second->query_safe('SELECT pg_backend_pid()'));
usleep(200_000);
wait_until('the server is back', sub { my ($status) = $node->psql('postgres', 'SELECT 1'); $status == 0 }) || BAIL_OUT('the server does not come back');
eval { $second->quit };
eval { $listener->quit };
is(value($node, 'SELECT held FROM presence.stats'), 0, 'a crash ends all holds');
value($node, 'SELECT advance_clock(590 * 1000000)');
ok(is_present('held'), 'with one max_age from there');
ok(age_until($node, 'it dies', undef, sub { !is_present('held') }), 'and not more');

# Arguments
sub state_of { my ($sql, $on) = @_; my ($status, $out, $err) = ($on // $node)->psql('postgres', "\\set VERBOSITY sqlstate\n$sql"); return $err =~ /ERROR:\s+(\w+)/ ? $1 : 'none'; }
is(state_of("SELECT presence_touch('a', $_)"), '22023', "a time to live of $_ is refused") foreach 0, 0.09, 2592001, "'NaN'", -1;
is(state_of("SELECT presence_leave_all('a', $_)"), '22023', "a grace of $_ is refused") foreach -1, "'NaN'", "'infinity'";
is(state_of(q{SELECT presence_leave_all('a', NULL)}), '22004', 'a grace of NULL as well');
is(state_of(q{SELECT presence_hold(NULL)}), '22004', 'a hold needs a name');

# A full registry
restart_node($node, 'presence.max_channels = 16');
value($node, q{SELECT presence_add_many('r', ARRAY(SELECT 'x' || i FROM generate_series(1, 100) i))});
is(state_of(q{SELECT presence_hold_many(ARRAY(SELECT 'x' || i FROM generate_series(1, 100) i))}), '53400', 'a full registry refuses a hold');
is(value($node, q{SELECT presence_leave_all_many(ARRAY(SELECT 'x' || i FROM generate_series(1, 100) i), 300)}), 100, 'of a goodbye it keeps what it can');
cmp_ok(value($node, q{SELECT presence_count('r')}), '<', 50, 'the others leave at once');

# Without preload
restart_node($node, q(shared_preload_libraries = ''));
value($node, q{SELECT presence_add('r', 'p')});
is(state_of(q{SELECT presence_hold('p')}), '55000', 'without preload there are no holds');
is(state_of(q{SELECT presence_touch('p', 20)}), '55000', 'nor times to live');
is(value($node, q{SELECT presence_leave_all('p', 300)}), 1, 'and a goodbye');
is(value($node, q{SELECT count(*) FROM presence.presences WHERE channel_name = 'p'}), 0, 'leaves at once');
$node->stop;
done_testing();
