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
#
# Beside a throughput stands what an operation cost the server in CPU, user and
# system time: of the backends, and after a "+" of the worker that announced it.
# A neighbour on the machine takes throughput away, but hardly CPU: so the ratio
# that counts is one of CPU wherever it can be.

set -o pipefail

# Rounds of a contest, set by each group anew: the more there are, the less a
# busy neighbour decides it.
rounds() { ROUNDS=${PRESENCE_BENCH_ROUNDS:-$1}; }

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
	printf '   %-10s %-68s %s%s%s\n' "$1" "$2" "$6" "${7/#x/x}" "$reached"
}

# A row that could not be measured is not left out in silence.
skipped() { # group what why
	row "$1" "$2" "" "" "" "" "skipped: $3"
}

# Three significant digits.
short() { awk -v x="$1" 'BEGIN { printf((x >= 100 ? "%.0f" : "%.3g"), x) }'; }

sum() { printf '%s\n' "$@" | awk '{ s += $1 } END { printf "%.3f", s }'; }

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
	for name in batches crowd latency listen redis_storm steady; do
		gcc -O2 -D_GNU_SOURCE -Wall -Wextra -I"$(pg_config --includedir)" \
			-o "$CLIENTS/$name" "bench/$name.c" "$libpq" >>"$log" 2>&1 ||
			fail "$log" "building bench/$name.c failed"
	done
	for name in slow_flush nothing; do
		gcc -O2 -Wall -Wextra -Wno-unused-parameter -shared -fPIC -I"$(pg_config --includedir-server)" \
			-o "$CLIENTS/$name.so" "bench/$name.c" >>"$log" 2>&1 ||
			fail "$log" "building bench/$name.c failed"
	done
}

# Start a server for measuring: durable as in production, large enough that
# neither checkpoints nor autovacuum nor a full registry get in the way.  More
# settings on standard input; "bench_server NAME none" is one without presence.
bench_server() { # name [none]
	{
		cat <<-EOF2
			fsync = on
			shared_buffers = 512MB
			max_connections = 400
			max_wal_size = 16GB
			checkpoint_timeout = 1h
			autovacuum = off
			presence.max_channels = 1100000
			presence.max_age = 1h
		EOF2
		[ "${2-}" = none ] || echo "shared_preload_libraries = 'presence'"
		cat
	} | start_server "$1"
	rm -f "$WORK/tmp/connect.$PGPORT".*
	psql_quietly -c "CREATE ROLE listener LOGIN"
}

# A database with presence and its peers.
create_presence() {
	psql_quietly -c "CREATE EXTENSION presence" -c "SELECT presence_grant('listener', 'reader')" \
		-c "CREATE FUNCTION public.nothing(text) RETURNS boolean LANGUAGE c VOLATILE
			COST 1000 AS '$CLIENTS/nothing'" -f bench/sql/peers.sql
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
	PGUSER=listener "$CLIENTS/listen" drain "$@" &
	LISTENER=$!
}

stop_listener() {
	[ -z "$LISTENER" ] || { kill "$LISTENER"; wait "$LISTENER" 2>/dev/null; LISTENER=; }
}

# ------------------------------------------------------------------------ CPU

# Microseconds of CPU, user and system, that the children of a server have used
# so far: client backends, presence workers, listeners (backends of the role
# "listener"), helpers (checkpointer and the like), and those that have ended.
# The clients of a turn have ended, or are about to, where it is over.
server_cpu() {
	local postmaster try

	read -r postmaster <"$PGHOST/.s.PGSQL.$PGPORT.lock"
	for try in {1..20}; do
		{ cat "/proc/$postmaster/stat" /proc/[0-9]*/stat "/proc/$postmaster/stat" 2>/dev/null || true; } |
			awk -v postmaster="$postmaster" -v tick="$((1000000 / $(getconf CLK_TCK)))" \
				-f bench/cpu.awk && return
	done
	die "no quiet moment to read what the server has used (try $try)"
}

