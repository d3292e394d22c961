-- Proves that default privileges set by other roles before CREATE EXTENSION grant nothing on its objects.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

SELECT n.nspname AS ext_schema FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'presence' \gset
DROP EXTENSION presence;
CREATE ROLE presence_test_anon;
CREATE ROLE "presence_test ""odd"" role";
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO presence_test_anon, "presence_test ""odd"" role";
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO presence_test_anon, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO presence_test_anon WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO presence_test_anon;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO presence_test_anon, PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO presence_test_anon WITH GRANT OPTION;

-- What any role but the owner may do with any object of the extension.
CREATE FUNCTION pg_temp.granted() RETURNS TABLE (object text, grantee text, privilege text) LANGUAGE sql AS $$
	SELECT pg_describe_object(d.classid, d.objid, 0), a.grantee::regrole::text, a.privilege_type
	FROM pg_depend d
	JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	CROSS JOIN LATERAL (
		SELECT proowner, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc
		WHERE oid = objid AND classid = 'pg_proc'::regclass
		UNION ALL
		SELECT relowner, coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)) FROM pg_class
		WHERE oid = objid AND classid = 'pg_class'::regclass
		UNION ALL
		SELECT typowner, coalesce(typacl, acldefault('T', typowner)) FROM pg_type
		WHERE oid = objid AND classid = 'pg_type'::regclass AND typcategory <> 'A'
			AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = typrelid AND c.relkind <> 'c')
		UNION ALL
		SELECT nspowner, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace
		WHERE oid = objid AND classid = 'pg_namespace'::regclass) o (owner, acl)
	CROSS JOIN LATERAL aclexplode(o.acl) a
	WHERE e.extname = 'presence' AND a.grantee <> o.owner
	UNION ALL
	SELECT a.attrelid::regclass || '.' || a.attname, 'somebody', a.attacl::text
	FROM pg_attribute a JOIN pg_depend d ON d.objid = a.attrelid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
	JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
	WHERE e.extname = 'presence' AND a.attacl IS NOT NULL
$$;

-- The functions in an existing schema: in public, in one with an unusual name, in "presence" itself.
CREATE EXTENSION presence SCHEMA public;
SELECT is_empty('SELECT * FROM pg_temp.granted()', 'nobody has anything, with the functions in public');
SELECT is(has_schema_privilege('presence_test_anon', 'presence', 'USAGE'), false, 'nor on the schema that was made');
DROP EXTENSION presence;

CREATE SCHEMA "my own schema";
CREATE EXTENSION presence SCHEMA "my own schema";
SELECT is_empty('SELECT * FROM pg_temp.granted()', 'nobody has anything, with the functions in another schema');
SELECT is(has_schema_privilege('presence_test_anon', 'my own schema', 'USAGE'), true, 'a schema that was there keeps what was granted');
DROP EXTENSION presence;

CREATE SCHEMA presence;
CREATE EXTENSION presence SCHEMA presence;
SELECT is_empty('SELECT * FROM pg_temp.granted()', 'nobody has anything, with the functions in the schema presence');
SELECT is(has_schema_privilege('presence_test_anon', 'presence', 'USAGE'), true, 'which was there, too');
SET LOCAL ROLE presence_test_anon;
SELECT is(pg_temp.state_of(query), '42501', query) FROM unnest(ARRAY['SELECT presence.presence_set_state(''r'', ''k'', ''1'')',
	'SELECT presence.presence_broadcast(''r'', ''e'')', 'SELECT presence.presence_reset_stats()', 'SELECT presence.presence_start_worker()',
	'SELECT meta FROM presence.presences', 'SELECT * FROM presence.members', 'SELECT nextval(''presence.presences_id_seq'')']) query;
RESET ROLE;
DROP EXTENSION presence;
DROP SCHEMA presence;

ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM presence_test_anon, "presence_test ""odd"" role";
CREATE EXTENSION presence SCHEMA :"ext_schema";
SELECT presence_grant('presence_test_anon');
SELECT isnt_empty('SELECT * FROM pg_temp.granted()', 'what presence_grant gives is found so');

SELECT * FROM finish();
ROLLBACK;
