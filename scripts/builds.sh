# shellcheck shell=bash
#
# Servers that scripts/torture builds itself, from the source package of the
# machine's own Debian.  Sourced after lib.sh, never run.
#
#     make_builds FLAVOUR ...     builds what is not kept from another time
#     build_of FLAVOUR            where a build lies: bin/pg_config, source/
#
# The flavours:
#   assert    assertions on; freed memory is clobbered, and no entry of the caches
#             outlives its last reference
#   sanitize  AddressSanitizer and UndefinedBehaviorSanitizer beside assertions;
#             what either finds ends the process (SIGABRT)
#
# The source is the newest version that the archive really holds: its index may
# name one whose files are gone.  It is fetched with package lists of its own,
# derived from the sources apt is set up with; apt's set-up stays as it is.
#
# Everything lies below PRESENCE_BUILDS (default /var/tmp/presence-builds):
#   apt/                          those package lists
#   archive/                      downloaded sources
#   postgresql-VERSION-FLAVOUR/   a build; good when .made holds its recipe,
#                                 which is written last

readonly BUILDS=${PRESENCE_BUILDS:-/var/tmp/presence-builds}

readonly CONFIGURE="--without-readline --without-icu --enable-cassert --enable-debug --enable-tap-tests"

# What gcc warns of in error where it optimizes little, or looks after sanitizers.
readonly QUIET="-Wno-error=clobbered -Wno-error=maybe-uninitialized"

# A build is told by the user who made it: nobody else's programs are run.
ours() { # file
	case $(stat -c %u "$1" 2>/dev/null) in
		0|"$(id -u)") true ;;
		*) false ;;
	esac
}

flags_of() { # flavour
	case $1 in
		assert)   echo "-Og -fno-omit-frame-pointer -DRELCACHE_FORCE_RELEASE -DCATCACHE_FORCE_RELEASE $QUIET" ;;
		sanitize) echo "-O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all $QUIET" ;;
		*)        die "internal: unknown flavour \"$1\"" ;;
	esac
}

# From 17 on PostgreSQL is released without what bison and flex make.
build_needs() {
	echo "build bzip2 zlib prove ipc-run"
	[ "$PG_MAJOR" -lt 17 ] || echo "bison flex"
}

# What a build was made with; another recipe makes another build.
recipe_of() { echo "$CONFIGURE $(flags_of "$1")"; }

good_build() { # directory, flavour
	ours "$1/.made" && [ "$(cat "$1/.made")" = "$(recipe_of "$2")" ]
}

# The newest good build of a flavour for PG_MAJOR, or nothing.
build_of() { # flavour
	local dir

	printf '%s\n' "$BUILDS"/postgresql-"$PG_MAJOR".*-"$1" | sort -rV | while read -r dir; do
		good_build "$dir" "$1" && { echo "$dir"; break; }
	done
}

# ------------------------------------------------------------------ the source

# The sources that apt is set up with, as sources of source packages, too.
derive_sources() { # directory
	local file

	rm -rf "$1"
	mkdir -p "$1"
	for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ ! -r "$file" ] || sed -nE 's/^[ \t]*deb[ \t](.*)/deb \1\ndeb-src \1/p' "$file" >"$1/${file##*/}"
	done
	for file in /etc/apt/sources.list.d/*.sources; do
		[ ! -r "$file" ] || sed 's/^Types:.*/Types: deb deb-src/' "$file" >"$1/${file##*/}"
	done
}

# A program of apt with the lists below PRESENCE_BUILDS, as whoever called.
apt_source() { # program, arguments ...
	local program=$1

	shift
	"$program" -q -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$BUILDS/apt/sources" \
		-o Dir::State::Lists="$BUILDS/apt/lists" -o Dir::Cache="$BUILDS/apt/cache" \
		-o APT::Sandbox::User=root "$@"
}

# Versions of the source that the index names, newest first.  A source of apt's
# that cannot be reached is no matter while another one has it.
source_versions() {
	mkdir -p "$BUILDS/apt/lists/partial" "$BUILDS/apt/cache/archives/partial" || return 1
	derive_sources "$BUILDS/apt/sources"
	apt_source apt-get update >"$BUILDS/apt/update.log" 2>&1 || true
	apt_source apt-cache showsrc --only-source "postgresql-$PG_MAJOR" 2>/dev/null |
		sed -n 's/^Version: //p' | sort -rVu
}

