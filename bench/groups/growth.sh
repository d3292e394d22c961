# shellcheck shell=bash
#
# The price of a touch and of an add with 1,000 and with 1,000,000 channels:
# two servers side by side.

# Milliseconds of an add among so many: the first statement of a visit.
add_latency() {
	tps 16 add_leave -r >/dev/null
	awk '/presence_add/ { print $1 }' "$WORK/log/pgbench.log"
}

small_touch() { PGPORT=5433 tps 16 touch -D channels=1000; }
large_touch() { tps 16 touch -D channels=1000000; }
small_add() { PGPORT=5433 add_latency; }
large_add() { add_latency; }

group_growth() {
	rounds "$(either 3 7)"
	bench_server large </dev/null
	create_presence
	populate presence.presences 1000000
	settle
	PGPORT=5433 bench_server small </dev/null
	PGPORT=5433 create_presence
	PGPORT=5433 populate presence.presences 1000
	PGPORT=5433 settle

	contest small=small_touch large=large_touch
	row growth "time of a touch, 1,000,000 channels" "$(short "$(typical large)")/s" "1,000 channels" \
		"$(short "$(typical small)")/s" "$(ratio small large)" x "<=" 1.2
	contest small=small_add large=large_add
	row growth "time of an add, 1,000,000 channels" "$(typical large) ms" "1,000 channels" \
		"$(typical small) ms" "$(ratio large small)" x "<=" 1.2
	stop_server large
	PGPORT=5433 stop_server small
}
