# Proves: rows that cannot be removed, or that are locked by others, do not
# delay the expiry of other rows; they are logged once and retried.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

# How many presences of a room have rows.
sub rows_of
{
	my ($node, $room) = @_;

	return value($node, "SELECT count(*) FROM presence.presences WHERE room = '$room'");
}

# The pid of the worker; it should not change.
sub worker_of
{
	my ($node) = @_;

	return wait_until('a worker', sub {
		value($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'presence worker' AND datname = 'postgres'});
	});
}

# Add the given number of channels to a room.
sub add_many
{
	my ($node, $room, $count) = @_;

	value($node, "SELECT count(*) FROM presence_add_many('$room', ARRAY(SELECT '$room ' || i FROM generate_series(1, $count) i))");
	return;
}

for my $preload ('presence', '')
{
	my $mode = $preload ? 'registry' : 'rows';
	my $node = new_node("way_$mode", preload => $preload, conf => "presence.max_age = 2s\n");

	declare_test_functions($node);
	$node->safe_psql('postgres', q{
		CREATE TABLE badges (room text, channel_name text,
			CONSTRAINT badge_of_presence FOREIGN KEY (room, channel_name) REFERENCES presence.presences);
		CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN RAISE EXCEPTION '% stays', OLD.channel_name; END $$;
		CREATE TRIGGER keep BEFORE DELETE ON presence.presences
			FOR EACH ROW WHEN (OLD.room = 'stubborn') EXECUTE FUNCTION keep();
		CREATE CONSTRAINT TRIGGER keep_late AFTER DELETE ON presence.presences
			DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW WHEN (OLD.channel_name = 'many 77') EXECUTE FUNCTION keep();
	});
	value($node, 'SELECT presence_start_worker()');
	my $worker = worker_of($node);
	my $log_start = -s $node->logfile;

	# Rows that cannot be removed.
	value($node, q{BEGIN; SELECT presence_add_many('many', ARRAY(SELECT 'many ' || i FROM generate_series(1, 300) i));
		INSERT INTO badges VALUES ('many', 'many 5'); COMMIT});
	ok(wait_until('the others are gone', sub { rows_of($node, 'many') == 2 }),
		"$mode: two that cannot be removed keep nobody");
	is(value($node, q{SELECT string_agg(channel_name, ', ' ORDER BY channel_name) FROM presence.presences}),
		'many 5, many 77', "$mode: they alone stay");
	ok(wait_until('both are in the log', sub { (() = log_slice($node, $log_start) =~ /could not remove/g) >= 2 }),
		"$mode: they are in the log");
	like(log_slice($node, $log_start), qr/channel "many 5": .*violates foreign key constraint "badge_of_presence"/,
		"$mode: one with its constraint");
	like(log_slice($node, $log_start), qr/channel "many 77": many 77 stays/, "$mode: one with its error at commit");

	add_many($node, 'after', 50);
	ok(wait_until('who comes later is gone', sub { rows_of($node, 'after') == 0 }), "$mode: who comes later goes in time");
	is(() = log_slice($node, $log_start) =~ /could not remove/g, 2, "$mode: each was logged once");
	is(worker_of($node), $worker, "$mode: all by one worker");

	# They are retried.
	value($node, 'DROP TRIGGER keep_late ON presence.presences; DELETE FROM badges');
	value($node, 'SELECT advance_clock(61 * 1000000)') if $preload;
	$node->safe_psql('postgres', 'SELECT pg_terminate_backend(pid), presence_start_worker() FROM pg_stat_activity WHERE pid = ' . $worker)
	  if !$preload;
	wait_until('a worker runs', sub { value($node, 'SELECT presence_start_worker()') eq 'f' }) if !$preload;
	value($node, q{SELECT presence_add('wake', 'wake')});
	ok(wait_until('they are gone', sub { rows_of($node, 'many') == 0 }), "$mode: they go once they can");
	$worker = worker_of($node);

	# A trigger that suppresses every removal from its room.
	$log_start = -s $node->logfile;
	add_many($node, 'stubborn', 40);
	add_many($node, 'easy', 40);
	ok(wait_until('the others are gone', sub { rows_of($node, 'easy') == 0 }), "$mode: a trigger that keeps all of a room keeps no other");
	is(rows_of($node, 'stubborn'), 40, "$mode: its own stay");
	is(worker_of($node), $worker, "$mode: all by one worker still");
	value($node, 'DROP TRIGGER keep ON presence.presences; DELETE FROM presence.presences');
	my $complaints = () = log_slice($node, $log_start) =~ /could not remove/g;
	cmp_ok($complaints, '>', 0, "$mode: they are logged");
	cmp_ok($complaints, '<', 40, "$mode: but not all of them");

	# Rows locked by another session, before they expire.
	my $locker = session($node);
	my $locked;
	wait_until('they are locked', sub {
		$locker->query_safe(q{SELECT presence_add_many('locked', ARRAY(SELECT 'locked ' || i FROM generate_series(1, 3000) i)); BEGIN});
		$locked = $locker->query_safe(q{SELECT count(*) FROM (SELECT FROM presence.presences WHERE room = 'locked' FOR UPDATE) l});
		$locker->query_safe('ROLLBACK') if $locked <= 2000;
		return $locked > 2000;
	});
	cmp_ok($locked, '>', 2000, "$mode: rows are locked");
	wait_until('the locked are dead', sub { value($node, q{SELECT presence_count('locked')}) == 0 });
	add_many($node, 'free', 100);
	ok(wait_until('the others are gone', sub { rows_of($node, 'free') == 0 }), "$mode: others go while locked ones wait");
	is(rows_of($node, 'locked'), $locked, "$mode: the locked stay");
	$locker->query_safe('COMMIT');
	$locker->quit;
	ok(wait_until('the locked are gone', sub { rows_of($node, 'locked') == 0 }), "$mode: and go when they are let go");
	is(worker_of($node), $worker, "$mode: one worker to the end");
	$node->stop;
}
done_testing();
