# Proves: the times when users were last seen are removed after
# presence.keep_last_seen, by the worker, a few rows at a time, or by
# prune_rooms.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

# Rows of users whose ids begin with a prefix.
sub rows_of
{
	my ($node, $prefix) = @_;

	return value($node, "SELECT count(*) FROM presence.user_last_seen WHERE user_id LIKE '$prefix%'");
}

# Rows from long ago and from yesterday, and several of one user.
sub fill
{
	my ($node) = @_;

	$node->safe_psql('postgres', q{
		INSERT INTO presence.user_last_seen SELECT 'old ' || i, now() - interval '31 days' FROM generate_series(1, 12000) i;
		INSERT INTO presence.user_last_seen SELECT 'new ' || i, now() - interval '29 days' FROM generate_series(1, 500) i;
		INSERT INTO presence.user_last_seen SELECT 'often', now() - i * interval '1 hour' FROM generate_series(1, 100) i;
	});
	return;
}

for my $preload ('presence', '')
{
	my $mode = $preload ? 'worker' : 'prune_rooms';
	my $node = new_node("keep_$mode", preload => $preload, conf => q(
presence.prune_rooms_interval = 1s
presence.keep_last_seen = 0
));

	is(value($node, q{LOAD 'presence'; SELECT boot_val FROM pg_settings WHERE name = 'presence.keep_last_seen'}), 30 * 24 * 3600,
		"$mode: thirty days, if nobody says otherwise");
	$node->safe_psql('postgres', q{
		CREATE TABLE removed (xid bigint, n bigint);
		CREATE FUNCTION count_removed() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			INSERT INTO public.removed SELECT txid_current(), count(*) FROM gone HAVING count(*) > 0;
			RETURN NULL;
		END $$;
		CREATE TRIGGER count_removed AFTER DELETE ON presence.user_last_seen REFERENCING OLD TABLE AS gone
			FOR EACH STATEMENT EXECUTE FUNCTION count_removed();
	});
	await_announcer($node) if $preload;
	fill($node);
	value($node, 'SELECT prune_rooms()');
	is(rows_of($node, 'old'), 12000, "$mode: 0 keeps them for ever");
	is(rows_of($node, 'often'), 1, "$mode: one row of a user is enough");
	$node->safe_psql('postgres', q{ALTER SYSTEM RESET presence.keep_last_seen});
	$node->append_conf('postgresql.conf', "presence.keep_last_seen = 30d\n");
	$node->safe_psql('postgres', q{DELETE FROM removed});
	$node->reload;
	wait_until('the setting arrives', sub { value($node, 'SHOW presence.keep_last_seen') eq '30d' });
	value($node, 'SELECT prune_rooms()') if !$preload;
	ok(wait_until('the old are gone', sub { rows_of($node, 'old') == 0 }), "$mode: old ones go");
	is(rows_of($node, 'new'), 500, "$mode: newer ones stay");
	is(rows_of($node, 'often'), 1, "$mode: so does that of somebody seen often");
	is(value($node, 'SELECT sum(n) FROM removed'), 12000, "$mode: nothing else goes");
	cmp_ok(value($node, 'SELECT count(*) FROM removed'), '>', 1, "$mode: a part at a time");
	cmp_ok(value($node, 'SELECT count(DISTINCT xid) FROM removed'), $preload ? '>' : '==', 1,
		"$mode: " . ($preload ? 'each its own transaction' : 'in one transaction'));
	$node->stop;
}
done_testing();
