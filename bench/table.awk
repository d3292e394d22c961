# Prints rows of bench/measure as a table; format=markdown for RESULTS.md.

BEGIN { FS = "\t" }

$1 == "about" { about = $2 }

$1 == "row" {
	n++
	group[n] = $2; what[n] = $3; ours[n] = $4; beside[n] = $5; theirs[n] = $6
	value[n] = $8 == "x" ? $7 "×" : $7 $8
	goal[n] = $10 == "" ? "" : ($9 == ">=" ? "≥ " : "≤ ") $10 ($8 == "x" ? "×" : $8)
	verdict[n] = $10 == "" ? "" : ($9 == ">=" ? $7 >= $10 + 0 : $7 <= $10 + 0) ? "reached" : "missed"
	met += verdict[n] == "reached"
	missed += verdict[n] == "missed"
}

function markdown(   i, last) {
	print "# What presence costs, beside its peers\n"
	print "Written by `make bench`, which anyone can run: " about ".\n"
	print "Every ratio is taken within one run: the contestants take turns in rounds, three or seven, and the median of the"
	print "rounds' ratios counts. Clients and servers share the cores.\n"
	print "After a throughput stands the CPU of an operation, user and system time: of the backends, and after a + of the"
	print "worker that announced it. A row that says CPU compares that of the backends; it holds where neighbours are busy.\n"
	print "![ratios](results.svg)\n"
	for (i = 1; i <= n; i++) {
		if (group[i] != last) {
			print (last == "" ? "" : "\n") "## " group[i] "\n"
			print "| what | presence | beside | theirs | result | goal | |"
			print "|---|---|---|---|---|---|---|"
			last = group[i]
		}
		printf "| %s | %s | %s | %s | %s | %s | %s |\n", what[i], ours[i], beside[i], theirs[i], value[i], goal[i], verdict[i]
	}
	printf "\n%d goals reached, %d missed.\n", met, missed
}

function plain(   i) {
	printf "\n%s\n\n", about
	printf "%-10s %-68s %-30s %-45s %-12s %-10s %s\n", "group", "what", "presence", "beside", "result", "goal", ""
	for (i = 1; i <= n; i++)
		printf "%-10s %-68s %-30s %-45s %-12s %-10s %s\n", group[i], what[i], ours[i],
			beside[i] (theirs[i] == "" ? "" : " " theirs[i]), value[i], goal[i], verdict[i]
	printf "\n%d goals reached, %d missed\n", met, missed
}

END { if (format == "markdown") markdown(); else plain() }
