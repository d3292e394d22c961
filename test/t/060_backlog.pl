# Proves: however many hints are pending, each is processed once: thousands of
# changes of one presence and of one room are announced soon and once, and the
# process that announces them can be terminated.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('backlog', conf => q(
presence.queue_size = 64MB
presence.max_channels = 100000
autovacuum = off
));
my $listener = listen_to($node);

await_announcer($node);

# A worker that has just started has no rooms in its roster.
sub new_worker
{
	my $pid = value($node, 'SELECT worker_pid FROM presence.stats');

	value($node, "SELECT pg_terminate_backend($pid)");
	value($node, 'SELECT presence_start_worker()');
	wait_until('another worker speaks', sub {
			value($node, qq{SELECT mode = 'worker' AND worker_pid <> $pid FROM presence.stats}) eq 't';
		})
	  or BAIL_OUT('no other worker comes');
	$listener->drain;
	return;
}

# Change the row of room "quiet" the given number of times in one transaction.
sub change_sql
{
	my ($times, $change) = @_;

	return qq{
		DO \$\$
		DECLARE
			place tid := (SELECT ctid FROM presence.presences WHERE room = 'quiet');
		BEGIN
			FOR i IN 1 .. $times LOOP
				UPDATE presence.presences SET $change WHERE ctid = place RETURNING ctid INTO place;
			END LOOP;
		END \$\$};
}

# How often the worker and other processes have read a presence.
sub reads
{
	return value($node, q{SELECT pg_stat_force_next_flush(); SELECT idx_tup_fetch + seq_tup_read
		FROM pg_stat_user_tables WHERE relname = 'presences'}) =~ s/^\s+//r;
}

# Changes of one presence, whose room must be loaded.
value($node, q{SELECT presence_add('quiet', 'c', 'u0')});
$listener->drain;
new_worker();
value($node, change_sql(20000, q{meta = jsonb_build_object('n', i)}));
my $event = $listener->wait_for('the change', sub { $_[0]->{event} eq 'update' });
ok($event, 'thousands of changes of one presence are told')
  or ($node->stop('immediate'), BAIL_OUT('the worker is lost in the changes'));
is($event->{added}{meta}{n}, 20000, 'as one, as it is now');
is_deeply($listener->summary, ['update quiet c'], 'and no more');

# Changes of its user, from one to another and back, are traced back to the
# first.
new_worker();
value($node, change_sql(299, q{user_id = 'u' || CASE WHEN i % 3 = 0 THEN 0 ELSE i END}));
($event) = grep { $_->{room} eq 'quiet' } $listener->drain;
is("$event->{previous}{user_id} $event->{added}{user_id}", 'u0 u299', 'a chain of users is told from the first to the last');

# A transaction that announces them itself, and can be terminated meanwhile.
$node->safe_psql('postgres', q{ALTER SYSTEM SET presence.notify = 'transaction'});
$node->reload;
wait_until('transactions speak', sub {
		value($node, q{SELECT presence_add('mark-mode', 'x')});
		value($node, 'SELECT mode FROM presence.stats') eq 'transaction';
	})
  or BAIL_OUT('transactions do not speak');
my $committer = session($node);
my $pid = $committer->query_safe('SELECT pg_backend_pid()');
$committer->query_safe('BEGIN');
$committer->query_safe(change_sql(8000, q{meta = jsonb_build_object('n', i)}));
$committer->{stdin} .= "COMMIT;\n";
$committer->{run}->pump_nb;
wait_until('it commits', sub {
		value($node, qq{SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND query LIKE 'COMMIT%'}) == 1;
	});
value($node, "SELECT pg_terminate_backend($pid)");
ok( wait_until('it ends', sub { value($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid") == 0 }),
	'who announces thousands of changes in his commit can be ended')
  or ($node->stop('immediate'), BAIL_OUT('the transaction is lost in the changes'));
eval { $committer->quit };
$node->safe_psql('postgres', q{ALTER SYSTEM RESET presence.notify});
$node->reload;
wait_until('a worker speaks', sub { value($node, 'SELECT mode FROM presence.stats') eq 'worker' });
$listener->drain;

# A long transaction: many turns, none of which reads hints of other
# transactions.
my $joins = 40_000;
new_worker();
value($node, 'SELECT presence_reset_stats()');
my $before = reads();
value($node, qq{INSERT INTO presence.presences (room, channel_name) SELECT 'crowd', 'c' || i FROM generate_series(1, $joins) i});
my @events = $listener->drain;
my $joined = 0;
$joined += $_->{joined_count} // ($_->{joined} ? @{ $_->{joined} } : 1) for grep { ($_->{room} // '') eq 'crowd' } @events;
is($joined, $joins, 'every join of a long transaction is told once');
is((grep { defined } map { $_->{connections} } reverse grep { ($_->{room} // '') eq 'crowd' } @events)[0], $joins, 'and counted');
is(value($node, 'SELECT resyncs FROM presence.stats'), 0, 'nobody has to read again');
cmp_ok(reads() - $before, '<', 3 * $joins, 'each is looked up once, beside the load of the room');

# The same for leaves.
value($node, q{DELETE FROM presence.presences WHERE room = 'crowd'});
@events = $listener->drain;
my $left = 0;
$left += $_->{left_count} // ($_->{left} ? @{ $_->{left} } : 1) for grep { ($_->{room} // '') eq 'crowd' } @events;
is($left, $joins, 'and so is every leave');

# A worker that cannot get its locks was not stopped: no resync is sent.
my $locker = session($node);
$locker->query_safe('BEGIN');
$locker->query_safe('LOCK TABLE presence.presences IN ACCESS EXCLUSIVE MODE');
value($node, q{SELECT presence_broadcast('crowd', 'hello')});
ok(wait_until('a broadcast waits', sub { value($node, 'SELECT queue_bytes > 0 FROM presence.stats') eq 't' }), 'a broadcast waits for the locks of the delivery');
$locker->query_safe('SELECT pg_sleep(5)');
$locker->query_safe('COMMIT');
$locker->quit;
$listener->drain;
is(value($node, 'SELECT resyncs FROM presence.stats'), 0, 'a worker without its locks was not stopped');

$listener->quit;
$node->stop;
done_testing();
