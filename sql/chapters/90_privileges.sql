-- 10. Privileges: nobody but the owner has any before presence_grant ------

-- PostgreSQL grants functions and types to PUBLIC, and default privileges may
-- grant anything to anybody.  The schema counts where it was made here.  The row
-- types of tables and views, which are members since PostgreSQL 17, tell nothing
-- that the catalogs do not: anybody may write a function that takes such a row.
DO $$
DECLARE
	granted record;
BEGIN
	FOR granted IN
		WITH members AS MATERIALIZED (
			SELECT d.classid, d.objid
			FROM pg_catalog.pg_depend d
			JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
			WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
			  AND d.deptype OPERATOR(pg_catalog.=) 'e'
			  AND e.extname OPERATOR(pg_catalog.=) 'presence'),
		objects AS (
			SELECT 'FUNCTION' AS kind, p.oid::pg_catalog.regprocedure::text AS name, p.proowner AS owner,
				   COALESCE(p.proacl, pg_catalog.acldefault('f', p.proowner)) AS acl
			FROM members m JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) m.objid
			WHERE m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
			UNION ALL
			SELECT CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
				   c.oid::pg_catalog.regclass::text, c.relowner, c.relacl
			FROM members m JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) m.objid
			WHERE m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
			  AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,v,S}')
			UNION ALL
			SELECT 'TYPE', t.oid::pg_catalog.regtype::text, t.typowner,
				   COALESCE(t.typacl, pg_catalog.acldefault('T', t.typowner))
			FROM members m JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) m.objid
			WHERE m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
			  AND t.typcategory OPERATOR(pg_catalog.<>) 'A'
			  AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) t.typrelid
							  AND c.relkind OPERATOR(pg_catalog.<>) 'c')
			UNION ALL
			SELECT 'SCHEMA', pg_catalog.quote_ident(n.nspname), n.nspowner, n.nspacl
			FROM members m JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) m.objid
			WHERE m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass)
		SELECT DISTINCT o.kind, o.name,
			   CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
					ELSE a.grantee::pg_catalog.regrole::text END AS grantee
		FROM objects o CROSS JOIN LATERAL pg_catalog.aclexplode(o.acl) a
		WHERE a.grantee OPERATOR(pg_catalog.<>) o.owner
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %s', granted.kind, granted.name, granted.grantee);
	END LOOP;
END
$$;
