# Proves: a client that reads when it receives that a user went offline sees
# when the user was last seen, and locks or triggers on that table do not delay
# events.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('last_seen');
my $listener = listen_to($node, undef, 'presence_status');

await_announcer($node);

# Events announced so far for a user, each with the visible last_seen.
sub offline_of
{
	my ($user) = @_;

	return grep { $_->{user_id} eq $user && $_->{status} eq 'offline' } $listener->events;
}

# The visible last_seen, in the format of events.
sub last_seen
{
	my ($user) = @_;

	return value($node, qq{SELECT to_char(last_seen AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
		FROM presence_status('$user')});
}

# A lock blocks whatever writes the table, so nothing is announced that is not
# yet visible.
value($node, q{SELECT presence_add('r', 'a', 'ann')});
$listener->wait_for('ann online', sub { $_[0]->{user_id} eq 'ann' });
my $locker = session($node);
$locker->query_safe('BEGIN');
$locker->query_safe('LOCK TABLE presence.user_last_seen IN SHARE MODE');
value($node, q{SELECT presence_leave_all('a')});
ok(wait_until('the change waits', sub { value($node, 'SELECT queue_bytes > 0 FROM presence.stats') eq 't' }), 'a change waits for the lock');
value($node, 'SELECT pg_sleep(0.5)');
is(scalar(offline_of('ann')), 0, 'nothing is told before it can be read');
$locker->query_safe('COMMIT');
my $event = $listener->wait_for('ann offline', sub { $_[0]->{user_id} eq 'ann' && $_[0]->{status} eq 'offline' });
ok($event, 'then it is told');
is(last_seen('ann'), $event->{last_seen}, 'and is what can be read');

# A user's trigger and deferred constraint on the table.
my $pid = value($node, 'SELECT worker_pid FROM presence.stats');
value($node, q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not here'; END $$;
	CREATE TRIGGER refuse BEFORE INSERT ON presence.user_last_seen FOR EACH ROW EXECUTE FUNCTION refuse();
	ALTER TABLE presence.user_last_seen ENABLE ALWAYS TRIGGER refuse;
	SELECT presence_add('r', 'b', 'bob')});
value($node, q{SELECT presence_leave_all('b')});
ok($listener->wait_for('bob offline', sub { $_[0]->{user_id} eq 'bob' && $_[0]->{status} eq 'offline' }),
	'a trigger that raises an error does not keep events back');
value($node, q{
	DROP TRIGGER refuse ON presence.user_last_seen;
	CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON presence.user_last_seen
		DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
	ALTER TABLE presence.user_last_seen ENABLE ALWAYS TRIGGER refuse;
	SELECT presence_add('r', 'c', 'cat')});
value($node, q{SELECT presence_leave_all('c')});
ok($listener->wait_for('cat offline', sub { $_[0]->{user_id} eq 'cat' && $_[0]->{status} eq 'offline' }),
	'nor does one at the end of the transaction');
is(value($node, 'SELECT worker_pid FROM presence.stats'), $pid, 'the worker has lived through it');
is(() = log_slice($node) =~ /could not remember when users were last seen: not here/g, 1, 'and has said so once');
value($node, 'DROP TRIGGER refuse ON presence.user_last_seen');
value($node, q{SELECT presence_add('r', 'd', 'dan')});
value($node, q{SELECT presence_leave_all('d')});
$event = $listener->wait_for('dan offline', sub { $_[0]->{user_id} eq 'dan' && $_[0]->{status} eq 'offline' });
is(last_seen('dan'), $event->{last_seen}, 'without it all is as before');

# More users at once than rows are inserted at a time.
value($node, q{SELECT presence_add_many('many', array_agg('many-' || i), array_agg('user-' || i)) FROM generate_series(1, 2500) i});
my $left_at = value($node, q{SELECT now()});
value($node, q{SELECT presence_leave_all_many(array_agg('many-' || i)) FROM generate_series(1, 2500) i});
ok($listener->wait_for('the last of many offline', sub { $_[0]->{user_id} eq 'user-2500' && $_[0]->{status} eq 'offline' }),
	'thousands go at once');
is(value($node, qq{SELECT count(*) || ' ' || count(DISTINCT user_id) || ' ' || bool_and(last_seen BETWEEN '$left_at'::timestamptz - interval '5 min' AND now())
	FROM presence.user_last_seen WHERE user_id ~ '^user-'}), '2500 2500 true', 'and each has a row');
is(value($node, q{SET enable_seqscan = off; SELECT count(*) FROM generate_series(1, 2500) i
	WHERE EXISTS (SELECT FROM presence.user_last_seen s WHERE s.user_id = 'user-' || i)}), 2500, 'that the index finds');

# What somebody adds to the table is heeded: an index, a constraint, a column.
sub come_and_go
{
	my ($user) = @_;

	$listener->clear;
	value($node, qq{SELECT presence_add('r', 'of $user', '$user')});
	value($node, qq{SELECT presence_leave_all('of $user')});
	return $listener->wait_for("$user offline", sub { $_[0]->{user_id} eq $user && $_[0]->{status} eq 'offline' });
}

