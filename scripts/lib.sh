# shellcheck shell=bash
#
# What scripts/check, scripts/torture, scripts/demo and the benchmark share.  Sourced, never run.
#
# A script that needs a server sources this file and calls
#
#     enter_workspace "$0" "need need ..." "$@"
#
# which comes back twice:
#
#  1. In the checkout, as whoever called.  It chooses a PostgreSQL, installs
#     through apt whatever of the needs is missing, and copies checkout and
#     server to a temporary directory.  Then it replaces itself (exec) with the
#     same script
#  2. in the copy, never as root.  enter_workspace returns there, with PG_CONFIG
#     naming the private copy of the server and WORK the temporary directory,
#     which goes away with the script, servers first.
#
# Nothing is installed into the system's PostgreSQL and no cluster of the system
# is touched: the private servers have their own sockets and no TCP port.
#
# Environment a caller may set:
#   PG_CONFIG          use the server this pg_config belongs to
#   PRESENCE_PG_MAJOR  use this major version (15 to 18) instead of the newest
#   PRESENCE_NODE_PATH look for the Node package pg there, too
#   PRESENCE_KEEP=1    leave the temporary directory behind, and say where it is

set -u
umask 022

readonly MAJORS="18 17 16 15"          # newest first
readonly CLEAN_PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin

# ---------------------------------------------------------------- speaking up

say()  { printf '%s\n' "$*"; }
note() { printf -- '-- %s\n' "$*"; }
die()  { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Show the last lines of a log that explains a failure.
show_tail() { # file [lines]
	[ -s "$1" ] || return 0
	printf -- '---- last lines of %s\n' "${1##*/}"
	tail -n "${2:-40}" "$1"
	printf -- '----\n'
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

# ------------------------------------------------------- choosing a PostgreSQL

debian_bindir() { printf '/usr/lib/postgresql/%s/bin' "$1"; }

# Does this machine have server and headers of a major version from a package?
have_major() {
	[ -x "$(debian_bindir "$1")/postgres" ] &&
		[ -x "$(debian_bindir "$1")/pg_config" ] &&
		have_headers "$(debian_bindir "$1")/pg_config"
}

# Debian's client package brings PGXS along, but only the -dev one the headers.
have_headers() { # pg_config
	[ -e "$("$1" --pgxs)" ] && [ -e "$("$1" --includedir-server)/postgres.h" ]
}

apt_offers() {
	apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [^(]'
}

# Sets PG_MAJOR, and PG_CONFIG where the server is there already.
choose_postgres() {
	local major

	if [ -n "${PG_CONFIG:-}" ]; then
		PG_CONFIG=$(command -v "$PG_CONFIG") ||
			die "PG_CONFIG names no program; give the pg_config of a server"
		# Debian's /usr/bin/pg_config stands in for the one beside the server.
		PG_CONFIG="$("$PG_CONFIG" --bindir)/pg_config"
		PG_MAJOR=$("$PG_CONFIG" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
		case " $MAJORS " in
			*" $PG_MAJOR "*) return 0 ;;
			*) die "presence supports PostgreSQL 15 to 18, this is $PG_MAJOR" ;;
		esac
	fi

	for major in ${PRESENCE_PG_MAJOR:-$MAJORS}; do
		have_major "$major" || continue
		PG_MAJOR=$major
		PG_CONFIG=$(debian_bindir "$major")/pg_config
		return 0
	done
	PG_MAJOR=
}

# The newest major version that apt can install, into PG_MAJOR.
choose_from_apt() {
	local major

	for major in ${PRESENCE_PG_MAJOR:-$MAJORS}; do
		apt_offers "postgresql-server-dev-$major" || continue
		PG_MAJOR=$major
		return 0
	done
	return 1
}

# --------------------------------------------------------- what may be missing

# Is a need met?  Asked of the machine rather than of its package manager, so
# that what came from elsewhere counts too.
have() {
	local sharedir=

	[ -n "${PG_CONFIG:-}" ] && sharedir=$("$PG_CONFIG" --sharedir)
	case $1 in
		server)   [ -n "$sharedir" ] && have_headers "$PG_CONFIG" ;;
		build)    command -v make >/dev/null &&
		          echo '#include <stdio.h>' | gcc -E -x c - >/dev/null 2>&1 ;;
		cron)     [ -e "$sharedir/extension/pg_cron.control" ] ;;
		pgtap)    [ -e "$sharedir/extension/pgtap.control" ] ;;
		pg_prove) command -v pg_prove >/dev/null ;;
		prove)    command -v prove >/dev/null ;;
		ipc-run)  perl -MIPC::Run -e 1 2>/dev/null ;;
		dbd-pg)   perl -MDBD::Pg -e 1 2>/dev/null ;;
		cppcheck) command -v cppcheck >/dev/null ;;
		libpq)    [ -n "${PG_CONFIG:-}" ] && [ -e "$("$PG_CONFIG" --includedir)/libpq-fe.h" ] ;;
		bison|flex|bzip2|sqlsmith) command -v "$1" >/dev/null ;;
		zlib)     echo '#include <zlib.h>' | gcc -E -x c - >/dev/null 2>&1 ;;
		redis)    command -v redis-server >/dev/null && command -v redis-benchmark >/dev/null ;;
		psycopg)  PATH=$CLEAN_PATH python3 -c 'import psycopg' 2>/dev/null ;;
		node-pg)  PATH=$CLEAN_PATH NODE_PATH=${PRESENCE_NODE_PATH:-}:/usr/share/nodejs \
		          node -e 'require("pg")' 2>/dev/null ;;
		pgbouncer) PATH=$CLEAN_PATH command -v pgbouncer >/dev/null ;;
		*)        die "internal: unknown need \"$1\"" ;;
	esac
}

