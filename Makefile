# presence: who is here, told by PostgreSQL itself.
#
#   make                 build the extension against PG_CONFIG
#   make install         install it there
#   make installcheck    regress and isolation tests against a running server
#                        that preloads presence (scripts/check starts one)
#   make bench           measure it beside its peers on a private server

EXTENSION    = presence
EXTVERSION   = 1.0
MODULE_big   = presence
OBJS         = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))

# The chapters of the install script, in the order they are joined.
SQL_CHAPTERS = $(sort $(wildcard sql/chapters/*.sql))
DATA_built   = sql/presence--$(EXTVERSION).sql

TESTS        = $(sort $(wildcard test/sql/*.sql))
REGRESS      = $(patsubst test/sql/%.sql,%,$(TESTS))
REGRESS_OPTS = --inputdir=test --load-extension=presence
ISOLATION    = $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test --outputdir=. --load-extension=presence

PG_CPPFLAGS  = -I$(srcdir)/src
PG_CFLAGS    = -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare \
               -Wno-missing-field-initializers
EXTRA_CLEAN  = $(DATA_built) results output_iso regression.diffs regression.out tmp_check

PG_CONFIG   ?= pg_config
PGXS        := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(DATA_built): $(SQL_CHAPTERS)
	cat $^ > $@

$(OBJS): $(wildcard src/*.h)

.PHONY: bench
bench:
	bench/run
