/*-------------------------------------------------------------------------
 *
 * store.h
 *		SQL statements whose plans a session keeps.
 *
 * The files store_*.c hold the statements, each those on some tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_STORE_H
#define PRESENCE_STORE_H

#include "postgres.h"

#include "executor/spi.h"
#include "storage/block.h"
#include "utils/array.h"
#include "utils/plancache.h"
#include "utils/snapshot.h"

/* Operators of statements, qualified as all names there are. */
#define SQL_EQ "OPERATOR(pg_catalog.=)"
#define SQL_LT "OPERATOR(pg_catalog.<)"
#define SQL_GT "OPERATOR(pg_catalog.>)"
#define SQL_GE "OPERATOR(pg_catalog.>=)"

/* The rows of some blocks of a table: for presence_store_run_in_blocks(). */
#define SQL_IN_BLOCKS(alias) \
	alias ".ctid " SQL_GE " $1 AND " alias ".ctid " SQL_LT " $2"

#define PRESENCE_MAX_STATEMENT_ARGUMENTS 8

/* A statement, prepared at its first use in a session. */
typedef struct PresenceStatement
{
	const char *sql;
	int			nargs;
	Oid			types[PRESENCE_MAX_STATEMENT_ARGUMENTS];
	bool		whole;			/* reads a whole table */
	bool		few;			/* stops after a few of many: makes no bitmap */

	/* The business of store.c. */
	SPIPlanPtr	plan;
	CachedPlanSource *source;	/* of that plan */
	int			generation;		/* of what make_plan() made of it */
	bool		past_policies;	/* as which it was: InNoForceRLSOperation() */
} PresenceStatement;

extern void presence_store_connect(void);
extern void presence_store_finish(void);
extern void presence_store_check_constraints(void);

extern SPIPlanPtr presence_store_plan(PresenceStatement *statement);
extern uint64 presence_store_run_at(PresenceStatement *statement, Datum *values,
									const char *nulls, Snapshot snapshot,
									long limit);
extern uint64 presence_store_run(PresenceStatement *statement, Datum *values,
								 const char *nulls);
extern uint64 presence_store_run_newest(PresenceStatement *statement,
										Datum *values, const char *nulls);
extern void presence_store_run_in_blocks(PresenceStatement *statement,
										 BlockNumber from, BlockNumber to,
										 TimestampTz before);
extern bool presence_store_finds(PresenceStatement *statement, Datum *values);

extern bool presence_store_any(uint64 count);
extern uint64 presence_store_count(void);
extern ArrayType *presence_store_array(void);
extern char *presence_store_text(HeapTuple tuple, int column);

#endif							/* PRESENCE_STORE_H */
