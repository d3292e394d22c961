# Proves: when expired presences become live again, because the worker was
# stopped or presence.max_age was raised, listeners are sent a resync.
use strict;
use warnings FATAL => 'all';

use PresenceTest;
use Test::More;

my $node = new_node('revival');
my $listener = listen_to($node);

declare_test_functions($node);

sub seen { return value($node, q{SELECT presence_count('r')}); }

sub heard_resync
{
	my ($name) = @_;

	return ok($listener->wait_for('resync', sub { $_[0]->{event} eq 'resync' && !defined $_[0]->{room} }),
		"$name: listeners are told to read again");
}

# The worker is stopped for longer than max_age, and for so long that it is
# overdue when it wakes up.
await_announcer($node);
value($node, q{SELECT presence_add('r', 'silent')});
my $worker = await_sleep($node);
stop_process($worker);
ok(age_until($node, 'the silent dies', undef, sub { seen() == 0 }), 'stall: the dead are not seen');
is(value($node, 'SELECT count(*) FROM presence.presences'), 1, 'stall: nobody removed them');
$listener->clear;
sleep(3);
continue_process($worker);
heard_resync('stall');
is(seen(), 1, 'stall: who may have been unable to beat is seen again');
ok(age_until($node, 'leave', undef, sub { grep { $_->{event} eq 'leave' && $_->{reason} eq 'expired' } $listener->events }),
	'stall: and dies of silence later');

# max_age is raised.
$listener->clear;
$node->append_conf('postgresql.conf', 'presence.max_age = 20min');
$node->reload;
heard_resync('max_age raised');
$listener->clear;
$node->append_conf('postgresql.conf', 'presence.max_age = 15min');
$node->reload;
ok(wait_until('the reload', sub { value($node, 'SHOW presence.max_age') eq '15min' }), 'max_age lowered');
is_deeply($listener->summary, [], 'max_age lowered: nothing to read again');

$node->stop;
done_testing();
