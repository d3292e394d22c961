# shellcheck shell=bash
#
# How sockets stay: a session that holds 100,000 channels, and its end; what a
# time to live adds to a heartbeat.

readonly SOCKETS=100000 SOCKET_ROOM=100

# All are present, a hundred a room.
open_sockets() {
	empty_tables
	populate presence.presences $SOCKETS
	settle
}

# One session calls a function for all, by arrays of a thousand, and stays.
# Prints channels a second, CPU of the backend a channel, channels, CPU of the
# worker a channel.
call_for_all() { # function
	start_client batches "SELECT cardinality($1(\$1))" $SOCKETS 1000
	[ "${TOLD##* }" = 0 ] || die "$1: ${TOLD##* } channels were not present"
	echo "$TOLD $USED" | awk -v n=$SOCKETS '{ printf "%.0f %.3f %d %.3f\n", n / $1, $3 / n, n, $4 / n }'
}

touched_sockets() {
	open_sockets
	call_for_all presence_touch_many
	end_client TERM
}

# When so many have left since the server started, as seconds since the epoch.
await_leaves() { # leaves
	psql -XqAt -v ON_ERROR_STOP=1 <<-EOF2
		DO \$\$ BEGIN
			FOR try IN 1 .. 12000 LOOP
				EXIT WHEN (SELECT leaves FROM presence.stats) >= $1;
				COMMIT;
				PERFORM pg_sleep(0.01);
			END LOOP;
		END \$\$;
		SELECT extract(epoch FROM clock_timestamp());
	EOF2
}

# Wait for a listener, which a change would otherwise pass by.
await_listener() {
	local try

	for try in {1..300}; do
		[ "$(ask "SELECT count(*) FROM pg_stat_activity WHERE usename = 'listener'
			AND state = 'idle' AND query LIKE 'LISTEN%'")" = 0 ] || return 0
		sleep 0.1
	done
	die "no listener in 30 seconds (try $try)"
}

# The gateway is killed that holds all.  Prints seconds until they have left,
# until that is announced, connections not announced, resyncs, CPU of the worker
# a channel.
kill_gateway() {
	local before start left listen

	"$CLIENTS/listen" reach 0 $((SOCKETS / SOCKET_ROOM - 1)) $SOCKET_ROOM 0 120 >"$WORK/tmp/reached" &
	listen=$!
	await_listener
	await_leaves "$(ask "SELECT leaves + $SOCKETS FROM presence.stats")" >"$WORK/tmp/left" &
	left=$!
	before=$(server_cpu) || exit 1
	start=$(date +%s.%N)
	end_client KILL
	wait $left || die "the leaves could not be counted"
	wait $listen || die "bench/listen failed"
	settle
	[ "$(ask "SELECT count(*) FROM presence.presences")" = 0 ] || die "presences are left"
	echo "$(cat "$WORK/tmp/left") $(cat "$WORK/tmp/reached") $(cpu_since "$before")" |
		awk -v start="$start" -v n=$SOCKETS '{ printf "%.3f %.3f %d %d %.3f\n", $1 - start, $2 - start, $3, $4, $6 / n }'
}

held_sockets() {
	local score

	open_sockets
	call_for_all presence_hold_many >"$WORK/tmp/held"
	score=$(cat "$WORK/tmp/held")
	[ "$(ask "SELECT held FROM presence.stats")" = $SOCKETS ] || die "not all are held"
	echo "$score $(kill_gateway)"
}

# What is timed below leaves because its session has ended.  Of few channels the
# events say so.
check_reason() {
	local position told until

	empty_tables
	populate presence.presences 10
	settle
	position=$(ask "SELECT quote_literal(epoch) || ', ' || seq FROM presence.stats")
	until=$(ask "SELECT leaves + 10 FROM presence.stats")
	start_client batches "SELECT cardinality(presence_hold_many(\$1))" 10 10
	end_client KILL
	await_leaves "$until" >/dev/null
	settle
	told=$(ask "SELECT count(*) FROM presence_since($position) e WHERE e->>'reason' = 'disconnected'")
	[ "$told" = 10 ] || die "$told of 10 leaves have the reason disconnected"
}

hold_rows() {
	local what="a session that holds 100,000 ends, no grace" left announced worker

	left=$(short "$(typical hold 5)")
	announced=$(short "$(typical hold 6)")
	worker=$(short "$(typical hold 9)")
	cpu_row_of sockets "hold_many(1000), names, 100,000 by one session" hold "touch_many(1000)" touch
	row sockets "$what: until they have left" "$left s" "" "" "$left" " s" "<=" 2
	row sockets "$what: until all is announced" \
		"$announced s (resyncs $(typical hold 8), missing $(typical hold 7))" "" "" "$announced" " s" "<=" 2
	row sockets "$what: worker's CPU a channel" "$worker µs" "" "" "$worker" " µs"
}

# Heartbeats to as many channels in each turn: of those without a time to live,
# and of as many others.
plain_beats() { turn_of 4 touch "-t $(either 10000 25000)" -D channels=$SOCKETS; }
ttl_beats() { # script, which hundred thousand
	turn_of 4 "$1" "-t $(either 10000 25000)" -D first="$((1000000000000000000 + $2 * SOCKETS))" -D channels=$SOCKETS
}

group_sockets() {
	rounds "$(either 1 3)"
	bench_server sockets <<<"presence.hold_grace = 0"
	create_presence
	check_reason
	contest touch=touched_sockets hold=held_sockets
	hold_rows

	rounds "$(either 3 7)"
	empty_tables
	populate presence.presences $((3 * SOCKETS))
	settle
	contest plain=plain_beats ttl="ttl_beats touch_ttl 1" any="ttl_beats touch_any_ttl 2"
	cpu_row_of sockets "touch with a time to live, 4 clients" ttl "without" plain "<=" 1.1
	cpu_row_of sockets "touch with another time to live each time, 4 clients" any "without" plain
	stop_server sockets
}
