# Proves: a transaction that changed presences cannot be prepared and fails with
# 0A000; other transactions can be prepared.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

for my $preload ('presence', '')
{
	my $name = $preload ? 'preloaded' : 'not preloaded';
	my $node = new_node($preload ? 'two_phase' : 'two_phase_plain', preload => $preload,
		conf => "max_prepared_transactions = 5\n");
	my $listener = listen_to($node);

	value($node, q{CREATE TABLE other (i int); SELECT presence_add('r', 'there')});
	$listener->drain;
	for my $change (q{SELECT presence_add('r', 'c')}, q{SELECT presence_leave_all('there')},
		q{TRUNCATE presence.presences}, q{UPDATE presence.presences SET user_id = 'x'})
	{
		my ($status, $out, $err) = $node->psql('postgres',
			"\\set VERBOSITY verbose\nBEGIN; $change; PREPARE TRANSACTION 'p'");

		like($err, qr/ERROR:  0A000: .*HINT/s, "$name: $change cannot be prepared");
	}
	is(value($node, 'SELECT count(*) FROM pg_prepared_xacts'), 0, "$name: nothing is prepared");
	is_deeply($listener->summary, [], "$name: nothing is heard");
	is(value($node, q{SELECT presence_touch('there') || ' ' || presence_touch('c')}), 'true false', "$name: nothing has changed");

	value($node, q{BEGIN; INSERT INTO other VALUES (1); PREPARE TRANSACTION 'p'});
	value($node, q{COMMIT PREPARED 'p'});
	is(value($node, 'SELECT i FROM other'), 1, "$name: what has nothing to do with presences can be prepared");
	value($node, q{BEGIN; SELECT presence_touch('there'); SELECT count(*) FROM presence_list('r'); INSERT INTO other VALUES (2); PREPARE TRANSACTION 'p'});
	value($node, q{ROLLBACK PREPARED 'p'});
	is(value($node, 'SELECT count(*) FROM other'), 1, "$name: also after heartbeats and reads");

	# A prepared removal of rooms does not block adds indefinitely.
	is(value($node, q{SELECT channel_name FROM presence_add('r', 'c')}), 'c', "$name: and joins go on");
	is_deeply($listener->summary, ['join r c'], "$name: and are heard");
	$listener->quit;
	$node->stop;
}
done_testing();
