# Draws the ratios of bench/measure as an SVG: one bar a row on a logarithmic
# scale from 1/10 to 1000, the goal as a tick, green where it is reached, red
# where it is missed, grey where there is none.

BEGIN { FS = "\t"; LEFT = 560; WIDTH = 420; HEIGHT = 20; LOW = -1; HIGH = 3 }

function x(ratio,   l) {
	l = log(ratio > 0 ? ratio : 0.001) / log(10)
	l = l < LOW ? LOW : l > HIGH ? HIGH : l
	return LEFT + WIDTH * (l - LOW) / (HIGH - LOW)
}

function escaped(text) {
	gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text)
	return text
}

$1 == "row" && $8 == "x" && $7 + 0 > 0 {
	y = 60 + HEIGHT * n++
	colour = $10 == "" ? "#8a8f98" : ($9 == ">=" ? $7 >= $10 + 0 : $7 <= $10 + 0) ? "#2f9e62" : "#cf4a3f"
	from = x(1) < x($7) ? x(1) : x($7)
	body = body sprintf("<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", LEFT - 10, y + 13,
		escaped($3 ($5 == "" ? "" : " / " $5)))
	body = body sprintf("<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", from, y + 3,
		x($7) - x(1) < 0 ? x(1) - x($7) + 1 : x($7) - x(1) + 1, HEIGHT - 6, colour)
	body = body sprintf("<text x=\"%.1f\" y=\"%d\">%s×</text>\n", (x($7) > x(1) ? x($7) : x(1)) + 6, y + 13, $7 + 0)
	if ($10 != "")
		body = body sprintf("<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" stroke=\"#111\" stroke-width=\"2\"/>\n",
			x($10), x($10), y + 1, y + HEIGHT - 1)
}

$1 == "about" { about = $2 }

END {
	bottom = 60 + HEIGHT * n
	printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n",
		LEFT + WIDTH + 80, bottom + 30
	print "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
	printf "<text x=\"20\" y=\"22\" font-size=\"15\">presence beside its peers: ratios within one run (%s); tick: goal</text>\n", escaped(about)
	for (l = LOW; l <= HIGH; l++) {
		printf "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"46\" y2=\"%d\" stroke=\"#ddd\"/>\n", x(10 ^ l), x(10 ^ l), bottom
		printf "<text x=\"%.1f\" y=\"42\" text-anchor=\"middle\" fill=\"#666\">%s×</text>\n", x(10 ^ l), 10 ^ l
	}
	printf "%s</svg>\n", body
}