# What has been used since a reading, column by column.
cpu_since() { # reading
	echo "$1 $(server_cpu)" | awk '{ print $6 - $1, $7 - $2, $8 - $3, $9 - $4, $10 - $5 }'
}

# Run a client that says "ready" when it is connected, begins at a SIGUSR1,
# prints what it measured, and then waits to be ended.  Sets TOLD to what it
# printed, and USED to what the server has used meanwhile (cpu_since).
run_client() { # program, arguments
	start_client "$@"
	end_client TERM
}

# The same, but the client is still there, and so are its sessions.
# shellcheck disable=SC2034
start_client() { # program, arguments
	local before

	launch_client "$@"
	before=$(server_cpu) || exit 1
	kill -USR1 "$CLIENT"
	await_lines 2
	USED=$(cpu_since "$before") || exit 1
	TOLD=$(tail -n 1 "$WORK/tmp/client")
}

# Start a client, and wait until it says "ready": no earlier one's word counts.
launch_client() { # program, arguments
	local program=$1

	shift
	: >"$WORK/tmp/client"
	"$CLIENTS/$program" "$@" >"$WORK/tmp/client" 2>"$WORK/log/client.log" &
	CLIENT=$!
	await_lines 1
}

end_client() { # signal
	kill -s "$1" "$CLIENT"
	wait "$CLIENT" 2>/dev/null || true
}

# Wait for so many lines of the client, for ten minutes at most.
await_lines() { # lines
	local try

	for ((try = 0; try < 12000; try++)); do
		[ "$(wc -l <"$WORK/tmp/client")" -lt "$1" ] || return 0
		kill -0 "$CLIENT" 2>/dev/null || break
		sleep 0.05
	done
	fail "$WORK/log/client.log" "a client of the benchmark did not come to its end"
}

# ---------------------------------------------------------------------- Redis

# A private Redis, in memory only; fails where there is none.
start_redis() {
	command -v redis-server >/dev/null && command -v redis-benchmark >/dev/null || return 1
	redis-server --port 0 --unixsocket "$WORK/socket/redis" --save '' --appendonly no \
		--dir "$WORK/tmp" >"$WORK/log/redis.log" 2>&1 &
	REDIS=$!
	for _ in {1..50}; do
		redis-cli -s "$WORK/socket/redis" ping >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	return 1
}

stop_redis() { kill "$REDIS"; wait "$REDIS" 2>/dev/null; }

# Microseconds of CPU that Redis has used so far.
redis_cpu() {
	redis-cli -s "$WORK/socket/redis" info cpu | tr -d '\r' |
		awk -F: '/^used_cpu_(user|sys):/ { s += $2 * 1000000 } END { printf "%.0f\n", s }'
}

# What an operation has used since a reading.
redis_cpu_since() { # reading, operations
	awk -v before="$1" -v after="$(redis_cpu)" -v n="$2" 'BEGIN { printf "%.3f\n", (after - before) / n }'
}

# ------------------------------------------------------------------- contests

# A turn of pgbench with as many transactions as go into its seconds.  Clients
# connect in them, too: a turn in which most could not is done again, longer.
tps() { # clients, script, options
	local clients=$1 script=$2 seconds score

	shift 2
	for seconds in 1 4 16; do
		score=$(turn_of "$clients" "$script" "-T $((seconds * $(turn "$clients")))" "$@") || exit 1
		[ "${score##* }" -lt $((10 * clients)) ] || break
	done
	echo "$score"
}

