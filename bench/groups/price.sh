# shellcheck shell=bash
#
# What a join costs in CPU, without the wait for its flush: as many in each turn,
# into tables of one size; and what the worker pays to announce one.

priced_joins() { # script
	empty_tables
	announced turn_of 4 "$1" "-t $(either 2500 5000)" -D rooms=1000
}

group_price() {
	local worker what="add, 4 clients, 1,000 rooms, no wait for the flush"

	rounds "$(either 5 7)"
	bench_server price <<<"synchronous_commit = off"
	create_presence
	start_listener presence_changed peer_changed
	contest "bare=priced_joins bare_add" "add=priced_joins add" "peer=priced_joins peer_add"
	cpu_row_of price "$what" add "bare INSERT" bare "<=" 1.18
	cpu_row_of price "$what" add "NOTIFY trigger" peer
	worker=$(short "$(typical add $WORKER)")
	row price "worker for a single join announced: CPU" "$worker µs" "" "" "$worker" " µs" "<=" 20
	stop_listener
	stop_server price
}
