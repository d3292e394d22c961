# shellcheck shell=bash
#
# Cursors: the price of a movement, and a room of 200 users that all move.

moves() { turn_of 4 "$1" "-t $(either 10000 25000)" -D channels=10000; }

group_cursor() {
	local rate

	bench_server cursor </dev/null
	create_presence
	populate presence.presences 10000
	settle
	start_listener presence_state
	contest "touch=moves touch" "cursor=moves cursor"
	cpu_row_of cursor "cursor_update, 4 clients" cursor "touch" touch ">=" 0.9
	row_of cursor "cursor_update, 4 clients" cursor "touch" touch
	contest "room=tps 200 cursor_room -R 12000"
	rate=$(typical room)
	row cursor "200 users in one room, 60 movements a second each" "$(short "$rate")/s" \
		"12,000/s wanted" "" "$(awk -v r="$rate" 'BEGIN { printf "%.3f", r / 12000 }')" x ">=" 0.98
	stop_listener
	stop_server cursor
}
