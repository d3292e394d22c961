-- Proves that only the owner may do anything before presence_grant, which grants by level and revokes again
-- (security_matrix.sql has what each level may do).
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

-- Every member of the extension, with what PUBLIC may do.
CREATE TEMP TABLE members AS
SELECT d.classid, d.objid FROM pg_depend d
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'presence');
-- From PostgreSQL 17 on the row types of tables and views are members, too; in every version PUBLIC may use them.
DELETE FROM members m USING pg_type t JOIN pg_class c ON c.oid = t.typrelid
WHERE m.classid = 'pg_type'::regclass AND t.oid = m.objid AND c.relkind <> 'c';
SELECT is_empty($$SELECT p.oid::regprocedure FROM members m JOIN pg_proc p ON p.oid = m.objid AND m.classid = 'pg_proc'::regclass,
	aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0$$, 'no function is granted to PUBLIC');
SELECT is_empty($$SELECT c.oid::regclass FROM members m JOIN pg_class c ON c.oid = m.objid AND m.classid = 'pg_class'::regclass,
	aclexplode(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, c.relowner))) a
	WHERE a.grantee = 0$$, 'no table, view or sequence');
SELECT is_empty($$SELECT a.attrelid::regclass, a.attname FROM members m JOIN pg_attribute a ON a.attrelid = m.objid
	WHERE m.classid = 'pg_class'::regclass AND a.attacl IS NOT NULL$$, 'no column to anybody');
SELECT is_empty($$SELECT t.oid::regtype FROM members m JOIN pg_type t ON t.oid = m.objid AND m.classid = 'pg_type'::regclass,
	aclexplode(coalesce(t.typacl, acldefault('T', t.typowner))) a WHERE t.typcategory <> 'A' AND a.grantee = 0$$, 'no type');
SELECT is_empty($$SELECT n.nspname FROM pg_namespace n, aclexplode(n.nspacl) a
	WHERE n.nspname = 'presence' AND a.grantee = 0$$, 'nor the schema presence');

CREATE ROLE presence_test_stranger;
CREATE ROLE presence_test_reader;
CREATE ROLE presence_test_member;
CREATE ROLE presence_test_admin;
CREATE ROLE "presence_test ""odd"" 'name'";
SELECT presence_grant('presence_test_reader', 'reader');
SELECT presence_grant('presence_test_member');
SELECT presence_grant('presence_test_admin', 'admin');

CREATE TEMP TABLE roles (level int, role text);
INSERT INTO roles VALUES (0, 'presence_test_stranger'), (1, 'presence_test_reader'), (2, 'presence_test_member'), (3, 'presence_test_admin');

SELECT presence_add('r', 'c', 'u', '{}');
-- Every function is granted at some level, or deliberately not.
SELECT results_eq($$SELECT p.proname::text COLLATE "C" FROM members m JOIN pg_proc p ON p.oid = m.objid AND m.classid = 'pg_proc'::regclass
	WHERE NOT has_function_privilege('presence_test_admin', p.oid, 'EXECUTE') AND p.prorettype <> 'trigger'::regtype ORDER BY 1$$,
	ARRAY['presence_grant', 'presence_revoke'] COLLATE "C", 'an admin may call all but grant and revoke');

-- A role without any privilege, and then a member of one that has some.
GRANT presence_test_member TO presence_test_stranger;
SELECT is(pg_temp.as_role('presence_test_stranger', 'SELECT presence_touch(''c'')'), 'may', 'rights are inherited');
REVOKE presence_test_member FROM presence_test_stranger;
SELECT is(pg_temp.as_role('presence_test_stranger', 'SELECT presence_touch(''c'')'), '42501', 'and lost again');

SELECT presence_grant('"presence_test ""odd"" ''name''"', 'member');
SELECT is(pg_temp.as_role('presence_test "odd" ''name''', 'SELECT presence_touch(''c'')'), 'may', 'odd names of roles are quoted');

-- A member whose UPDATE privilege is revoked cannot send heartbeats any more, not even in the same session.
SET LOCAL ROLE presence_test_member;
SELECT is(presence_touch('c'), true, 'a member beats');
RESET ROLE;
REVOKE UPDATE ON presence.presences FROM presence_test_member;
SELECT is(pg_temp.as_role('presence_test_member', 'SELECT presence_touch(''c'')'), '42501', 'without UPDATE it does not');
SELECT is(pg_temp.as_role('presence_test_member', 'SELECT presence_touch_many(''{c}'')'), '42501', 'nor many at once');
SELECT is(pg_temp.as_role('presence_test_member', 'SELECT presence_receive(''c'', ''x'')'), '42501', 'nor by messages');

-- A user's own functions with the names of the extension's stay as they are.
CREATE FUNCTION presence_touch(channel_name text, how_often integer) RETURNS boolean LANGUAGE sql RETURN true;
CREATE FUNCTION presence_list(room text, channel_name text) RETURNS boolean LANGUAGE sql RETURN true;
REVOKE ALL ON FUNCTION presence_touch(text, integer), presence_list(text, text) FROM PUBLIC;
SELECT presence_grant('presence_test_admin', 'admin');
SELECT ok(has_function_privilege('presence_test_admin', 'presence_touch(text, double precision)', 'EXECUTE')
	AND NOT has_function_privilege('presence_test_admin', 'presence_touch(text,integer)', 'EXECUTE'), 'only ours are granted');
SELECT presence_revoke('presence_test_admin');
SELECT presence_grant('presence_test_admin', 'admin');

-- Types are for readers, which write functions that take a row of them.
SELECT is_empty($$SELECT t.oid::regtype FROM members m JOIN pg_type t ON t.oid = m.objid AND m.classid = 'pg_type'::regclass
	WHERE t.typcategory <> 'A' AND (has_type_privilege('presence_test_stranger', t.oid, 'USAGE')
		OR NOT has_type_privilege('presence_test_reader', t.oid, 'USAGE'))$$, 'a reader may use every type, a stranger none');

-- After the revoke nothing is left.
SELECT presence_revoke(r.role::regrole) FROM roles r WHERE level > 0;
SELECT presence_revoke('"presence_test ""odd"" ''name''"');
SELECT is(pg_temp.as_role(r.role, c), '42501', 'revoked, ' || r.role || ': ' || c)
FROM roles r, unnest(ARRAY['SELECT presence_count(''r'')', 'SELECT presence_touch(''c'')', 'SELECT prune_rooms()', 'TABLE presence.presences']) c;
SELECT is_empty($$SELECT d.objid, d.classid::regclass FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid
	WHERE r.rolname LIKE 'presence\_test\_%' AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())$$,
	'no privilege is left on anything');
SELECT lives_ok('DROP ROLE presence_test_stranger, presence_test_reader, presence_test_member, presence_test_admin',
	'so the roles can be dropped');

SELECT finish();
ROLLBACK;
