# shellcheck shell=bash
#
# What a server pays day in, day out: 100,000 channels in 1,000 rooms, held by
# 10 gateways that send their heartbeats as an array every 20 seconds; 100 joins
# and 100 leaves a second; 5 listeners.  Beside it the same work by hand: an
# UPDATE of a column, a trigger that sends NOTIFY, a job that deletes every 30
# seconds (as pg_cron would) who was silent for a minute.

readonly JOIN_STEADY="presence_add(\$1, \$2, \$3)"
readonly BEAT_BY_HAND="UPDATE peer.presences SET last_seen = now() WHERE channel_name = ANY (\$1::text[])"
readonly JOIN_BY_ROW="INSERT INTO peer.presences (room, channel_name, user_id) VALUES (\$1, \$2, \$3)
	ON CONFLICT (room, channel_name) DO UPDATE SET last_seen = excluded.last_seen"
readonly LEAVE_BY_ROW="DELETE FROM peer.presences WHERE channel_name = \$1"
readonly JOB_BY_HAND="DELETE FROM peer.presences WHERE last_seen < now() - interval '60 s'"

# The 100,000, as old as this moment.
enlist() { # table
	psql_quietly -c "SET session_replication_role = replica" \
		-c "INSERT INTO $1 (room, channel_name, user_id)
			SELECT 'room-' || n % 1000, 'channel-000000000000-' || 1000000000000000000 + n, 'user-' || n
			FROM generate_series(0, 99999) n" -c "VACUUM ANALYZE $1" -c CHECKPOINT
	settle
}

# One contestant's day.  Sets USED and TOLD (as run_client does), PLACE (bytes of
# the table) and WAL (bytes an hour).
day() { # table, seconds, arguments of the client
	local table=$1 seconds=$2 from

	shift
	enlist "$table"
	from=$(ask "SELECT pg_current_wal_flush_lsn()")
	run_client steady "$@"
	WAL=$(wal_an_hour "$seconds" "$from" "$(ask "SELECT pg_current_wal_flush_lsn()")")
	PLACE=$(ask "SELECT pg_total_relation_size('$table')")
	psql_quietly -c "TRUNCATE $table"
}

# WAL between two places as bytes an hour: its records, and with a checkpoint
# each 5 minutes the images of pages that follow one, as here.
wal_an_hour() { # seconds, from, to
	pg_waldump -p "$WORK/steady/pg_wal" --stats -s "$2" -e "$3" 2>/dev/null |
		awk -v s="$1" '/^Total/ { gsub(/\[[^]]*\]/, ""); printf "%.0f\n", $3 * 3600 / s + $4 * 12 }'
}

# Percent of a core, of some columns of USED.
core() { # used, seconds, columns
	echo "$1" | awk -v s="$2" -v columns="$3" '{
		n = split(columns, c, " "); for (i = 1; i <= n; i++) t += $c[i]; printf "%.2f\n", t / s / 10000 }'
}

cores_of() { # used, seconds
	echo "$(core "$1" "$2" "1 2 3 4 5") % (backends $(core "$1" "$2" 1), worker $(core "$1" "$2" 2), \
listeners $(core "$1" "$2" 3), autovacuum $(core "$1" "$2" 5), others $(core "$1" "$2" 4))"
}

megabytes() { awk -v b="$1" 'BEGIN { printf "%.0f", b / 1e6 }'; }

group_steady() {
	local seconds used told wal place

	seconds=$(either 30 120)
	bench_server steady <<-EOF2
		autovacuum = on
		presence.max_age = 60s
	EOF2
	create_presence
	day presence.presences "$seconds" presence_changed "SELECT presence_touch_many(\$1)" \
		"SELECT $JOIN_STEADY" "SELECT presence_leave_all(\$1)" ""
	used=$USED told=$TOLD wal=$WAL place=$PLACE
	day peer.presences "$seconds" peer_changed "$BEAT_BY_HAND" "$JOIN_BY_ROW" "$LEAVE_BY_ROW" "$JOB_BY_HAND"
	steady_rows
	stop_server steady
}

steady_rows() {
	local p50 p99 max changes lost peer50 peer99 peer_max peer_lost cpu

	read -r p50 p99 max changes lost <<<"$told"
	read -r peer50 peer99 peer_max _ peer_lost <<<"$TOLD"
	cpu=$(core "$used" "$seconds" "1 2 3 4 5")
	row steady "server, percent of a core" "$(cores_of "$used" "$seconds")" \
		"by hand" "$(cores_of "$USED" "$seconds")" "$cpu" " %" "<=" 8
	cpu=$(echo "$used $changes" | awk '{ printf "%.0f", $2 / $6 }')
	row steady "worker's CPU a change" "$cpu µs" "" "" "$cpu" " µs" "<=" 100
	row steady "WAL an hour, a checkpoint each 5 min" "$(megabytes "$wal") MB" \
		"by hand" "$(megabytes "$WAL") MB" "$(megabytes "$wal")" " MB"
	row steady "table and indexes at the end" "$(megabytes "$place") MB" \
		"by hand" "$(megabytes "$PLACE") MB" "$(megabytes "$place")" " MB"
	row steady "commit to delivered: p50" "$p50 ms" "by hand" "$peer50 ms" "$p50" " ms"
	row steady "commit to delivered: p99" "$p99 ms (max $max, lost $lost)" \
		"by hand" "$peer99 ms (max $peer_max, lost $peer_lost)" "$p99" " ms"
}
