# Proves: names chosen to have the same hash by the server's own hash function
# cost no more than others do: rooms, channels, users, keys of state.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

# The step of hash_bytes() for twelve bytes, and its initial value.
use constant { WORD => 0xffffffff, GOLDEN => 0x9e3779b9 + 3923095 };

sub mix
{
	my ($a, $b, $c) = @_;

	$a = ($a - $c) & WORD; $a ^= (($c << 4) | ($c >> 28)) & WORD; $c = ($c + $b) & WORD;
	$b = ($b - $a) & WORD; $b ^= (($a << 6) | ($a >> 26)) & WORD; $a = ($a + $c) & WORD;
	$c = ($c - $b) & WORD; $c ^= (($b << 8) | ($b >> 24)) & WORD; $b = ($b + $a) & WORD;
	$a = ($a - $c) & WORD; $a ^= (($c << 16) | ($c >> 16)) & WORD; $c = ($c + $b) & WORD;
	$b = ($b - $a) & WORD; $b ^= (($a << 19) | ($a >> 13)) & WORD; $a = ($a + $c) & WORD;
	$c = ($c - $b) & WORD; $c ^= (($b << 4) | ($b >> 28)) & WORD; $b = ($b + $a) & WORD;
	return ($a, $b, $c);
}

# Whether the four bytes of a word are ASCII, and none is zero.
sub is_text
{
	my ($word) = @_;

	return !($word & 0x80808080) && !((($word - 0x01010101) & WORD) & ~$word & 0x80808080);
}

# Pieces of 24 bytes that lead from one state to another.
sub pieces
{
	my ($count, $goal, @state) = @_;
	my @found;

	while (@found < $count)
	{
		my $first = int(rand(2**32)) & 0x7f7f7f7f;
		next unless is_text($first);
		my @then = mix(($state[0] + $first) & WORD, map { ($state[$_] + 0x78787878) & WORD } 1 .. 2);
		my @rest = map { ($goal->[$_] - $then[$_]) & WORD } 0 .. 2;

		push @found, pack('V6', $first, 0x78787878, 0x78787878, @rest) unless grep { !is_text($_) } @rest;
	}
	return @found;
}

# Names of the given number of pieces, each one of several choices, that have
# the same hash: all of them pass through the same states.
sub equal_names
{
	my ($npieces, $choices) = @_;
	my @state = (((GOLDEN + 24 * $npieces) & WORD) x 3);
	my @names = ('');

	for (1 .. $npieces)
	{
		my $goal = [ map { int(rand(2**32)) } 1 .. 3 ];
		my @pieces = pieces($choices, $goal, @state);

		@names = map { my $begin = $_; map { $begin . $_ } @pieces } @names;
		@state = mix(@$goal);
	}
	return @names;
}

srand(1);
my $node = new_node('equal_hashes', conf => q(
presence.max_channels = 200000
presence.queue_size = 64MB
presence.state_memory = 32MB
max_connections = 20
));

$node->safe_psql('postgres', "CREATE TABLE equal AS SELECT convert_from(decode(x, 'hex'), 'UTF8') AS name, "
	  . "md5(x) || md5(x || '1') || md5(x || '2') || left(md5(x || '3'), 24) AS other FROM regexp_split_to_table('"
	  . join(' ', map { unpack('H*', $_) } equal_names(5, 7)) . "', ' ') x");
is(value($node, 'SELECT count(DISTINCT name) FROM equal'), 16807, 'many names');
SKIP: {
	skip 'the server hashes otherwise', 1 if value($node, 'SELECT count(DISTINCT hashtext(name)) FROM equal') != 1;
	pass('of one hash');
}

await_announcer($node);

# Seconds of processor time that a process has used so far.
sub cpu
{
	my ($pid) = @_;
	my @stat = split ' ', slurp_file("/proc/$pid/stat") =~ s/.*\)//sr;

	return ($stat[11] + $stat[12]) / 100;
}

my $session = session($node);
my $backend = $session->query_safe('SELECT pg_backend_pid()');
my $worker = value($node, 'SELECT worker_pid FROM presence.stats');

# The server's cost of a statement and of the announcement of its events.
sub cost
{
	my ($sql) = @_;
	my $before = cpu($backend) + cpu($worker);

	$session->query_safe($sql);
	wait_until('all is told', sub { value($node, 'SELECT queue_bytes FROM presence.stats') == 0 })
	  or BAIL_OUT('events are not told');
	return cpu($backend) + cpu($worker) - $before;
}

# An attack compared with the same statements with other names of the same
# length.
sub compare
{
	my ($what, $sql) = @_;
	my $other = cost($sql =~ s/NAME/other/gr);
	my $equal = cost($sql =~ s/NAME/name/gr);

	note(sprintf('%s: %.2f s with equal hashes, %.2f s with others', $what, $equal, $other));
	cmp_ok($equal, '<', 3 * $other + 1, "$what of equal hash cost what others do");
	return;
}

SKIP: {
	skip 'there is no /proc', 6 unless -e "/proc/$backend/stat";
	compare('channels', q{SELECT presence_add_many('channels', array_agg(NAME)) FROM equal});
	compare('channels that leave', q{SELECT presence_leave_all_many(array_agg(NAME)) FROM equal});
	compare('users', q{SELECT presence_add_many('users', array_agg('NAME' || md5(NAME)), array_agg(NAME)) FROM equal});
	compare('rooms', q{SELECT count((presence_add(NAME, 'everywhere')).id) FROM (SELECT * FROM equal LIMIT 12000) x});
	compare('keys of state', q{SELECT count(presence_set_state('keys', NAME, '1', 60)::text) FROM equal});
	compare('rooms with state', q{SELECT count(presence_set_state(NAME, 'key', '1', 60)::text) FROM equal});
}

is(value($node, 'SELECT worker_pid FROM presence.stats'), $worker, 'the worker lives');
$session->quit;
$node->stop;
done_testing();
