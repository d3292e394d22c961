# Proves: nothing has changed the scripts of versions that are frozen; the script
# to the next version leaves everything of 1.0 as it is, and what would not is
# found; the library works with the objects of either version.
use strict;
use warnings FATAL => 'all';

use Digest::SHA;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use PresenceCatalog;
use PresenceTest;
use Test::More;

my $sources = "$FindBin::RealBin/../../sql";
# No worker removes rows that are old, which would be a change as well.
my $node = new_node('upgrade', extension => 0, conf => q(
presence.prune_rooms_interval = 0
presence.keep_last_seen = 0
));
my $installed = value($node, q{SELECT setting FROM pg_config WHERE name = 'SHAREDIR'}) . '/extension';
my @written;

# Write a script into the server's directory of extensions, unless it comes with
# the sources.
sub write_script
{
	my ($name, $text) = @_;

	return if -e "$sources/$name";
	open(my $out, '>', "$installed/$name") or BAIL_OUT("cannot write $installed/$name: $!");
	push @written, "$installed/$name";
	print $out $text;
	close($out) or BAIL_OUT("cannot write $installed/$name: $!");
	return;
}

END { unlink @written; }

# Each part of the extension does its work, in a database with a version of its
# objects, and with what the library offers to roles.
sub prove_works
{
	my ($version, $db) = @_;
	my $listener = listen_to($node, $db);

	is(value($node, q{SELECT extversion FROM pg_extension WHERE extname = 'presence'}, $db), $version, "$version is there");
	is(value($node, q{SELECT count(fmgr_c_validator(p.oid)) > 50 FROM pg_proc p
		JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
		JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
		JOIN pg_language l ON l.oid = p.prolang WHERE extname = 'presence' AND lanname = 'c'}, $db),
		't', "$version: the library has each function");
	await_announcer($node, $db);
	$listener->drain;
	value($node, q{SELECT presence_add('works', 'c', 'zoe', '{"n": 1}')}, $db);
	is_deeply($listener->summary, ['join works c'], "$version: joins");
	is(value($node, q{SELECT presence_touch('c'), presence_update('works', 'c', '{"n": 2}'), presence_count('works')}, $db),
		't|t|1', "$version: heartbeats, updates, reads");
	value($node, q{SELECT presence_leave_all('c')}, $db);
	is($listener->summary->[-1], 'leave works c leave', "$version: leaves");
	is(value($node, q{SELECT concat_ws(' ', status, chosen_status) FROM presence_set_status('zoe', 'busy')}, $db),
		'offline busy', "$version: statuses");
	is(value($node, q{SELECT announce FROM presence_configure_room('works', 5, true, false, '{"a": 1}', 'counts')}, $db),
		'counts', "$version: rooms");
	value($node, q{SELECT presence_ban('works', 'bob')}, $db);
	my ($status, $out, $err) = $node->psql($db, "\\set VERBOSITY verbose\nSELECT presence_add('works', 'b', 'bob')");
	like($err, qr/ERROR:  PR002/, "$version: bans");
	value($node, q{SELECT presence_set_state('works', 'k', '1')}, $db);
	is(value($node, q{SELECT key, value FROM presence_get_state('works')}, $db), 'k|1', "$version: state");
	for my $level ('reader', 'member', 'admin')
	{
		($status, $out, $err) = $node->psql($db, "SELECT presence_grant('granted', '$level'); SELECT presence_revoke('granted')");
		is($err, '', "$version: the level $level");
	}
	$listener->quit;
	return;
}

# 1. Frozen scripts, in the sources and in the server.

my @frozen = split /\n/, slurp_file("$sources/frozen.sha256");
like("@frozen", qr/ presence--1\.0\.sql\b/, '1.0 is frozen');
foreach my $line (@frozen)
{
	my ($sum, $file) = split /\s+\*?/, $line;

	foreach my $copy ("$sources/$file", "$installed/$file")
	{
		is(-e $copy ? Digest::SHA->new(256)->addfile($copy)->hexdigest : 'gone', $sum, "nothing has changed $copy");
	}
}

# 2. The script to the next version.

