# Proves: settings that a user's trigger changes do not persist in the worker.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('settings', conf => "presence.max_age = 1s\n");

# The trigger records the settings it finds, and sets values that would stop the
# worker.
$node->safe_psql('postgres', q{
	CREATE TABLE found (name text, value text);
	CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.found SELECT s.name, s.setting FROM pg_settings s
			WHERE s.name IN ('search_path', 'lock_timeout', 'default_transaction_isolation', 'synchronous_commit');
		PERFORM set_config('search_path', 'nowhere', false), set_config('lock_timeout', '7', false),
			set_config('default_transaction_isolation', 'serializable', false),
			set_config('default_transaction_read_only', 'on', false),
			set_config('synchronous_commit', 'off', false);
		RETURN NULL;
	END $$;
	CREATE TRIGGER meddle AFTER DELETE ON presence.presences FOR EACH STATEMENT EXECUTE FUNCTION meddle();
});
await_announcer($node);
my $worker = value($node, 'SELECT worker_pid FROM presence.stats');
my $log_start = -s $node->logfile;

for my $i (1 .. 3)
{
	value($node, "SELECT presence_add('r', 'c$i')");
	ok(wait_until('it is gone', sub { value($node, 'SELECT count(*) FROM presence.presences') == 0 }), "number $i goes");
}
cmp_ok(value($node, 'SELECT count(*) FROM found'), '>=', 12, 'the trigger ran each time');
is( value($node, q{SELECT string_agg(DISTINCT name || '=' || value, ' ' ORDER BY name || '=' || value) FROM found}),
	'default_transaction_isolation=read committed lock_timeout=0 search_path=pg_catalog synchronous_commit=local',
	'and found the worker\'s own settings');
is(value($node, 'SELECT worker_pid FROM presence.stats'), $worker, 'by one worker');
unlike(log_slice($node, $log_start), qr/read-only|could not remove/, 'without an error');
$node->stop;
done_testing();
