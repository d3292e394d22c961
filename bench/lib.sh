# shellcheck shell=bash
#
# What the groups of the benchmark share: servers, contests, rows.
#
# A row says what was measured, what presence did, what it is measured against,
# the ratio or value that counts, and the goal.  Tab-separated on descriptor 3:
#
#     row  GROUP  WHAT  OURS  BESIDE  THEIRS  VALUE  UNIT  SENSE  GOAL
#
# VALUE with UNIT "x" is a ratio; SENSE is ">=" or "<=", GOAL a number, and both
# are empty where there is no goal.

set -o pipefail

# Rounds of a contest, set by each group anew: the more there are, the less a
# busy neighbour decides it.
rounds() { ROUNDS=$1; }

# Seconds of a turn: many clients take some to connect and to plan.
turn() { # clients
	echo $(($(either 1 2) + $1 / 32))
}

# One of two values: for a quick run, for a full one.
either() { if [ -n "$QUICK" ]; then echo "$1"; else echo "$2"; fi; }

# ----------------------------------------------------------------------- rows

about() { printf 'about\t%s\n' "$*" >&3; say "$*"; }

row() { # group what ours beside theirs value unit [sense goal]
	local IFS=$'\t' reached=

	printf 'row\t%s\n' "$*" >&3
	[ -z "${9-}" ] || reached=" (goal $8 $9)"
	printf '   %-10s %-58s %s%s%s\n' "$1" "$2" "$6" "${7/#x/x}" "$reached"
}

# A row that could not be measured is not left out in silence.
skipped() { # group what why
	row "$1" "$2" "" "" "" "" "skipped: $3"
}

# Three significant digits.
short() { awk -v x="$1" 'BEGIN { printf((x >= 100 ? "%.0f" : "%.3g"), x) }'; }

# Tell why, past whoever reads the output, and end.
fail() { # log, message
	show_tail "$1" >&2
	die "$2"
}

# -------------------------------------------------------------------- servers

# The programs of the benchmark, against the libpq that psql uses.
build_clients() {
	local libpq name log=$WORK/log/clients.log

	libpq=$(ldd "$(command -v psql)" | awk '/libpq\.so/ { print $3 }')
	CLIENTS=$WORK/clients
	mkdir -p "$CLIENTS"
	for name in latency listen; do
		gcc -O2 -D_GNU_SOURCE -Wall -Wextra -I"$(pg_config --includedir)" \
			-o "$CLIENTS/$name" "bench/$name.c" "$libpq" >>"$log" 2>&1 ||
			fail "$log" "building bench/$name.c failed"
	done
	gcc -O2 -Wall -Wextra -shared -fPIC -o "$CLIENTS/slow_flush.so" bench/slow_flush.c \
		>>"$log" 2>&1 || fail "$log" "building bench/slow_flush.c failed"
}

# Start a server for measuring: durable as in production, large enough that
# neither checkpoints nor a full registry get in the way.  More settings on
# standard input; "bench_server NAME none" is one without presence.
bench_server() { # name [none]
	{
		cat <<-EOF2
			fsync = on
			shared_buffers = 512MB
			max_connections = 400
			max_wal_size = 16GB
			checkpoint_timeout = 1h
			presence.max_channels = 1100000
			presence.max_age = 1h
		EOF2
		[ "${2-}" = none ] || echo "shared_preload_libraries = 'presence'"
		cat
	} | start_server "$1"
}

# A database with presence and its peers.
create_presence() {
	psql_quietly -c "CREATE EXTENSION presence" -f bench/sql/peers.sql
}

psql_quietly() { # options of psql
	psql -XqAt -v ON_ERROR_STOP=1 "$@" >/dev/null 2>>"$WORK/log/psql.log" ||
		fail "$WORK/log/psql.log" "psql failed"
}

ask() { psql -XAtq -v ON_ERROR_STOP=1 -c "$1"; }

# Give a table so many channels: a hundred a room.
populate() { # table, channels
	psql_quietly -c "INSERT INTO $1 (room, channel_name, user_id)
		SELECT 'room-' || n / 100, 'channel-000000000000-' || 1000000000000000000 + n, 'user-' || n
		FROM generate_series(0, $2 - 1) n" -c "VACUUM ANALYZE $1"
	psql_quietly -c CHECKPOINT
}

# Wait until the worker has told everything.
settle() {
	local try

	for try in {1..300}; do
		[ "$(ask "SELECT queue_bytes = 0 AND worker_pid IS NOT NULL FROM presence.stats")" = t ] && return
		sleep 0.1
	done
	die "the worker did not come to rest in 30 seconds (try $try)"
}

# Empty the tables of all contestants, as before the first turn.
empty_tables() {
	psql_quietly -c "TRUNCATE presence.presences, bare.presences, peer.presences" \
		-c "VACUUM ANALYZE presence.presences, bare.presences, peer.presences" -c CHECKPOINT
	settle
}

# A gateway that listens, so that notifications have somewhere to go.
LISTENER=
start_listener() { # channels
	"$CLIENTS/listen" drain "$@" &
	LISTENER=$!
}

stop_listener() {
	[ -z "$LISTENER" ] || { kill "$LISTENER"; wait "$LISTENER" 2>/dev/null; LISTENER=; }
}

# ------------------------------------------------------------------- contests

# Transactions a second of a pgbench script; more options may follow.
tps() { # clients, script, options
	local clients=$1 script=$2 log=$WORK/log/pgbench.log

	shift 2
	pgbench -n -M prepared -c "$clients" -j "$((clients < $(nproc) ? clients : $(nproc)))" \
		-T "$(turn "$clients")" -f "bench/sql/$script.sql" "$@" >"$log" 2>&1 ||
		fail "$log" "pgbench failed: $script"
	grep -q 'number of failed transactions: 0 ' "$log" || [ "$PG_MAJOR" -lt 15 ] ||
		fail "$log" "transactions failed: $script"
	awk '/^tps/ { print $3 }' "$log"
}

# Contestants take turns; each is a name and a command that prints a number.
declare -A SCORES
contest() { # name=command ...
	local round contestant name score

	SCORES=()
	for ((round = 1; round <= ROUNDS; round++)); do
		for contestant in "$@"; do
			name=${contestant%%=*}
			score=$(${contestant#*=}) || exit 1
			SCORES[$name,$round]=$score
		done
	done
}

median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# What a contestant reached in the middle of its rounds.
typical() { # name
	local round

	for ((round = 1; round <= ROUNDS; round++)); do
		echo "${SCORES[$1,$round]}"
	done | median
}

# The ratio of two contestants: that of each round, and the middle of these.
ratio() { # name, name
	local round

	for ((round = 1; round <= ROUNDS; round++)); do
		awk -v a="${SCORES[$1,$round]}" -v b="${SCORES[$2,$round]}" \
			'BEGIN { printf "%.3f\n", (b > 0 ? a / b : 0) }'
	done | median
}

# A row from a contest.
row_of() { # group what ours beside theirs [sense goal]: names of contestants
	row "$1" "$2" "$(short "$(typical "$3")")/s" "$4" "$(short "$(typical "$5")")/s" \
		"$(ratio "$3" "$5")" x "${6-}" "${7-}"
}
