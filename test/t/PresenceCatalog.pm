# What the extension is in the catalogs, for tests of what must not change: each
# object of it with its properties, and what its tables hold.
package PresenceCatalog;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use PresenceTest;
use Test::More;

our @EXPORT = qw(catalog changes_of);

# Lines of object, property and value. Everything that is put on a table counts
# as a property of it, so that an index more is a change of the table. Some minor
# releases count versions of columns among the options of these, even of others in
# the table than the one that is altered. From 17 on the row types of tables are
# members, too, and from 18 on NOT NULL is a constraint: both say what the columns
# say.
my $query = q{
SET LOCAL search_path = pg_catalog;
CREATE TEMP TABLE presence_catalog ON COMMIT DROP AS
WITH extension AS (
	SELECT * FROM pg_extension WHERE extname = 'presence'),
members AS MATERIALIZED (
	SELECT d.classid, d.objid, i.type || ' ' || i.identity AS object
	FROM pg_depend d JOIN extension e ON d.refobjid = e.oid AND d.refclassid = 'pg_extension'::regclass,
		LATERAL pg_identify_object(d.classid, d.objid, 0) i
	WHERE d.deptype = 'e' AND NOT EXISTS (SELECT FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem
		JOIN pg_class c ON c.oid IN (t.typrelid, e.typrelid)
		WHERE d.classid = 'pg_type'::regclass AND t.oid = d.objid AND c.relkind <> 'c')),
functions AS (
	SELECT m.object, p.*, l.lanname FROM members m JOIN pg_proc p ON p.oid = m.objid AND m.classid = 'pg_proc'::regclass
		JOIN pg_language l ON l.oid = p.prolang),
relations AS (
	SELECT m.object, c.* FROM members m JOIN pg_class c ON c.oid = m.objid AND m.classid = 'pg_class'::regclass),
types AS (
	SELECT m.object, t.* FROM members m JOIN pg_type t ON t.oid = m.objid AND m.classid = 'pg_type'::regclass),
lines (object, property, value) AS (
	SELECT object, 'identity', objid::text FROM members
	UNION ALL SELECT object, 'comment', obj_description(objid, classid::regclass::name) FROM members
	UNION ALL SELECT m.object, 'initial privileges', string_agg(concat(i.objsubid, i.initprivs), ' ' ORDER BY i.objsubid)
		FROM members m JOIN pg_init_privs i ON i.classoid = m.classid AND i.objoid = m.objid GROUP BY m.object

	UNION ALL SELECT object, 'signature', concat(pg_get_function_arguments(oid), ' RETURNS ', pg_get_function_result(oid)) FROM functions
	UNION ALL SELECT object, 'properties', concat_ws(' ', prokind, provolatile, proparallel, prosecdef, proisstrict, proleakproof,
		procost, prorows, prosupport, proconfig, lanname, probin) FROM functions
	UNION ALL SELECT object, 'body', concat(prosrc, pg_get_function_sqlbody(oid)) FROM functions
	UNION ALL SELECT object, 'owner', proowner::regrole::text FROM functions
	UNION ALL SELECT object, 'privileges', proacl::text FROM functions
	UNION ALL SELECT DISTINCT concat('functions named ', pronamespace::regnamespace, '.', proname), 'count',
		count(*) OVER (PARTITION BY pronamespace, proname)::text FROM functions

	UNION ALL SELECT object, 'properties', concat_ws(' ', relkind, relpersistence, relreplident, relrowsecurity, relforcerowsecurity,
		reloptions, reltablespace, relam) FROM relations
	UNION ALL SELECT object, 'owner', relowner::regrole::text FROM relations
	UNION ALL SELECT object, 'privileges', relacl::text FROM relations
	UNION ALL SELECT object, 'file', pg_relation_filenode(oid)::text FROM relations WHERE relkind <> 'S'
	UNION ALL SELECT object, 'children', count(*)::text FROM relations JOIN pg_inherits ON inhparent = oid GROUP BY object
	UNION ALL SELECT r.object, 'constraint ' || conname, concat_ws(' ', pg_get_constraintdef(c.oid), convalidated,
		obj_description(c.oid, 'pg_constraint')) FROM relations r JOIN pg_constraint c ON c.conrelid = r.oid
		WHERE c.contype <> 'n'
	UNION ALL SELECT r.object, 'index ' || c.relname, concat_ws(' ', pg_get_indexdef(c.oid), indisvalid, indisclustered,
		indisreplident, obj_description(c.oid, 'pg_class'))
		FROM relations r JOIN pg_index i ON i.indrelid = r.oid JOIN pg_class c ON c.oid = i.indexrelid
	UNION ALL SELECT r.object, 'trigger ' || tgname, concat_ws(' ', pg_get_triggerdef(t.oid), tgenabled,
		obj_description(t.oid, 'pg_trigger')) FROM relations r JOIN pg_trigger t ON t.tgrelid = r.oid WHERE NOT tgisinternal
	UNION ALL SELECT r.object, 'internal triggers', count(*)::text FROM relations r JOIN pg_trigger t ON t.tgrelid = r.oid
		WHERE tgisinternal GROUP BY r.object
	UNION ALL SELECT r.object, 'rule ' || rulename, concat_ws(' ', pg_get_ruledef(w.oid), ev_enabled)
		FROM relations r JOIN pg_rewrite w ON w.ev_class = r.oid
	UNION ALL SELECT r.object, 'policy ' || polname, concat_ws(' ', polcmd, polpermissive, polroles::regrole[],
		pg_get_expr(polqual, polrelid), '/', pg_get_expr(polwithcheck, polrelid))
		FROM relations r JOIN pg_policy p ON p.polrelid = r.oid
	UNION ALL SELECT r.object, 'sequence', concat_ws(' ', seqtypid::regtype, seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle)
		FROM relations r JOIN pg_sequence s ON s.seqrelid = r.oid

	UNION ALL SELECT object, 'properties', concat_ws(' ', typtype, typcategory, typlen) FROM types
	UNION ALL SELECT object, 'owner', typowner::regrole::text FROM types
	UNION ALL SELECT object, 'privileges', typacl::text FROM types

	UNION ALL SELECT o.object, 'column ' || a.attname, concat_ws(' ', attnum, format_type(atttypid, atttypmod), attnotnull,
		attidentity, attgenerated, attcollation::regcollation, attstorage, attcompression, attstattarget,
		ARRAY(SELECT o FROM unnest(attoptions) o WHERE o NOT LIKE 'pg\_attver=%'), attacl,
		pg_get_expr(d.adbin, d.adrelid), col_description(attrelid, attnum))
		FROM (SELECT object, oid FROM relations UNION ALL SELECT object, typrelid FROM types) o
		JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum > 0
		LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum

	UNION ALL SELECT object, 'owner', nspowner::regrole::text
		FROM members m JOIN pg_namespace n ON n.oid = m.objid AND m.classid = 'pg_namespace'::regclass
	UNION ALL SELECT object, 'privileges', nspacl::text
		FROM members m JOIN pg_namespace n ON n.oid = m.objid AND m.classid = 'pg_namespace'::regclass
	UNION ALL SELECT 'extension presence', 'properties', concat_ws(' ', extowner::regrole, extnamespace::regnamespace, extrelocatable,
		obj_description(oid, 'pg_extension')) FROM extension
	UNION ALL SELECT r.object, 'dump', 'rows ' || c.condition FROM extension e
		CROSS JOIN LATERAL unnest(e.extconfig, e.extcondition) AS c (oid, condition) JOIN relations r ON r.oid = c.oid)
SELECT object, property, translate(value, E'\n\t', '  ') AS value FROM lines;
SELECT format('INSERT INTO pg_temp.presence_catalog SELECT %L, %L, md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM %s t',
	i.type || ' ' || i.identity, 'rows', c.oid::regclass)
FROM pg_class c CROSS JOIN LATERAL pg_identify_object('pg_class'::regclass, c.oid, 0) i
WHERE c.relkind = 'r' AND EXISTS (SELECT FROM pg_temp.presence_catalog p WHERE p.object = i.type || ' ' || i.identity) \gexec
SELECT concat_ws(E'\t', 'catalog', object, property, value) FROM pg_temp.presence_catalog ORDER BY 1;
};

