/*-------------------------------------------------------------------------
 *
 * fate.c
 *		Errors that are no fault of the server.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "harness.h"

/*
 * Of random transactions: deadlocks, serialization, concurrent inserts; holds
 * that do not fit into the registry, which one run has small.
 */
static const char *const always[] = {"40P01", "40001", "23505", "25P02", "53400", NULL};

/* By kind of chaos: errors of the user's triggers; of dropped objects. */
static const struct
{
	const char *chaos;
	const char *states[8];
}			kinds[] = {
	{"triggers", {"P0001", "PR001"}},
	{"extension", {"42883", "3F000", "42P01", "42704", NULL}},
	{"locks", {"42501", NULL}}
};

/* Messages of internal errors about objects that were just dropped. */
static const char *const dropped[] = {
	"cache lookup failed for", "could not open relation with OID", "could not find tuple for",
	"tuple concurrently", NULL
};

static bool
is_among(const char *state, const char *const *states)
{
	for (; *states; states++)
		if (strcmp(state, *states) == 0)
			return true;
	return false;
}

/* Whether an internal error comes from a concurrent DROP. */
static bool
is_dropped(const PGresult *result)
{
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

	for (int i = 0; message && dropped[i]; i++)
		if (strstr(message, dropped[i]))
			return true;
	return false;
}

/* Whether a statement failed because the server was killed. */
bool
is_breakage(const PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	return connection_may_break() && (state == NULL || strncmp(state, "57P", 3) == 0);
}

/* Whether a statement failed with an expected error. */
bool
is_fate(const PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	if (is_breakage(result))
		return true;
	if (state == NULL)
		return false;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (chaos_is(kinds[i].chaos) && is_among(state, kinds[i].states))
			return true;
	return is_among(state, always) ||
		(chaos_is("extension") && strcmp(state, "XX000") == 0 && is_dropped(result));
}
