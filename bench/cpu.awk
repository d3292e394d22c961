# Adds up the CPU of a server's children, in microseconds, from /proc: reads the
# postmaster's stat, that of all processes, and the postmaster's again.  Prints
# backends, presence workers, listeners, helpers, and those that have ended; to
# these belong the workers of autovacuum, which soon will.  Fails where a child
# ended meanwhile, and so may have been counted twice or not at all.
#
# The time of a living process comes from schedstat, where there is one, for
# stat counts in ticks.

function title(pid,   file, text) {
	file = "/proc/" pid "/cmdline"
	if ((getline text < file) <= 0) text = ""
	close(file)
	return text
}

function used(pid, ticks,   file, line, part) {
	file = "/proc/" pid "/schedstat"
	if ((getline line < file) <= 0) line = ""
	close(file)
	split(line, part, " ")
	return part[1] > 0 ? part[1] / 1000 : ticks * tick
}

function kind(text) {
	if (text ~ /^postgres: presence worker/) return "worker"
	if (text ~ /^postgres: listener /) return "listener"
	if (text ~ /^postgres: autovacuum worker/) return "ended"
	if (text ~ /^postgres: (checkpointer|background writer|walwriter|startup|archiver|stats|io worker)/) return "helper"
	if (text ~ /^postgres: (autovacuum|logical replication|presence) launcher/) return "helper"
	return "backend"
}

{
	pid = $1
	sub(/.*\) /, "")		# from here $1 is the state, $2 the parent
}

pid == postmaster {
	if (reading++ == 0) first = $14 + $15
	last = $14 + $15
}

$2 == postmaster { cpu[kind(title(pid))] += used(pid, $12 + $13) }

END {
	if (reading < 2 || first != last) exit 1
	printf "%.0f %.0f %.0f %.0f %.0f\n", cpu["backend"], cpu["worker"], cpu["listener"], cpu["helper"],
		cpu["ended"] + last * tick
}
