# shellcheck shell=bash
#
# What a touch, an add and a visit cost with little and with much of something:
# channels and rooms (two servers side by side), members of a room, connections
# of a user, short-lived states.  A connection begins by using all of the memory
# that it will share, for who holds one holds it for long, and no page is logged
# as a whole, which after a checkpoint is a matter of minutes.  A backlog of events stands in group storm.

grown_touch() { turn_of 4 touch_warm "-t $(either 10000 25000)" -D ready=0 -D channels="$1"; }
grown_visit() { announced turn_of 4 visit_warm "-t $(either 1500 3000)" -D ready=0; }
small_touch() { PGPORT=5433 grown_touch 1000; }
small_visit() { PGPORT=5433 grown_visit; }

# Visits to a room, or of a user, with so many; states beside so many others.
room_visit() { announced turn_of 4 visit_room "-t $(either 1000 3000)" -D members="$1"; }
user_visit() { announced turn_of 4 visit_user "-t $(either 1000 3000)" -D connections="$1"; }
set_states() { turn_of 4 state "-t $(either 5000 20000)"; }
small_states() { PGPORT=5433 set_states; }

# A room of so many members, and a user with so many connections.
fill_for_growth() { # members, connections
	psql_quietly -c "INSERT INTO presence.presences (room, channel_name, user_id)
			SELECT 'members-$1', 'member-$1-' || n, 'user-' || n FROM generate_series(1, $1) n" \
		-c "INSERT INTO presence.presences (room, channel_name, user_id)
			SELECT 'room-' || n % 1000, 'connection-$2-' || n, 'connections-$2' FROM generate_series(1, $2) n" \
		-c "VACUUM ANALYZE presence.presences"
	settle
}

# The backends' CPU and the worker's, with much against with little.
growth_rows() { # what with much, with little
	cpu_row_of growth "$1" large "$2" small "<=" 1.2
	[ -n "$(typical large $WORKER)" ] || return 0
	row growth "$1: worker's CPU" "$(short "$(typical large $WORKER)") µs" "$2" \
		"$(short "$(typical small $WORKER)") µs" "$(ratio large small $WORKER)" x "<=" 1.2
}

group_growth() {
	local settings=$'synchronous_commit = off\nfull_page_writes = off'

	rounds "$(either 3 7)"
	bench_server large <<<"$settings"
	create_presence
	populate presence.presences 1000000
	settle
	PGPORT=5433 bench_server small <<<"$settings"
	PGPORT=5433 create_presence
	PGPORT=5433 populate presence.presences 1000
	PGPORT=5433 settle

	contest small=small_touch large="grown_touch 1000000"
	growth_rows "touch, 1,000,000 channels" "1,000 channels"
	contest small=small_visit large=grown_visit
	growth_rows "add and leave, 1,000,000 channels in 10,000 rooms" "1,000 channels in 10 rooms"
	psql_quietly -c "SELECT presence_set_state('other-' || n % 1000, 'key-' || n, '{}', 3600)
		FROM generate_series(1, 30000) n"
	contest small=small_states large=set_states
	growth_rows "set_state, 30,000 states of others" "none"
	stop_server large

	export PGPORT=5433
	fill_for_growth 5 1
	fill_for_growth 100000 10000
	contest small="room_visit 5" large="room_visit 100000"
	growth_rows "add and leave, a room of 100,000 members" "5 members"
	contest small="user_visit 1" large="user_visit 10000"
	growth_rows "add and leave, a user with 10,000 connections" "1 connection"
	stop_server small
	export PGPORT=5432
}
