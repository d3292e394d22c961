-- Proves that drivers which send every argument untyped can call every function, and that no name is overloaded.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

CREATE ROLE presence_test_literal;

CREATE TEMP TABLE functions AS
SELECT p.oid, p.proname::text AS name, p.pronargs, p.proargtypes::oid[] AS types,
	p.proargnames[1:p.pronargs] AS arguments, n.nspname
FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'presence')
	AND p.prorettype <> 'trigger'::regtype;

SELECT cmp_ok((SELECT count(*) FROM functions), '>=', 33::bigint, 'the functions of the extension are found');
SELECT is_empty($$SELECT name FROM functions GROUP BY name HAVING count(*) > 1$$, 'no name is overloaded');
SELECT is_empty($$SELECT f.name FROM functions f JOIN pg_proc p ON p.proname = f.name
	WHERE p.pronamespace = 'pg_catalog'::regnamespace$$, 'none has the name of a function of PostgreSQL');

-- A literal that suits an argument.
CREATE FUNCTION pg_temp.literal(argument text, type oid) RETURNS text LANGUAGE sql AS $$
	SELECT quote_literal(coalesce(
		CASE argument WHEN 'level' THEN 'reader' WHEN 'schedule' THEN '* * * * *' WHEN 'status' THEN 'away'
			WHEN 'announce' THEN 'counts' WHEN 'stream' THEN 'presence_status' END,
		CASE type::regtype::text
			WHEN 'text' THEN 'x' WHEN 'text[]' THEN '{x,y}' WHEN 'jsonb' THEN '{"a": 1}'
			WHEN 'jsonb[]' THEN '{"{}",NULL}' WHEN 'double precision' THEN '5' WHEN 'integer' THEN '5'
			WHEN 'bigint' THEN '5' WHEN 'boolean' THEN 'true' WHEN 'regrole' THEN 'presence_test_literal'
			WHEN 'timestamp with time zone' THEN 'infinity' END))
$$;

-- Why a function cannot be called with untyped literals; NULL when it can.
CREATE FUNCTION pg_temp.complaint(f functions) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SELECT * FROM %I.%I(%s)', f.nspname, f.name,
		(SELECT string_agg(pg_temp.literal(a, t), ', ' ORDER BY i)
		 FROM unnest(f.arguments, f.types) WITH ORDINALITY AS u (a, t, i)));
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;

-- The types that the server infers for parameters of unknown type.
CREATE FUNCTION pg_temp.inferred(f functions) RETURNS oid[] LANGUAGE plpgsql AS $$
DECLARE
	result oid[];
BEGIN
	EXECUTE format('PREPARE literal_probe AS SELECT * FROM %I.%I(%s)', f.nspname, f.name,
		(SELECT string_agg('$' || i, ', ' ORDER BY i) FROM generate_series(1, f.pronargs) i));
	SELECT parameter_types::oid[] INTO result FROM pg_prepared_statements WHERE name = 'literal_probe';
	DEALLOCATE literal_probe;
	RETURN result;
END
$$;

SELECT is(pg_temp.complaint(f),
	CASE WHEN name = 'presence_schedule_pruning' THEN '0A000 pg_cron is not installed in this database'
		WHEN name ~ '^presence_((set|get|clear)_state|cursor|typing)' AND NOT pg_temp.preloaded()
		THEN '55000 presence keeps no short-lived state on this server'
		WHEN name ~ '^presence_(hold|release)' AND NOT pg_temp.preloaded()
		THEN format('55000 %s() needs presence in shared memory', name)
		WHEN name ~ '^presence_touch' AND NOT pg_temp.preloaded()
		THEN '55000 a time to live needs presence in shared memory' END,
	format('%s with %s literals', name, pronargs))
FROM functions f WHERE pronargs > 0 ORDER BY name;

-- oidvector counts from 0, newly built arrays from 1
SELECT is(pg_temp.inferred(f), types[0:], format('%s with %s parameters', name, pronargs))
FROM (SELECT f.oid, name, pronargs, ARRAY(SELECT unnest(types)) AS types, arguments, nspname FROM functions f) f
WHERE pronargs > 0 ORDER BY name;

SELECT finish();
ROLLBACK;
