# shellcheck shell=bash
#
# How soon after its deadline a silent channel is told to be gone, what the
# worker costs while nobody dies, and what happens when 100,000 die at once.

readonly PROBES=100

worker_ticks() { # pid
	awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"
}

# Keep so many channels alive: all their names, in arrays of a thousand, again
# and again.
start_keeper() { # channels, seconds between
	psql -Xq >/dev/null 2>>"$WORK/log/keeper.log" <<-EOF2 &
		CREATE TEMP TABLE blocks AS
			SELECT array_agg('channel-000000000000-' || 1000000000000000000 + n) AS names
			FROM generate_series(0, $1 - 1) n GROUP BY n / 1000;
		SELECT count(presence_touch_many(names)) FROM blocks
		\watch $2
	EOF2
	KEEPER=$!
}

# Empty the tables and make so many channels that are alive.
living() { # channels
	empty_tables
	populate presence.presences "$1"
	settle
}

lag_at() { # channels
	local age pid before ticks seconds p50 p99 max missing result cpu

	age=$(either 6 15)
	[ "$1" -lt 1000000 ] || age=20
	psql_quietly -c "ALTER SYSTEM SET presence.max_age = '1h'" -c "SELECT pg_reload_conf()"
	living "$1"
	start_keeper "$1" $((age / 3))
	sleep 3
	psql_quietly -c "ALTER SYSTEM SET presence.max_age = '${age}s'" -c "SELECT pg_reload_conf()"
	sleep 2
	pid=$(ask "SELECT worker_pid FROM presence.stats")
	"$CLIENTS/listen" silent $PROBES 2 "$age" >"$WORK/tmp/lag" &
	before=$(worker_ticks "$pid")
	seconds=$((age - 1))
	sleep "$seconds"
	ticks=$(($(worker_ticks "$pid") - before))
	wait $! || die "bench/listen failed"
	result=$(cat "$WORK/tmp/lag")
	read -r p50 p99 max missing <<<"$result"
	kill "$KEEPER"; wait "$KEEPER" 2>/dev/null
	if [ "$(ask "SELECT count(*) FROM presence.presences")" != "$1" ]; then
		skipped expiry "leave delivered after deadline, $1 channels" "the machine was too busy to keep them alive"
		return
	fi
	cpu=$(awk -v t="$ticks" -v s="$seconds" -v hz="$(getconf CLK_TCK)" 'BEGIN { printf "%.2f", 100 * t / hz / s }')
	row expiry "leave delivered after deadline, $1 channels: p99" \
		"$p99 ms (p50 $p50, max $max, missing $missing)" "" "" "$p99" " ms" "<=" 100
	row expiry "worker while nobody dies, $1 channels, max_age ${age}s" "$cpu % of a core" "" "" "$cpu" " %" "<=" 1
}

# p99 of a pgbench log (schedule lag included), in a span of time, milliseconds.
p99_between() { # from, to
	cat "$WORK"/tmp/one.* | awk -v from="$1" -v to="$2" \
		'{ t = $5 + $6 / 1e6 } t >= from && t < to { print $3 / 1000 }' | sort -g |
		awk '{ v[NR] = $1 } END { printf "%.2f", v[int(NR * 0.99)] }'
}

# All channels die at once, while others work.  Prints seconds until gone and
# told, p99 of SELECT 1 before and meanwhile, untold, resyncs.
mass_death() { # channels
	local age=5 start gone missing resyncs bench listen

	psql_quietly -c "ALTER SYSTEM SET presence.max_age = '1h'" -c "SELECT pg_reload_conf()"
	living "$1"
	rm -f "$WORK"/tmp/one.*
	"$CLIENTS/listen" reach 0 "$(($1 / 100 - 1))" 100 0 60 >"$WORK/tmp/gone" &
	listen=$!
	psql -Xq >/dev/null <<-EOF2
		SELECT count(presence_touch_many(names)) FROM (
			SELECT array_agg('channel-000000000000-' || 1000000000000000000 + n) AS names
			FROM generate_series(0, $1 - 1) n GROUP BY n / 1000) b;
	EOF2
	start=$(date +%s.%N)
	psql_quietly -c "ALTER SYSTEM SET presence.max_age = '${age}s'" -c "SELECT pg_reload_conf()"
	pgbench -n -M prepared -c 8 -j 1 -R 2000 -T 12 --log --log-prefix="$WORK/tmp/one" \
		-D channels=1 -f bench/sql/select_1.sql >"$WORK/log/pgbench.log" 2>&1 &
	bench=$!
	wait $listen || die "bench/listen failed"
	wait $bench
	read -r gone missing resyncs <"$WORK/tmp/gone"
	[ "$(ask "SELECT count(*) FROM presence.presences")" = 0 ] || die "presences are left"
	echo "$(sum "$gone" "-$start" -$age) $(p99_between "$(sum "$start" 1)" "$(sum "$start" $age)")" \
		"$(p99_between "$(sum "$start" $age)" "$gone") $missing $resyncs"
}

group_expiry() {
	local channels round result

	bench_server expiry </dev/null
	create_presence
	for channels in 1000 100000 1000000; do
		lag_at $channels
	done
	: >"$WORK/tmp/deaths"
	for ((round = 1; round <= $(either 1 3); round++)); do
		result=$(mass_death 100000) || exit 1
		echo "$result" >>"$WORK/tmp/deaths"
	done
	cat "$WORK/tmp/deaths" >>"$WORK/log/deaths.log"
	result=$(column_median 1)
	row expiry "100,000 die at once: until gone and told" "$result s (untold $(column_median 4), resyncs $(column_median 5))" "" "" "$result" " s" "<=" 2
	row expiry "SELECT 1 of others meanwhile: p99" "$(column_median 3) ms" "before" "$(column_median 2) ms" \
		"$(awk '{ printf "%.3f\n", $3 / $2 }' "$WORK/tmp/deaths" | median)" x "<=" 1.5
	stop_server expiry
}

column_median() { awk -v c="$1" '{ print $c }' "$WORK/tmp/deaths" | median; }
