# Proves: with presence.keep_visits each presence that leaves, in whatever way,
# becomes one row of presence.visits, in the transaction that removes it; with
# and without a worker, through rollbacks, errors and a crash. Old ones go.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node;

# The visits of rooms like a pattern: room, channel, user and reason of each.
sub visits
{
	my ($rooms) = @_;

	return value($node, qq{SELECT string_agg(concat_ws(' ', room, channel_name, coalesce(user_id, '-'), reason), ', ' ORDER BY room, channel_name, id)
		FROM presence.visits WHERE room LIKE '$rooms'});
}

# Set a setting for all sessions to come.
sub set
{
	my ($name, $value) = @_;

	$node->safe_psql('postgres', "LOAD 'presence'; ALTER SYSTEM SET $name = '$value'");
	$node->reload;
	wait_until("$name arrives", sub { value($node, qq{LOAD 'presence'; SHOW $name}) eq $value });
	return;
}

# Every way to leave has its reason.
sub prove_reasons
{
	my ($mode) = @_;

	value($node, q{
		SELECT presence_add('way 1', 'removed', 'alice'); SELECT presence_remove('way 1', 'removed');
		SELECT presence_add('way 2', 'many', 'bob'), presence_add('way 3', 'many'); SELECT presence_leave_all('many');
		SELECT presence_add('way 4', 'd1', 'd'), presence_add('way 4', 'd2'); DELETE FROM presence.presences WHERE room = 'way 4';
		SELECT presence_add('way 5', 'k', 'kim'); SELECT presence_kick('way 5', 'kim');
		SELECT presence_add('way 6', 'b', 'ben'); SELECT presence_ban('way 6', 'ben');
		SELECT presence_add('way 7', 'r', 'rob'); DELETE FROM presence.rooms WHERE name = 'way 7';
		SELECT presence_add('way 8', 'e', 'eve'); SELECT prune_presences(0);
		SELECT presence_add('way 9', 'old', 'olga'); SELECT advance_clock(700000000); SELECT presence_add('way 9', 'old', 'olga');
	});
	my $expected = 'way 1 removed alice leave, way 2 many bob leave, way 3 many - leave, way 4 d1 d leave, way 4 d2 - leave, '
	  . 'way 5 k kim kicked, way 6 b ben banned, way 7 r rob room_deleted, way 8 e eve expired, way 9 old olga expired';
	is(visits('way%'), $expected, "$mode: each reason");
	is(value($node, q{SELECT count(*) FROM presence.visits WHERE joined_at > left_at}), 0, "$mode: nobody left before joining");
	return;
}

# The times are those of the row, and of its removal.
sub prove_times
{
	my ($mode) = @_;
	my $joined = value($node, q{SELECT joined_at FROM presence_add('times', 'c')});
	my $since = value($node, 'SELECT clock_timestamp()');

	value($node, q{BEGIN; SELECT pg_sleep(0.01); SELECT presence_leave_all('c'); COMMIT});
	is(value($node, qq{SELECT joined_at = '$joined', left_at > '$since', left_at <= clock_timestamp() FROM presence.visits WHERE room = 'times'}),
		't|t|t', "$mode: from when to when");
	value($node, q{INSERT INTO presence.presences (room, channel_name, user_id, joined_at) VALUES ('from', 'moved', 'mo', '2001-02-03 04:05:06Z');
		UPDATE presence.presences SET room = 'to' WHERE channel_name = 'moved';
		UPDATE presence.presences SET user_id = 'mia' WHERE channel_name = 'moved'});
	is(visits('from'), 'from moved mo leave', "$mode: who is moved has left");
	is(value($node, q{SELECT p.joined_at = v.joined_at, p.joined_at <= v.left_at FROM presence.presences p, presence.visits v
		WHERE p.room = 'to' AND v.room = 'from'}), 'f|t', "$mode: and joins anew");
	value($node, q{UPDATE presence.presences SET room = 'dated', joined_at = '2002-02-02 02:02:02Z' WHERE channel_name = 'moved';
		SELECT presence_leave_all('moved')});
	is(visits('to'), 'to moved mia leave', "$mode: as whom it was in the end");
	is(value($node, q{SELECT joined_at = '2002-02-02 02:02:02Z' FROM presence.visits WHERE room = 'dated'}), 't',
		"$mode: unless the statement says since when");
	return;
}

