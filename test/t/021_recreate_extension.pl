# Proves: a client that listened before DROP EXTENSION learns after CREATE
# EXTENSION that all rooms are empty, whether or not a worker ran in between.
use strict;
use warnings FATAL => 'all';

use PresenceTest;
use Test::More;

my $node = new_node('recreated');
my $listener = listen_to($node);

sub heard_resync
{
	my ($name) = @_;

	value($node, q{SELECT presence_add('r', 'later')});
	ok($listener->wait_for('join', sub { $_[0]->{event} eq 'join' && $_[0]->{added}{channel_name} eq 'later' }), "$name: the next join is told");
	my @kinds = map { $_->{event} } grep { $_->{event} eq 'resync' ? !defined $_->{room} : ($_->{room} // '') eq 'r' } $listener->events;
	is($kinds[0], 'resync', "$name: but first that rooms are to be read again");
	return;
}

await_announcer($node);
value($node, q{SELECT presence_add('r', 'before')});
$listener->drain;
value($node, 'DROP EXTENSION presence');
ok( wait_until('no worker', sub {
		value($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'presence worker'}) == 0;
	}),
	'a while: the worker leaves with the extension');
value($node, 'CREATE EXTENSION presence');
heard_resync('a while');

await_announcer($node);
$listener->clear;
value($node, 'BEGIN; DROP EXTENSION presence; CREATE EXTENSION presence; COMMIT');
heard_resync('at once');

# No further change is needed for that.
await_announcer($node);
$listener->drain;
value($node, 'DROP EXTENSION presence');
wait_until('no worker', sub { value($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'presence worker'}) == 0 });
$listener->clear;
value($node, 'CREATE EXTENSION presence');
ok($listener->wait_for('resync', sub { $_[0]->{event} eq 'resync' && !defined $_[0]->{room} }), 'CREATE EXTENSION alone: a resync');

# No worker notices DROP EXTENSION, because the launcher cannot start one.
await_announcer($node);
value($node, q{SELECT presence_add('r', 'unseen')});
$listener->drain;
my $launcher = value($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'presence launcher'});
stop_process($launcher);
value($node, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'presence worker'});
wait_until('no worker', sub { value($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'presence worker'}) == 0 });
value($node, 'DROP EXTENSION presence');
value($node, 'CREATE EXTENSION presence');
$listener->clear;
continue_process($launcher);
ok($listener->wait_for('resync', sub { $_[0]->{event} eq 'resync' && !defined $_[0]->{room} }), 'unseen: a resync');

$listener->quit;
$node->stop;
done_testing();