# The Debian packages that meet a need.
packages_for() {
	case $1 in
		server)   echo "postgresql-$PG_MAJOR postgresql-server-dev-$PG_MAJOR" ;;
		build)    echo "gcc libc6-dev make" ;;
		cron)     echo "postgresql-$PG_MAJOR-cron" ;;
		pgtap)    echo "postgresql-$PG_MAJOR-pgtap" ;;
		pg_prove) echo "libtap-parser-sourcehandler-pgtap-perl" ;;
		prove)    echo "perl" ;;
		ipc-run)  echo "libipc-run-perl" ;;
		dbd-pg)   echo "libdbd-pg-perl" ;;
		cppcheck) echo "cppcheck" ;;
		libpq)    echo "libpq-dev" ;;
		bison|flex|bzip2|sqlsmith) echo "$1" ;;
		zlib)     echo "zlib1g-dev" ;;
		redis)    echo "redis-server redis-tools" ;;
		psycopg)  echo "python3-psycopg" ;;
		node-pg)  echo "node-pg" ;;
		pgbouncer) echo "pgbouncer" ;;
	esac
}

missing_of() {
	local need

	for need in "$@"; do
		have "$need" || printf '%s ' "$need"
	done
}

# Fresh package lists.  A bare Ubuntu knows only its component "main", which
# lacks the server's headers: add "universe" while the script needs it.
apt_refresh() {
	note "fetching the package lists"
	logged apt-get update -q
	grep -qs '^ID=ubuntu' /etc/os-release || return 0
	apt_components | grep -qx universe && return 0
	apt_main_as_universe | as_root tee "$UNIVERSE_LIST" >/dev/null
	logged apt-get update -q
}

readonly UNIVERSE_LIST=/etc/apt/sources.list.d/presence-universe.list

# shellcheck disable=SC2016
apt_components() {
	apt-get indextargets --format '$(COMPONENT)' 'Created-By: Packages' | sort -u
}

# apt leaves the name of a field that a source lacks as it stands.
# shellcheck disable=SC2016
apt_main_as_universe() {
	apt-get indextargets --format '[signed-by=$(SIGNED_BY)] $(REPO_URI) $(RELEASE)' \
		'Created-By: Packages' 'Component: main' | sort -u |
		sed -e 's/^\[signed-by=$(SIGNED_BY)\] *//' -e 's/^/deb /' -e 's/$/ universe/'
}

