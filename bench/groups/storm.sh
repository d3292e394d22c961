# shellcheck shell=bash
#
# Everybody at once: 100,000 channels join by calls of a thousand, over four
# connections; all leave so; all expire.  Beside it the same rows by one plain
# statement a thousand, announced to nobody, and Redis.

readonly STORM_SESSIONS=4 STORM_ROOM=1000

# The statements of a storm, for each session a file: one for each room.
write_storm() { # verb, first room, last room
	local verb=$1

	rm -f "$WORK/tmp/storm.$verb".*
	awk -v verb="$verb" -v first="$2" -v last="$3" -v each=$STORM_ROOM -v sessions=$STORM_SESSIONS \
		-v file="$WORK/tmp/storm.$verb." '
		function statement(room, channels, users) {
			if (verb == "add")
				return "SELECT presence_add_many(" room ", " channels ", " users ")"
			if (verb == "leave")
				return "SELECT presence_leave_all_many(" channels ")"
			if (verb == "bare_add")
				return "INSERT INTO bare.presences (room, channel_name, user_id) SELECT " room ", c, u FROM unnest(" \
					channels "::text[], " users "::text[]) AS t(c, u) ON CONFLICT (room, channel_name) DO NOTHING"
			return "DELETE FROM bare.presences WHERE channel_name = ANY (" channels "::text[])"
		}
		BEGIN {
			for (room = first; room <= last; room++) {
				channels = users = ""
				for (i = room * each; i < (room + 1) * each; i++) {
					channels = channels "," sprintf("channel-000000000000-1%018d", i)
					users = users "," "user-" i
				}
				print statement("\047room-" room "\047", "\047{" substr(channels, 2) "}\047", \
					"\047{" substr(users, 2) "}\047") ";" >(file (room % sessions))
			}
		}'
}

# Run it, all sessions at once.
run_storm() { # verb
	local session sessions=()

	for ((session = 0; session < STORM_SESSIONS; session++)); do
		psql -XqAt -v ON_ERROR_STOP=1 -f "$WORK/tmp/storm.$1.$session" >/dev/null 2>>"$WORK/log/psql.log" &
		sessions+=($!)
	done
	for session in "${sessions[@]}"; do
		wait "$session" || fail "$WORK/log/psql.log" "a session of the storm failed: $1"
	done
}

# A storm of rooms that have so many connections each before it and after it.
# Prints rows a second until all is announced, CPU of the backends a row, rows,
# CPU of the worker a row, seconds, connections not announced, resyncs.  With
# HOLD the worker announces nothing while the rows come.
HOLD=
storm() { # verb, first room, last room, each before, each after
	local rows=$((($3 - $2 + 1) * STORM_ROOM)) start before backends worker listen

	write_storm "$1" "$2" "$3"
	PGUSER=listener "$CLIENTS/listen" reach "$2" "$3" "$4" $((($3 - $2 + 1) * $5)) 120 >"$WORK/tmp/reached" &
	listen=$!
	sleep 0.5
	before=$(server_cpu) || exit 1
	start=$(date +%s.%N)
	[ -z "$HOLD" ] || hold_deliveries
	run_storm "$1"
	[ -z "$HOLD" ] || release_deliveries
	wait $listen || die "bench/listen failed"
	backends=$(cpu_since "$before") || exit 1
	settle
	worker=$(cpu_since "$before") || exit 1
	stormed "$rows" "$start" "$backends" "$worker"
}

# Keep the worker from announcing: a delivery needs a lock that is held here.
hold_deliveries() {
	rm -f "$WORK/tmp/release"
	{
		echo "BEGIN; LOCK TABLE presence.user_last_seen IN SHARE MODE;"
		until [ -e "$WORK/tmp/release" ]; do sleep 0.1; done
	} | psql -XqAt >/dev/null 2>>"$WORK/log/psql.log" &
	HOLDER=$!
	until [ "$(ask "SELECT count(*) FROM pg_locks WHERE mode = 'ShareLock'
		AND relation = 'presence.user_last_seen'::regclass AND granted")" = 1 ]; do sleep 0.1; done
}

