# Shared by the cluster tests: a server with presence, a LISTEN client that
# collects events, and polling with a deadline.
package PresenceTest;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(new_node restart_node wait_until value listen_to session
  await_announcer await_sleep tap_seconds have_extension log_slice declare_test_functions stop_process
  continue_process hold_deliveries age_until set_max_age);

# A started server with the extension in its database "postgres". Unless conf
# says otherwise, no presence expires because the machine is slow. Options: conf
# (lines of postgresql.conf), preload (default "presence"; "" for none),
# extension (default 1), init (arguments of init).
sub new_node
{
	my ($name, %opt) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $preload = $opt{preload} // 'presence';

	$node->init(extra => [ '--encoding=UTF8', '--no-locale' ], %{ $opt{init} // {} });
	$node->append_conf(
		'postgresql.conf', qq(
shared_preload_libraries = '$preload'
max_connections = 100
log_statement = none
log_line_prefix = '%m [%p] %b '
presence.max_age = 10min
));
	$node->append_conf('postgresql.conf', $opt{conf}) if $opt{conf};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION presence')
	  if $opt{extension} // 1;
	return $node;
}

# Change settings and restart.
sub restart_node
{
	my ($node, $conf, $mode) = @_;

	$node->append_conf('postgresql.conf', $conf) if $conf;
	$node->stop($mode // 'fast');
	$node->start;
	return;
}

# DBD::Pg, where there is one, saves most statements a psql, and so the whole
# suite a third of its time.
my $has_driver = eval { require DBI; require DBD::Pg; 1 };

# Run one statement by DBD::Pg; what psql -XAtq would print.
sub run_directly
{
	my ($node, $sql, $db) = @_;
	my $server = DBI->connect("dbi:Pg:dbname=$db;host=" . $node->host . ';port=' . $node->port, '', '',
		{ RaiseError => 1, PrintError => 0, PrintWarn => 0, pg_enable_utf8 => 0, pg_bool_tf => 1, pg_expand_array => 0 });
	my $statement = $server->prepare($sql, { pg_direct => 1 });
	my @lines;

	$statement->execute;
	if ($statement->{NUM_OF_FIELDS})
	{
		foreach my $row (@{ $statement->fetchall_arrayref })
		{
			push @lines, join('|', map { $_ // '' } @$row);
		}
	}
	$statement->finish;
	$server->disconnect;
	return join("\n", @lines);
}

# What a statement, or several, or a script of psql returns.
sub value
{
	my ($node, $sql, $db) = @_;

	$db //= 'postgres';
	return run_directly($node, $sql, $db) if $has_driver && $db =~ /^\w+$/ && $sql !~ /[;\\]|^\s*COPY/i;
	return $node->safe_psql($db, $sql);
}

# Repeat a check until it returns true, for at most the given number of seconds:
# often at first, then less, since most checks start a process, and others wait
# for the machine, too. To wait in vain fails the test, unless the caller looks
# at the result.
sub wait_until
{
	my ($what, $check, $seconds) = @_;
	my $deadline = time() + ($seconds // $PostgreSQL::Test::Utils::timeout_default);
	my $pause = 10_000;

	while (1)
	{
		my $result = $check->();

		return $result if $result;
		last if time() > $deadline;
		usleep($pause);
		$pause *= 1.5 if $pause < 200_000;
	}
	diag("gave up waiting until $what");
	Test::More::fail("it does not happen: $what") unless defined wantarray;
	return;
}

# A psql session that stays open; errors do not end it. Its timeout applies to
# each query, not to the whole session.
sub session
{
	my ($node, $db) = @_;

	my $session = $node->background_psql($db // 'postgres', on_error_stop => 0, timeout => 2 * $PostgreSQL::Test::Utils::timeout_default);

	$session->set_query_timer_restart;
	return $session;
}

# Make a worker announce for the database. Without one the first transactions
# announce themselves; and if it opens the queue between their NOTIFY and their
# commit, it sends a resync, which would disturb a test that counts every event.
sub await_announcer
{
	my ($node, $db) = @_;

	value($node, 'SELECT presence_start_worker()', $db);
	wait_until('a worker announces', sub { value($node, 'SELECT mode FROM presence.stats', $db) eq 'worker' })
	  or BAIL_OUT('no worker announces');
	return;
}

# Wait until the worker sleeps with nothing left to do; returns its pid. A test
# that then stops it is sure to stop it there: a busy worker may hold locks that
# others wait for.
sub await_sleep
{
	my ($node, $db) = @_;

	return wait_until('the worker sleeps', sub {
		value($node, q{SELECT pid FROM presence.stats JOIN pg_stat_activity ON pid = worker_pid
			WHERE state = 'idle' AND wait_event_type = 'Extension' AND queue_bytes = 0}, $db);
	}) || BAIL_OUT('the worker does not sleep');
}

# Keep the worker from announcing, whatever its pauses are, until the returned
# session ends its transaction: a delivery needs a lock that the session holds.
sub hold_deliveries
{
	my ($node, $db) = @_;
	my $holder = session($node, $db);

	$holder->query_safe('BEGIN; LOCK TABLE presence.user_last_seen IN SHARE MODE');
	return $holder;
}

# How long an endurance test runs: a few seconds, or as the caller sets it.
sub tap_seconds
{
	my ($default) = @_;

	return $ENV{PRESENCE_TEST_SECONDS} // $default;
}

# Whether the server has the files of an extension.
sub have_extension
{
	my ($node, $name) = @_;

	return value($node,
		"SELECT count(*) FROM pg_available_extensions WHERE name = '$name'") > 0;
}

# The log from a position on.
sub log_slice
{
	my ($node, $from) = @_;

	return substr(slurp_file($node->logfile), $from // 0);
}

# The functions by which tests advance the extension's clocks.
sub declare_test_functions
{
	my ($node, $db) = @_;

	$node->safe_psql($db // 'postgres', q{
		CREATE FUNCTION advance_clock(microseconds bigint) RETURNS void
			LANGUAGE c AS 'presence', 'presence_test_advance_clock';
		CREATE FUNCTION jump_wall_clock(microseconds bigint) RETURNS void
			LANGUAGE c AS 'presence', 'presence_test_jump_wall_clock';
	});
	return;
}

# Let channels grow old until a check passes: the clocks advance by two thirds of
# max_age, twice and then every two seconds, until the silent have expired.
# Before each time those in an SQL array send a heartbeat, so they stay alive
# however slow the machine is. More than two advances are needed only if the
# worker wakes so late that all channels get another max_age of grace.
sub age_until
{
	my ($node, $what, $beating, $check, $db) = @_;
	my $heartbeat = $beating ? "presence_touch_many($beating)" : 'NULL';
	my ($advances, $next) = (0, 0);

	return wait_until($what, sub {
		if (time() >= $next)
		{
			value($node, qq{SELECT $heartbeat, advance_clock(667 * setting::bigint)
				FROM pg_settings WHERE name = 'presence.max_age'}, $db);
			$next = time() + 2 if ++$advances > 1;
		}
		return $check->();
	});
}

# Change presence.max_age for all sessions.
sub set_max_age
{
	my ($node, $max_age) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET presence.max_age = '$max_age'");
	$node->reload;
	wait_until('the setting arrives', sub { value($node, 'SHOW presence.max_age') eq $max_age })
	  or BAIL_OUT('the setting does not arrive');
	return;
}

# Stop processes as an overloaded or suspended machine would.
sub stop_process { return kill('STOP', grep { /^[1-9]/ } @_); }

sub continue_process { return kill('CONT', grep { /^[1-9]/ } @_); }

# A client that listens and collects events.
sub listen_to
{
	my ($node, $db, $channel) = @_;
	my $self = bless {
		node => $node,
		db => $db // 'postgres',
		psql => session($node, $db),
		events => [],
		payloads => [],
		marks => 0
	  },
	  'PresenceTest::Listener';

	$self->{psql}->query('LISTEN ' . ($channel // 'presence_changed'));
	return $self;
}

package PresenceTest::Listener;

use Test::More;

# Read what has arrived; returns all events so far.
sub events
{
	my ($self) = @_;
	my $output = $self->{psql}->query('SELECT 1');

	while ($output =~
		/^Asynchronous notification "[^"]+" with payload "(.*)" received from server process with PID (\d+)\.$/mg)
	{
		my $event = JSON::PP->new->utf8->decode($1);

		$event->{pid} = $2;
		push @{ $self->{payloads} }, $1;
		push @{ $self->{events} }, $event;
	}
	return @{ $self->{events} };
}

# Clear the events so far.
sub clear
{
	my ($self) = @_;

	$self->events;
	$self->{events} = [];
	$self->{payloads} = [];
	return;
}

# Wait until some event passes a check; returns it.
sub wait_for
{
	my ($self, $what, $check, $seconds) = @_;

	return PresenceTest::wait_until("an event: $what",
		sub { (grep { $check->($_) } $self->events)[0] }, $seconds);
}

# All events of what was committed before this call: those that come before the
# join of a channel that is added now. They are cleared by the call.
sub drain
{
	my ($self) = @_;
	my $mark = 'mark-' . ++$self->{marks} . "-$$";

	PresenceTest::value($self->{node}, "SELECT id FROM presence_add('$mark', '$mark')", $self->{db});
	$self->wait_for("join of $mark", sub { ($_[0]->{room} // '') eq $mark })
	  or BAIL_OUT('events do not arrive any more');
	my @events = grep { ($_->{room} // '') !~ /^mark-/ } @{ $self->{events} };
	$self->{events} = [];
	return @events;
}

# The same in short: "join r c", "leave r c expired", "bulk r 60 0".
sub summary
{
	my ($self) = @_;

	return [ map { PresenceTest::Listener::describe($_) } $self->drain ];
}

# One event in short.
sub describe
{
	my ($event) = @_;
	my $kind = $event->{event};
	my $room = $event->{room} // '*';

	return "join $room $event->{added}{channel_name}" if $kind eq 'join';
	return "update $room $event->{added}{channel_name}" if $kind eq 'update';
	return "leave $room $event->{removed}{channel_name} $event->{reason}" if $kind eq 'leave';
	return $kind . " $room" if $kind ne 'bulk';
	return sprintf('bulk %s %d %d', $room,
		$event->{joined} ? scalar @{ $event->{joined} } : $event->{joined_count},
		$event->{left} ? scalar @{ $event->{left} } : $event->{left_count});
}

sub quit
{
	my ($self) = @_;

	return $self->{psql}->quit;
}

1;
