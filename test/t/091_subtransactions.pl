# Proves: what is recorded for a transaction follows its savepoints: hints,
# reasons, and what PREPARE TRANSACTION refuses; also where a user's own
# triggers start subtransactions, or change presences while a commit announces
# others.
use strict;
use warnings FATAL => 'all';

use PresenceTest;
use Test::More;

# A trigger within a removal that catches an error does not change the reason of
# the other leaves.
sub test_reasons
{
	my ($node, $listener, $name) = @_;

	value($node, q{
		CREATE FUNCTION stumble() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			BEGIN
				PERFORM 1 / 0;
			EXCEPTION WHEN division_by_zero THEN
				NULL;
			END;
			RETURN NULL;
		END
		$$;
		CREATE TRIGGER a_stumble AFTER DELETE ON presence.presences
			FOR EACH ROW EXECUTE FUNCTION stumble();
		SELECT presence_add_many('r', '{a,b,c,d}', '{u,u,u,v}')});
	$listener->drain;
	value($node, q{SELECT presence_kick('r', 'u')});
	is_deeply([ sort @{ $listener->summary } ], [ map { "leave r $_ kicked" } qw(a b c) ],
		"$name: all leave for the reason of the removal");
	value($node, q{
		CREATE OR REPLACE FUNCTION stumble() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			RAISE EXCEPTION 'no';
		END
		$$;
		DO $$
		BEGIN
			PERFORM presence_kick('r', 'v');
		EXCEPTION WHEN OTHERS THEN
			DROP TRIGGER a_stumble ON presence.presences;
			PERFORM presence_remove('r', 'd');
		END
		$$});
	is_deeply($listener->summary, ['leave r d leave'], "$name: a removal that fails leaves no reason behind");
	return;
}

# One random step of a walk through savepoints, as SQL.
sub step
{
	my ($stack, $number) = @_;
	my $dice = rand();

	if ($dice < 0.3 && @$stack < 30)
	{
		push @$stack, "s$number";
		return "SAVEPOINT s$number;";
	}
	return "SELECT presence_add('walk', 'w$number');" if $dice < 0.7 || !@$stack;
	my $index = int(rand(@$stack));
	my $savepoint = $stack->[$index];
	if ($dice < 0.85)
	{
		splice @$stack, $index;
		return "RELEASE $savepoint;";
	}
	splice @$stack, $index + 1;
	return "ROLLBACK TO $savepoint;";
}

# The events of a random walk through savepoints match the table.
sub test_savepoints
{
	my ($node, $listener, $name) = @_;
	my @stack;

	srand(7);
	value($node, join("\n", 'BEGIN;', (map { step(\@stack, $_) } 1 .. 300), 'COMMIT;'));
	my $there = value($node, q{SELECT coalesce(string_agg('join walk ' || channel_name, ',' ORDER BY channel_name), '') FROM presence.presences WHERE room = 'walk'});
	isnt($there, '', "$name: some steps are kept");
	is(join(',', sort @{ $listener->summary }), $there, "$name: and those are heard");
	is(value($node, q{SELECT array_length(presence_touch_many(ARRAY(SELECT 'w' || i FROM generate_series(1, 300) i)), 1)
			+ (SELECT count(*) FROM presence.presences WHERE room = 'walk')}), 300, "$name: and can beat");
	value($node, q{DELETE FROM presence.presences});
	$listener->drain;
	return;
}

