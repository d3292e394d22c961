# Proves: however many clients enter a room with max_members and leave it, by
# functions, by rows, with rollbacks, savepoints and every other way to change
# presences, it never has more members than that, and when all is quiet exactly
# as many places are free as max_members says.
use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $most = 12;
my $node = new_node('places', conf => q(
max_connections = 100
presence.max_age = 1h
restart_after_crash = on
));
my $dir = PostgreSQL::Test::Utils::tempdir();

declare_test_functions($node);
await_announcer($node);
value($node, q{
	CREATE ROLE writer;
	CREATE ROLE tenant;
	SELECT presence_grant('writer'), presence_grant('tenant');
	ALTER TABLE presence.presences ENABLE ROW LEVEL SECURITY;
	CREATE POLICY writer ON presence.presences TO writer USING (true);
	CREATE POLICY tenant ON presence.presences TO tenant USING (true) WITH CHECK (channel_name LIKE 'c%');
	SELECT presence_configure_room('door', 10, true);
});

# Run a statement; an error that is to be expected is a result.
value($node, q{
	CREATE FUNCTION try(query text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		EXECUTE query;
		RETURN 'done';
	EXCEPTION WHEN SQLSTATE 'PR001' OR deadlock_detected OR serialization_failure OR lock_not_available OR unique_violation THEN
		RETURN SQLSTATE;
	END $$;
});

# What the clients do, each with 40 channels of its own and 40 shared ones.
# Channels that begin with x are written by who is exempt, and not counted here.
my @acts = (
	q{SELECT try(format('SELECT presence_add(''door'', %L)', :own::text));},
	q{SELECT try(format('SELECT presence_add(''door'', %L)', :shared::text));},
	q{SELECT try(format('SELECT presence_remove(''door'', %L)', :own::text));},
	q{SELECT try(format('SELECT presence_leave_all(%L)', :shared::text));},
	qq{BEGIN;\nSELECT try(format('SELECT presence_add(''door'', %L)', :own::text));\nROLLBACK;},
	qq{BEGIN;\nSAVEPOINT s;\nSELECT try(format('SELECT presence_add(''door'', %L)', :own::text));\nROLLBACK TO s;\n}
	  . qq{SELECT try(format('SELECT presence_add(''door'', %L)', :shared::text));\nCOMMIT;},
	qq{BEGIN;\nSELECT presence_remove('door', :own::text);\nSAVEPOINT s;\nSELECT try(format('SELECT presence_add(''door'', %L)', :own::text || '+'));\n}
	  . qq{RELEASE s;\nSELECT presence_remove('door', :own::text || '+');\nCOMMIT;},
	q{SELECT try(format('SELECT presence_add_many(''door'', %L)', ARRAY[:own::text, :own::text || '+', :shared::text]));},
	q{SELECT presence_kick('door', NULL, :shared::text);},
	q{SELECT presence_leave_all_many(ARRAY(SELECT 'c' || i FROM generate_series(1, 40) i));},
	qq{SET ROLE writer;\nSELECT try(format('INSERT INTO presence.presences (room, channel_name) VALUES (''door'', %L)', :own::text));\nRESET ROLE;},
	qq{SET ROLE writer;\nSELECT try(format('INSERT INTO presence.presences (room, channel_name) VALUES (''hall'', %L)', :own::text));\n}
	  . qq{SELECT try(format('UPDATE presence.presences SET room = CASE room WHEN ''door'' THEN ''hall'' ELSE ''door'' END WHERE channel_name = %L', :own::text));\nRESET ROLE;},
	qq{SET ROLE tenant;\nSELECT try(format('SELECT presence_add(''door'', %L)', :own::text));\nRESET ROLE;},
	q{SELECT try(format('INSERT INTO presence.presences (room, channel_name) VALUES (''door'', %L)', 'x' || :own::text));},
	q{DELETE FROM presence.presences WHERE channel_name = 'x' || :own::text;},
	qq{BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT count(*) FROM presence.presences;\nSELECT try(format('SELECT presence_add(''door'', %L)', :own::text));\nCOMMIT;},
	q{SELECT (presence_configure_room('door', CAST(:number % 5 + 8 AS int))).name;},
	q{SELECT try('DELETE FROM presence.presences WHERE ctid IN (SELECT ctid FROM presence.presences WHERE room = ''door'' LIMIT 3 FOR UPDATE SKIP LOCKED)');});
my @rare = (
	qq{BEGIN;\nSELECT try('TRUNCATE presence.presences');\nSELECT try(format('SELECT presence_add(''door'', %L)', :own::text));\nCOMMIT;},
	qq{BEGIN;\nDELETE FROM presence.rooms WHERE name = 'door';\nSELECT (presence_configure_room('door', 10, true)).name;\nCOMMIT;});

# The names of pgbench scripts, each of one act, with their weights.
my $acts = 0;

sub scripts
{
	my ($weight, @sql) = @_;

	return map {
		my $name = "$dir/act_" . ++$acts . '.sql';

		append_to_file($name, "\\set number random(1, 40)\n"
			  . "SELECT 'c' || :client_id || ' ' || :number AS own, 'c' || :number AS shared \\gset\n$_\n");
		('-f', "$name\@$weight");
	} @sql;
}

# How many members the room has who asked for a place: the most of many looks.
my $looker = session($node);
my $look = q{SELECT count(*) FROM presence.presences WHERE room = 'door' AND channel_name NOT LIKE 'x%'};

# Let clients do what these scripts say, and look all the while.
sub storm
{
	my ($what, @scripts) = @_;
	my $peak = 0;
	my $looks = 0;
	my $run = IPC::Run::start(
		[ 'pgbench', '-n', '-c', 24, '-j', 2, '-M', 'extended', '-t', 100, '--max-tries=1000', @scripts, $node->connstr('postgres') ],
		'>', \my $out, '2>', \my $err);

	while ($run->pumpable)
	{
		my $now = $looker->query_safe($look);

		$peak = $now if $now > $peak;
		$looks++;
		$run->pump_nb;
	}
	ok($run->finish, "$what: no client fails") or diag(join "\n", (grep { /error/ } split /\n/, "$err$out")[0 .. 5]);
	cmp_ok($peak, '<=', $most, "$what: never more than $most members (in $looks looks)");
	cmp_ok($peak, '>=', 5, "$what: but many");
	return;
}

# When all is quiet: exactly as many as there are free places still get in.
sub brim
{
	my ($what) = @_;

	value($node, q{DELETE FROM presence.presences WHERE channel_name LIKE 'x%'});
	value($node, q{SELECT name FROM presence_configure_room('door', 50)});
	my $count = value($node, q{SELECT count(*) FROM presence.presences WHERE room = 'door'});

	is(value($node, qq{SELECT count(*) FROM generate_series(1, 60) i WHERE try(format('SELECT presence_add(''door'', %L)', 'brim ' || i)) <> 'PR001'}),
		50 - $count, "$what: to the $count who are in, exactly as many come as there are places");
	is(value($node, q{SELECT count(*) FROM presence.presences WHERE room = 'door'}), 50, "$what: and the room is full");
	is(value($node, q{SELECT try('SELECT presence_add(''door'', ''one more'')')}), 'PR001', "$what: to the brim");
	value($node, q{DELETE FROM presence.presences});
	is(value($node, q{SELECT presence_add_many('door', ARRAY(SELECT 'again ' || i FROM generate_series(1, 50) i))}), 50, "$what: when all have left, as many come");
	value($node, q{DELETE FROM presence.presences});
	value($node, q{SELECT name FROM presence_configure_room('door', 10)});
	return;
}

# DROP DATABASE frees what the rooms of that database took of the shared memory:
# a room that gets none is counted under a lock, which is kept to the end.
value($node, 'CREATE DATABASE hog');
value($node, 'CREATE EXTENSION presence', 'hog');
value($node, q{INSERT INTO presence.rooms (name, max_members) SELECT 'hog ' || i, 9 FROM generate_series(1, 5000) i}, 'hog');
value($node, q{SELECT count(presence_add('hog ' || i, 'a')) FROM generate_series(1, 5000) i}, 'hog');
value($node, 'DROP DATABASE hog WITH (FORCE)');
value($node, q{INSERT INTO presence.rooms (name, max_members) SELECT 'pew ' || i, 1 FROM generate_series(1, 1000) i});
my $sitter = session($node);
$sitter->query_safe(q{BEGIN; SELECT count(presence_add('pew ' || i, 'a')) FROM generate_series(1, 1000) i});
is(value($node, q{SET lock_timeout = '10ms'; SELECT string_agg(DISTINCT try(format('SELECT presence_add(%L, ''b'')', 'pew ' || i)), ' ') FROM generate_series(1, 1000) i}),
	'PR001', 'after DROP DATABASE of one with 5000 rooms nobody waits for a place in 1000 others');
$sitter->query_safe('ROLLBACK');
$sitter->quit;

brim('at first');
storm('changes of rows', scripts(10, @acts));
brim('changes of rows');
storm('also of tables', scripts(10, @acts), scripts(1, @rare));
brim('also of tables');

# Whoever adds the same presence at the same time gets the same, also where it
# takes the last place.
value($node, q{SELECT (presence_configure_room('twins ' || i, 1)).name FROM generate_series(1, 50) i});
append_to_file("$dir/twins.sql", join('', map { "SELECT presence_add('twins $_', 'same');\n" } 1 .. 50));
$node->command_ok([ 'pgbench', '-n', '-c', 20, '-j', 2, '-t', 1, '-f', "$dir/twins.sql", 'postgres' ], 'twenty add the same: nobody is refused');
is(value($node, q{SELECT count(*) FROM presence.presences WHERE room LIKE 'twins %'}), 50, 'and each room has it once');
value($node, q{DELETE FROM presence.presences});

# So does who adds the same batch.
value($node, q{SELECT (presence_configure_room('crews ' || i, 3)).name FROM generate_series(1, 50) i});
append_to_file("$dir/crews.sql", join('', map { "SELECT presence_add_many('crews $_', '{a,b,c}');\n" } 1 .. 50));
$node->command_ok([ 'pgbench', '-n', '-c', 20, '-j', 2, '-t', 1, '-f', "$dir/crews.sql", 'postgres' ], 'twenty add the same batch: nobody is refused');
is(value($node, q{SELECT string_agg(DISTINCT c::text, ' ') FROM (SELECT count(*) AS c FROM presence.presences WHERE room LIKE 'crews %' GROUP BY room) s}),
	3, 'and each room has it once');
is(value($node, q{SELECT count(*) FROM generate_series(1, 50) i WHERE try(format('SELECT presence_add(%L, ''d'')', 'crews ' || i)) = 'PR001'}), 50, 'and is full');
value($node, q{DELETE FROM presence.presences});

# Places of who has expired: the worker removes them, or the next who comes
# finds them.
$node->append_conf('postgresql.conf', q(presence.max_age = '1s'));
$node->reload;
ok(wait_until('the age arrives', sub { value($node, 'SHOW presence.max_age') eq '1s' }), 'presences expire');
storm('who is silent expires', scripts(10, @acts));
$node->append_conf('postgresql.conf', q(presence.max_age = '1h'));
$node->reload;
ok(wait_until('the age arrives', sub { value($node, 'SHOW presence.max_age') eq '1h' }), 'they do no more');
brim('who is silent expires');

# Who has expired takes no place, even while the row cannot be removed.
value($node, q{SELECT name FROM presence_configure_room('aged', 1); SELECT channel_name FROM presence_add('aged', 'old')});
my $locker = session($node);
$locker->query_safe(q{BEGIN; SELECT FROM presence.presences WHERE room = 'aged' FOR UPDATE});
value($node, 'SELECT advance_clock(3700000000)');
ok(wait_until('it expires', sub { value($node, q{SELECT presence_count('aged')}) == 0 }), 'a member expires');
is(value($node, q{SELECT try('SELECT presence_add(''aged'', ''new'')')}), 'done', 'and takes no place, though the row is there');
is(value($node, q{SELECT count(*) FROM presence.presences WHERE room = 'aged'}), 2, 'beside the new one');
is(value($node, q{SELECT try('SELECT presence_add(''aged'', ''third'')')}), 'PR001', 'which takes it');
$locker->query_safe('COMMIT');
ok(wait_until('it is removed', sub { value($node, q{SELECT count(*) FROM presence.presences WHERE room = 'aged'}) == 1 }), 'the row goes');
is(value($node, q{SELECT try('SELECT presence_add(''aged'', ''third'')')}), 'PR001', 'and leaves no place');
value($node, q{SELECT presence_remove('aged', 'new')});
is(value($node, q{SELECT try('SELECT presence_add(''aged'', ''third'')')}), 'done', 'who leaves does');

# More rooms than the memory has entries: those that have none are counted under
# a lock.
value($node, q{INSERT INTO presence.rooms (name, max_members) SELECT 'seat ' || i, 1 FROM generate_series(1, 5000) i});
$locker->query_safe(q{BEGIN; SELECT count(presence_add('seat ' || i, 'a')) FROM generate_series(1, 5000) i});
is(value($node, q{SET lock_timeout = '10ms'; SELECT string_agg(DISTINCT r, ' ' ORDER BY r) FROM (SELECT try(format('SELECT presence_add(%L, ''b'')', 'seat ' || i)) COLLATE "C" AS r FROM generate_series(1, 5000, 10) i) s}),
	'55P03 PR001', '5000 rooms: nobody gets a place that an open transaction holds');
$locker->query_safe('COMMIT');
is(value($node, q{SELECT string_agg(DISTINCT try(format('SELECT presence_add(%L, ''b'')', 'seat ' || i)), ' ') FROM generate_series(1, 5000, 10) i}), 'PR001', 'nor when it has committed');
value($node, q{DELETE FROM presence.presences});
is(value($node, q{SELECT count(*) FROM generate_series(1, 5000, 10) i, unnest('{c,d}'::text[]) c WHERE try(format('SELECT presence_add(%L, %L)', 'seat ' || i, c)) = 'done'}), 500, 'when all have left, one gets into each');
value($node, q{DELETE FROM presence.presences});
$locker->quit;

# A crash, and what else makes the extension anew.
value($node, q{SELECT presence_add_many('door', '{a,b,c}')});
my $session = session($node);
$session->query_safe(q{BEGIN; SELECT presence_add_many('door', '{d,e,f,g}')});
my $pid = $session->query_safe('SELECT pg_backend_pid()');
is(value($node, q{SELECT try('SELECT presence_add_many(''door'', ''{h,i,j,k}'')')}), 'PR001', 'an open transaction holds places');
kill 'KILL', $pid;
eval { $session->quit };
ok(wait_until('the server is back', sub { eval { value($node, 'SELECT 1') } }), 'a crash');
brim('a crash');
value($node, q{SELECT presence_add_many('door', '{a,b,c}')});
value($node, q{DROP EXTENSION presence; CREATE EXTENSION presence; SELECT name FROM presence_configure_room('door', 10, true)});
brim('the extension, made again');
value($node, q{SELECT presence_add_many('door', '{a,b,c}')});
value($node, q{BEGIN; DROP EXTENSION presence; CREATE EXTENSION presence; SELECT name FROM presence_configure_room('door', 2, true);
	SELECT presence_add_many('door', '{d,e}'); COMMIT});
is(value($node, q{SELECT try('SELECT presence_add(''door'', ''f'')')}), 'PR001', 'made again and used in one transaction');
brim('made again in one transaction');

$looker->quit;
$node->stop;
done_testing();
