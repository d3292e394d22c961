# shellcheck shell=bash
#
# Heartbeats against a statement that does nothing, against an UPDATE, against
# Redis; and what they leave behind.  The CPU of Redis is its own.

readonly HEARTS=100000

hearts() { # clients, script
	tps "$1" "$2" -D channels=$HEARTS -D ready=0 -D names=0
}

# As many in each turn, for their CPU.
priced_hearts() { # script
	turn_of 4 "$1" "-t $(either 10000 25000)" -D channels=$HEARTS
}

# A thousand names a call: names a second.
hearts_many() {
	hearts 16 touch_many | awk '{ print $1 * 1000, $2 / 1000, $3 * 1000 }'
}

# Heartbeats of 16,000 members of 40 bytes in one sorted set: as many as 16
# gateways with a thousand sockets each.  "score" 0 is Redis's own benchmark,
# which never moves a member; a heartbeat's score is its time and moves it.
zadd() { # pipeline, requests, score
	local before

	before=$(redis_cpu)
	redis-benchmark -s "$WORK/socket/redis" -c 16 -P "$1" -n "$2" -r 16000 --csv \
		ZADD hearts "$3" channel-0000000000000000000:__rand_int__ 2>/dev/null |
		awk -F'"' 'END { printf "%s ", $4 }'
	redis_cpu_since "$before" "$2"
}

group_heartbeat() {
	local redis=() requests

	rounds "$(either 3 7)"
	bench_server heartbeat </dev/null
	create_presence
	populate presence.presences $HEARTS
	populate peer.presences $HEARTS
	settle
	requests=$(either 60000 240000)
	if start_redis; then
		redis=("zadd=zadd 1 $requests __rand_int__" "zadd100=zadd 100 $((requests * 8)) __rand_int__"
			"still100=zadd 100 $((requests * 12)) 0")
	fi
	contest "select=priced_hearts select_1" "nothing=priced_hearts nothing" "touch=priced_hearts touch"
	cpu_row_of heartbeat "touch, 4 clients" touch "empty C function" nothing ">=" 0.9
	cpu_row_of heartbeat "touch, 4 clients" touch "SELECT 1" select
	contest "select=hearts 16 select_1" "touch=hearts 16 touch" "update=hearts 16 peer_touch" \
		"many=hearts_many" "${redis[@]}"

	row_of heartbeat "touch, 16 clients" touch "SELECT 1" select
	row_of heartbeat "touch, 16 clients" touch "UPDATE by hand" update
	row_of heartbeat "touch_many(1000), names" many "SELECT 1" select
	row_of heartbeat "touch_many(1000), names" many "UPDATE by hand" update
	if [ ${#redis[@]} -gt 0 ]; then
		row_of heartbeat "touch" touch "Redis ZADD" zadd
		row_of heartbeat "touch_many(1000), names" many "Redis ZADD, pipelined by 100" zadd100 ">=" 2
		row_of heartbeat "touch_many(1000), names" many "the same, score never changes" still100 ">=" 2
		stop_redis
	else
		skipped heartbeat "touch against Redis" "no redis-server here"
		skipped heartbeat "touch_many(1000) against Redis, pipelined" "no redis-server here"
	fi
	leavings
	memory
	stop_server heartbeat
}

# WAL and row versions of 100,000 heartbeats.
wal_of() { # script
	local before

	psql_quietly -c CHECKPOINT
	before=$(ask "SELECT pg_current_wal_insert_lsn()")
	pgbench -n -M prepared -c 10 -j 2 -t 10000 -D channels=$HEARTS \
		-f "bench/sql/$1.sql" >"$WORK/log/pgbench.log" 2>&1 || die "pgbench failed: $1"
	ask "SELECT pg_current_wal_insert_lsn() - '$before'"
}

versions_of() { # table
	ask "SELECT pg_stat_force_next_flush()" >/dev/null
	ask "SELECT n_tup_upd + n_tup_hot_upd * 0 FROM pg_stat_user_tables WHERE relid = '$1'::regclass"
}

leavings() {
	local ours theirs ours_rows theirs_rows

	# Backends report what they did as they end, and a second at the latest.
	sleep 1.5
	ours_rows=$(versions_of presence.presences)
	theirs_rows=$(versions_of peer.presences)
	ours=$(wal_of touch)
	theirs=$(wal_of peer_touch)
	sleep 1.5
	row heartbeat "WAL of 100,000 heartbeats" "$ours B" "UPDATE by hand" "$theirs B" "$ours" " B" "<=" 0
	row heartbeat "dead row versions of 100,000 heartbeats" \
		"$(($(versions_of presence.presences) - ours_rows))" "UPDATE by hand" \
		"$(($(versions_of peer.presences) - theirs_rows))" \
		"$(($(versions_of presence.presences) - ours_rows))" "" "<=" 0
}

memory() {
	local bytes

	bytes=$(ask "SELECT round(sum(allocated_size) / current_setting('presence.max_channels')::numeric, 1)
		FROM pg_shmem_allocations WHERE name = 'presence registry'")
	row heartbeat "memory a channel, names of 40 bytes" "$bytes B" "" "" "$bytes" " B" "<=" 128
}
