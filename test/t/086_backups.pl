# Proves: what README.md says about dumps is correct: grants are kept, and
# triggers that pg_restore enabled for sessions only can be found, and enabled
# for replication again.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('backups');
my $dir = PostgreSQL::Test::Utils::tempdir();

# The statements of the README: a query, and the repair.
my ($block) = slurp_file("$FindBin::RealBin/../../README.md") =~ /<!-- test: triggers-always -->\n```sql\n(.*?)```/s;
my ($query, $mend) = split /\n\n/, $block, 2;

# The privileges of all roles on the objects of the extension.
my $privileges = q{
	SELECT string_agg(concat_ws(' ', pg_describe_object(d.classid, d.objid, 0), a.grantee::regrole, a.privilege_type), ', ' ORDER BY 1)
	FROM (
		SELECT 'pg_proc'::regclass, oid, proacl FROM pg_proc UNION ALL
		SELECT 'pg_class'::regclass, oid, relacl FROM pg_class UNION ALL
		SELECT 'pg_type'::regclass, oid, typacl FROM pg_type UNION ALL
		SELECT 'pg_namespace'::regclass, oid, nspacl FROM pg_namespace) o (classid, objid, acl)
	JOIN pg_depend d USING (classid, objid)
	CROSS JOIN LATERAL aclexplode(o.acl) a
	WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'presence') AND d.deptype = 'e'
		AND a.grantee = ANY ('{gateway,dashboard}'::regrole[]::oid[])};

value($node, q{CREATE ROLE gateway; CREATE ROLE dashboard;
	SELECT presence_grant('gateway', 'admin'); SELECT presence_grant('dashboard', 'reader');
	SELECT presence_set_status('alice', 'busy'); SELECT presence_configure_room('club', 5)});
my $granted = value($node, $privileges);

$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/all", 'postgres' ], 'a dump');
value($node, 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', 'restored', "$dir/all" ], 'is restored');
like($granted, qr/presence_ban.* gateway EXECUTE/, 'what was granted');
is(value($node, $privileges, 'restored'), $granted, 'is granted again');
is(value($node, $query, 'restored'), '', 'and the triggers are as they should be');

value($node, 'CREATE DATABASE data');
value($node, 'CREATE EXTENSION presence', 'data');
$node->command_ok([ 'pg_restore', '--data-only', '--disable-triggers', '--exit-on-error', '-d', 'data', "$dir/all" ],
	'data alone, without triggers');
is(value($node, $query, 'data'), join("\n", "presence.people|presence_capture_person", map { "presence.rooms|presence_$_" } qw(capture_new_room capture_room room_deleted)),
	'leaves triggers that replication does not fire');
value($node, $mend, 'data');
is(value($node, $query, 'data'), '', 'which are put back');
is(value($node, q{SELECT string_agg(concat(tgname, ' ', tgenabled), ', ' ORDER BY tgname) FROM pg_trigger
	JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = 'presence'::regnamespace AND NOT tgisinternal}, 'data'),
	value($node, q{SELECT string_agg(concat(tgname, ' ', tgenabled), ', ' ORDER BY tgname) FROM pg_trigger
	JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = 'presence'::regnamespace AND NOT tgisinternal}),
	'all as CREATE EXTENSION makes them');

$node->stop;
done_testing();
