# Proves: the worker removes empty rooms a few at a time, even if some cannot be
# removed; a call of prune_rooms that is canceled leaves the session usable.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('rooms', conf => q(
presence.prune_rooms_interval = 1s
presence.max_age = 10min
log_min_messages = debug1
));

# The rooms whose names begin with a prefix.
sub rooms_like
{
	my ($prefix) = @_;

	return value($node, "SELECT count(*) FROM presence.rooms WHERE name LIKE '$prefix%'");
}

await_announcer($node);
my $worker = value($node, 'SELECT worker_pid FROM presence.stats');

#
# Many rooms, one of which cannot be removed
#

$node->safe_psql('postgres', q{
	CREATE TABLE notes (room text CONSTRAINT note_of_room REFERENCES presence.rooms);
	CREATE TABLE removed (xid bigint, rooms bigint);
	CREATE FUNCTION count_removed() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.removed SELECT txid_current(), count(*) FROM gone HAVING count(*) > 0;
		RETURN NULL;
	END $$;
	CREATE TRIGGER count_removed AFTER DELETE ON presence.rooms REFERENCING OLD TABLE AS gone
		FOR EACH STATEMENT EXECUTE FUNCTION count_removed();
	BEGIN;
	INSERT INTO presence.rooms (name) SELECT 'empty ' || i FROM generate_series(1, 4500) i;
	INSERT INTO presence.rooms (name, persistent) SELECT 'kept ' || i, true FROM generate_series(1, 1500) i;
	INSERT INTO presence.rooms (name, private) VALUES ('private', true);
	SELECT count(*) FROM presence_add_many('full', ARRAY['a', 'b']);
	INSERT INTO notes VALUES ('empty 2222');
	COMMIT;
});
ok(wait_until('the empty rooms are gone', sub { rooms_like('empty') == 1 }), 'empty rooms go, but for one');
is(rooms_like('empty 2222'), 1, 'that somebody refers to');
like(log_slice($node), qr/could not remove the empty room "empty 2222": .*"note_of_room"/, 'it is in the log');
is(rooms_like('kept'), 1500, 'persistent rooms stay');
is(rooms_like('private') + rooms_like('full'), 2, 'so do private ones, and those that are not empty');
is(value($node, 'SELECT sum(rooms) FROM removed'), 4499, 'they went');
cmp_ok(value($node, 'SELECT max(n) FROM (SELECT sum(rooms) AS n FROM removed GROUP BY xid) t'), '<=', 1000,
	'not more than a thousand in one transaction');
is(value($node, 'SELECT worker_pid FROM presence.stats'), $worker, 'by one worker');
value($node, 'DELETE FROM notes');
ok(wait_until('the last one is gone', sub { rooms_like('empty') == 0 }), 'it goes when it can');

#
# A transaction that is adding
#

my $adder = session($node);
my $log_start = -s $node->logfile;
$adder->query_safe('BEGIN');
$adder->query_safe(q{SELECT presence_add('new', 'c')});
value($node, q{INSERT INTO presence.rooms (name) VALUES ('late 1'), ('late 2')});
ok(wait_until('the worker meets him', sub { log_slice($node, $log_start) =~ /empty rooms are not removed now/ }),
	'the worker leaves rooms alone while somebody enters');
is(rooms_like('late'), 2, 'they are still there');
is(value($node, q{SELECT channel_name FROM presence_add('another', 'd')}), 'd', 'others enter');
is(value($node, 'SELECT prune_rooms()'), 0, 'prune_rooms removes none either');

# It is canceled at different times.
my $session = session($node);
my $canceled = 0;
$session->query_safe('CREATE TABLE proof (n int)');
for my $ms (1 .. 30)
{
	my $begun = -s $node->logfile;

	$session->query("SET statement_timeout = '${ms}ms'");
	$session->query('SELECT prune_rooms()');
	# the timeout may cancel even this
	wait_until('it is reset', sub { $session->query("RESET statement_timeout; SELECT 'reset' WHERE current_setting('statement_timeout') = '0'") eq 'reset' });
	$session->query("INSERT INTO proof VALUES ($ms)");
	$canceled++ if log_slice($node, $begun) =~ /canceling statement due to statement timeout/;
}
cmp_ok($canceled, '>', 0, 'prune_rooms was canceled');
is(value($node, 'SELECT count(*) FROM proof'), 30, 'what the session did next is committed');
like($session->query(q{SELECT 'sound'}), qr/sound/, 'it is sound');
$session->quit;
$adder->query_safe('COMMIT');
$adder->quit;
ok(wait_until('they are gone', sub { rooms_like('late') == 0 }), 'rooms go when nobody is in the way');
is(value($node, 'SELECT worker_pid FROM presence.stats'), $worker, 'one worker to the end');
$node->stop;
done_testing();
