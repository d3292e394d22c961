# shellcheck shell=bash
#
# Listeners that were cut off: what it costs that all ask at once for what they
# have missed, beside reading a room again; and what the worker pays to keep it.

readonly MISSED=300 MEMBERS=1000

# All ask.  Prints answers a second, CPU of an answer, answers, CPU of the worker
# an answer; seconds until all had one, p50 and p99 (ms), bytes of one.
all_ask() { # statement, rows, times before
	run_client crowd "$CROWD" "$1" "$2" "$3"
	echo "$TOLD $USED" | awk -v n="$CROWD" '{
		printf "%.0f %.3f %d %.3f %s %s %s %s\n", n / $1, ($5 + $7) / n, n, $6 / n, $1, $2, $3, $4 }'
}

resume() { all_ask "SELECT * FROM presence_since($POSITION)" $MISSED "$1"; }
read_again() { all_ask "SELECT presence_snapshot('stage')" 1 "$1"; }

# A room that they know, and then events in other rooms that they miss: more of
# one room would be told as one.
miss_events() {
	psql_quietly -c "SELECT presence_add_many('stage', array_agg('channel-000000000000-' || 1000000000000000000 + n),
		array_agg('user-' || n), array_agg('{\"name\":\"Alice\"}'::jsonb)) FROM generate_series(1, $MEMBERS) n"
	settle
	psql_quietly -c "VACUUM ANALYZE presence.presences"
	POSITION=$(ask "SELECT quote_literal(epoch) || ', ' || seq FROM presence.stats")
	psql_quietly -c "SELECT presence_add('room-' || n, 'channel-000000000000-' || 2000000000000000000 + n, 'user-' || n,
		'{\"name\":\"Alice\"}') FROM generate_series(1, $MISSED) n"
	settle
	[ "$(ask "SELECT count(*) FROM presence_since($POSITION)")" = $MISSED ] || die "not all events are kept"
}

resume_rows() { # who
	local what="$CROWD listeners, $1: $MISSED events missed"
	local beside="presence_snapshot of $MEMBERS"

	cpu_row_of resume "$what" since "$beside" snapshot "<=" 1
	row resume "$what: until all have them" "$(waits_of since)" "$beside" "$(waits_of snapshot)" \
		"$(ratio since snapshot 5)" x "<=" 1
}

waits_of() { # contestant
	echo "$(short "$(typical "$1" 5)") s (p50 $(short "$(typical "$1" 6)") ms, each $(typical "$1" 8) B)"
}

# Joins that are announced one by one, by a worker that keeps what it told and by
# one that does not.
kept_joins() {
	empty_tables
	announced turn_of 4 add "-t $(either 2500 5000)" -D rooms=1000
}

forgotten_joins() { PGPORT=5433 kept_joins; }

contest_keeping() {
	local first

	bench_server kept <<<$'synchronous_commit = off\npresence.replay_size = 4MB'
	create_presence
	start_listener presence_changed
	first=$LISTENER
	PGPORT=5433 bench_server forgotten <<<$'synchronous_commit = off\npresence.replay_size = 0'
	PGPORT=5433 create_presence
	PGPORT=5433 start_listener presence_changed
	rounds "$(either 5 7)"
	contest forgotten=forgotten_joins kept=kept_joins
	row resume "worker's CPU an event, replay_size 4MB" "$(short "$(typical kept $WORKER)") µs" \
		"replay_size 0" "$(short "$(typical forgotten $WORKER)") µs" "$(ratio kept forgotten $WORKER)" x "<=" 1.1
	stop_listener
	LISTENER=$first
	stop_listener
	PGPORT=5433 stop_server forgotten
	stop_server kept
}

group_resume() {
	CROWD=$(either 200 1000)
	bench_server resume <<<"max_connections = $((CROWD + 50))"
	create_presence
	miss_events
	contest since="resume 0" snapshot="read_again 0"
	resume_rows "just connected"
	contest since="resume 1" snapshot="read_again 1"
	resume_rows "asking again"
	stop_server resume
	contest_keeping
}
