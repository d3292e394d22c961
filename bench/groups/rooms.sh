# shellcheck shell=bash
#
# What large rooms cost: those with a limit, their snapshot, and small rooms
# beside a large one.

# So many members of a room, or of each of some rooms.
fill_rooms() { # room prefix, members each, first number of the channels, rooms
	psql_quietly -c "INSERT INTO presence.presences (room, channel_name, user_id)
		SELECT '$1' || n / $2, 'channel-000000000000-' || 1000000000000000000 + $3 + n, 'user-' || $3 + n
		FROM generate_series($2, $2 * (${4:-1} + 1) - 1) n" -c "VACUUM ANALYZE presence.presences"
}

# --------------------------------------------------- rooms with max_members

# Adds to a room that has so many members, and has them again afterwards.
capped_add() { # members
	announced turn_of 1 add_numbered "-t $(either 500 1000)" -D room="$1"
	psql_quietly -c "DELETE FROM presence.presences WHERE room LIKE 'capped-%'
		AND channel_name >= 'channel-000000000000-2'" -c "VACUUM ANALYZE presence.presences"
	settle
}

make_capped() { # members
	psql_quietly -c "SELECT presence_configure_room('capped-$1', max_members => 1000000)"
	[ "$1" -eq 0 ] || psql_quietly -c "INSERT INTO presence.presences (room, channel_name, user_id)
		SELECT 'capped-$1', 'channel-000000000000-1' || to_char(10 * $1 + n, 'FM000000000000000000'), 'user-' || n
		FROM generate_series(1, $1) n" -c "VACUUM ANALYZE presence.presences"
	settle
}

contest_capped() {
	bench_server capped <<<"synchronous_commit = off"
	create_presence
	make_capped 100
	make_capped 50000
	start_listener presence_changed
	contest small="capped_add 100" large="capped_add 50000"
	cpu_row_of rooms "add, room with a limit and 50,000 members" large "100 members" small "<=" 1.2
	stop_listener
	stop_server capped
}

# 64 clients into one room, with a limit and without.
crowd_in() { # script
	empty_tables
	announced tps 64 "$1" -D rooms=1 -D room=0
}

contest_capped_flush() {
	LD_PRELOAD=$CLIENTS/slow_flush.so bench_server capped_slow </dev/null
	create_presence
	make_capped 0
	start_listener presence_changed
	contest free="crowd_in add" capped="crowd_in add_numbered"
	row_of rooms "add, 64 clients, one room with a limit, flush + 1 ms" capped "without a limit" free ">=" 0.8
	stop_listener
	stop_server capped_slow
}

# ---------------------------------------------------- reading large and small

# Prints seconds of wall time and of CPU.
snapshot() { # room
	local before seconds

	before=$(server_cpu) || exit 1
	seconds=$(psql -XqAt -v ON_ERROR_STOP=1 -c '\timing on' -c "SELECT presence_snapshot('$1')" |
		awk '/^Time:/ { print $2 / 1000 }') || exit 1
	cpu_since "$before" | awk -v s="$seconds" '{ print s, ($1 + $5) / 1e6 }'
}

# Blocks that a generic plan reads for a room of five.
buffers() { # database, function
	psql -XqAt -v ON_ERROR_STOP=1 -d "$1" <<-EOF2 | awk '/Shared (Hit|Read) Blocks/ && n++ < 2 { gsub(/,/, ""); s += $NF }
		END { print s }'
		SET plan_cache_mode = force_generic_plan;
		PREPARE read (text) AS SELECT * FROM $2(\$1);
		\o /dev/null
		EXECUTE read ('five-1');
		EXECUTE read ('five-1');
		\o
		EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE read ('five-1');
	EOF2
}

read_in() { # database, script
	PGDATABASE=$1 tps 1 "$2"
}

# Two databases of as many presences: rooms of five everywhere in one, a single
# one beside a room of 200,000 in the other, whose average room is large.
contest_reads() {
	local name with without beside="rooms of five alone"

	for name in list counts snapshot; do
		with=$(buffers beside "presence_$name")
		without=$(buffers alone "presence_$name")
		row rooms "presence_$name of a room of 5 beside 200,000: buffers" "$with" "$beside" "$without" \
			"$(awk -v a="$with" -v b="$without" 'BEGIN { printf "%.3f", (b > 0 ? a / b : 0) }')" x "<=" 1.2
		contest alone="read_in alone read_$name" beside="read_in beside read_$name"
		cpu_row_of rooms "presence_$name of a room of 5 beside 200,000" beside "$beside" alone "<=" 1.2
	done
}

group_rooms() {
	local seconds

	contest_capped
	contest_capped_flush
	bench_server rooms </dev/null
	psql_quietly -c "CREATE DATABASE alone" -c "CREATE DATABASE beside"
	PGDATABASE=beside create_presence
	PGDATABASE=alone create_presence
	PGDATABASE=alone fill_rooms five- 5 0 40001
	PGDATABASE=beside fill_rooms five- 5 0 1
	PGDATABASE=beside fill_rooms crowd- 200000 1000000
	PGDATABASE=alone settle
	PGDATABASE=beside settle
	contest_reads
	create_presence
	fill_rooms crowd- 100000 2000000
	settle
	contest snapshot="snapshot crowd-1"
	seconds=$(short "$(typical snapshot)")
	row rooms "presence_snapshot of 100,000 members" "$seconds s, CPU $(short "$(typical snapshot 2)") s" \
		"" "" "$seconds" " s" "<=" 0.5
	stop_server rooms
}