# Run as root.  A new server package would create and start a cluster of the
# system; this keeps it from doing so while the packages are unpacked, and puts
# everything back as it was.
# shellcheck disable=SC2016
readonly APT_INSTALL='
	conf=/etc/postgresql-common/createcluster.conf
	policy=/usr/sbin/policy-rc.d
	apt="apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300"
	export DEBIAN_FRONTEND=noninteractive
	restore() {
		[ -z "$saved" ]  || { cat "$saved" >"$conf"; rm -f "$saved"; }
		[ -z "$denied" ] || rm -f "$policy"
	}
	saved= denied=
	trap restore EXIT
	trap "exit 1" HUP INT TERM
	if [ ! -e "$policy" ]; then
		denied=yes
		printf "#!/bin/sh\nexit 101\n" >"$policy"
		chmod 755 "$policy"
	fi
	case " $* " in *" postgresql-"*)
		$apt postgresql-common || exit 1
		saved=$(mktemp)
		cat "$conf" >"$saved"
		echo "create_main_cluster = false" >>"$conf"
	esac
	$apt "$@"
'

install_packages() {
	logged sh -c "$APT_INSTALL" apt-get "$@"
}

# Run a command as root, quietly unless it fails.
logged() {
	as_root "$@" </dev/null >>"$APT_LOG" 2>&1 ||
		{ show_tail "$APT_LOG"; die "apt-get failed"; }
}

forget_apt() {
	rm -f "$APT_LOG"
	[ ! -e "$UNIVERSE_LIST" ] || as_root rm -f "$UNIVERSE_LIST"
}

can_install() {
	command -v apt-get >/dev/null &&
		{ [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null; }
}

# These are welcome, not needed: some machines come without, and what wants them
# says so and goes on.
is_optional() { case $1 in cron|redis|dbd-pg|psycopg|node-pg|pgbouncer) true ;; *) false ;; esac; }

only_optional() { # needs
	local need

	for need in "$@"; do
		is_optional "$need" || return 1
	done
}

# Debian's packages of extensions serve Debian's servers only.
uses_debians_server() {
	[ "${PG_CONFIG:-$(debian_bindir "$PG_MAJOR")/pg_config}" = "$(debian_bindir "$PG_MAJOR")/pg_config" ]
}

# Whether apt has the packages for a need, and all that they depend on.
apt_has() { # need
	local package

	case $1 in cron|pgtap) uses_debians_server || return 1 ;; esac
	for package in $(packages_for "$1"); do
		apt_offers "$package" || return 1
	done
	# shellcheck disable=SC2046
	apt-get install -s -q --no-install-recommends $(packages_for "$1") >/dev/null 2>&1
}

# Those optional needs that can be met here; says which cannot.
obtainable() { # needs
	local need

	for need in "$@"; do
		if can_install && apt_has "$need"; then
			printf '%s ' "$need"
		else
			note "without $need: it is not installed, and apt does not offer it here" >&2
		fi
	done
}

# The packages for the missing needs, as far as apt has them.
packages_to_install() { # needs
	local need

	for need in "$@"; do
		is_optional "$need" && ! apt_has "$need" && continue
		printf '%s ' "$(packages_for "$need")"
	done
}

# Meet the needs, installing what is missing and only that.
install_missing() {
	local need missing packages

	missing=$(missing_of "$@")
	[ -n "$missing" ] || return 0
	# shellcheck disable=SC2086
	if only_optional $missing; then
		missing=$(obtainable $missing)
		[ -n "$missing" ] || return 0
	fi
	can_install ||
		die "missing here: ${missing% }; run this once as root or through sudo where apt is, or install it by hand (PG_CONFIG chooses the server)"

	APT_LOG=$(mktemp) || die "no temporary file"
	trap forget_apt EXIT
	apt_refresh
	[ -n "$PG_MAJOR" ] || choose_from_apt ||
		die "apt offers no server with headers among: ${PRESENCE_PG_MAJOR:-$MAJORS}"
	# shellcheck disable=SC2086
	packages=$(packages_to_install $missing)
	note "installing: $packages"
	# shellcheck disable=SC2086
	install_packages $packages
	forget_apt
	trap - EXIT

	[ -n "${PG_CONFIG:-}" ] || ! have_major "$PG_MAJOR" ||
		PG_CONFIG=$(debian_bindir "$PG_MAJOR")/pg_config
	for need in $(missing_of "$@"); do
		is_optional "$need" || die "still missing after installing: $need"
	done
}