release_deliveries() { touch "$WORK/tmp/release"; wait "$HOLDER"; }

# From readings to a score.
stormed() { # rows, start, CPU of backends, of worker
	echo "$(cat "$WORK/tmp/reached") $3 $4" | awk -v rows="$1" -v start="$2" '{
		printf "%.0f %.3f %d %.3f %.3f %d %d\n", rows / ($1 - start), ($4 + $8) / rows, rows, $10 / rows,
			$1 - start, $2, $3 }'
}

bare_storm() { # verb
	local before start rows=$((STORM_ROOMS * STORM_ROOM))

	write_storm "$1" 0 $((STORM_ROOMS - 1))
	before=$(server_cpu) || exit 1
	start=$(date +%s.%N)
	run_storm "$1"
	echo "$(date +%s.%N) $(cpu_since "$before")" | awk -v rows=$rows -v start="$start" '{
		printf "%.0f %.3f %d\n", rows / ($1 - start), ($2 + $6) / rows, rows }'
}

join_storm() { empty_tables; storm add 0 $((STORM_ROOMS - 1)) 0 $STORM_ROOM; }

# Into rooms that have a place for each.
capped_storm() {
	psql_quietly -c "SELECT presence_configure_room('room' || n, max_members => $STORM_ROOM)
		FROM generate_series(0, $((STORM_ROOMS - 1))) n"
	join_storm
	psql_quietly -c "UPDATE presence.rooms SET max_members = NULL"
}

# All leave: who joined a moment ago.
leave_storm() {
	empty_tables
	join_all
	storm leave 0 $((STORM_ROOMS - 1)) $STORM_ROOM 0
}

join_all() {
	write_storm add 0 $((STORM_ROOMS - 1))
	run_storm add
	settle
}

bare_join_storm() { empty_tables; bare_storm bare_add; }

bare_leave_storm() {
	empty_tables
	write_storm bare_add 0 $((STORM_ROOMS - 1))
	run_storm bare_add
	bare_storm bare_leave
}

redis_storm() { # join or leave
	local before seconds rows=$((STORM_ROOMS * STORM_ROOM))

	redis-cli -s "$WORK/socket/redis" flushall >/dev/null
	if [ "$1" = leave ]; then redis_rows join >/dev/null; fi
	before=$(redis_cpu)
	seconds=$(redis_rows "$1") || exit 1
	awk -v rows=$rows -v s="$seconds" -v cpu="$(redis_cpu_since "$before" $rows)" \
		'BEGIN { printf "%.0f %s %d\n", rows / s, cpu, rows }'
}

redis_rows() { # join or leave
	"$CLIENTS/redis_storm" "$WORK/socket/redis" "$1" "$STORM_ROOMS" $STORM_ROOM 100
}

# All expire at once, five seconds after their last sign of life.
expire_storm() {
	local age=5 before start listen worker

	psql_quietly -c "ALTER SYSTEM SET presence.max_age = '1h'" -c "SELECT pg_reload_conf()"
	empty_tables
	join_all
	PGUSER=listener "$CLIENTS/listen" reach 0 $((STORM_ROOMS - 1)) $STORM_ROOM 0 120 >"$WORK/tmp/reached" &
	listen=$!
	psql_quietly -c "SELECT count(presence_touch_many(names)) FROM (
		SELECT array_agg(channel_name) AS names FROM presence.presences GROUP BY room) b"
	start=$(date +%s.%N)
	before=$(server_cpu) || exit 1
	psql_quietly -c "ALTER SYSTEM SET presence.max_age = '${age}s'" -c "SELECT pg_reload_conf()"
	wait $listen || die "bench/listen failed"
	settle
	worker=$(cpu_since "$before") || exit 1
	stormed $((STORM_ROOMS * STORM_ROOM)) "$(sum "$start" $age)" "$worker" "$worker"
	psql_quietly -c "ALTER SYSTEM RESET presence.max_age" -c "SELECT pg_reload_conf()"
}

