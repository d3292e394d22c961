# Proves: pg_cron prunes on schedule where it is installed; where it is not,
# scheduling fails with 0A000.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('cron', conf => q(
presence.max_age = 2s
));

for my $call ('presence_schedule_pruning()', 'presence_unschedule_pruning()')
{
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT $call");

	like($err, qr/ERROR:  0A000: .*\n.*HINT/s, "$call without pg_cron");
}
if (!have_extension($node, 'pg_cron'))
{
	$node->stop;
	note('pg_cron is not installed here');
	done_testing();
	exit 0;
}

restart_node($node, "shared_preload_libraries = 'pg_cron'\ncron.database_name = 'postgres'\ncron.host = '"
	  . $node->host . "'\ncron.use_background_workers = on\nmax_worker_processes = 16\n");
value($node, 'CREATE EXTENSION pg_cron');
value($node, 'SELECT presence_schedule_pruning()');
is(value($node, q{SELECT string_agg(schedule || ' ' || command, ', ' ORDER BY command) FROM cron.job}),
	'* * * * * SELECT public.prune_presences(), * * * * * SELECT public.prune_rooms()', 'two jobs');
value($node, q{SELECT presence_schedule_pruning('*/5 * * * *')});
is(value($node, 'SELECT count(*) FROM cron.job'), 2, 'scheduling again replaces them');
is(value($node, 'SELECT DISTINCT schedule FROM cron.job'), '*/5 * * * *', 'with another schedule');
is(value($node, 'SELECT presence_unschedule_pruning()'), 't', 'unscheduling');
is(value($node, 'SELECT count(*) FROM cron.job'), 0, 'removes them');
is(value($node, 'SELECT presence_unschedule_pruning()'), 'f', 'once');

# Without the worker pg_cron expires presences. Versions before 1.5 support
# minutes only; PRESENCE_TEST_SECONDS says whether there is time for that.
my ($version) = value($node, q{SELECT extversion FROM pg_extension WHERE extname = 'pg_cron'}) =~ /^(\d+\.\d+)/;
if ($version >= 1.5 || tap_seconds(0) > 0)
{
	my $schedule = $version >= 1.5 ? '1 seconds' : '* * * * *';
	my $listener = listen_to($node);

	value($node, qq{SELECT presence_schedule_pruning('$schedule')});
	value($node, q{SELECT presence_add('r', 'silent')});
	ok( $listener->wait_for('leave', sub {
			$_[0]->{event} eq 'leave' && $_[0]->{removed}{channel_name} eq 'silent' && $_[0]->{reason} eq 'expired';
		}, 150),
		'the silent leave by pg_cron');
	value($node, 'SELECT presence_unschedule_pruning()');
	$listener->quit;
}
$node->stop;
done_testing();