# -------------------------------------------------------------- the workspace

# Copy the server so that the extension can be installed beside it without
# touching the system: PostgreSQL finds its files relative to its programs.
copy_server() { # pg_config, target
	local which dir

	for which in bindir sharedir pkglibdir; do
		dir=$("$1" --$which)
		mkdir -p "$2$dir"
		tar -C "$dir" --exclude=./bitcode --exclude=./man -cf - . | tar -C "$2$dir" -xf -
	done
	for which in includedir pkgincludedir includedir-server; do
		dir=$("$1" --$which)
		[ -e "$2$dir" ] || [ ! -d "$dir" ] && continue
		mkdir -p "$2${dir%/*}"
		ln -s "$dir" "$2$dir"
	done
}

# The checkout without its history and without what was built in it.
copy_checkout() { # from, to
	mkdir -p "$2"
	tar -C "$1" --exclude=./.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' \
		--exclude=./results --exclude=./tmp_check --exclude=./output_iso \
		--exclude=./log --exclude=./bench/out --exclude='./regression.*' \
		-cf - . | tar -C "$2" -xf -
}

# The user that runs the servers: PostgreSQL refuses root.
unprivileged_user() {
	local user

	[ "$(id -u)" -eq 0 ] || { id -un; return; }
	for user in postgres nobody; do
		id -u "$user" >/dev/null 2>&1 && { echo "$user"; return; }
	done
	die "neither a user \"postgres\" nor \"nobody\" here to run the server as"
}

