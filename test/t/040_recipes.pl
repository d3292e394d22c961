# Proves: the code in README.md and docs/*.md runs and prints what the documents
# say.
#
# A comment before a fenced block says how it is tested:
#
#     <!-- test: NAME [background] [pool] -->     run the block, by its language
#     <!-- output: NAME [includes] -->            what NAME printed
#
# "background" starts the block, waits for its first output, and lets it run to
# the end of its section; "pool" connects it through the pgbouncer of the
# section. Output is compared line by line, ignoring the width of columns; …
# matches anything, and alone on its line any lines. With "includes" the lines
# must be found in the output in this order, possibly with others between them.
#
# Each section (## heading) has its own database. In docs/recipes.md every block
# of code must be run. Programs whose interpreter or library is missing are
# skipped and reported as skipped.

use strict;
use warnings FATAL => 'all';
use utf8;

use Encode qw(decode_utf8 encode_utf8);
use File::Basename qw(dirname);
use FindBin;
use IPC::Run ();
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;
use Time::HiRes qw(usleep);

my $top = "$FindBin::RealBin/../..";
my $tmp = PostgreSQL::Test::Utils::tempdir();
my $node = new_node('recipes');
my $patience = $PostgreSQL::Test::Utils::timeout_default;

$ENV{NODE_PATH} = join(':', grep { $_ } $ENV{NODE_PATH}, $ENV{PRESENCE_NODE_PATH}, '/usr/share/nodejs');
$ENV{PGTZ} = 'UTC';
$ENV{PYTHONIOENCODING} = 'utf-8';

# How a language is run, and how to check whether it can be.
my %languages = (
	sql => { suffix => 'sql', command => [ 'psql', '-XqP', 'pager=off' ], stdin => 1 },
	sh => { suffix => 'sh', command => ['sh'] },
	python => {
		suffix => 'py',
		command => ['python3'],
		probe => [ 'python3', '-c', 'import psycopg' ],
		needs => 'python3 with psycopg (Debian: python3-psycopg)'
	},
	js => {
		suffix => 'js',
		command => ['node'],
		probe => [ 'node', '-e', 'require("pg")' ],
		needs => 'node with pg (Debian: node-pg; PRESENCE_NODE_PATH names another place)'
	},
	txt => {},
	ini => {
		probe => [ 'pgbouncer', '--version' ],
		needs => 'pgbouncer'
	});

# Whether a language can be run here; checked once.
sub available
{
	my ($language) = @_;

	return 1 unless $language->{probe};
	$language->{available} //= eval {
		IPC::Run::run($language->{probe}, '<', \undef, '>', \my $out, '2>', \my $err);
	} ? 1 : 0;
	return $language->{available};
}