# The files of one version, checked by apt against the signed index.
download_source() { # version
	local dir=$BUILDS/archive/$1

	rm -rf "$dir"
	mkdir -p "$dir"
	(cd "$dir" && apt_source apt-get source --download-only "postgresql-$PG_MAJOR=$1") \
		>"$BUILDS/apt/source.log" 2>&1 && touch "$dir/.complete" && return 0
	rm -rf "$dir"
	return 1
}

# VERSION becomes the newest that can be had.
choose_version() {
	local version versions

	versions=$(source_versions)
	for version in $versions; do
		VERSION=$version
		[ ! -e "$BUILDS/archive/$version/.complete" ] || return 0
		download_source "$version" && return 0
		note "the archive names postgresql-$PG_MAJOR $version, and does not have its source"
	done
	if [ -z "$versions" ]; then show_tail "$BUILDS/apt/update.log"; else show_tail "$BUILDS/apt/source.log"; fi
	return 1
}

# ------------------------------------------------------------------- the build

# What the sanitizers are told, by a function in each program: no environment
# has to carry it.  PostgreSQL leaves its memory to the end of the process.
sanitizer_options() { # directory
	cat >"$1/options.c" <<-'C'
		const char *__asan_default_options(void);
		const char *__ubsan_default_options(void);

		const char *
		__asan_default_options(void)
		{
			return "detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=1";
		}

		const char *
		__ubsan_default_options(void)
		{
			return "print_stacktrace=1:abort_on_error=1";
		}
		C
	gcc -O1 -c -o "$1/options.o" "$1/options.c"
}

# pgTAP is pure SQL: the files of Debian's package serve any server of its major.
add_pgtap() { # directory
	mkdir -p "$1/pgtap" &&
		(cd "$1/pgtap" && apt_source apt-get download "postgresql-$PG_MAJOR-pgtap" && dpkg-deb -x ./*.deb .) &&
		cp "$1/pgtap/usr/share/postgresql/$PG_MAJOR/extension/pgtap"* "$("$1/bin/pg_config" --sharedir)/extension/"
}

# The tests of the server need their tree; its objects have served.
compile() { # directory, flavour
	local dir=$1 programs=

	mkdir -p "$dir/source" || return 1
	tar -C "$dir/source" --strip-components=1 -xf "$BUILDS/archive/$VERSION"/*.orig.tar.* || return 1
	if [ "$2" = sanitize ]; then
		sanitizer_options "$dir" || return 1
		programs=LDFLAGS_EX=$dir/options.o
	fi
	cd "$dir/source" || return 1
	# shellcheck disable=SC2086
	./configure -q --prefix="$dir" $CONFIGURE CFLAGS="$(flags_of "$2")" $programs || return 1
	make -s -j"$(nproc)" && make -s -C src/test/regress && make -s install && add_pgtap "$dir" || return 1
	find . -name '*.o' -delete
}

make_build() { # flavour
	local dir=$BUILDS/postgresql-$VERSION-$1 old began=$SECONDS

	good_build "$dir" "$1" && return 0
	note "building PostgreSQL $VERSION, flavour $1"
	rm -rf "$dir"
	mkdir -p "$dir"
	(compile "$dir" "$1") </dev/null >"$BUILDS/build-$1.log" 2>&1 ||
		{ show_tail "$BUILDS/build-$1.log" 60; die "the build of PostgreSQL $VERSION failed"; }
	recipe_of "$1" >"$dir/.made"
	note "built in $((SECONDS - began)) s"
	for old in "$BUILDS"/postgresql-"$PG_MAJOR".*-"$1"; do
		[ "$old" = "$dir" ] || rm -rf "$old"
	done
}

# Another run may be building; wait for it rather than build twice.
make_builds() { # flavours
	local flavour

	mkdir -p "$BUILDS" && [ -w "$BUILDS" ] ||
		die "cannot write to $BUILDS; name another directory in PRESENCE_BUILDS"
	exec 8>"$BUILDS/.lock"
	flock 8
	# shellcheck disable=SC2046
	install_missing $(build_needs)
	if choose_version; then
		for flavour in "$@"; do
			make_build "$flavour"
		done
	fi
	for flavour in "$@"; do
		[ -n "$(build_of "$flavour")" ] ||
			die "no source of postgresql-$PG_MAJOR is to be had from the sources of apt, and no build of it is kept"
	done
	exec 8>&-
}