# What is undone leaves no visit, and what an outer statement removes is not
# undone with what an inner one did.
sub prove_rollbacks
{
	my ($mode) = @_;

	value($node, q{
		SELECT presence_add_many('undo', '{a,b,c,d,e}');
		BEGIN; SELECT presence_leave_all('a'); ROLLBACK;
		BEGIN; SELECT presence_leave_all('b'); SAVEPOINT s; SELECT presence_leave_all('c'); ROLLBACK TO s;
		SAVEPOINT t; SELECT presence_leave_all('d'); RELEASE t; COMMIT;
	});
	is(visits('undo'), 'undo b - leave, undo d - leave', "$mode: what is rolled back leaves no visit");
	is(value($node, q{SELECT count(*) FROM presence_list('undo')}), 3, "$mode: nor has it gone");
	value($node, q{
		CREATE FUNCTION inner_leave() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF OLD.room = 'outer' THEN
				BEGIN
					PERFORM presence_remove('inner', 'undone ' || OLD.channel_name);
					RAISE EXCEPTION 'undone';
				EXCEPTION WHEN raise_exception THEN
					PERFORM presence_remove('inner', 'done ' || OLD.channel_name);
				END;
				BEGIN
					PERFORM presence_remove('inner', 'released ' || OLD.channel_name);
				EXCEPTION WHEN raise_exception THEN NULL;
				END;
			END IF;
			RETURN NULL;
		END $$;
		CREATE TRIGGER z_inner AFTER DELETE ON presence.presences FOR EACH ROW EXECUTE FUNCTION inner_leave();
		SELECT presence_add_many('outer', '{1,2}'), presence_add_many('inner', '{undone 1,undone 2,done 1,done 2,released 1,released 2}');
		DELETE FROM presence.presences WHERE room = 'outer';
		DROP TRIGGER z_inner ON presence.presences;
	});
	is(visits('outer'), 'outer 1 - leave, outer 2 - leave', "$mode: an inner rollback undoes no visit of the outer statement");
	is(visits('inner'), 'inner done 1 - leave, inner done 2 - leave, inner released 1 - leave, inner released 2 - leave',
		"$mode: and all of its own");
	return;
}

# One INSERT for a statement, or for a thousand rows; an error in it undoes both.
sub prove_statements
{
	my ($mode) = @_;

	value($node, q{
		CREATE TABLE inserted (rows bigint);
		CREATE FUNCTION count_visits() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF (SELECT bool_or(room = 'refused') FROM new) THEN RAISE EXCEPTION 'no visits here'; END IF;
			INSERT INTO public.inserted SELECT count(*) FROM new;
			RETURN NULL;
		END $$;
		CREATE TRIGGER count_visits AFTER INSERT ON presence.visits REFERENCING NEW TABLE AS new
			FOR EACH STATEMENT EXECUTE FUNCTION count_visits();
		SELECT presence_add_many('large', array_agg('l' || i)) FROM generate_series(1, 2500) i;
		DELETE FROM presence.presences WHERE room = 'large';
	});
	is(value($node, q{SELECT string_agg(rows::text, ' ' ORDER BY ctid) FROM inserted}), '1000 1000 500', "$mode: a thousand at a time");
	is(value($node, q{SELECT count(*), count(DISTINCT channel_name) FROM presence.visits WHERE room = 'large'}), '2500|2500', "$mode: each once");
	value($node, q{TRUNCATE inserted; SELECT presence_add('s' || i, 'once') FROM generate_series(1, 7) i; SELECT presence_leave_all('once')});
	is(value($node, q{SELECT string_agg(rows::text, ' ') FROM inserted}), '7', "$mode: one INSERT for one statement");
	value($node, q{SELECT presence_add('refused', 'stays'), presence_add('refused', 'stays too')});
	my ($status, undef, $error) = $node->psql('postgres', q{SELECT presence_leave_all_many('{stays,stays too}')});
	like($error, qr/no visits here/, "$mode: an error in a trigger on visits is the caller's");
	is(value($node, q{SELECT count(*) FROM presence_list('refused')}), 2, "$mode: who then is still there");
	value($node, q{DROP TRIGGER count_visits ON presence.visits; DROP TABLE inserted; DROP FUNCTION count_visits;
		SELECT presence_leave_all_many('{stays,stays too}')});
	is(visits('refused'), 'refused stays - leave, refused stays too - leave', "$mode: until that is no more");
	return;
}

# Who may not write visits writes them by leaving; policies matter to readers.
sub prove_rights
{
	my ($mode) = @_;

	value($node, q{
		CREATE ROLE gateway; SELECT presence_grant('gateway');
		ALTER TABLE presence.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
		SET ROLE gateway;
		SELECT presence_add('rights 1', 'c'), presence_add('rights 2', 'c'); SELECT presence_leave_all('c');
	});
	is(visits('rights%'), 'rights 1 c - leave, rights 2 c - leave', "$mode: written as the owner, past policies");
	is(value($node, 'SET ROLE gateway; SELECT count(*) FROM presence.visits'), 0, "$mode: which hide them from others");
	my ($status, undef, $error) = $node->psql('postgres', q{SET ROLE gateway; DELETE FROM presence.visits});
	like($error, qr/permission denied/, "$mode: who may not forge them");
	value($node, q{ALTER TABLE presence.visits DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;
		DROP OWNED BY gateway; DROP ROLE gateway});
	return;
}

