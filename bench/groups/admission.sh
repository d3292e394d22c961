# shellcheck shell=bash
#
# What rules cost an add: none anywhere, bans of others in other rooms, a cap.

admissions() { # bans, script
	empty_tables
	psql_quietly -c "TRUNCATE presence.bans" -c "INSERT INTO presence.bans (room, user_id)
		SELECT 'other-' || n % 100, 'user-' || n FROM generate_series(1, $1) n" \
		-c "VACUUM ANALYZE presence.bans"
	announced turn_of 4 "$2" "-t $(either 2000 4000)" -D rooms=1000
}

group_admission() {
	rounds "$(either 5 7)"
	bench_server admission <<<"synchronous_commit = off"
	create_presence
	psql_quietly -c "SELECT presence_configure_room('capped-' || n, max_members => 1000000)
		FROM generate_series(1, 1000) n"
	start_listener presence_changed
	contest "free=admissions 0 add" "bans=admissions 10000 add" "cap=admissions 0 add_capped"
	cpu_row_of admission "add, bans in other rooms, 4 clients" bans "no rules anywhere" free ">=" 0.95
	cpu_row_of admission "add, capped rooms, 4 clients" cap "no rules anywhere" free
	stop_listener
	stop_server admission
}
