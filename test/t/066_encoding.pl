# Proves: in a database with the encoding SQL_ASCII, whose texts may contain any
# bytes, no listener that uses UTF8 loses its connection.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

local $ENV{PGCLIENTENCODING} = 'UTF8';
my $node = new_node('encoding');

$node->safe_psql('postgres', q(CREATE DATABASE bytes ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0));
$node->safe_psql('bytes', 'CREATE EXTENSION presence');
await_announcer($node, 'bytes');
my $listener = listen_to($node, 'bytes');
$listener->{psql}->query("LISTEN $_") for qw(presence_status presence_broadcast presence_state);

# Such names are refused, whichever way they arrive.
for my $call (q(presence_add(E'r\xe4', 'c')), q(presence_add('r', E'c\xf0\x9f\x98')), q(presence_add('r', 'c', E'\xff')),
	q(presence_add_many('r', ARRAY['c', E'c\xe4'])), q(presence_broadcast('r', E'e\xe4')), q(presence_set_status(E'u\xe4', 'away')),
	q(presence_set_state('r', E'k\xe4', '1')), q(presence_typing('r', E'u\xe4', true)))
{
	my ($status, $out, $error) = $node->psql('bytes', "\\set VERBOSITY verbose\nSELECT $call");
	like($error, qr/22021: argument "\w+" is not valid UTF-8/, "refused: $call");
}
for my $row (q(E'r\xe4', 'c', 'u'), q('r', E'c\xe4', 'u'), q('r', 'c', E'u\xe4'))
{
	my ($status, $out, $error) = $node->psql('bytes',
		"\\set VERBOSITY verbose\nINSERT INTO presence.presences (room, channel_name, user_id) VALUES ($row)");
	like($error, qr/22021: column "\w+" of presence.presences must hold valid UTF-8/, "refused: $row");
}

# What is valid passes; of the rest listeners receive the valid part.
value($node, q(SELECT id FROM presence_add(E'r\xc3\xa4', E'c\xe2\x82\xac', E'\xf0\x9f\x98\x80', E'{"a": "\xe4b\xc3\xa4"}')), 'bytes');
my $join = $listener->wait_for('the join', sub { ($_[0]{event} // '') eq 'join' && defined $_[0]{added}{user_id} });
is("$join->{room} $join->{added}{channel_name} $join->{added}{user_id}", "r\x{e4} c\x{20ac} \x{1f600}", 'names in UTF-8 arrive');
is($join->{added}{meta}{a}, "?b\x{e4}", 'a meta arrives, with question marks');
value($node, q(SELECT user_id FROM presence_set_status(E'\xf0\x9f\x98\x80', 'busy', E'gr\xfc\xdfe')), 'bytes');
my $status = $listener->wait_for('the status', sub { ($_[0]{status} // '') eq 'busy' });
is($status->{custom_message}, 'gr??e', 'so does a message');
value($node, q(SELECT presence_broadcast('r', 'e', E'"\xe4"')), 'bytes');
my $broadcast = $listener->wait_for('the broadcast', sub { exists $_[0]{payload} });
is($broadcast->{payload}, '?', 'a broadcast');
value($node, q(SELECT presence_set_state('r', 'k', E'"\xe4"')), 'bytes');
my $state = $listener->wait_for('the state', sub { exists $_[0]{state} });
is($state->{state}{k}, '?', 'and state');
is($listener->{psql}->query('SELECT count(*) FROM pg_listening_channels()'), 4, 'the listener is still there');

# With other encodings the server checks this.
my ($code, $out, $error) = $node->psql('postgres', q(SELECT presence_add('r', E'c\xe4')));
like($error, qr/invalid byte sequence for encoding "UTF8"/, 'in UTF8 no such text exists');

$listener->quit;
$node->stop;
done_testing();
