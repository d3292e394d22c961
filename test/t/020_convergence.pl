
# Proves: whatever happens, the copies that listeners keep by the rules become
# the table; seq has no gap, and user_joined and user_left alternate.
#
# The work is done by test/converge, a program of its own: see its main.c.
# PRESENCE_CONVERGE_SECONDS sets how long all runs take together, and
# PRESENCE_CONVERGE_RUNS names those to be done.
use strict;
use warnings FATAL => 'all';

use FindBin;
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $seconds = $ENV{PRESENCE_CONVERGE_SECONDS} // 60;
my $pg_config = $ENV{PG_CONFIG} // 'pg_config';

my %runs = (
	peace => { chaos => 'none' },
	worker => { chaos => 'worker' },
	crash => { chaos => 'crash', conf => 'restart_after_crash = on' },
	mode => { chaos => 'mode' },
	small => {
		chaos => 'none',
		conf => "presence.queue_size = 64kB\n"
		  . "presence.max_channels = 16\n"
		  . 'presence.notify_interval = 200ms'
	},
	stall => {
		chaos => 'stall',
		conf => 'presence.queue_size = 64kB',
		conf_17 => 'max_notify_queue_pages = 64'
	});

# What pg_config says.
sub config_of
{
	my ($what) = @_;
	my $answer = `$pg_config --$what`;

	chomp $answer;
	return $answer;
}

# Build the harness; returns the program.
sub build_harness
{
	my $program = PostgreSQL::Test::Utils::tempdir() . '/converge';
	my $libdir = config_of('libdir');

	system_or_bail($ENV{CC} // 'gcc',
		qw(-std=gnu11 -O1 -g -Wall -Wextra -Werror -pthread),
		'-I' . config_of('includedir'),
		'-o', $program, glob("$FindBin::Bin/../converge/*.c"),
		"-L$libdir", "-Wl,-rpath,$libdir", '-lpq');
	return $program;
}

# A server for a run.
sub start_run
{
	my ($name, $run) = @_;
	my $recent = config_of('version') =~ /PostgreSQL (\d+)/ && $1 >= 17;

	return new_node(
		"converge_$name",
		conf => join("\n",
			'max_connections = 60',
			'deadlock_timeout = 50ms',
			'presence.max_age = 1s',
			'presence.prune_rooms_interval = 2s',
			$run->{conf} // '',
			$recent ? $run->{conf_17} // '' : ''));
}

# The harness against a server of its own.
sub converge
{
	my ($program, $name, $duration) = @_;
	my $run = $runs{$name} or die "no run is named $name";
	my $node = start_run($name, $run);
	my @command = (
		$program,
		'--conninfo' => $node->connstr('postgres'),
		'--chaos' => $run->{chaos},
		'--seconds' => $duration,
		'--max-age' => 1000);
	my $status = system(@command);

	is($status, 0, "$name: every copy becomes the table, and every event fits");
	unlike(log_slice($node), qr/PANIC|TRAP:/, "$name: the server is well");
	is(value($node, 'SELECT count(*) > 0 FROM presence.stats WHERE adds > 0'), 't',
		"$name: there were adds");
	$node->stop;
	return;
}

my $program = build_harness();
my @names = split ' ', $ENV{PRESENCE_CONVERGE_RUNS} // 'peace worker crash mode small stall';

converge($program, $_, $seconds / @names) foreach @names;
done_testing();