# PREPARE TRANSACTION is refused only for changes that would be committed.
sub test_prepare
{
	my ($node, $listener, $name) = @_;

	for my $undone (q{SELECT presence_add('r', 'undone')}, q{SELECT presence_kick('r', 'u')},
		q{SELECT presence_leave_all('there')}, q{TRUNCATE presence.presences},
		q{SELECT presence_set_status('u', 'away')}, q{SELECT presence_broadcast('r', 'e')})
	{
		value($node, q{SELECT presence_add('r', 'there', 'u')});
		value($node, qq{BEGIN; SAVEPOINT s; $undone; ROLLBACK TO s; PREPARE TRANSACTION 'p'});
		is(value($node, q{SELECT presence_touch_many('{there,undone}')}), '{undone}', "$name: $undone in a savepoint that is rolled back");
		value($node, q{COMMIT PREPARED 'p'});
		is(value($node, q{SELECT presence_touch_many('{there,undone}')}), '{undone}', "$name: and after the commit");
	}
	value($node, q{SELECT presence_add('r', 'undone')});
	value($node, q{DELETE FROM presence.presences});
	is_deeply([ grep { !/ there/ } @{ $listener->summary } ], [ 'join r undone', 'leave r undone leave' ],
		"$name: the channel of the savepoint comes and goes as any");
	my (undef, undef, $err) = $node->psql('postgres',
		q{BEGIN; SAVEPOINT s; SELECT presence_add('r', 'kept'); RELEASE s; PREPARE TRANSACTION 'p'});
	like($err, qr/cannot PREPARE a transaction that has changed presences/, "$name: a savepoint that is released counts");
	return;
}

# A trigger on the rows that a commit writes for leaves adds other presences.
sub test_late_changes
{
	my ($node, $listener, $name) = @_;

	value($node, q{
		CREATE FUNCTION greet() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
		BEGIN
			PERFORM presence_add('farewell', 'of ' || NEW.user_id || ' ' || i) FROM generate_series(1, 40) i;
			RETURN NULL;
		END
		$$;
		CREATE TRIGGER greet AFTER INSERT ON presence.user_last_seen
			FOR EACH ROW EXECUTE FUNCTION greet();
		SELECT presence_add('r', 'c', 'carol')});
	value($node, q{SELECT presence_remove('r', 'c')});
	ok(wait_until('they are there', sub { value($node, q{SELECT presence_count('farewell')}) == 40 }),
		"$name: a trigger on what a commit writes may add presences");
	is(scalar(grep { /^join farewell/ } @{ $listener->summary }), 40, "$name: and they are announced");
	is(value($node, q{SELECT presence_touch_many(ARRAY(SELECT 'of carol ' || i FROM generate_series(1, 40) i))}), '{}',
		"$name: and can beat");
	value($node, q{DROP TRIGGER greet ON presence.user_last_seen; DELETE FROM presence.presences});
	$listener->drain;
	return;
}

for my $preload ('presence', '')
{
	my $name = $preload ? 'preloaded' : 'not preloaded';
	my $node = new_node($preload ? 'nested' : 'nested_plain', preload => $preload,
		conf => "max_prepared_transactions = 5\npresence.bulk_threshold = 1000\npresence.max_age = 1h\n");

	await_announcer($node) if $preload;
	my $listener = listen_to($node);
	test_reasons($node, $listener, $name);
	test_savepoints($node, $listener, $name);
	test_prepare($node, $listener, $name);
	test_late_changes($node, $listener, $name);
	unlike(log_slice($node), qr/terminated by signal|PANIC|TRAP/, "$name: no process crashes");
	$listener->quit;
	$node->stop;
}

# Records of a heartbeat written by a prepared transaction are discarded with
# it.
my $node = new_node('prepared', conf => "max_prepared_transactions = 5\npresence.max_channels = 16\npresence.max_age = 200s\n");
declare_test_functions($node);
await_announcer($node);
value($node, q{SELECT presence_add_many('r', ARRAY(SELECT 'c' || i FROM generate_series(1, 40) i))});
value($node, q{SELECT advance_clock(150 * 1000000)});
my $listener = listen_to($node);
my $session = session($node);
$session->query(q{BEGIN});
$session->query(q{SELECT presence_touch_many(ARRAY(SELECT 'c' || i FROM generate_series(1, 40) i))});
is($session->query(q{SELECT count(*) > 0 FROM presence.presences WHERE xmax <> 0 OR xmin = pg_current_xact_id()::xid}), 't',
	'heartbeats are in rows');
$session->query(q{PREPARE TRANSACTION 'p'});
value($node, q{COMMIT PREPARED 'p'});
$listener->clear;
value($node, q{SELECT advance_clock(400 * 1000000)});
$session->query(q{SELECT 1});
is(scalar(grep { $_->{event} eq 'resync' } $listener->drain), 0, 'later transactions of the session know nothing of them');
$session->quit;
$listener->quit;
$node->stop;
done_testing();