# The catalog of a database: object => property => value. Statements that are to
# come first, as those of an upgrade, are undone.
sub catalog
{
	my ($node, $db, $first) = @_;
	my %catalog;

	foreach my $line (split /\n/, $node->safe_psql($db, join("\n", 'BEGIN;', $first // '', $query, 'ROLLBACK;')))
	{
		my ($mark, $object, $property, $value) = split /\t/, $line, 4;

		$catalog{$object}{$property} = $value // '' if $mark eq 'catalog';
	}
	return \%catalog;
}

# What is no longer as it was, as "object: property". Objects may be new; what an
# old one has in addition is a change. Leaves properties out that are named.
sub changes_of
{
	my ($before, $after, @but) = @_;
	my %but = map { $_ => 1 } @but;
	my @changes;

	foreach my $object (sort keys %$before)
	{
		my ($old, $new) = ($before->{$object}, $after->{$object});
		my %properties = (%$old, %{ $new // {} });

		if (!$new)
		{
			push @changes, "$object: gone";
			next;
		}
		my @changed = grep { !$but{$_} && ($old->{$_} // "\0") ne ($new->{$_} // "\0") } sort keys %properties;
		push @changes, map { "$object: $_" } @changed;
		note("$object: $_ was " . ($old->{$_} // 'not there') . ', is ' . ($new->{$_} // 'not there')) foreach @changed;
	}
	return \@changes;
}

1;