# A database with 1.0 in use: granted to roles, with rows in each table, and with
# objects of a user's that rest on it.
sub make_old
{
	my ($db) = @_;

	value($node, "CREATE DATABASE $db");
	value($node, q{CREATE EXTENSION presence VERSION '1.0';
		SELECT presence_grant('gateway'), presence_grant('dashboard', 'reader');
		SELECT presence_add('r', 'a', 'alice'), presence_add('r', 'b');
		SELECT presence_configure_room('club', 5, private => true, announce => 'counts'), presence_invite('club', 'alice');
		SELECT presence_ban('r', 'bob'), presence_set_status('alice', 'busy');
		INSERT INTO presence.user_last_seen VALUES ('bob', '2001-02-03 04:05:06Z');
		INSERT INTO presence.admissions VALUES ('r', 'alice', now());
		INSERT INTO presence.visits (room, channel_name, joined_at, left_at, reason) VALUES ('r', 'c', now(), now(), 'leave');
		CREATE VIEW here AS SELECT room, channel_name FROM presence.members;
		ALTER TABLE presence.presences ENABLE ROW LEVEL SECURITY;
		CREATE POLICY mine ON presence.presences TO gateway USING (user_id = current_user)}, $db);
	return;
}

write_script('presence--1.0--1.1.sql', '');
value($node, 'CREATE ROLE granted; CREATE ROLE gateway; CREATE ROLE dashboard');
make_old($_) for 'old', 'updated';
my $before = catalog($node, 'old');
cmp_ok(scalar keys %$before, '>', 100, 'the catalogs say what 1.0 is');
is_deeply(changes_of($before, catalog($node, 'old')), [], 'and say it again');
is_deeply(changes_of($before, catalog($node, 'old', "ALTER EXTENSION presence UPDATE TO '1.1';")), [], '1.1 changes nothing of 1.0');

my $updated = catalog($node, 'updated');
value($node, q{ALTER EXTENSION presence UPDATE TO '1.1'}, 'updated');
is_deeply(changes_of($updated, catalog($node, 'updated')), [], 'nor once it is committed');
value($node, 'CREATE DATABASE fresh');
value($node, q{CREATE EXTENSION presence VERSION '1.1'}, 'fresh');

# 3. Scripts that would do more than they may, and what is said of them.

