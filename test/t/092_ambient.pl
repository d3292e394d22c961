# Proves: every function returns the same in databases of any encoding, and with
# names that must be quoted; a call that waits too long fails with its error,
# and the session continues.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use PresenceTest;
use Test::More;

my $library = dirname(__FILE__) . '/../pgtap/lib/ambient.psql';
my $node = new_node('ambient', conf => "presence.max_age = 1h\n");
my $role = 'the "role"';
my $schema = '"A schema, of our-s"';

value($node, q{CREATE ROLE presence_ambient_role; CREATE ROLE "the ""role""" SUPERUSER LOGIN});

# Run the scenario in a database, as a role; returns its digest.
sub digest
{
	my ($db, $user) = @_;
	my ($status, $out, $err) = $node->psql($db, "\\i $library\nCALL presence_ambient.run('call', NULL)",
		extra_params => [ $user ? ('-U', $user) : () ]);

	is($status, 0, "$db: the scenario runs") or diag($err);
	return $out;
}

my $plain = digest('postgres');
like($plain, qr/PR001/, 'the scenario says much');

for my $encoding (qw(SQL_ASCII LATIN1 EUC_JP))
{
	my $db = lc($encoding);

	value($node, "CREATE DATABASE $db ENCODING '$encoding' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
	value($node, 'CREATE EXTENSION presence', $db);
	is(digest($db), $plain, "$encoding: the same answers");
}

my $odd = 'a database of "ours"';
value($node, q{CREATE DATABASE "a database of ""ours"""});
value($node, qq{SET ROLE "the ""role"""; CREATE SCHEMA $schema; CREATE EXTENSION presence SCHEMA $schema}, $odd);
is(digest($odd, $role), $plain, 'quoted names: the same answers');
value($node, qq{SELECT $schema.presence_grant('"the ""role"""', l) FROM unnest('{reader,member,admin}'::text[]) l;
	SELECT $schema.presence_revoke('"the ""role"""')}, $odd);
my $listener = listen_to($node, $odd);
value($node, qq{SELECT $schema.presence_add('r "1" \\ ''', 'c "2"', 'u "3"', jsonb_build_object('"', '\\'))}, $odd);
my $event = $listener->wait_for('join', sub { $_[0]->{event} eq 'join' && $_[0]->{room} =~ /^r/ });
is_deeply([ $event->{room}, $event->{added}{channel_name}, $event->{added}{user_id}, $event->{added}{meta} ],
	[ q{r "1" \\ '}, 'c "2"', 'u "3"', { '"' => '\\' } ], 'quoted names: an event');
$listener->quit;

# A name that is not ASCII is announced unchanged, whatever the encoding of the
# database.
for my $db (qw(latin1 sql_ascii postgres))
{
	my $heard = listen_to($node, $db);

	$heard->{psql}->query(q{SET client_encoding = 'UTF8'});
	value($node, qq{SET client_encoding = 'UTF8'; SELECT presence_add(convert_from('\\x636166c3a9', } .
		($db eq 'sql_ascii' ? q{'SQL_ASCII'} : q{'UTF8'}) . q{), 'c')}, $db);
	ok($heard->wait_for('join', sub { $_[0]->{event} eq 'join' && $_[0]->{room} eq "caf\x{e9}" }), "$db: a name that is no ASCII");
	$heard->quit;
}

# A wait for a lock ends at a timeout with its error, and the session continues,
# also within a transaction that catches the error.
my @waiting = (
	q{presence_remove('r', 'c')}, q{presence_leave_all('c')}, q{presence_leave_all_many('{c}')},
	q{presence_kick('r', 'u')}, q{presence_ban('r', 'u')}, q{presence_update('r', 'c', '{"a": 1}')},
	q{presence_add('r', 'c', 'v')}, q{presence_add_many('r', '{c}', '{v}')},
	q{presence_configure_room('r', 7)}, q{presence_set_status('u', 'busy')});
value($node, q{SELECT presence_add('r', 'c', 'u'); SELECT presence_set_status('u', 'away'); SELECT presence_configure_room('r', 9);
	CREATE TABLE log (call text, state text)});
my $holder = session($node);
$holder->query(q{BEGIN});
$holder->query("SELECT 1 FROM presence.$_ FOR UPDATE") for qw(presences people rooms);

for my $timeout ([ statement_timeout => '57014' ], [ lock_timeout => '55P03' ])
{
	my ($setting, $state) = @$timeout;
	my $sql = '';

	for my $call (@waiting)
	{
		(my $quoted = $call) =~ s/'/''/g;
		$sql .= "SET $setting = '300ms';\nSELECT $call;\n\\set state :SQLSTATE\nSET $setting = 0;\n"
		  . "INSERT INTO log VALUES ('$setting $quoted', :'state');\n";
	}
	my (undef, undef, $err) = $node->psql('postgres', $sql, on_error_stop => 0);
	is(value($node, "SELECT count(*) FROM log WHERE state = '$state' AND call LIKE '$setting %'"), scalar @waiting,
		"$setting: each is told so, and the session goes on")
	  or diag(value($node, 'TABLE log'), $err);
}

# A block that catches the error continues in the same transaction.
my $blocks = '';
for my $call (@waiting)
{
	(my $quoted = $call) =~ s/'/''/g;
	$blocks .= qq{
		BEGIN
			SET LOCAL lock_timeout = '100ms';
			PERFORM $call;
		EXCEPTION WHEN lock_not_available THEN
			INSERT INTO log VALUES ('caught $quoted', SQLSTATE);
		END;};
}
value($node, "DO \$\$ BEGIN $blocks PERFORM presence_add('free', 'free'); END \$\$");
is(value($node, q{SELECT count(*) FROM log WHERE call LIKE 'caught %'}), scalar @waiting, 'each can be caught');
is(value($node, q{SELECT presence_touch('free')}), 't', 'and what comes after is committed');
$holder->query(q{ROLLBACK});
is(value($node, q{SELECT presence_remove('r', 'c')}), 't', 'who waits no more is served');
$holder->quit;

unlike(log_slice($node), qr/terminated by signal|PANIC|TRAP|presence worker ERROR/, 'no process comes to harm');
$node->stop;
done_testing();
