# From what psql prints of a notification, keep channel and payload, without
# the numbers and times that differ between runs.
s/^Asynchronous notification "\([^"]*\)" with payload "\(.*\)" received from server process with PID [0-9]*\.$/\1 \2/
s/"epoch":[^,]*,"seq":[^,]*,//
s/"id":[0-9]*,/"id":0,/g
s/"joined_at":"[^"]*"/"joined_at":""/g