my $touch = 'function public.presence_touch(pg_catalog.text,double precision)';
foreach my $bad (
	[ 'a signature', q{DROP FUNCTION presence_count(text); CREATE FUNCTION presence_count(room text, more integer DEFAULT 0)
		RETURNS bigint LANGUAGE c STABLE AS 'MODULE_PATHNAME'},
		'function public.presence_count(pg_catalog.text): gone' ],
	[ 'a default', q{CREATE OR REPLACE FUNCTION presence_touch(channel_name text, ttl_in_seconds double precision DEFAULT 5)
		RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME'}, "$touch: signature" ],
	[ 'volatility', 'ALTER FUNCTION presence_touch(text, double precision) STABLE', "$touch: properties" ],
	[ 'an implementation', q{CREATE OR REPLACE FUNCTION presence_touch(channel_name text, ttl_in_seconds double precision DEFAULT NULL)
		RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME', 'presence_touch_many'}, "$touch: body" ],
	[ 'a name twice', q{CREATE FUNCTION presence_touch(channel_name text) RETURNS boolean LANGUAGE c AS 'MODULE_PATHNAME'},
		'functions named public.presence_touch: count' ],
	[ 'a function made anew', q{DROP FUNCTION presence_touch(text, double precision);
		CREATE FUNCTION presence_touch(channel_name text, ttl_in_seconds double precision DEFAULT NULL)
		RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME'},
		map { "$touch: $_" } qw(comment identity), 'initial privileges', 'privileges' ],
	[ 'a column more', 'ALTER TABLE presence.rooms ADD COLUMN topic text', map { "table presence.rooms: $_" } 'column topic', 'rows' ],
	[ 'a column less', 'ALTER TABLE presence.visits DROP COLUMN user_id',
		'table presence.visits: column ........pg.dropped.4........', 'table presence.visits: column user_id',
		'table presence.visits: index visits_user_id_left_at_idx', 'table presence.visits: rows' ],
	[ 'a type of a column', 'ALTER TABLE presence.bans ALTER reason TYPE varchar', 'table presence.bans: column reason' ],
	[ 'NOT NULL', 'ALTER TABLE presence.rooms ALTER private DROP NOT NULL', 'table presence.rooms: column private' ],
	[ 'a default of a column', 'ALTER TABLE presence.rooms ALTER persistent SET DEFAULT true', 'table presence.rooms: column persistent' ],
	[ 'an index', 'CREATE INDEX ON presence.presences (last_seen)', 'table presence.presences: index presences_last_seen_idx' ],
	[ 'a constraint', 'ALTER TABLE presence.bans ADD CONSTRAINT early CHECK (until > created_at)', 'table presence.bans: constraint early' ],
	[ 'a foreign key', 'CREATE TABLE presence.more (room text COLLATE "C" REFERENCES presence.rooms)',
		'table presence.rooms: internal triggers' ],
	[ 'a child', 'CREATE TABLE presence.more () INHERITS (presence.people)', 'table presence.people: children' ],
	[ 'a trigger', 'CREATE TRIGGER more AFTER INSERT ON presence.presences FOR EACH STATEMENT EXECUTE FUNCTION presence.write_visits()',
		'table presence.presences: trigger more' ],
	[ 'when a trigger fires', 'ALTER TABLE presence.people ENABLE TRIGGER presence_capture_person',
		'table presence.people: trigger presence_capture_person' ],
	[ 'a policy', 'CREATE POLICY more ON presence.rooms', 'table presence.rooms: policy more' ],
	[ 'row-level security', 'ALTER TABLE presence.rooms ENABLE ROW LEVEL SECURITY', 'table presence.rooms: properties' ],
	[ 'storage', 'ALTER TABLE presence.presences SET (fillfactor = 100)', 'table presence.presences: properties' ],
	[ 'a file', 'ALTER TABLE presence.admissions SET LOGGED', map { "table presence.admissions: $_" } qw(file properties) ],
	[ 'rows', q{DELETE FROM presence.visits}, 'table presence.visits: rows' ],
	[ 'a sequence', 'ALTER TABLE presence.visits ALTER id SET INCREMENT 2', 'sequence presence.visits_id_seq: sequence' ],
	[ 'a view', q{CREATE OR REPLACE VIEW presence.members WITH (security_invoker = true) AS
		SELECT id, room, channel_name, user_id, meta, joined_at, last_seen FROM presence.presences},
		'view presence.members: rule _RETURN' ],
	[ 'options of a view', 'ALTER VIEW presence.members SET (security_invoker = false)', 'view presence.members: properties' ],
	[ 'a type', 'ALTER TYPE presence.person ADD ATTRIBUTE more text',
		'type presence.person: column more' ],
	[ 'a grant', 'GRANT SELECT ON presence.rooms TO PUBLIC', map { "table presence.rooms: $_" } 'initial privileges', 'privileges' ],
	[ 'a revocation', 'REVOKE ALL ON FUNCTION presence_touch(text, double precision) FROM gateway', "$touch: privileges" ],
	[ 'an owner', 'ALTER TABLE presence.bans OWNER TO gateway', map { "table presence.bans: $_" } qw(owner privileges) ],
	[ 'a comment', q{COMMENT ON FUNCTION presence_touch(text, double precision) IS 'more'}, "$touch: comment" ],
	[ 'a comment on a column', q{COMMENT ON COLUMN presence.rooms.name IS 'more'}, 'table presence.rooms: column name' ],
	[ 'what is dumped', q{SELECT pg_catalog.pg_extension_config_dump('presence.rooms', '')}, 'table presence.rooms: dump' ],
	[ 'a member less', 'ALTER EXTENSION presence DROP TABLE presence.visits', 'table presence.visits: gone' ])
{
	my ($what, $sql, @changes) = @$bad;

	write_script('presence--1.0--refused.sql', $sql);
	is_deeply(changes_of($before, catalog($node, 'old', "ALTER EXTENSION presence UPDATE TO 'refused';")), \@changes, "found: $what");
}

# What is new may be anything.
write_script('presence--1.0--refused.sql', q{
	CREATE TABLE presence.hooks (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event text);
	CREATE VIEW presence.more AS SELECT id FROM presence.presences;
	CREATE TYPE presence.hook AS (id bigint);
	CREATE FUNCTION presence_off(id bigint) RETURNS boolean LANGUAGE sql RETURN id > 0;
	SELECT pg_catalog.pg_extension_config_dump('presence.hooks', '');
});
my $more = catalog($node, 'old', "ALTER EXTENSION presence UPDATE TO 'refused';");
is_deeply(changes_of($before, $more), [], 'new tables, views, types and functions change nothing');
ok($more->{'table presence.hooks'}{dump} && !$before->{'table presence.hooks'}, 'though they are there');

# 4. The library works with the objects of either version.

prove_works('1.0', 'old');
prove_works('1.1', $_) for 'updated', 'fresh';

$node->stop;
done_testing();
