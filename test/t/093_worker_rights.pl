# Proves: where the extension's owner is not a superuser, no trigger of that
# owner gains superuser rights in the worker, and each attempt is an error in
# the log.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('rights', conf => "presence.max_age = 1s\n", extension => 0);
my $superuser = value($node, 'SELECT current_user');

$node->safe_psql('postgres', q{
	CREATE ROLE installer SUPERUSER;
	CREATE ROLE owner;
	GRANT CREATE ON SCHEMA public TO owner;
	SET ROLE installer;
	CREATE EXTENSION presence;
	RESET ROLE;
	REASSIGN OWNED BY installer TO owner;
	DROP ROLE installer});
await_announcer($node);

sub as_owner
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', "SET ROLE owner; $sql");
}

as_owner(q{CREATE TABLE public.found (attack text, who text, superuser boolean, session_is text)});

# Each attack: what a trigger does, and when it does it.
my @attacks = (
	[ 'set_config of role', 'BEFORE DELETE', "PERFORM set_config('role', '$superuser', false)" ],
	[ 'SET ROLE', 'BEFORE DELETE', "SET ROLE \"$superuser\"" ],
	[ 'RESET ROLE', 'BEFORE DELETE', 'RESET ROLE' ],
	[ 'SET ROLE NONE, deferred', 'deferred', 'SET ROLE NONE' ],
	[ 'SET SESSION AUTHORIZATION', 'BEFORE DELETE', 'SET SESSION AUTHORIZATION DEFAULT' ],
	[ 'SET LOCAL SESSION AUTHORIZATION, deferred', 'deferred', "SET LOCAL SESSION AUTHORIZATION '$superuser'" ],
	[ 'RESET ALL', 'BEFORE DELETE', 'RESET ALL' ],
	[ 'another role of a member', 'deferred', "PERFORM set_config('role', 'none', true)" ],
);

for my $attack (@attacks)
{
	my ($name, $when, $statement) = @$attack;
	my $log_start = -s $node->logfile;
	my $trigger = $when eq 'deferred'
	  ? 'CREATE CONSTRAINT TRIGGER attack AFTER DELETE ON presence.presences DEFERRABLE INITIALLY DEFERRED'
	  : "CREATE TRIGGER attack $when ON presence.presences";

	as_owner(qq{
		CREATE OR REPLACE FUNCTION public.attack() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN
			$statement;
			INSERT INTO public.found SELECT '$name', current_user, rolsuper, session_user FROM pg_roles WHERE rolname = current_user;
			RETURN OLD;
		END \$\$;
		$trigger FOR EACH ROW EXECUTE FUNCTION public.attack()});
	value($node, qq{SELECT presence_add('r', '$name')});	# one that failed before is tried again much later
	ok( wait_until("$name was tried",
			sub {
				value($node, qq{SELECT EXISTS (SELECT FROM public.found WHERE attack = '$name')}) eq 't'
				  || log_slice($node, $log_start) =~ /cannot set parameter "(role|session_authorization)"/;
			}),
		"$name was tried");
	is(value($node, q{SELECT count(*) FROM public.found WHERE superuser OR who <> 'owner'}), 0, 'by nobody but the owner');
	as_owner('DROP TRIGGER attack ON presence.presences');
	value($node, q{DELETE FROM presence.presences});
}

# The worker continues, as the owner.
value($node, q{SELECT presence_add('r', 'last')});
ok(wait_until('the last one expires', sub { value($node, 'SELECT count(*) FROM presence.presences') == 0 }), 'the worker goes on');
is(value($node, q{SELECT count(*) FROM pg_roles WHERE rolsuper}), 1, 'and there is one superuser');

$node->stop;
done_testing();