# Where no statement trigger fires for the rows, the commit writes them; what
# replication or TRUNCATE removes leaves no visit.
sub prove_odd_ways
{
	my ($mode) = @_;

	value($node, q{
		CREATE TABLE parent (LIKE presence.presences); ALTER TABLE parent ADD PRIMARY KEY (room, channel_name);
		ALTER TABLE presence.presences INHERIT parent;
		SELECT presence_add_many('child', '{a,b,c}');
		BEGIN; DELETE FROM parent WHERE channel_name = 'a';
		SAVEPOINT s; DELETE FROM parent WHERE channel_name = 'b'; RELEASE s;
		SAVEPOINT t; DELETE FROM parent WHERE channel_name = 'c'; ROLLBACK TO t; COMMIT;
		ALTER TABLE presence.presences NO INHERIT parent; DROP TABLE parent;
	});
	is(visits('child'), 'child a - leave, child b - leave', "$mode: by a table that it inherits from");
	value($node, q{
		SELECT presence_add('replica', 'c');
		SET session_replication_role = replica; DELETE FROM presence.presences WHERE room = 'replica'; RESET session_replication_role;
		SELECT presence_add('truncated', 'c'); TRUNCATE presence.presences;
		SELECT presence_add('after', 'c'); SELECT presence_leave_all('c');
	});
	is(visits('replica') . visits('truncated'), '', "$mode: not what replication removes, nor TRUNCATE");
	is(visits('after'), 'after c - leave', "$mode: which bothers nobody later");
	return;
}

# Old visits go by the worker, or by prune_rooms; none while nothing says how old.
sub prove_pruning
{
	my ($mode, $worker) = @_;

	value($node, q{
		TRUNCATE presence.visits;
		INSERT INTO presence.visits (room, channel_name, joined_at, left_at, reason)
		SELECT 'old', 'c' || i, now() - interval '3 days', now() - interval '2 days', 'leave' FROM generate_series(1, 4500) i;
		INSERT INTO presence.visits (room, channel_name, joined_at, left_at, reason)
		SELECT CASE WHEN i % 500 = 0 THEN 'late' ELSE 'new' END, 'c' || i, now() - interval '3 days',
			now() - CASE WHEN i % 500 = 0 THEN interval '2 days' ELSE interval '1 hour' END, 'leave'
		FROM generate_series(1, 3000) i;
		CREATE TABLE removed (xid bigint, n bigint);
		CREATE FUNCTION count_removed() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			INSERT INTO public.removed SELECT txid_current(), count(*) FROM gone HAVING count(*) > 0;
			RETURN NULL;
		END $$;
		CREATE TRIGGER count_removed AFTER DELETE ON presence.visits REFERENCING OLD TABLE AS gone
			FOR EACH STATEMENT EXECUTE FUNCTION count_removed();
	});
	set('presence.prune_rooms_interval', '1s');
	value($node, q{INSERT INTO presence.rooms (name) VALUES ('empty')});
	value($node, 'SELECT prune_rooms()') if !$worker;
	ok(wait_until('a round of pruning has passed', sub { value($node, q{SELECT count(*) FROM presence.rooms WHERE name = 'empty'}) == 0 }),
		"$mode: rooms are pruned");
	is(value($node, 'SELECT count(*) FROM presence.visits'), 7500, "$mode: 0 removes nothing");
	set('presence.keep_visits', '1d');
	value($node, 'SELECT prune_rooms()') if !$worker;
	ok(wait_until('the old are gone', sub { value($node, q{SELECT count(*) FROM presence.visits WHERE room IN ('old', 'late')}) == 0 }),
		"$mode: old visits go");
	is(value($node, q{SELECT count(*) FROM presence.visits WHERE room = 'new'}), 2994, "$mode: newer ones stay");
	is(value($node, 'SELECT sum(n), max(n) <= 1000 FROM removed'), '4506|t', "$mode: nothing else goes, a thousand at a time");
	is(value($node, 'SELECT count(DISTINCT xid) > 1 FROM removed'), $worker ? 't' : 'f',
		"$mode: " . ($worker ? 'each in a transaction of its own' : 'in one transaction'));
	return;
}

