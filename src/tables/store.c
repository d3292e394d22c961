/*-------------------------------------------------------------------------
 *
 * store.c
 *		Runs SQL statements with plans that are saved for the session.
 *
 * Statements run as the current user, subject to its privileges and row-level
 * security.  All names and operators in them are schema-qualified, so the
 * caller's search_path does not matter.
 *
 * A statement is prepared at its first use, and planned with sequential scans
 * disabled: see make_plan().  PostgreSQL may replan it without these settings
 * after an invalidation, so the plan is checked before each execution.
 *
 * The functions here and in store_*.c return their results in the memory
 * context that is current when they are called, and leave it current.  A
 * result in SPI_tuptable is freed by the function that reads it last.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "optimizer/cost.h"
#include "tables/store.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

/*
 * Connect to SPI, and stay in the current memory context, so that nothing has
 * to be restored after an error.  Calls may be nested, by triggers of a
 * statement that is run here.
 */
void
presence_store_connect(void)
{
	MemoryContext context = CurrentMemoryContext;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(context);
}

/* Disconnect from SPI. */
void
presence_store_finish(void)
{
	SPI_finish();
}

/*
 * Fire deferred constraints and triggers now, while their errors can still be
 * caught, rather than at the commit.
 */
void
presence_store_check_constraints(void)
{
	MemoryContext context = CurrentMemoryContext;

	if (SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0) < 0)
		elog(ERROR, "SPI failed for SET CONSTRAINTS: %s",
			 SPI_result_code_string(SPI_result));
	MemoryContextSwitchTo(context);
}

/* Planner settings. */
typedef struct PlannerSwitches
{
	bool		seqscan;
	bool		hashjoin;
	bool		mergejoin;
	bool		indexscan;
	bool		bitmapscan;
	bool		nestloop;
	bool		jit;
} PlannerSwitches;

/*
 * Settings that disable sequential scans.  JIT is off because before
 * PostgreSQL 18 a disabled node looks so expensive that compiling it seems
 * worthwhile.
 */
static const PlannerSwitches index_switches = {
	.indexscan = true,
	.bitmapscan = true,
	.nestloop = true
};

/* The same for statements that stop early, before a bitmap would pay off. */
static const PlannerSwitches few_switches = {
	.indexscan = true,
	.nestloop = true
};

/* Get the current planner settings. */
static PlannerSwitches
get_switches(void)
{
	PlannerSwitches now = {
		.seqscan = enable_seqscan,
		.hashjoin = enable_hashjoin,
		.mergejoin = enable_mergejoin,
		.indexscan = enable_indexscan,
		.bitmapscan = enable_bitmapscan,
		.nestloop = enable_nestloop,
		.jit = jit_enabled
	};

	return now;
}

/* Set the planner settings. */
static void
set_switches(const PlannerSwitches *switches)
{
	enable_seqscan = switches->seqscan;
	enable_hashjoin = switches->hashjoin;
	enable_mergejoin = switches->mergejoin;
	enable_indexscan = switches->indexscan;
	enable_bitmapscan = switches->bitmapscan;
	enable_nestloop = switches->nestloop;
	jit_enabled = switches->jit;
}

/* Prepare a statement and save its plan, at its first use. */
static SPIPlanPtr
prepare(PresenceStatement *statement)
{
	if (statement->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare_cursor(statement->sql, statement->nargs,
											  statement->types,
											  CURSOR_OPT_GENERIC_PLAN);

		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed for \"%s\": %s", statement->sql,
				 SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		statement->plan = plan;
		statement->source = linitial(SPI_plan_get_plan_sources(plan));
	}
	return statement->plan;
}

/*
 * Whether the saved plan of a statement was made by make_plan() and will be
 * used without replanning.  These are the checks of GetCachedPlan(), but
 * cheaper, because they are made at each execution.
 */
static bool
has_plan(const PresenceStatement *statement)
{
	CachedPlanSource *source = statement->source;
	CachedPlan *plan = source ? source->gplan : NULL;

	return plan && source->is_valid && plan->is_valid &&
		plan->generation == statement->generation &&
		!TransactionIdIsValid(plan->saved_xmin) &&
		(!plan->dependsOnRole || plan->planRoleId == GetUserId()) &&
		(!source->dependsOnRLS || (source->rewriteRoleId == GetUserId() &&
								   source->rewriteRowSecurity == row_security &&
								   statement->past_policies == InNoForceRLSOperation())) &&
		presence_compat_search_path_matches(source->search_path);
}

/*
 * Plan a statement with sequential scans disabled, unless it reads a whole
 * table, regardless of the session's settings.  Otherwise a plan made while
 * the table was empty would use a sequential scan, and keep it however large
 * the table becomes.
 *
 * The plan is executed under the session's own settings, because triggers that
 * it fires plan, and save, queries of their own.  The locks taken here are
 * kept, so the plan cannot be invalidated before it runs.
 */
