-- 9. Operation ------------------------------------------------------------

CREATE FUNCTION presence_grant(role regrole, level text DEFAULT 'member')
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_grant(regrole, text) IS
	'grants a role what it needs: reader, member or admin; the joins of a gateway wait for no disk after ALTER ROLE ... SET synchronous_commit = off';

CREATE FUNCTION presence_revoke(role regrole)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_revoke(regrole) IS
	'takes back what presence_grant gave';

CREATE FUNCTION presence_start_worker()
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_start_worker() IS
	'starts the worker for this database where none runs; whether one had to be started';

CREATE FUNCTION presence_schedule_pruning(schedule text DEFAULT '* * * * *')
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_schedule_pruning(text) IS
	'has pg_cron call prune_presences and prune_rooms';

CREATE FUNCTION presence_unschedule_pruning()
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_unschedule_pruning() IS
	'takes the pg_cron jobs back; whether there were any';

CREATE FUNCTION presence.stat_row(
	OUT mode text, OUT worker_pid integer, OUT epoch text, OUT seq bigint,
	OUT channels bigint, OUT max_channels bigint, OUT queue_bytes bigint, OUT queue_size bigint,
	OUT adds bigint, OUT touches bigint, OUT leaves bigint, OUT expirations bigint,
	OUT events bigint, OUT bulk_events bigint, OUT resyncs bigint, OUT fallbacks bigint,
	OUT last_expiry_lag interval, OUT last_drain timestamptz, OUT stats_reset timestamptz,
	OUT state_entries bigint, OUT state_bytes bigint, OUT state_evictions bigint,
	OUT replay_bytes bigint, OUT held bigint)
	RETURNS record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'presence_stat_row';
COMMENT ON FUNCTION presence.stat_row() IS 'the row of presence.stats';

CREATE VIEW presence.stats AS
	SELECT s.mode, s.worker_pid, s.epoch, s.seq, s.channels, s.max_channels,
		   s.queue_bytes, s.queue_size, s.adds, s.touches, s.leaves, s.expirations,
		   s.events, s.bulk_events, s.resyncs, s.fallbacks,
		   s.last_expiry_lag, s.last_drain, s.stats_reset,
		   s.state_entries, s.state_bytes, s.state_evictions, s.replay_bytes, s.held
	FROM presence.stat_row() s;
COMMENT ON VIEW presence.stats IS 'one row: how presence works in this database, and what it has done';

CREATE FUNCTION presence_reset_stats()
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION presence_reset_stats() IS 'sets the counters of presence.stats to zero';