# Three storms one after the other, each into rooms of its own, the next when
# the last has been announced: what a row costs the worker in each.
growing_storm() {
	local each=$((STORM_ROOMS / 2)) part

	empty_tables
	for part in 0 1 2; do
		storm add $((part * each)) $(((part + 1) * each - 1)) 0 $STORM_ROOM | worker_and_resyncs
	done | paste -sd' '
}

worker_and_resyncs() { awk -v w=$WORKER '{ print $w, $7 }'; }

# A storm that the worker finds all in its queue.
waiting_storm() { # rooms
	empty_tables
	HOLD=yes
	storm add 0 $(($1 - 1)) 0 $STORM_ROOM | worker_and_resyncs
}

# Rows of a storm.
storm_rows() { # what, statement, command of Redis, goal of the CPU
	local seconds

	cpu_row_of storm "$1" ours "$2" bare ${4:+"<=" "$4"}
	seconds=$(short "$(typical ours 5)")
	row storm "$1: until all is announced" "$seconds s (resyncs $(typical ours 7), missing $(typical ours 6))" \
		"" "" "$seconds" " s"
	row storm "$1: worker's CPU a row" "$(short "$(typical ours $WORKER)") µs" "" "" \
		"$(short "$(typical ours $WORKER)")" " µs" "<=" 8
	if [ -n "${SCORES[redis,1]-}" ]; then
		row_of storm "$1: rows announced" ours "Redis $3 + PUBLISH by 100" redis
	else
		skipped storm "$1 against Redis" "no redis-server here"
	fi
}

group_storm() {
	local redis=

	STORM_ROOMS=100
	rounds "$(either 1 3)"
	bench_server storm </dev/null
	create_presence
	start_redis && redis=yes
	contest ours=join_storm capped=capped_storm bare=bare_join_storm ${redis:+"redis=redis_storm join"}
	storm_rows "100,000 join by 1,000s" "INSERT ... SELECT unnest" SADD 1.5
	cpu_row_of storm "100,000 join by 1,000s, as many places" capped "no max_members" ours
	contest ours=leave_storm bare=bare_leave_storm ${redis:+"redis=redis_storm leave"}
	storm_rows "100,000 leave by 1,000s" "DELETE ... = ANY" SREM
	[ -z "$redis" ] || stop_redis
	contest ours=expire_storm
	expire_rows
	stop_server storm
	growing
}

# With a queue that holds all of it: otherwise a resync spares the worker work.
growing() {
	bench_server storm_growing <<<"presence.queue_size = 64MB"
	create_presence
	start_listener presence_changed
	contest growing=growing_storm
	growing_rows "one after the other: third 50,000" "first 50,000" growing 5 growing 1
	contest short="waiting_storm $((STORM_ROOMS / 2))" long="waiting_storm $((STORM_ROOMS * 3 / 2))"
	growing_rows "a backlog of 150,000" "a backlog of 50,000" long 1 short 1
	stop_listener
	stop_server storm_growing
}

expire_rows() {
	local seconds

	seconds=$(short "$(typical ours 5)")
	row storm "100,000 expire: until gone and announced" \
		"$seconds s (resyncs $(typical ours 7), missing $(typical ours 6))" "" "" "$seconds" " s" "<=" 2
	row storm "100,000 expire: worker's CPU a row" "$(short "$(typical ours $WORKER)") µs" "" "" \
		"$(short "$(typical ours $WORKER)")" " µs"
}

growing_rows() { # what, beside, contestant and column of this and that
	local more less

	more=$(short "$(typical "$3" "$4")")
	less=$(short "$(typical "$5" "$6")")
	row storm "joins, worker's CPU a row, $2" "$less µs (resyncs $(typical "$5" $(($6 + 1))))" "" "" \
		"$less" " µs" "<=" 8
	row storm "joins, worker's CPU a row, $1" "$more µs (resyncs $(typical "$3" $(($4 + 1))))" \
		"$2" "$less µs" "$more" " µs" "<=" 8
	row storm "joins, worker's CPU a row, $1" "$more µs" "$2" "$less µs" \
		"$(awk -v a="$more" -v b="$less" 'BEGIN { printf "%.3f", (b > 0 ? a / b : 0) }')" x "<=" 1.2
}
