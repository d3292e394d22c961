# shellcheck shell=bash
#
# Joins that are told, against the same rows told to nobody and against a
# NOTIFY in the transaction; on the disk as it is, and on a slower one.

# A turn begins with empty tables and ends when everything has been told.
joins() { # clients, rooms, script
	empty_tables
	announced tps "$1" "$3" -D rooms="$2"
}

contest_joins() { # disk, clients, rooms, name of rooms, goal against bare, against peer
	contest "bare=joins $2 $3 bare_add" "add=joins $2 $3 add" "peer=joins $2 $3 peer_add"
	row_of join "add, $2 clients, $4, $1" add "bare INSERT" bare ${5:+">=" "$5"}
	row_of join "add, $2 clients, $4, $1" add "NOTIFY trigger" peer ${6:+">=" "$6"}
}

join_on() { # disk, clients for a quick run, goal against bare, against peer
	local clients

	create_presence
	start_listener presence_changed peer_changed
	for clients in $(either "$2" "1 16 64 200"); do
		if [ "$clients" -eq 64 ]; then
			contest_joins "$1" 64 1 "one room" "$3" "$4"
			contest_joins "$1" 64 1000 "1,000 rooms" "$3" "$4"
		else
			contest_joins "$1" "$clients" 1 "one room" "" ""
		fi
	done
	stop_listener
}

# The same by a role that does not wait for its flush.
hasty_joins() { # clients, rooms, script
	empty_tables
	PGOPTIONS='-c synchronous_commit=off' announced tps "$1" "$3" -D rooms="$2"
}

# The same into a table that a crash empties.
unlogged_joins() { # clients, rooms, script
	empty_tables
	psql_quietly -c "ALTER TABLE presence.presences SET UNLOGGED"
	announced tps "$1" "$3" -D rooms="$2"
	psql_quietly -c "TRUNCATE presence.presences" -c "ALTER TABLE presence.presences SET LOGGED"
}

# What the wait for the flush costs, and what the log costs.
contest_flush() { # disk
	local clients

	for clients in 1 64; do
		contest "on=joins $clients 1 add" "off=hasty_joins $clients 1 add"
		row_of join "add, $clients clients, one room, $1, synchronous_commit off" off "on" on
	done
	contest "on=joins 64 1 add" "unlogged=unlogged_joins 64 1 add"
	row_of join "add, 64 clients, one room, $1, table unlogged" unlogged "logged" on
}

group_join() {
	bench_server join </dev/null
	join_on "disk as it is" 16 "" ""
	stop_server join
	LD_PRELOAD=$CLIENTS/slow_flush.so bench_server join_slow </dev/null
	join_on "flush + 1 ms" 64 0.8 15
	contest_flush "flush + 1 ms"
	stop_server join_slow
}
