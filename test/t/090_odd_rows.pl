# Proves: rows that no function would write, inserted while the triggers were
# disabled, affect no others: the worker keeps running, others are announced and
# expire, and the odd rows expire as well.
use strict;
use warnings FATAL => 'all';

use PresenceTest;
use Test::More;

# What makes a row odd, as columns of presence.presences and their values.
my @odd = (
	[ "a channel of 20000 bytes", "channel_name" => "repeat('x', 20000)" ],
	[ "a channel of 65546 bytes", "channel_name" => "repeat('y', 65546)" ],
	[ "a channel of 300 bytes", "channel_name" => "repeat('z', 300)" ],
	[ "a channel of 300 control characters", "channel_name" => "repeat(chr(1), 300)" ],
	[ "a room of 20000 bytes", "room" => "repeat('x', 20000)" ],
	[ "a room of 2000 control characters", "room" => "repeat(chr(1), 2000)" ],
	[ "a user of 20000 bytes", "user_id" => "repeat('x', 20000)" ],
	[ "a user of 1020 control characters", "user_id" => "repeat(chr(1), 1020)" ],
	[ "three long names", "room" => "repeat('x', 9000)", "channel_name" => "repeat('x', 9000)", "user_id" => "repeat('x', 9000)" ],
	[ "an empty channel", "channel_name" => "''" ],
	[ "an empty room", "room" => "''" ],
	[ "an empty user", "user_id" => "''" ],
	[ "an array as meta", "meta" => "'[1, 2]'" ],
	[ "a scalar as meta", "meta" => "'5'" ],
	[ "a null as meta", "meta" => "'null'" ],
	[ "a meta of 50000 bytes", "meta" => "jsonb_build_object('a', repeat('x', 50000))" ],
	[ "a last_seen in the future", "last_seen" => "'2999-01-01'" ],
	[ "a last_seen at infinity", "last_seen" => "'infinity'" ],
	[ "a last_seen at -infinity", "last_seen" => "'-infinity'" ],
	[ "a joined_at at infinity", "joined_at" => "'infinity'" ],
	[ "a joined_at at -infinity", "joined_at" => "'-infinity'" ],
	[ "a joined_at before Christ", "joined_at" => "'4713-01-01 BC'" ],
	[ "a negative id", "id" => "-7" ],
	[ "the smallest id", "id" => "'-9223372036854775808'" ]);

# Run statements with the capture of changes disabled.
sub uncaptured
{
	return join('; ', 'BEGIN', 'ALTER TABLE presence.presences DISABLE TRIGGER presence_capture_row', @_,
		'ALTER TABLE presence.presences ENABLE ALWAYS TRIGGER presence_capture_row', "COMMIT;\n");
}

# The statement that inserts an odd row.
sub insert_odd
{
	my ($number) = @_;
	my (undef, %values) = @{ $odd[$number] };

	$values{room} //= "'odd'";
	$values{channel_name} //= "'odd $number'";
	$values{user_id} //= "'user $number'";
	my @columns = sort keys %values;
	return sprintf('INSERT INTO presence.presences (%s) OVERRIDING SYSTEM VALUE VALUES (%s)',
		join(', ', @columns), join(', ', @values{@columns}));
}

sub worker_pid
{
	my ($node) = @_;

	return value($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'presence worker' AND datname = current_database()});
}

# Wait for the worker; returns its pid.
sub await_worker
{
	my ($node) = @_;

	value($node, 'SELECT presence_start_worker()');
	return wait_until('a worker runs', sub { worker_pid($node) });
}

for my $preload ('presence', '')
{
	my $name = $preload ? 'preloaded' : 'not preloaded';
	my $node = new_node($preload ? 'odd' : 'odd_plain', preload => $preload, conf => "presence.max_age = 2s\n");
	my @inserts = map { insert_odd($_) } 0 .. $#odd;

	# They exist when the server starts: the worker loads the table.
	value($node, "INSERT INTO presence.rooms (name) VALUES ('odd')");
	value($node, uncaptured(@inserts));
	is(value($node, 'SELECT count(*) FROM presence.presences'), scalar @odd, "$name: the odd rows are there");
	restart_node($node);
	my $from = -s $node->logfile;
	my $pid = await_worker($node);
	my $listener = listen_to($node);
	value($node, q{SELECT presence_add('odd', 'beside', 'b')});
	ok($listener->wait_for('join', sub { $_[0]->{event} eq 'join' && $_[0]->{added}{channel_name} eq 'beside' }),
		"$name: who joins beside them is announced");
	ok($listener->wait_for('leave', sub { $_[0]->{event} eq 'leave' && $_[0]->{removed}{channel_name} eq 'beside' }),
		"$name: and expires");
	ok(wait_until('all rows have gone', sub { value($node, 'SELECT count(*) FROM presence.presences') == 0 }),
		"$name: the odd rows expire")
	  or diag(value($node, q{SELECT string_agg(format('%s %s %s %s', left(room, 9), left(channel_name, 9), last_seen, joined_at), '; ') FROM presence.presences}));
	is(worker_pid($node), $pid, "$name: the worker is the same");

	# They are inserted while it runs, one after another, and deleted by SQL.
	value($node, join('', map {
		uncaptured($_) . q{SELECT presence_add('odd', 'beside', 'b');
			DELETE FROM presence.presences WHERE channel_name <> 'beside';
			SELECT presence_remove('odd', 'beside');}
	} @inserts));
	is(value($node, 'SELECT count(*) FROM presence.presences'), 0, "$name: each can be deleted");
	ok($listener->wait_for('resync', sub { $_[0]->{event} eq 'resync' }), "$name: listeners are to read again");

	# A row that the worker has counted becomes odd without being noticed.
	value($node, uncaptured($inserts[6], $inserts[7]) . q{SELECT presence_add('odd', 'beside', 'b')});
	$listener->drain;
	value($node, uncaptured(q{UPDATE presence.presences SET user_id = 'short' WHERE channel_name LIKE 'odd%'})
		. q{SELECT presence_leave_all_many('{odd 6,odd 7}');
			SELECT presence_add('odd', 'beside', 'b', '{"a": 1}')});
	my @events = grep { ($_->{room} // '') eq 'odd' } $listener->drain;
	ok((grep { $_->{added} && $_->{added}{meta} } @events), "$name: one that changed unseen leaves, and others are announced")
	  or diag(explain(\@events));

	# An update may repair an odd row, but not make one.
	my (undef, undef, $err) = $node->psql('postgres', uncaptured($inserts[6])
		. q{BEGIN; UPDATE presence.presences SET user_id = 'short' WHERE channel_name = 'odd 6';
			UPDATE presence.presences SET user_id = repeat('x', 20000) WHERE channel_name = 'odd 6'});
	like($err, qr/must hold 1 to 255 characters/, "$name: no update makes a row odd");
	$listener->drain;

	is(worker_pid($node), $pid, "$name: the worker is the same still");
	unlike(log_slice($node, $from), qr/terminated by signal|PANIC|TRAP|exited with exit code|payload string too long/,
		"$name: no process came to harm");
	$listener->quit;
	$node->stop;
}
done_testing();
