# shellcheck shell=bash
#
# A room of 100,000 that people enter and leave all the time: what it costs to
# announce it by its counts, beside each join and leave.

readonly STADIUM=100000 VISITS=500		# members; joins a second, and as many leaves

# Visits at a steady rate, and what a listener hears of them.  Prints visits a
# second, CPU of the backends a visit, visits, CPU of the worker a visit;
# notifications and bytes of their payloads a second, percent of a core that the
# worker takes.
visits() { # announce
	local seconds start score

	seconds=$(either 5 20)
	launch_client listen weigh presence_changed
	start=$(date +%s.%N)
	score=$(announced turn_of 4 visit_stadium "-t $((VISITS * seconds / 4)) -R $VISITS" -D announce="$1") || exit 1
	seconds=$(sum "$(date +%s.%N)" "-$start")
	end_client TERM
	await_lines 2
	echo "$score $(tail -n 1 "$WORK/tmp/client")" | awk -v s="$seconds" '{
		printf "%s %s %s %s %.1f %.0f %.3f\n", $1, $2, $3, $4, $5 / s, $6 / s, $4 * $3 / s / 10000 }'
}

# A room that says nothing of how it is announced is announced as "all".
fill_stadium() { # which, number of the stadium
	psql_quietly -c "INSERT INTO presence.presences (room, channel_name, user_id)
		SELECT 'stadium-$1', 'channel-000000000000-' || 1000000000000000000 + $2 * $STADIUM + n, 'user-' || n
		FROM generate_series(1, $STADIUM) n" -c "VACUUM ANALYZE presence.presences"
	settle
}

stadium_rows() {
	local what="$VISITS join and leave a second, room of 100,000 by its counts" bytes

	bytes=$(typical counts 6)
	cpu_row_of stadium "$what" counts "announced as all" all
	row stadium "$what: worker" "$(short "$(typical counts 7)") % of a core" \
		"announced as all" "$(short "$(typical all 7)") %" "$(ratio counts all $WORKER)" x "<=" 1
	row stadium "$what: NOTIFY" "$bytes B/s ($(typical counts 5) events/s)" \
		"announced as all" "$(typical all 6) B/s ($(typical all 5) events/s)" "$bytes" " B/s" "<=" 300
}

group_stadium() {
	bench_server stadium <<<"synchronous_commit = off"
	create_presence
	fill_stadium all 0
	psql_quietly -c "SELECT presence_configure_room('stadium-counts', announce => 'counts')"
	fill_stadium counts 1
	turn_of 4 visit_stadium "-t 1" -D announce=all >/dev/null
	settle
	contest all="visits all" counts="visits counts"
	stadium_rows
	stop_server stadium
}
