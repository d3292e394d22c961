# Proves: only a role that may run a statement on a database stops its worker; a
# start that is blocked meanwhile does not count as a failure; CREATE EXTENSION
# and CREATE DATABASE start a worker where there is work for it.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('rights', conf => qq(
presence.worker_idle_timeout = 0
presence.max_age = 10min
max_worker_processes = 16
log_min_messages = debug1
));

# The pid of the worker of a database.
sub worker_of
{
	my ($db) = @_;

	return value($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'presence worker' AND datname = '$db'");
}

# The error of a statement, or "none".
sub error_of
{
	my ($user, $sql, $db) = @_;
	my ($status, $out, $err) = $node->psql($db // 'postgres', $sql, extra_params => [ '-U', $user ]);

	return $status == 0 ? 'none' : $err;
}

#
# Rights
#

$node->safe_psql('postgres', q{
	CREATE ROLE mallory LOGIN;
	CREATE ROLE maker LOGIN CREATEDB;
	CREATE ROLE boss LOGIN CREATEDB;
});
value($node, 'CREATE DATABASE prod OWNER boss');
value($node, 'CREATE EXTENSION presence', 'prod');
value($node, q{SELECT presence_add('r', 'c')}, 'prod');
my $worker = wait_until('a worker', sub { worker_of('prod') });

for my $user ('mallory', 'maker')
{
	for my $sql ('DROP DATABASE prod', 'DROP DATABASE prod WITH (FORCE)', 'ALTER DATABASE prod RENAME TO other',
		'ALTER DATABASE prod SET TABLESPACE pg_default', 'CREATE DATABASE other TEMPLATE prod')
	{
		like(error_of($user, $sql), qr/must be owner|permission denied/, "$user may not: $sql");
	}
}
is(worker_of('prod'), $worker, 'the worker did not notice');
is(error_of('boss', 'ALTER DATABASE prod RENAME TO prod2'), 'none', 'the owner may, and the worker is not in the way');
is(error_of('boss', 'ALTER DATABASE prod2 RENAME TO prod'), 'none', 'again');
ok(wait_until('the worker', sub { worker_of('prod') }), 'it comes back');

# A statement that is permitted but fails blocks the worker for its duration
# only.
for my $i (1 .. 20)
{
	error_of($node->safe_psql('postgres', 'SELECT current_user'), 'DROP DATABASE prod', 'prod');
}
ok(wait_until('the worker', sub { worker_of('prod') }), 'it comes back after many that failed');

#
# CREATE EXTENSION
#

value($node, 'CREATE DATABASE fresh');
value($node, 'BEGIN; CREATE EXTENSION presence; ROLLBACK', 'fresh');
is(value($node, q{SELECT count(*) FROM pg_extension WHERE extname = 'presence'}, 'fresh'), 0, 'rolled back');
value($node, 'CREATE EXTENSION presence', 'fresh');
ok(wait_until('a worker speaks', sub { value($node, 'SELECT mode FROM presence.stats', 'fresh') eq 'worker' }),
	'CREATE EXTENSION starts a worker');
my $listener = listen_to($node, 'fresh');
value($node, q{SELECT presence_add('r', 'first')}, 'fresh');
my $event = $listener->wait_for('the first join', sub { $_[0]->{event} eq 'join' });
is($event->{seq}, 1, 'so the first event has a number');
$listener->quit;

#
# A copy
#

value($node, q{SELECT presence_add('r', 'original')}, 'fresh');
value($node, 'CREATE DATABASE copy TEMPLATE fresh');
is(value($node, 'SELECT count(*) FROM presence.presences', 'copy'), 2, 'rows are copied');
$node->safe_psql('postgres', "ALTER SYSTEM SET presence.max_age = '2s'");
$node->reload;
ok(wait_until('they are gone', sub { value($node, 'SELECT count(*) FROM presence.presences', 'copy') == 0 }),
	'those whom CREATE DATABASE copied expire');

#
# Databases without the extension are examined once
#

# How often the start of a worker was requested.
sub looks_into
{
	my ($oid) = @_;

	return scalar(() = log_slice($node) =~ /\bregistering background worker "presence worker for database $oid"/g);
}

value($node, 'CREATE DATABASE plain');
my $oid = value($node, q{SELECT oid FROM pg_database WHERE datname = 'plain'});
ok(wait_until('somebody looks', sub { looks_into($oid) > 0 }), 'somebody looks into a new database');
value($node, 'CREATE DATABASE other');
my $other = value($node, q{SELECT oid FROM pg_database WHERE datname = 'other'});
ok(wait_until('somebody looks there', sub { looks_into($other) > 0 && worker_of('other') eq '' }), 'and into the next');
is(looks_into($oid), 1, 'once');
is(looks_into(value($node, q{SELECT oid FROM pg_database WHERE datname = 'template1'})), 1, 'as into those that were there');

$node->stop;
done_testing();