static void
make_plan(PresenceStatement *statement)
{
	SPIPlanPtr	plan = prepare(statement);
	CachedPlanSource *source = statement->source;
	PlannerSwitches before = get_switches();

	/* PostgreSQL's own check disregards InNoForceRLSOperation(). */
	if (source->dependsOnRLS && statement->past_policies != InNoForceRLSOperation())
		source->is_valid = false;
	statement->past_policies = InNoForceRLSOperation();
	/* Replanned by PostgreSQL, after a concurrent change of a table. */
	if (source->gplan && source->gplan->generation != statement->generation)
		source->gplan->is_valid = false;
	PG_TRY();
	{
		if (!statement->whole)
			set_switches(statement->few ? &few_switches : &index_switches);
		ReleaseCachedPlan(SPI_plan_get_cached_plan(plan), CurrentResourceOwner);
	}
	PG_FINALLY();
	{
		set_switches(&before);
	}
	PG_END_TRY();
	statement->generation = source->gplan->generation;
}

/* Get the plan of a statement, made again if necessary. */
SPIPlanPtr
presence_store_plan(PresenceStatement *statement)
{
	if (!has_plan(statement))
		make_plan(statement);
	return statement->plan;
}

/* Raise an error if SPI could not run a statement. */
static void
check_result(const PresenceStatement *statement, int result)
{
	if (result < 0)
		elog(ERROR, "SPI failed for \"%s\": %s", statement->sql,
			 SPI_result_code_string(result));
}

/*
 * Run a statement in a snapshot (InvalidSnapshot: that of the transaction),
 * until it has found "limit" rows (0: all); returns the number of rows found
 * or changed.
 */
uint64
presence_store_run_at(PresenceStatement *statement, Datum *values,
					  const char *nulls, Snapshot snapshot, long limit)
{
	MemoryContext context = CurrentMemoryContext;
	int			result;

	result = SPI_execute_snapshot(presence_store_plan(statement), values, nulls,
								  snapshot, InvalidSnapshot, false, true, limit);
	MemoryContextSwitchTo(context); /* SPI leaves its own behind */
	check_result(statement, result);
	return SPI_processed;
}

/* Run a statement in the snapshot of the transaction. */
uint64
presence_store_run(PresenceStatement *statement, Datum *values, const char *nulls)
{
	return presence_store_run_at(statement, values, nulls, InvalidSnapshot, 0);
}

/*
 * Run a statement in the newest snapshot, at any isolation level: a decision
 * after taking a lock must see everything that was committed before it.
 */
uint64
presence_store_run_newest(PresenceStatement *statement, Datum *values,
						  const char *nulls)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	uint64		count = presence_store_run_at(statement, values, nulls,
											  snapshot, 0);

	UnregisterSnapshot(snapshot);
	return count;
}

/*
 * Run a statement in the snapshot of the transaction, and have a receiver take
 * the rows one by one, as the executor finds them.
 */
void
presence_store_run_into(PresenceStatement *statement, Datum *values,
						DestReceiver *receiver)
{
	MemoryContext context = CurrentMemoryContext;
	SPIPlanPtr	plan = presence_store_plan(statement);
	SPIExecuteOptions options = {0};
	int			result;

	options.params = makeParamList(statement->nargs);
	for (int i = 0; i < statement->nargs; i++)
	{
		options.params->params[i].value = values[i];
		options.params->params[i].isnull = false;
		options.params->params[i].pflags = PARAM_FLAG_CONST;
		options.params->params[i].ptype = statement->types[i];
	}
	options.dest = receiver;
	result = SPI_execute_plan_extended(plan, &options);
	MemoryContextSwitchTo(context);
	check_result(statement, result);
}

/* Run a statement on the rows of a range of blocks, with a time as $3. */
void
presence_store_run_in_blocks(PresenceStatement *statement, BlockNumber from,
							 BlockNumber to, TimestampTz before)
{
	ItemPointerData first;
	ItemPointerData end;
	Datum		values[3];

	ItemPointerSet(&first, from, 0);
	ItemPointerSet(&end, to, 0);
	values[0] = PointerGetDatum(&first);
	values[1] = PointerGetDatum(&end);
	values[2] = TimestampTzGetDatum(before);
	(void) presence_store_run(statement, values, NULL);
}

/* Whether a statement finds any row. */
bool
presence_store_finds(PresenceStatement *statement, Datum *values)
{
	return presence_store_any(presence_store_run_at(statement, values, NULL,
													InvalidSnapshot, 1));
}

/* Whether a result of "count" rows has any; frees it. */
bool
presence_store_any(uint64 count)
{
	SPI_freetuptable(SPI_tuptable);
	return count > 0;
}

/* A text column of a result, as a palloc'd string, or NULL. */
char *
presence_store_text(HeapTuple tuple, int column)
{
	bool		isnull;
	Datum		datum = SPI_getbinval(tuple, SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(datum);
}

/* Read a result that is a single array, or NULL. */
ArrayType *
presence_store_array(void)
{
	bool		isnull;
	Datum		datum = SPI_getbinval(SPI_tuptable->vals[0],
									  SPI_tuptable->tupdesc, 1, &isnull);
	ArrayType  *array = NULL;

	if (!isnull)
		array = DatumGetArrayTypePCopy(datum);
	SPI_freetuptable(SPI_tuptable);
	return array;
}

/* Read a result that is a single bigint. */
uint64
presence_store_count(void)
{
	bool		isnull;
	Datum		count = SPI_getbinval(SPI_tuptable->vals[0],
									  SPI_tuptable->tupdesc, 1, &isnull);

	SPI_freetuptable(SPI_tuptable);
	return (uint64) DatumGetInt64(count);
}