# The marked blocks of a document, by section: [ heading, block ... ].
sub read_document
{
	my ($file) = @_;
	my @sections = ([$file]);
	my ($mark, $block);

	foreach my $line (split /\n/, decode_utf8(slurp_file("$top/$file")))
	{
		if ($block)
		{
			if ($line =~ /^```$/) { push @{ $sections[-1] }, $block; undef $block; }
			else { $block->{text} .= "$line\n"; }
		}
		elsif ($line =~ /^```(\w*)$/)
		{
			$block = { %{ $mark // {} }, language => $1, text => '' };
			undef $mark;
		}
		elsif ($line =~ /^<!-- (test|output): (\S+)((?: \w+)*) -->$/)
		{
			$mark = { kind => $1, name => $2, map { $_ => 1 } split ' ', $3 };
		}
		elsif ($line =~ /^## (.*)/) { push @sections, [$1]; }
	}
	return @sections;
}

# ------------------------------------------------------------ running blocks

# What the current section has started and printed.
my ($pool, %output, %skipped, @background);

# Run code with the environment of a block.
sub with_connection
{
	my ($block, $database, $code) = @_;
	local $ENV{PGHOST} = $block->{pool} ? $pool->{host} : $node->host;
	local $ENV{PGPORT} = $block->{pool} ? $pool->{port} : $node->port;
	local $ENV{PGDATABASE} = $database;
	local $ENV{PGUSER} = $block->{pool} ? $pool->{user} : getpwuid($>);
	local $ENV{PGPASSWORD} = $block->{pool} ? $pool->{password} : '';

	return $code->();
}

# What a program has printed so far.
sub printed
{
	my ($name) = @_;

	return decode_utf8(slurp_file($output{$name}));
}

sub start_program
{
	my ($block, $database) = @_;
	my $language = $languages{ $block->{language} };
	my $file = "$tmp/$block->{name}.$language->{suffix}";
	my @command = @{ $language->{command} };

	append_to_file($file, encode_utf8($block->{text}));
	$output{ $block->{name} } = "$file.out";
	push @command, $file unless $language->{stdin};
	return with_connection($block, $database, sub {
		return IPC::Run::start(\@command, '<', $language->{stdin} ? $file : \undef,
			'>', "$file.out", '2>&1', IPC::Run::timer($patience));
	});
}

sub run_program
{
	my ($block, $database) = @_;
	my $run = start_program($block, $database);
	my $name = $block->{name};

	if ($block->{background})
	{
		push @background, $run;
		ok(wait_until("$name speaks", sub { -s $output{$name} }), "$name started");
		return;
	}
	ok($run->finish, "$name ran") or diag(printed($name));
	unlike(printed($name), qr/^(?:ERROR|FATAL|PANIC): /m, "$name met no error")
	  unless $block->{compared};
	return;
}

# The users of a pool, and which of them its programs are.
sub note_users
{
	my ($block) = @_;
	my ($user, $password) = $block->{text} =~ /^"([^"]+)" "([^"]+)"$/m
	  or die "$block->{name} names no user";

	$pool = { users => "$tmp/userlist.txt", user => $user, password => $password };
	append_to_file($pool->{users}, encode_utf8($block->{text}));
	return;
}

# A pgbouncer with the settings of the block, at paths of the test.
sub start_pool
{
	my ($block) = @_;
	my ($host, $port, $file) = ($node->host, $node->port, "$tmp/pgbouncer.ini");
	my $text = $block->{text};

	$pool->{host} = PostgreSQL::Test::Utils::tempdir_short();
	$pool->{port} = 6432;
	$text =~ s{host=/var/run/postgresql}{host=$host port=$port};
	$text =~ s{/var/run/pgbouncer}{$pool->{host}};
	$text =~ s{/etc/pgbouncer/userlist\.txt}{$pool->{users}};
	append_to_file($file, encode_utf8($text) . "logfile = $tmp/pgbouncer.log\n"
		  . "ignore_startup_parameters = extra_float_digits\n");
	push @background, IPC::Run::start([ 'pgbouncer', '-q', $file ], '<', \undef,
		'>', "$file.out", '2>&1');
	ok(wait_until('the pool listens', sub { -S "$pool->{host}/.s.PGSQL.6432" }), "$block->{name} serve");
	return;
}

sub stop_background
{
	foreach my $run (@background) { $run->kill_kill(grace => 5); }
	@background = ();
	undef $pool;
	return;
}

# ---------------------------------------------------------- comparing output

# The lines of a text, without leading and trailing empty ones, and with columns
# of tables as narrow as possible.
sub lines_of
{
	my ($text) = @_;

	$text =~ s/[ \t]+/ /g;
	$text =~ s/^ | $//mg;
	$text =~ s/--+/-/g;
	$text =~ s/\A\n+|\n+\z//g;
	return split /\n/, $text;
}

# The pattern for a line of the document.
sub pattern_of
{
	my ($line) = @_;
	my $pattern = join '.*', map { quotemeta } split /…/, $line, -1;

	return qr/^$pattern$/;
}

# Whether all lines are present, in order; "includes": possibly among others.
sub matches
{
	my ($expected, $got, $includes) = @_;
	my @got = lines_of($got);
	my $skips = $includes;

	foreach my $line (lines_of($expected))
	{
		my $pattern = pattern_of($line);

		if ($line eq '…') { $skips = 1; next; }
		shift @got while $skips && @got && $got[0] !~ $pattern;
		return 0 unless @got && shift(@got) =~ $pattern;
		$skips = $includes;
	}
	return $includes || !@got;
}

# What failed, for the log: repeated output is shortened.
sub show_difference
{
	my ($block) = @_;
	my %seen;
	my @got = grep { !$seen{$_}++ } split /\n/, printed($block->{name});

	splice(@got, 60) if @got > 60;
	diag(encode_utf8("expected:\n$block->{text}got:\n" . join("\n", @got)));
	return;
}

sub compare_output
{
	my ($block) = @_;
	my $name = $block->{name};
	my $check = sub { matches($block->{text}, printed($name), $block->{includes}) };

	ok($block->{waits} ? wait_until("$name prints that", $check) : $check->(),
		"$name printed what the document says")
	  or show_difference($block);
	return;
}

# ------------------------------------------------------------------ sections

# Give each block what the other blocks say about it.
sub link_blocks
{
	my @blocks = @_;
	my %tests = map { $_->{name} => $_ } grep { ($_->{kind} // '') eq 'test' } @blocks;

	foreach my $block (grep { ($_->{kind} // '') eq 'output' } @blocks)
	{
		my $test = $tests{ $block->{name} } or BAIL_OUT("no test $block->{name}");

		$test->{compared} = 1;
		$block->{waits} = $test->{background};
	}
	return;
}

# Create a database in which the worker runs.
sub new_database
{
	my ($database) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION presence; SELECT presence_start_worker()');
	wait_until('the worker runs',
		sub { value($node, 'SELECT mode FROM presence.stats', $database) eq 'worker' });
	return;
}

sub run_block
{
	my ($block, $database) = @_;
	my $language = $languages{ $block->{language} };

	if ($block->{kind} eq 'output' ? $skipped{ $block->{name} } :
		!available($language) || ($block->{pool} && !($pool && $pool->{host})))
	{
		my $needs = $block->{kind} eq 'output' ? '' :
		  $block->{pool} && available($language) ? 'pgbouncer' : $language->{needs};

		$skipped{ $block->{name} } = 1;
		# those who listen already will not hear what a pool would have brought
		@skipped{ keys %output } = (1) x keys %output if $block->{pool};
	  SKIP: { skip("$block->{name} needs $needs", 1) if $needs; }
		return;
	}
	if ($block->{kind} eq 'output') { compare_output($block); }
	elsif ($block->{language} eq 'txt') { note_users($block); }
	elsif ($block->{language} eq 'ini') { start_pool($block); }
	else { run_program($block, $database); }
	return;
}

my $sections = 0;

foreach my $file ('README.md', map { s{^\Q$top\E/}{}r } sort glob("$top/docs/*.md"))
{
	foreach my $section (read_document($file))
	{
		my ($heading, @blocks) = @$section;
		my @marked = grep { $_->{kind} } @blocks;
		my $database = 'recipe_' . ++$sections;

		is(join("\n", map { $_->{text} } grep { !$_->{kind} && $languages{ $_->{language} } } @blocks),
			'', "every block of \"$heading\" is run")
		  if $file eq 'docs/recipes.md' && @blocks;
		next unless @marked;
		link_blocks(@marked);
		new_database($database);
		run_block($_, $database) foreach @marked;
		stop_background();
		$node->safe_psql('postgres', "DROP DATABASE $database WITH (FORCE)");
	}
}

$node->stop;
done_testing();
