# presence: who is here, told by PostgreSQL itself.
#
#   make                 build the extension against PG_CONFIG
#   make install         install it there
#   make installcheck    regress and isolation tests against a running server
#                        that preloads presence (scripts/check starts one)
#   make check-tap       the tests of test/t, on servers of their own;
#                        TAP_TESTS="test/t/004_expiry.pl ..." chooses
#   make bench           measure it beside its peers on a private server
#   make dist            the archive for PGXN, of the last commit
#
# presence.control alone knows the version that CREATE EXTENSION makes.

EXTENSION    = presence
EXTVERSION   = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(srcdir)/presence.control)
MODULE_big   = presence
OBJS         = $(patsubst %.c,%.o,$(C_SOURCES))

C_SOURCES    = $(sort $(wildcard src/*.c src/*/*.c))
C_HEADERS    = $(wildcard src/*.h src/*/*.h)

# The first version, and one script from each version to the next.
DATA         = $(sort $(wildcard sql/presence--*.sql))

TESTS        = $(sort $(wildcard test/sql/*.sql))
REGRESS      = $(patsubst test/sql/%.sql,%,$(TESTS))
REGRESS_OPTS = --inputdir=test --load-extension=presence
ISOLATION    = $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test --outputdir=. --load-extension=presence

PG_CPPFLAGS  = -I$(srcdir)/src -DPRESENCE_VERSION='"$(EXTVERSION)"'
PG_CFLAGS    = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare \
               -Wno-missing-field-initializers
EXTRA_CLEAN  = META.json presence-*.zip bench/out \
               results output_iso regression.diffs regression.out tmp_check

PG_CONFIG   ?= pg_config
PGXS        := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS) $(OBJS:.o=.bc): $(C_HEADERS)
src/presence.o src/presence.bc: presence.control

META.json: META.json.in presence.control
	sed 's/@VERSION@/$(EXTVERSION)/' META.json.in > $@

.PHONY: bench check-tap dist
bench:
	bench/run

check-tap:
	scripts/check $(or $(TAP_TESTS),tap)

dist: META.json
	git diff --quiet HEAD -- META.json.in presence.control sql
	git archive --format=zip \
		--prefix=presence-$(EXTVERSION).0/ --add-file=META.json \
		-o presence-$(EXTVERSION).0.zip HEAD
