/*-------------------------------------------------------------------------
 *
 * store.c
 *		Runs SQL statements by plans that are kept for the session.
 *
 * Statements run as whoever calls: its grants and row-level security decide.
 * Names and operators in them are qualified, so the caller's search_path means
 * nothing.
 *
 * A statement is prepared at its first use, and planned as if reading a whole
 * table were forbidden: see make_plan().  Since others may have PostgreSQL plan
 * it anew, the plan is looked at before each execution.
 *
 * The memory context stays as it is: every function here, and in the files
 * store_*.c, makes its results in the one that is current when it is called.  A
 * result that stands in SPI_tuptable is freed by whoever reads it last.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "optimizer/cost.h"
#include "tables/store.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

/*
 * Open SPI, which a trigger may do within a statement that runs here, and stay
 * in the memory context, so that nothing has to be given back when an error
 * passes.
 */
void
presence_store_connect(void)
{
	MemoryContext context = CurrentMemoryContext;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(context);
}

/* Close SPI. */
void
presence_store_finish(void)
{
	SPI_finish();
}

/*
 * Have deferred constraints and triggers fire now, while what they raise can be
 * caught, and not at the commit.
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

/* What the planner may use. */
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
 * As if reading all were forbidden.  Before PostgreSQL 18 what is forbidden
 * counts as so expensive that it would be worth compiling.
 */
static const PlannerSwitches index_switches = {
	.indexscan = true,
	.bitmapscan = true,
	.nestloop = true
};

/* The same for who stops early, before a bitmap of all would be of use. */
static const PlannerSwitches few_switches = {
	.indexscan = true,
	.nestloop = true
};

/* What the planner may use now. */
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

/* Say what the planner may use. */
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

/* Prepare a statement for the rest of the session, if it is not yet. */
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
 * Whether the plan that a statement keeps is ours and will be used as it is.
 * Asks what GetCachedPlan() does, and less; it is asked at each execution.
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
 * Plan a statement as if reading all were forbidden, unless it wants to, and
 * whatever the session has set: a plan made while a table was empty would read
 * the whole table, however large it becomes, for nothing is cheaper than
 * reading nothing.
 *
 * It runs under the session's own settings: triggers that it fires plan, and
 * keep, queries of their own.  The locks that are taken here stay, so nothing
 * makes the plan invalid before it runs.
 */
static void
make_plan(PresenceStatement *statement)
{
	SPIPlanPtr	plan = prepare(statement);
	CachedPlanSource *source = statement->source;
	PlannerSwitches before = get_switches();

	/* PostgreSQL does not ask whether the policies of an owner are forced. */
	if (source->dependsOnRLS && statement->past_policies != InNoForceRLSOperation())
		source->is_valid = false;
	statement->past_policies = InNoForceRLSOperation();
	/* Made without us, after others changed a table in a bad moment. */
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

/* The plan of a statement, made anew if it is not as it should be. */
SPIPlanPtr
presence_store_plan(PresenceStatement *statement)
{
	if (!has_plan(statement))
		make_plan(statement);
	return statement->plan;
}

/*
 * Run a statement in a snapshot (InvalidSnapshot: that of the transaction),
 * until it has found so many rows (0: all); returns how many it found or
 * changed.
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
	if (result < 0)
		elog(ERROR, "SPI failed for \"%s\": %s", statement->sql,
			 SPI_result_code_string(result));
	return SPI_processed;
}

/* Run a statement as the transaction sees the tables. */
uint64
presence_store_run(PresenceStatement *statement, Datum *values, const char *nulls)
{
	return presence_store_run_at(statement, values, nulls, InvalidSnapshot, 0);
}

/*
 * Run a statement in the newest snapshot, whatever the isolation level: who
 * decides after taking a lock must see all that was committed before it.
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

/* Run a statement on the rows of some blocks, with a time. */
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

/* Whether a statement finds anything. */
bool
presence_store_finds(PresenceStatement *statement, Datum *values)
{
	return presence_store_any(presence_store_run_at(statement, values, NULL,
													InvalidSnapshot, 1));
}

/* Whether a result has rows; frees it. */
bool
presence_store_any(uint64 count)
{
	SPI_freetuptable(SPI_tuptable);
	return count > 0;
}

/* A text column of a result as a string of the caller's, or NULL. */
char *
presence_store_text(HeapTuple tuple, int column)
{
	bool		isnull;
	Datum		datum = SPI_getbinval(tuple, SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(datum);
}

/* Read the one array that a statement answers; NULL when it is NULL. */
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

/* The one bigint that a statement answers. */
uint64
presence_store_count(void)
{
	bool		isnull;
	Datum		count = SPI_getbinval(SPI_tuptable->vals[0],
									  SPI_tuptable->tupdesc, 1, &isnull);

	SPI_freetuptable(SPI_tuptable);
	return (uint64) DatumGetInt64(count);
}
