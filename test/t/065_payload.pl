# Proves: metas whose text is ten thousand times as long as their jsonb delay
# neither the worker nor a transaction that announces itself.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $members = 200;
my $node = new_node('payload', conf => 'presence.bulk_threshold = 10000');
my $listener = listen_to($node);

await_announcer($node);
$listener->drain;

# 7 kB as jsonb, 59 MB as text: all events of a mode together would need 12 GB.
my $huge = q(('{"list": [' || repeat('1e131000,', 450) || '1]}')::jsonb);
cmp_ok(value($node, "SELECT pg_column_size($huge)"), '<', 7800, 'a meta of few bytes');

for my $mode ('worker', 'transaction')
{
	if ($mode eq 'transaction')
	{
		$node->append_conf('postgresql.conf', 'presence.notify = transaction');
		$node->reload;
		wait_until('mode transaction', sub { value($node, 'SELECT mode FROM presence.stats') eq 'transaction' });
		$listener->drain;
	}
	for my $change (
		[ join => "SELECT presence_add_many('r', array_agg('c' || i), NULL, array_agg($huge)) FROM generate_series(1, $members) i" ],
		[ update => "UPDATE presence.presences SET meta = meta || '{\"a\": 1}' WHERE room = 'r'" ],
		[ leave => "SELECT presence_leave_all_many(array_agg('c' || i)) FROM generate_series(1, $members) i" ])
	{
		my ($event, $sql) = @$change;

		value($node, $sql);
		my @told = grep { $_->{event} eq $event } $listener->drain;
		my @good = grep { $_->{truncated} && !defined(($_->{added} // $_->{removed})->{meta}) } @told;

		is(scalar(@good), $members, "$mode: each $event is told, without the meta");
	}

	# A meta that fits is announced completely.
	value($node, q(SELECT presence_add('r', 'small', 'u', '{"n": 1e5, "s": "\u20ac", "l": [null, {}]}')));
	my ($join) = $listener->drain;
	is_deeply($join->{added}{meta}, { n => 100_000, s => "\x{20ac}", l => [ undef, {} ] }, "$mode: a small meta is told");
	ok(!exists $join->{truncated}, "$mode: and is not called truncated");
	value($node, q(SELECT presence_leave_all('small')));
	$listener->drain;
}

$listener->quit;
$node->stop;
done_testing();
