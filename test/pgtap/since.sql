-- Proves what presence_since answers to arguments that are no position, and who may ask it; 078_since.pl proves the rest.
BEGIN;
\ir lib/helpers.psql
SELECT no_plan();

SELECT is(pg_temp.state_of($$SELECT presence_since('e', 1, 'presence_state')$$), '22023', 'a stream whose events have no numbers');
SELECT is(pg_temp.state_of($$SELECT presence_since('e', 1, '')$$), '22023', 'an empty name');
SELECT matches(pg_temp.error_of($$SELECT presence_since('e', 1, 'presence_state')$$),
	'argument "stream" must be presence_changed, presence_status or presence_broadcast', 'the error names the streams');
SELECT is(pg_temp.state_of($$SELECT presence_since('e', 1, NULL)$$), '22004', 'no stream');

-- Whatever is no position: one resync of all rooms.
SELECT is((SELECT jsonb_agg(e - 'epoch' - 'seq') FROM presence_since(epoch, seq, stream) e),
	'[{"event": "resync", "room": null, "added": null, "removed": null, "bulk_change": true, "user_joined": false,
	"user_left": false, "connections": null, "users": null, "anonymous": null}]',
	format('a resync after %s of epoch %s on %s', coalesce(seq::text, 'NULL'), coalesce(epoch, 'NULL'), stream))
FROM unnest(ARRAY['presence_changed', 'presence_status', 'presence_broadcast']) stream,
	(VALUES (NULL, 1::bigint), ('', 1), ('nonsense', 1), ('0000000000000000', 1), (repeat('f', 100000), 0), ('nonsense', NULL)) p (epoch, seq);
SELECT is((SELECT jsonb_agg(e - 'epoch' - 'seq') FROM presence_since((SELECT s ->> 'epoch' FROM presence_since(NULL, NULL) s), seq) e)
	#>> '{0,event}', 'resync', 'and after number ' || coalesce(seq::text, 'NULL') || ' of this epoch')
FROM (VALUES (-1::bigint), (-9223372036854775808), (9223372036854775807), (NULL)) p (seq);
SELECT is((SELECT (s ->> 'epoch' IS NOT NULL, s ->> 'seq' IS NOT NULL)::text FROM presence_since(NULL, NULL) s),
	CASE WHEN pg_temp.preloaded() THEN '(t,t)' ELSE '(f,f)' END, 'a resync says from where to go on, if there are numbers');
SELECT is((SELECT count(*) FROM presence_since(NULL, NULL) a, presence_since(NULL, NULL, 'presence_status') b), 1::bigint, 'it can be joined');

-- Whoever has policies on presence.presences has no right to see all events.
CREATE ROLE presence_test_since;
SELECT presence_grant('presence_test_since', 'reader');
SET ROLE presence_test_since;
SELECT is((SELECT count(*) FROM presence_since(NULL, NULL)), 1::bigint, 'a reader may ask');
RESET ROLE;
ALTER TABLE presence.presences ENABLE ROW LEVEL SECURITY;
SET ROLE presence_test_since;
SELECT is(pg_temp.state_of(format('SELECT presence_since(NULL, NULL, %L)', stream)), '42501', 'not under policies: ' || stream)
FROM unnest(ARRAY['presence_changed', 'presence_status', 'presence_broadcast']) stream;
RESET ROLE;
SELECT is((SELECT count(*) FROM presence_since(NULL, NULL)), 1::bigint, 'the owner is free of them');
ALTER TABLE presence.presences FORCE ROW LEVEL SECURITY;

SELECT finish();
ROLLBACK;
