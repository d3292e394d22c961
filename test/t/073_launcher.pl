# Proves: a launcher that is terminated while a worker starts leaves nothing
# behind that its successor does not clean up; databases without the extension
# take no slots from databases that have it, however many there are.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('launcher', conf => qq(
presence.worker_idle_timeout = 0
autovacuum = off
max_worker_processes = 16
));

# The pid of a process of presence.
sub pid_of
{
	my ($type, $db) = @_;

	return "SELECT pid FROM pg_stat_activity WHERE backend_type = 'presence $type' AND COALESCE(datname, '') = '" . ($db // '') . q{'};
}

#
# A launcher that exits while a slot is starting: the postmaster is stopped, so
# that no worker can start.
#

value($node, 'CREATE DATABASE x');
value($node, 'CREATE EXTENSION presence', 'x');
value($node, q{SELECT presence_add('r', 'c')}, 'x');
my $worker = wait_until('a worker', sub { value($node, pid_of('worker', 'x')) });
my $launcher = value($node, pid_of('launcher'));
my $session = session($node);
my $inside = session($node, 'x');
my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
my $log_start = -s $node->logfile;

stop_process($postmaster);
$session->query_safe("SELECT pg_terminate_backend($worker)");
ok(wait_until('it is gone', sub { $session->query_safe(pid_of('worker', 'x')) eq '' }), 'the worker is gone');
ok(wait_until('another one is asked for', sub { $inside->query_safe('SELECT presence_start_worker()') eq 'f' }), 'another one is asked for');
$session->query_safe('ALTER DATABASE x ALLOW_CONNECTIONS false');
$session->query_safe("SELECT pg_terminate_backend($launcher)");
ok(wait_until('the launcher is gone', sub { $session->query_safe(pid_of('launcher')) eq '' }), 'the launcher is gone');
continue_process($postmaster);
ok(wait_until('the worker finds the door closed', sub {
		log_slice($node, $log_start) =~ /FATAL: +database "x" is not currently accepting connections/ }),
	'the worker that was asked for cannot start');
ok(wait_until('a launcher', sub { $session->query_safe(pid_of('launcher')) ne '' }), 'there is a launcher again');
$session->query_safe('ALTER DATABASE x ALLOW_CONNECTIONS true');
ok(wait_until('a worker', sub { $session->query_safe(pid_of('worker', 'x')) ne '' }), 'and it starts the worker');
$session->quit;
$inside->quit;

#
# More databases than slots. They share the files of template1, and are only
# examined.
#

value($node, 'CREATE DATABASE later TEMPLATE template0');
value($node, q{
	SET allow_system_table_mods = on;
	INSERT INTO pg_database SELECT (jsonb_populate_record(d, jsonb_build_object('oid', 100000 + i, 'datname', 'fake' || i))).*
		FROM pg_database d, generate_series(1, 560) i WHERE d.datname = 'template1';
});
for my $i (1 .. 560)
{
	symlink('1', $node->data_dir . '/base/' . (100000 + $i)) or BAIL_OUT("symlink: $!");
}
value($node, 'CREATE DATABASE late TEMPLATE template0');
value($node, 'CREATE EXTENSION presence', 'late');
value($node, q{SELECT presence_add('r', 'c')}, 'late');
is(value($node, q{SELECT datname FROM pg_database ORDER BY ctid DESC LIMIT 1}), 'late', 'it is the last one');
$log_start = -s $node->logfile;
restart_node($node, "presence.max_age = 1s\n");
ok(wait_until('the last one has a worker', sub { value($node, pid_of('worker', 'late')) ne '' }, 240),
	'the last of more databases than there are slots has a worker');
ok(wait_until('its dead are gone', sub { value($node, 'SELECT count(*) FROM presence.presences', 'late') == 0 }),
	'and its dead are removed');
is(value($node, 'SELECT mode FROM presence.stats', 'late'), 'worker', 'the worker speaks');

# Nor does a session take one. The launcher, which frees slots that nobody
# needs, is stopped meanwhile.
($launcher) = value($node, pid_of('launcher'));
stop_process($launcher);
$node->safe_psql('postgres', join('', map { "\\c fake$_\nSELECT 1;\n" } 1 .. 560));
value($node, 'CREATE EXTENSION presence', 'later');
is(value($node, 'SELECT presence_start_worker() IS NOT NULL', 'later'), 't', 'sessions of 560 databases leave a slot free');
continue_process($launcher);
ok(wait_until('a worker', sub { value($node, pid_of('worker', 'later')) ne '' }), 'and a worker starts in it');
unlike(log_slice($node, $log_start), qr/FATAL: +(?!terminating|\s)|PANIC|TRAP|terminated by signal/, 'none of the looks failed');
$node->stop;
done_testing();