# Users are found by the indexes, not by reading the tables.
sub scans
{
	return split / /, value($node, q{SELECT (SELECT sum(seq_scan) FROM pg_stat_user_tables WHERE relname IN ('presences', 'user_last_seen')) || ' ' ||
		string_agg(idx_scan::text, ' ' ORDER BY indexrelname) FROM pg_stat_user_indexes WHERE indexrelname IN ('presences_user_id_idx', 'user_last_seen_user_id')});
}
my @before = scans();
ok(come_and_go("scanned $_"), 'told who comes and goes') for 1 .. 3;
ok(wait_until('the worker reports', sub { my @now = scans(); $now[1] - $before[1] >= 6 && $now[2] - $before[2] >= 3 }), 'by the indexes');
is((scans())[0], $before[0], 'and no table is read whole');

# Who has a row gets no second one, unless somebody holds it.
sub seen_rows { return value($node, qq{SELECT count(*) FROM presence.user_last_seen WHERE user_id = '$_[0]'}) }
ok(come_and_go('hal'), 'told who has no row');
ok($event = come_and_go('hal'), 'told who has one');
is(seen_rows('hal') . last_seen('hal'), 1 . $event->{last_seen}, 'which has the new time');
$locker->query_safe(q{BEGIN; SELECT FROM presence.user_last_seen WHERE user_id = 'hal' FOR KEY SHARE});
ok($event = come_and_go('hal'), 'told while somebody refers to it');
is(last_seen('hal'), $event->{last_seen}, 'it can be read');
$locker->query_safe(q{COMMIT; BEGIN; SELECT FROM presence.user_last_seen WHERE user_id = 'hal' FOR UPDATE});
ok($event = come_and_go('hal'), 'told while somebody has locked it');
is(last_seen('hal'), $event->{last_seen}, 'it can be read');
cmp_ok(seen_rows('hal'), '>=', 2, 'in a row of its own');
$locker->query_safe(q{COMMIT; BEGIN; UPDATE presence.user_last_seen SET last_seen = 'epoch' WHERE user_id = 'hal'});
ok($event = come_and_go('hal'), 'told while somebody changes it');
is(last_seen('hal'), $event->{last_seen}, 'it can be read');
$locker->query_safe('COMMIT');
is(last_seen('hal'), $event->{last_seen}, 'also when it has been changed');
value($node, 'CREATE INDEX by_time ON presence.user_last_seen (last_seen)');
ok($event = come_and_go('ivy'), 'told with an index on times');
ok($event = come_and_go('ivy'), 'told again');
is(value($node, qq{SET enable_seqscan = off; SELECT user_id FROM presence.user_last_seen WHERE last_seen = '$event->{last_seen}'}), 'ivy',
	'the index finds the new time');
is(seen_rows('ivy'), 1, 'of the only row');
value($node, 'DROP INDEX presence.by_time');

# The indexes by which users are read may be missing, or others of their names.
value($node, 'ALTER INDEX presence.user_last_seen_user_id RENAME TO kept_gone; ALTER INDEX presence.presences_user_id_idx RENAME TO kept_here');
for my $state ('missing', 'partial')
{
	value($node, q{
		CREATE INDEX user_last_seen_user_id ON presence.user_last_seen (user_id) WHERE user_id = 'nobody';
		CREATE INDEX presences_user_id_idx ON presence.presences (user_id) WHERE user_id = 'nobody'}) if $state eq 'partial';
	ok(come_and_go('ivy'), "told with an index that is $state");
	is(seen_rows('ivy'), 1, 'who has a row keeps it');
	value($node, q{SELECT presence_add('r', 'first', 'jon'), presence_add('r', 'second', 'jon')});
	$listener->wait_for('jon online', sub { $_[0]->{user_id} eq 'jon' });
	$listener->clear;
	value($node, q{SELECT presence_leave_all('first')});
	value($node, qq{SELECT presence_add('r', 'next', 'next $state')});
	$listener->wait_for('who came next', sub { $_[0]->{user_id} eq "next $state" });
	is(scalar(offline_of('jon')), 0, 'who has left with one of two connections is online');
	value($node, q{SELECT presence_leave_all('second'), presence_leave_all('next')});
	ok($listener->wait_for('jon offline', sub { $_[0]->{user_id} eq 'jon' && $_[0]->{status} eq 'offline' }), 'who has left with both is not');
}
value($node, q{DROP INDEX presence.user_last_seen_user_id, presence.presences_user_id_idx;
	ALTER INDEX presence.kept_gone RENAME TO user_last_seen_user_id; ALTER INDEX presence.kept_here RENAME TO presences_user_id_idx});
value($node, 'CREATE INDEX upper_user ON presence.user_last_seen (upper(user_id))');
ok(come_and_go('eve'), 'told with an index');
is(value($node, q{SET enable_seqscan = off; SELECT count(*) FROM presence.user_last_seen WHERE upper(user_id) = 'EVE'}), 1,
	'which has the new row');
value($node, q{ALTER TABLE presence.user_last_seen ADD CONSTRAINT added CHECK (user_id <> 'fay')});
ok(come_and_go('fay'), 'told with a constraint');
is(value($node, q{SELECT count(*) FROM presence.user_last_seen WHERE user_id = 'fay'}), 0, 'which is kept');
value($node, q{ALTER TABLE presence.user_last_seen DROP CONSTRAINT added, ADD COLUMN added text DEFAULT 'default'});
ok(come_and_go('gus'), 'told with a column');
is(value($node, q{SELECT added FROM presence.user_last_seen WHERE user_id = 'gus'}), 'default', 'which has its default');

$locker->quit;
$listener->quit;
$node->stop;
done_testing();