make_workspace() {
	local base=/tmp

	# root's own TMPDIR may be closed to the server's user
	[ "$(id -u)" -eq 0 ] || base=${TMPDIR:-/tmp}
	WORK=$(mktemp -d "$base/presence.XXXXXX") || die "no temporary directory in $base"
	WORK=$(cd "$WORK" && pwd -P) || die "no way into the temporary directory"
	[ ${#WORK} -le 70 ] ||
		die "TMPDIR is too long for the names of sockets; set a shorter one"
	chmod 755 "$WORK"
}

enter_workspace() { # script, "needs", arguments of the script
	local script=$1 needs=$2 dir top user bindir name settings=()

	shift 2
	if [ -n "${PRESENCE_WORKSPACE:-}" ]; then
		WORK=$PRESENCE_WORKSPACE
		settle_in
		return
	fi

	dir=$(cd "$(dirname "$script")" && pwd -P) || exit 1
	top=${dir%/*}
	choose_postgres
	cd "$top" || exit 1             # the caller's directory may be closed to the caller
	# shellcheck disable=SC2086
	install_missing $needs
	make_workspace
	trap 'rm -rf "$WORK"' EXIT
	copy_checkout "$top" "$WORK/presence"
	copy_server "$PG_CONFIG" "$WORK/server"
	mkdir -p "$WORK/home" "$WORK/log" "$WORK/socket" "$WORK/tmp"

	bindir=$WORK/server$("$PG_CONFIG" --bindir)
	case $("$bindir/pg_config" --sharedir) in
		"$WORK"/*) ;;
		*) die "the server of $PG_CONFIG does not find its files from another place" ;;
	esac

	user=$(unprivileged_user) || exit 1
	[ "$(id -u)" -ne 0 ] || chown -R "$user:" "$WORK"
	cd "$WORK/presence" || exit 1

	# A clean environment: no PGHOST, no ~/.psqlrc, no ~/.proverc of the caller.
	for name in "${!PRESENCE_@}"; do
		settings+=("$name=${!name}")
	done
	set -- env -i "${settings[@]}" PRESENCE_WORKSPACE="$WORK" \
		HOME="$WORK/home" TMPDIR="$WORK/tmp" USER="$user" LOGNAME="$user" \
		TERM="${TERM:-dumb}" \
		LC_ALL=C.UTF-8 TZ=UTC PG_CONFIG="$bindir/pg_config" \
		PATH="$bindir:$CLEAN_PATH" \
		bash "${dir##*/}/${script##*/}" "$@"
	[ "$(id -u)" -ne 0 ] ||
		set -- setpriv --reuid "$user" --regid "$(id -gn "$user")" --init-groups "$@"
	exec "$@"
}

# Second coming of enter_workspace: from here on everything is private.
settle_in() {
	RUNNING=
	PG_MAJOR=$("$PG_CONFIG" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
	export PGHOST=$WORK/socket PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
	trap leave_workspace EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
}

leave_workspace() {
	local status=$?

	trap - EXIT
	trap '' HUP INT TERM
	[ -z "$RUNNING" ] || { kill "$RUNNING" 2>/dev/null; wait "$RUNNING" 2>/dev/null; }
	stop_all_servers
	if [ -n "${PRESENCE_KEEP:-}" ]; then
		note "kept: $WORK"
	else
		cd / && rm -rf "$WORK"
	fi
	exit "$status"
}

# Every postmaster whose data directory lies in the workspace, also those that
# an interrupted test left behind.
stop_all_servers() {
	local file data

	find "$WORK" -name postmaster.pid 2>/dev/null | while read -r file; do
		data=${file%/*}
		if [ -d /proc/self ] && [ "$(readlink "/proc/$(head -n 1 "$file")/cwd")" != "$data" ]; then
			continue			# left by a killed server, the number may be another's
		fi
		pg_ctl stop -D "$data" -m immediate -w -t 30 >/dev/null 2>&1
	done
}

# Run a command within a number of seconds, its output to a log.  In the
# background, so that an interrupt reaches this shell at once.
run_within() { # seconds, log file, command ...
	local budget=$1 log=$2 status

	shift 2
	timeout -k 10 "$budget" "$@" </dev/null >"$log" 2>&1 &
	RUNNING=$!
	wait "$RUNNING"
	status=$?
	RUNNING=
	[ $status -ne 124 ] || printf 'ran out of time after %s seconds\n' "$budget" >>"$log"
	return $status
}

# ----------------------------------------------------------- build and servers

# Warnings are errors here, not for packagers and users; bitcode would need a clang.
build_and_install() {
	local log=$WORK/log/build.log

	if ! run_within 600 "$log" make -s -j"$(nproc)" PG_CONFIG="$PG_CONFIG" with_llvm=no COPT=-Werror all ||
		! run_within 60 "$log" make -s PG_CONFIG="$PG_CONFIG" with_llvm=no install; then
		show_tail "$log" 60
		die "the build failed"
	fi
}

# A private server; lines for its postgresql.conf come on standard input.
start_server() { # name
	local data=$WORK/$1 log=$WORK/log/$1.log

	run_within 120 "$log.initdb" \
		initdb -D "$data" -U postgres -A trust -E UTF8 --no-locale --no-sync ||
		{ show_tail "$log.initdb"; die "initdb failed"; }
	{
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$PGHOST'"
		echo "port = $PGPORT"
		echo "fsync = off"
		echo "log_line_prefix = '%m [%p] %b %d '"
		cat
	} >>"$data/postgresql.conf"
	run_within 90 "$log.start" pg_ctl start -D "$data" -l "$log" -w -t 60 ||
		{ show_tail "$log"; die "the private server did not start"; }
}

stop_server() { # name
	run_within 90 "$WORK/log/stop.log" pg_ctl stop -D "$WORK/$1" -m fast -w -t 60 ||
		{ show_tail "$WORK/log/$1.log"; die "the private server did not stop"; }
}