# A turn of pgbench.  Prints transactions a second, microseconds of CPU a
# transaction without what the connections took to begin, transactions.
turn_of() { # clients, script, how much, options
	local clients=$1 script=$2 amount=$3 log=$WORK/log/pgbench.log begin used

	shift 3
	begin=$WORK/tmp/connect.$PGPORT.$script
	[ -s "$begin" ] || clients_cpu 5 "$script" -t 1 "$@" | awk '{ print $1 / 5 }' >"$begin" || exit 1
	# shellcheck disable=SC2086
	used=$(clients_cpu "$clients" "$script" $amount "$@") || exit 1
	awk -v used="$used" -v begin="$clients" -v each="$(cat "$begin")" '
		/^number of transactions actually processed/ { sub(/.*: /, ""); done = $1 + 0 }
		/^tps/ { tps = $3 }
		END { print tps + 0, (used - begin * each) / (done > begin ? done - begin : 1), done + 0 }' "$log"
}

# Run pgbench.  Prints the CPU of the backends of its clients, all in all.
clients_cpu() { # clients, script, options
	local clients=$1 script=$2 log=$WORK/log/pgbench.log before

	shift 2
	before=$(server_cpu) || exit 1
	pgbench -n -M prepared -c "$clients" -j "$((clients < $(nproc) ? clients : $(nproc)))" \
		-f "bench/sql/$script.sql" "$@" >"$log" 2>&1 ||
		fail "$log" "pgbench failed: $script"
	grep -q 'number of failed transactions: 0 ' "$log" || [ "$PG_MAJOR" -lt 15 ] ||
		fail "$log" "transactions failed: $script"
	cpu_since "$before" | awk '{ print $1 + $5 }'
}

# A turn that is over when everything has been announced.  Prints what it
# prints, and microseconds of CPU of the worker a transaction.
announced() { # command
	local before score used

	before=$(server_cpu) || exit 1
	score=$("$@") || exit 1
	settle
	used=$(cpu_since "$before") || exit 1
	echo "$score $used" | awk '{ print $1, $2, $3, $5 / ($3 > 0 ? $3 : 1) }'
}

# Contestants take turns; each is a name and a command that prints a number, or
# the numbers of a turn.
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

# Columns of a score.
readonly THROUGHPUT=1 CPU=2 WORKER=4

median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# What a contestant reached in the middle of its rounds; nothing where that was
# not measured.
typical() { # name [column]
	local round

	for ((round = 1; round <= ROUNDS; round++)); do
		echo "${SCORES[$1,$round]}"
	done | awk -v c="${2:-$THROUGHPUT}" 'NF >= c { print $c }' | median
}

# The ratio of two contestants: that of each round, and the middle of these.
ratio() { # name, name [column]
	local round

	for ((round = 1; round <= ROUNDS; round++)); do
		echo "${SCORES[$1,$round]}" "/" "${SCORES[$2,$round]}" | awk -v c="${3:-$THROUGHPUT}" '
			{ for (i = 1; $i != "/"; i++); a = $c; b = $(i + c); printf "%.3f\n", (b > 0 ? a / b : 0) }'
	done | median
}

# A contestant's throughput, and the CPU beside it.
score_of() { # name
	local cpu worker

	cpu=$(typical "$1" $CPU)
	worker=$(typical "$1" $WORKER)
	echo "$(short "$(typical "$1")")/s${cpu:+, $(short "$cpu")${worker:+ + $(short "$worker")} µs}"
}

# A row from a contest: the ratio of throughputs.
row_of() { # group what ours beside theirs [sense goal]: names of contestants
	row "$1" "$2" "$(score_of "$3")" "$4" "$(score_of "$5")" "$(ratio "$3" "$5")" x "${6-}" "${7-}"
}

# A row from a contest: the ratio of the backends' CPU, of ours to theirs for a
# goal of at most, of theirs to ours for one of at least.
cpu_row_of() { # group what ours beside theirs [sense goal]: names of contestants
	local value

	if [ "${6-}" = ">=" ]; then value=$(ratio "$5" "$3" $CPU); else value=$(ratio "$3" "$5" $CPU); fi
	row "$1" "$2: CPU" "$(score_of "$3")" "$4" "$(score_of "$5")" "$value" x "${6-}" "${7-}"
}
