# shellcheck shell=bash
#
# Transactions that have nothing to do with presence: with the library loaded,
# with presence at work beside, with the hand-written peer at work beside.

readonly BEATS=2000 JOINS=300		# a second, of whoever works beside

# Throughput alone: the CPU would be that of the work beside, too.
own() { tps 8 own_table -D scale=10 | awk '{ print $1 }'; }

own_plain() { PGPORT=5433 own; }

# The same while heartbeats and joins go on, at the same rates for both.
own_beside() { # touch script, add script
	local touch add score

	pgbench -n -M prepared -c 4 -j 1 -R $BEATS -T 60 -D channels=10000 \
		-f "bench/sql/$1.sql" >/dev/null 2>&1 &
	touch=$!
	pgbench -n -M prepared -c 4 -j 1 -R $JOINS -T 60 -D rooms=1000 \
		-f "bench/sql/$2.sql" >/dev/null 2>&1 &
	add=$!
	sleep 0.5
	score=$(own) || exit 1
	kill $touch $add
	wait $touch $add 2>/dev/null
	echo "$score"
}

group_bystander() {
	bench_server with </dev/null
	create_presence
	populate presence.presences 10000
	populate peer.presences 10000
	settle
	pgbench -i -q -s 10 >"$WORK/log/pgbench.log" 2>&1
	PGPORT=5433 bench_server without none </dev/null
	PGPORT=5433 pgbench -i -q -s 10 >"$WORK/log/pgbench.log" 2>&1
	start_listener presence_changed peer_changed

	contest "without=own_plain" "loaded=own" "ours=own_beside touch add" \
		"peer=own_beside peer_touch peer_add"
	row_of bystander "own table, presence loaded and idle" loaded "not loaded" without ">=" 0.95
	row_of bystander "own table, beside $BEATS touches/s, $JOINS joins/s" ours "not loaded" without
	row_of bystander "own table, beside $BEATS touches/s, $JOINS joins/s" ours "beside the peer's" peer ">=" 1
	stop_listener
	stop_server with
	PGPORT=5433 stop_server without
}
