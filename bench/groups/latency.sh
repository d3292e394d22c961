# shellcheck shell=bash
#
# From commit to delivery, at rising rates and with more listeners, with the
# settings as they come.

readonly JOIN_BY_US="SELECT presence_add(\$1, \$2, \$3, '{\"name\":\"Alice\"}')"
readonly JOIN_BY_HAND="INSERT INTO peer.presences (room, channel_name, user_id, meta)
	VALUES (\$1, \$2, \$3, '{\"name\":\"Alice\"}')"

# Prints p50, p95, p99, maximum (ms), rate achieved, deliveries lost, CPU of the
# server a join, all in all: backends, worker, listeners.
deliver() { # rate, listeners, channel, statement
	local seconds

	seconds=$(either 2 5)
	empty_tables
	sleep 0.3
	run_client latency "$1" "$seconds" "$2" "$3" "$4"
	echo "$TOLD $USED" | awk -v joins=$(($1 * seconds)) '{ $7 = ($7 + $8 + $9 + $11) / joins; print }'
}

# At a low rate it is what sessions take to begin.
cpu_beside() { # rate, CPU
	[ "$1" -lt 500 ] || echo ", $(short "$2") µs"
}

latency_row() { # rate, listeners, p50 goal, p99 goal
	local p50 p95 p99 max rate lost cpu peer50 peer99 peer_rate peer_cpu result
	local what="commit to delivered, $1 joins/s, $2 listener(s)"

	result=$(deliver "$1" "$2" presence_changed "$JOIN_BY_US") || exit 1
	read -r p50 p95 p99 max rate lost cpu _ <<<"$result"
	result=$(deliver "$1" "$2" peer_changed "$JOIN_BY_HAND") || exit 1
	read -r peer50 _ peer99 _ peer_rate _ peer_cpu _ <<<"$result"
	what=${what/, 20 joins/, idle: 20 joins}
	row latency "$what: p50" "$p50 ms at $rate/s$(cpu_beside "$1" "$cpu")" "NOTIFY trigger" \
		"$peer50 ms at $peer_rate/s$(cpu_beside "$1" "$peer_cpu")" "$p50" " ms" ${3:+"<=" "$3"}
	row latency "$what: p99" "$p99 ms (p95 $p95, max $max, lost $lost)" "NOTIFY trigger" "$peer99 ms" "$p99" " ms" ${4:+"<=" "$4"}
}

group_latency() {
	bench_server latency </dev/null
	create_presence
	latency_row 20 1 1 ""
	[ -n "$QUICK" ] || latency_row 100 1 "" ""
	latency_row 1000 1 "" ""
	latency_row 5000 1 2 15
	[ -n "$QUICK" ] || latency_row 1000 10 "" ""
	latency_row 5000 10 2 15
	latency_row 500 100 2 15
	latency_row 5000 100 "" ""
	stop_server latency
}
