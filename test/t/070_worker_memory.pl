# Proves: a worker's memory does not grow with what it has announced and expired.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('memory', conf => q(
presence.max_age = 500ms
presence.notify_interval = 0
));
my $dir = PostgreSQL::Test::Utils::tempdir();

await_announcer($node);
my $worker = value($node, 'SELECT worker_pid FROM presence.stats');

# The size in bytes of one of the worker's memory contexts, without its
# children.
sub bytes_in
{
	my ($context) = @_;
	my $from = -s $node->logfile;

	value($node, "SELECT pg_log_backend_memory_contexts($worker)");
	my ($line) = wait_until('the worker logs its memory', sub {
		log_slice($node, $from) =~ /Grand total: .*\n/
		  && (log_slice($node, $from) =~ /level: \d+; \Q$context\E: (\d+) total in \d+ blocks; (\d+) free/)
		  && "$1 $2";
	});
	my ($total, $free) = split / /, $line // BAIL_OUT("no $context in the log");

	return $total - $free;
}

# Many channels expire while others join, so that the worker announces and
# removes in the same rounds.
append_to_file("$dir/add.sql", q{
\set n random(1, 1000000000)
SELECT count(*) FROM presence_add_many('room', ARRAY(SELECT :n || ' channel ' || i FROM generate_series(1, 20) i));
});

sub die_away
{
	my ($count) = @_;

	$node->command_ok([ 'pgbench', '-n', '-c', 1, '-R', 30, '-t', $count / 20, '-f', "$dir/add.sql", $node->connstr('postgres') ],
		"$count come");
	wait_until('they are gone', sub { value($node, 'SELECT count(*) FROM presence.presences') == 0 });
	wait_until('and told', sub { value($node, 'SELECT queue_bytes FROM presence.stats') == 0 });
	return;
}

die_away(1000);
my $before = bytes_in('TopMemoryContext');
die_away(6000);
my $grown = bytes_in('TopMemoryContext') - $before;
is(value($node, 'SELECT worker_pid FROM presence.stats'), $worker, 'one worker did all of it');
cmp_ok(value($node, 'SELECT expirations FROM presence.stats'), '>=', 7000, 'they expired');
cmp_ok($grown, '<', 100_000, '6,000 deaths leave nothing behind');
$node->stop;
done_testing();
