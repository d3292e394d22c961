/*-------------------------------------------------------------------------
 *
 * store.h
 *		SQL statements with saved plans.
 *
 * The statements themselves are in store_*.c, by table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_STORE_H
#define PRESENCE_STORE_H

#include "postgres.h"

#include "executor/spi.h"
#include "storage/block.h"
#include "tcop/dest.h"
#include "utils/array.h"
#include "utils/plancache.h"
#include "utils/snapshot.h"

/* Operators for statements, schema-qualified as all names there. */
#define SQL_EQ "OPERATOR(pg_catalog.=)"
#define SQL_LT "OPERATOR(pg_catalog.<)"
#define SQL_LE "OPERATOR(pg_catalog.<=)"
#define SQL_GT "OPERATOR(pg_catalog.>)"
#define SQL_GE "OPERATOR(pg_catalog.>=)"

/* Condition for the rows of a range of blocks: presence_store_run_in_blocks(). */
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
	bool		few;			/* stops after a few rows: no bitmap scans */

	/* Private to store.c. */
	SPIPlanPtr	plan;
	CachedPlanSource *source;	/* of that plan */
	int			generation;		/* of the plan that make_plan() made */
	bool		past_policies;	/* InNoForceRLSOperation() when planned */
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
extern void presence_store_run_into(PresenceStatement *statement, Datum *values,
									DestReceiver *receiver);
extern void presence_store_run_in_blocks(PresenceStatement *statement,
										 BlockNumber from, BlockNumber to,
										 TimestampTz before);
extern bool presence_store_finds(PresenceStatement *statement, Datum *values);

extern bool presence_store_any(uint64 count);
extern uint64 presence_store_count(void);
extern ArrayType *presence_store_array(void);
extern char *presence_store_text(HeapTuple tuple, int column);

#endif							/* PRESENCE_STORE_H */
