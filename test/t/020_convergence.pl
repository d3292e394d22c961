# Proves: under concurrent changes and failures, the copies that listeners keep
# by the documented rules converge to the table; seq has no gap, and user_joined
# and user_left alternate.
#
# The work is done by test/stress, a separate program: see its main.c.
# PRESENCE_CONVERGE_SECONDS sets the duration of all runs together,
# PRESENCE_CONVERGE_RUNS names the runs to do, and PRESENCE_CONVERGE_SEED
# repeats the random numbers of an earlier run.
use strict;
use warnings FATAL => 'all';

use FindBin;
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $seconds = $ENV{PRESENCE_CONVERGE_SECONDS} // 60;
my $pg_config = $ENV{PG_CONFIG} // 'pg_config';

# A user's own triggers, in the transaction of every insert and delete of a
# presence and of every change of a row of people: they call the functions and
# catch their errors, or raise errors that fail the writer's statement.
my $triggers = q{
	SELECT presence_configure_room('room 8', 3);
	CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
	BEGIN
		IF pg_trigger_depth() > 2 THEN
			RETURN NULL;
		END IF;
		BEGIN
			IF TG_OP = 'INSERT' THEN
				PERFORM presence_add('room 8', NEW.channel_name, NEW.user_id, '{"v": 5}');
			ELSIF TG_OP = 'UPDATE' THEN
				PERFORM presence_update('room 4', NEW.channel_name, '{"v": 6}');
			ELSE
				PERFORM presence_remove('room 12', OLD.channel_name);
			END IF;
		EXCEPTION WHEN OTHERS THEN
			PERFORM presence_touch('channel 3');
		END;
		IF current_setting('application_name') = 'writer' AND random() < 0.02 THEN
			RAISE 'not today';
		END IF;
		RETURN NULL;
	END $$;
	CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
	BEGIN
		BEGIN
			PERFORM count(*) FROM presence_list(NEW.room);
			PERFORM presence_broadcast(NEW.room, 'looked', jsonb_build_object('v', NEW.id));
			IF random() < 0.2 THEN
				PERFORM 1 / 0;
			END IF;
		EXCEPTION WHEN division_by_zero THEN
			NULL;
		END;
		RETURN NEW;
	END $$;
	CREATE TRIGGER follow AFTER INSERT OR UPDATE OR DELETE ON presence.presences
		FOR EACH ROW EXECUTE FUNCTION follow();
	CREATE TRIGGER look BEFORE INSERT ON presence.presences
		FOR EACH ROW EXECUTE FUNCTION look();
};

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
	},
	freeze => { chaos => 'freeze' },
	burst => { chaos => 'burst' },
	locks => {
		chaos => 'locks',
		setup => q{CREATE ROLE converge_member; SELECT presence_grant('converge_member')}
	},
	triggers => { chaos => 'triggers', setup => $triggers },
	extension => { chaos => 'extension' },
	big => { chaos => 'big', big => 100_000, conf => 'presence.max_channels = 200000' });

# A value from pg_config.
sub config_of
{
	my ($what) = @_;
	my $answer = `$pg_config --$what`;

	chomp $answer;
	return $answer;
}

# Build the harness; returns the program. A libpq that was built with sanitizers
# needs a program built with them.
sub build_harness
{
	my $program = PostgreSQL::Test::Utils::tempdir() . '/converge';
	my $libdir = config_of('libdir');
	my @sanitizers = grep { /^-f(no-)?sanitize/ } split ' ', config_of('cflags');

	push @sanitizers, split ' ', config_of('ldflags_ex') if @sanitizers;

	system_or_bail($ENV{CC} // 'gcc',
		qw(-std=gnu11 -O1 -g -Wall -Wextra -Werror -pthread), @sanitizers,
		'-I' . config_of('includedir'),
		'-o', $program, glob("$FindBin::Bin/../stress/*.c"),
		"-L$libdir", "-Wl,-rpath,$libdir", '-lpq');
	return $program;
}

# Start a server for a run.
sub start_run
{
	my ($name, $run) = @_;
	my $recent = config_of('version') =~ /PostgreSQL (\d+)/ && $1 >= 17;

	return new_node(
		"converge_$name",
		conf => join("\n",
			'max_connections = 60',
			'deadlock_timeout = 50ms',
			'presence.max_age = ' . max_age($run) . 'ms',
			'presence.hold_grace = 300ms',
			'presence.prune_rooms_interval = 2s',
			$run->{conf} // '',
			$recent ? $run->{conf_17} // '' : ''));
}

# In a big room the heartbeats of all members take longer.
sub max_age
{
	my ($run) = @_;

	return $run->{big} ? 8000 : 1000;
}

# How many members a big room has: there must be time to fill it.
sub big_room
{
	my ($name, $run, $duration) = @_;
	my $size = $run->{big} or return 0;

	return $size if $duration >= 60;
	$size = int($size * $duration / 60);
	note("converge: $name: a room of $size members only, for in $duration seconds there is no time for more");
	return $size;
}

# Run a program whose output is printed as comments; returns its exit status.
sub run_aloud
{
	my @command = @_;

	open(my $pipe, '-|', @command) or die "cannot run $command[0]: $!";
	while (my $line = <$pipe>)
	{
		chomp $line;
		note($line =~ s/^# //r);
	}
	close($pipe);
	return $?;
}

# Run the harness against a server of its own.
sub converge
{
	my ($program, $name, $duration) = @_;
	my $run = $runs{$name} or die "no run is named $name";
	my $node = start_run($name, $run);

	$node->safe_psql('postgres', $run->{setup}) if $run->{setup};
	my @command = (
		$program,
		'--name' => $name,
		'--conninfo' => $node->connstr('postgres'),
		'--chaos' => $run->{chaos},
		'--seconds' => $duration,
		'--big' => big_room($name, $run, $duration),
		'--max-age' => max_age($run));
	push @command, '--seed' => $ENV{PRESENCE_CONVERGE_SEED} if $ENV{PRESENCE_CONVERGE_SEED};

	is(run_aloud(@command), 0, "$name: every copy becomes the table, and every event fits");
	unlike(log_slice($node), qr/PANIC|TRAP:/, "$name: the server is well");
	is(value($node, 'SELECT count(*) > 0 FROM presence.stats WHERE adds > 0'), 't',
		"$name: there were adds");
	$node->stop;
	return;
}

my $program = build_harness();
my @names = split ' ', $ENV{PRESENCE_CONVERGE_RUNS} // 
  'peace worker crash mode small stall freeze burst locks triggers extension big';

converge($program, $_, $seconds / @names) foreach @names;
done_testing();