foreach my $preload ('presence', '')
{
	my $mode = $preload ? 'worker' : 'no worker';

	$node = new_node($preload ? 'visits' : 'visits_plain', preload => $preload, conf => q(
presence.prune_rooms_interval = 0
presence.worker_idle_timeout = 0
));
	declare_test_functions($node);
	await_announcer($node) if $preload;
	is(value($node, q{LOAD 'presence'; SELECT boot_val FROM pg_settings WHERE name = 'presence.keep_visits'}), 0, "$mode: no visits by default");
	value($node, q{SELECT presence_add('off', 'c', 'u'); SELECT presence_leave_all('c')});
	is(value($node, 'SELECT count(*) FROM presence.visits'), 0, "$mode: none is written");
	set('presence.keep_visits', '30d');
	prove_times($mode);		# before the clocks advance
	prove_reasons($mode);
	prove_rollbacks($mode);
	prove_statements($mode);
	prove_rights($mode);
	prove_odd_ways($mode);
	set('presence.keep_visits', '0');
	prove_pruning($mode, $preload);
	$node->stop;
}

# The worker's own removals, which wait for no lock on the table.
$node = new_node('visits_worker', conf => q(
presence.keep_visits = 30d
presence.worker_idle_timeout = 0
));
declare_test_functions($node);
await_announcer($node);
my $listener = listen_to($node);
my $owner = session($node);
value($node, q{SELECT presence_add_many('aging', '{a,b,c}', '{x,x,y}'), presence_add('aging', 'alive')});
$owner->query_safe('BEGIN; LOCK TABLE presence.visits IN ACCESS EXCLUSIVE MODE');
age_until($node, 'they have expired', q{'{alive}'}, sub { value($node, q{SELECT presence_count('aging')}) == 1 });
value($node, q{SELECT presence_add('aging', 'new', 'n')});
ok($listener->wait_for('the join', sub { $_[0]->{event} eq 'join' && $_[0]->{added}{channel_name} eq 'new' }),
	'a lock on visits holds up no announcement');
is(value($node, q{SELECT count(*) FROM presence.presences WHERE room = 'aging'}), 5, 'but the removal of the expired');
$owner->query_safe('COMMIT');
$owner->quit;
ok(wait_until('the expired are removed', sub { value($node, q{SELECT count(*) FROM presence.presences WHERE room = 'aging'}) == 2 }),
	'until it is released');
is(visits('aging'), 'aging a x expired, aging b x expired, aging c y expired', 'each a visit that the worker has written');

# A ban that comes second to an add is applied by the worker.
my $adder = session($node);
$adder->query_safe(q{BEGIN; SELECT presence_add('late', 'b', 'ben')});
value($node, q{SELECT presence_ban('late', 'ben')});
$adder->query_safe('COMMIT');
ok(wait_until('the ban is applied', sub { value($node, q{SELECT count(*) FROM presence.presences WHERE room = 'late'}) == 0 }), 'a late ban');
is(visits('late'), 'late b ben banned', 'is a visit, too');
$adder->quit;
$listener->quit;

# A crash amid leaves: each presence is either there or a visit.
value($node, q{SELECT presence_add_many('crash', array_agg('c' || i)) FROM generate_series(1, 3000) i});
my @leavers = map { session($node) } 1 .. 4;
foreach my $n (0 .. $#leavers)
{
	$leavers[$n]->query_until(qr/away/, qq{\\echo away
DO \$\$ BEGIN FOR i IN 1..3000 LOOP CONTINUE WHEN i % 4 <> $n; PERFORM presence_leave_all('c' || i); COMMIT; END LOOP; END \$\$;
});
}
ok(wait_until('some have gone', sub { value($node, q{SELECT count(*) FROM presence.visits WHERE room = 'crash'}) > 100 }), 'they leave');
$node->stop('immediate');
$_->{run}->kill_kill foreach @leavers;
$node->start;
my ($here, $gone, $both) = split /\|/, value($node, q{
	SELECT count(p.id), count(v.id), count(*) FILTER (WHERE p.id IS NOT NULL AND v.id IS NOT NULL)
	FROM (SELECT * FROM presence.presences WHERE room = 'crash') p
	FULL JOIN (SELECT * FROM presence.visits WHERE room = 'crash') v USING (channel_name)});
is($here + $gone, 3000, 'after a crash nobody is lost');
is($both, 0, 'nor both there and gone');
cmp_ok($gone, '>', 100, 'some had gone');
note("$here here, $gone gone");
value($node, q{DELETE FROM presence.presences WHERE room = 'crash'});
is(value($node, q{SELECT count(*), count(DISTINCT channel_name) FROM presence.visits WHERE room = 'crash'}), '3000|3000', 'each has one visit in the end');
$node->stop;
done_testing();
