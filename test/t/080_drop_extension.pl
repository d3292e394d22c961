# Proves: a transaction that changes presences, then drops the extension,
# commits, whichever process announces; and the extension created again has none
# of the old state.
use strict;
use warnings FATAL => 'all';

use PresenceTest;
use Test::More;

my %way = (
	'without preload' => { preload => '' },
	'by the transaction' => { conf => 'presence.notify = transaction' },
	'by the worker' => {},
	'by nobody' => { conf => 'presence.notify = off' });
my $number = 0;

foreach my $way (sort keys %way)
{
	my $node = new_node('drop_' . ++$number, %{ $way{$way} });

	await_announcer($node) if $way eq 'by the worker';
	$node->safe_psql(
		'postgres', q{
		SELECT presence_add_many('lobby', '{c1,c2,c3}', '{alice,bob,carol}');
		SELECT presence_add('hall', 'c1', 'alice');
	});

	# What each change needs at commit is dropped by then.
	my %change = (
		'leave' => q{SELECT presence_leave_all('c1')},
		'add' => q{SELECT room FROM presence_add('lobby', 'c4', 'dave')},
		'delete' => q{DELETE FROM presence.presences},
		'truncate' => q{TRUNCATE presence.presences},
		'status' => q{SELECT status FROM presence_set_status('alice', 'away')},
		'broadcast' => q{SELECT presence_broadcast('lobby', 'e')},
		'prune' => q{SELECT prune_presences(0)},
		'ban' => q{SELECT presence_ban(NULL, 'bob')});

	# All of them only where transactions always announce themselves.
	delete @change{ grep { !/leave|truncate/ } keys %change } if $way ne 'without preload';

	foreach my $change (sort keys %change)
	{
		my ($rc, $out, $err) = $node->psql('postgres',
			"BEGIN; $change{$change}; DROP EXTENSION presence; COMMIT");

		is($rc, 0, "$way: $change, DROP EXTENSION, COMMIT") or diag($err);
		$node->safe_psql(
			'postgres', q{
			CREATE EXTENSION presence;
			SELECT presence_add_many('lobby', '{c1,c2,c3}', '{alice,bob,carol}');
		});
	}

	# If that is rolled back, or in a savepoint that is, everything works as
	# before.
	$node->safe_psql(
		'postgres', q{
		BEGIN;
		SELECT presence_remove('lobby', 'c2');
		SAVEPOINT s;
		DROP EXTENSION presence;
		ROLLBACK TO s;
		COMMIT;
		BEGIN;
		SELECT presence_remove('lobby', 'c3');
		DROP EXTENSION presence;
		ROLLBACK;
	});
	is(value($node, q{SELECT string_agg(channel_name, ' ' ORDER BY channel_name) FROM presence_list('lobby')}),
		'c1 c3', "$way: what was rolled back has not happened");
	is(value($node, q{SELECT presence_touch('c1'), presence_touch('c2'), presence_touch('c3')}), 't|f|t', 'nor to heartbeats');

	# Within one transaction the extension created again can be used.
	$node->safe_psql(
		'postgres', q{
		BEGIN;
		SELECT presence_leave_all('c1');
		DROP EXTENSION presence;
		CREATE EXTENSION presence;
		SELECT presence_add('lobby', 'c9', 'alice');
		COMMIT;
	});
	is(value($node, q{SELECT string_agg(channel_name, ' ') FROM presence_list('lobby')}), 'c9', "$way: made again at once");
	unlike(log_slice($node), qr/terminated by signal|PANIC|TRAP|ERROR/, 'no process fails');
	$node->stop;
}
done_testing();
