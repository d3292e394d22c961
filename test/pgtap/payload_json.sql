-- Proves: payloads contain jsonb exactly as its output function writes it, or not at all where it is too long; and the
-- cost of checking that is bounded by the limit.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

CREATE FUNCTION pg_temp.write_json(value jsonb, max_bytes integer) RETURNS text
	STRICT LANGUAGE c AS 'presence', 'presence_test_write_json';

CREATE TEMPORARY TABLE samples (id int GENERATED ALWAYS AS IDENTITY, value jsonb NOT NULL);
INSERT INTO samples (value) VALUES ('null'), ('true'), ('false'), ('0'), ('-0.0'), ('1.50'), ('-12345678901234567890.0000'), ('1e20'), ('-1e20'),
	('1e-20'), ('2e131000'), ('-2e131000'), ('1e-16000'), ('""'), ('"a"'), (to_jsonb(E'\x01\x1f\b\f\n\r\t"\\/'::text)),
	('"\u00e4\u20ac\ud834\udd1e\u007f"'), ('[]'), ('{}'), ('[[]]'), ('[{}]'), ('{"a": {}}'), ('{"a": []}'), ('{"": ""}'), ('[[], [], {}, {}, []]'),
	('[null, true, 1, "x", [1, [2, [3]]], {"a": {"b": {"c": [{}]}}}]'), ('{"b": 1, "aa": [1, 2, {"x": null}], "a\"\\": "\n", "\u20ac": -1.5}'),
	('["]", "}", ", ", "[null]"]'), (to_jsonb(repeat('x', 100000))), (to_jsonb(repeat(E'\n', 1000))),
	((repeat('[', 1000) || repeat(']', 1000))::jsonb), ((repeat('{"a":', 1000) || '1' || repeat('}', 1000))::jsonb);
INSERT INTO samples (value) SELECT jsonb_agg(i) FROM generate_series(1, 3000) i;
INSERT INTO samples (value) SELECT jsonb_object_agg('key ' || i, jsonb_build_array(i, i / 7.0, NULL, i % 2 = 0, repeat('"', i % 9))) FROM generate_series(1, 500) i;

-- Random values, each built from those before it.
SELECT setseed(0.4);
DO $$
BEGIN
	FOR round IN 1..6 LOOP
		INSERT INTO samples (value)
		SELECT CASE WHEN i % 2 = 0 THEN jsonb_agg(value) ELSE jsonb_object_agg(left(value::text, 20), value) END
		FROM (SELECT i, s.value FROM generate_series(1, 60) i, LATERAL (
			SELECT value FROM samples WHERE i IS NOT NULL AND octet_length(value::text) < 2000 ORDER BY random() LIMIT (random() * 5)::int + 1) s) p
		GROUP BY i;
	END LOOP;
END
$$;
SELECT cmp_ok((SELECT count(*) FROM samples), '>', 350::bigint, 'there are many samples');

CREATE TEMPORARY TABLE texts AS SELECT id, value, value::text AS text, octet_length(value::text) AS bytes FROM samples;
SELECT is_empty($$SELECT id FROM texts WHERE pg_temp.write_json(value, 1000000) IS DISTINCT FROM text$$,
	'each is written as its output function writes it');
SELECT is_empty($$SELECT id FROM texts WHERE pg_temp.write_json(value, bytes) IS DISTINCT FROM text$$, 'also where it just fits');
SELECT is_empty($$SELECT id FROM texts WHERE pg_temp.write_json(value, bytes - 1) IS NOT NULL$$, 'with one byte less it does not');
SELECT is_empty($$SELECT id FROM texts, generate_series(0, 50, 7) part WHERE pg_temp.write_json(value, bytes * part / 51) IS NOT NULL$$, 'nor with much less');

-- Numbers of few bytes with many digits. All texts here together would be 14 GB.
SET LOCAL statement_timeout = '60s';
CREATE TEMPORARY TABLE huge AS
	SELECT ('{"list": [' || repeat(number || ',', 50000) || '1]}')::jsonb AS value FROM (VALUES ('1e131000'), ('-1e131000'), ('1e-16000')) AS n (number);
SELECT is(pg_temp.write_json(value, 7999), NULL, 'a list of numbers that are too long') FROM huge;
SELECT is(pg_temp.error_of(format('SELECT presence_broadcast(%L, %L, (SELECT value FROM huge LIMIT 1 OFFSET %s))', 'r', 'e', i)),
	'54000 broadcast is too large | The notification would have more than the 7935 bytes that are possible. | '
	'Store the payload in a table and broadcast its key.', 'is no broadcast') FROM generate_series(0, 2) i;

SELECT finish();
ROLLBACK;
