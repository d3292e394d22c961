/*-------------------------------------------------------------------------
 *
 * args.c
 *		Checks the arguments of SQL functions.
 *
 * Every error names the argument, gives the length or type of its value, and
 * has a hint.  The value itself is not shown, because it may be secret or very
 * long.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "base/args.h"
#include "base/compat.h"
#include "base/json.h"
#include "base/name.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"

/* Longest time that a function takes: 30 days. */
#define MAX_SECONDS (30 * 24 * 3600)

/* Raise an error for a required argument that is NULL. */
void
presence_args_reject_null(const char *argument)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("argument \"%s\" must not be null", argument),
			 errdetail("The value is NULL."),
			 errhint("Pass a value for \"%s\".", argument)));
}

/* Raise an error unless a name is valid UTF-8, as listeners require. */
static void
check_encoding(text *value, const char *argument)
{
	if (!presence_json_is_text(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)))
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("argument \"%s\" is not valid UTF-8", argument),
				 errdetail("The value has %d bytes.", (int) VARSIZE_ANY_EXHDR(value)),
				 errhint("Pass names in UTF-8: the encoding of the database is SQL_ASCII, and listeners could not read others.")));
}

/* Raise an error unless a text is a name of 1 to 255 characters. */
void
presence_args_check_name(text *value, const char *argument)
{
	int			bytes = VARSIZE_ANY_EXHDR(value);
	int			length;

	if (bytes == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be empty", argument),
				 errdetail("The value has 0 characters."),
				 errhint("Pass a name of 1 to %d characters.", PRESENCE_MAX_NAME_CHARS)));
	check_encoding(value, argument);
	length = bytes <= PRESENCE_MAX_NAME_CHARS ? bytes :
		pg_mbstrlen_with_len(VARDATA_ANY(value), bytes);
	if (length > PRESENCE_MAX_NAME_CHARS)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("argument \"%s\" is too long", argument),
				 errdetail("The value has %d characters.", length),
				 errhint("Pass a name of 1 to %d characters.", PRESENCE_MAX_NAME_CHARS)));
}

/* Name of the JSON type of a value. */
static const char *
json_kind(Jsonb *value)
{
	JsonbValue	scalar;

	if (JB_ROOT_IS_OBJECT(value))
		return "object";
	if (!JB_ROOT_IS_SCALAR(value))
		return "array";
	(void) JsonbExtractScalar(&value->root, &scalar);
	switch (scalar.type)
	{
		case jbvString:
			return "string";
		case jbvNumeric:
			return "number";
		case jbvBool:
			return "boolean";
		default:
			return "null";
	}
}

/* Raise an error unless a jsonb is an object. */
void
presence_args_check_object(Jsonb *value, const char *argument)
{
	if (!JB_ROOT_IS_OBJECT(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be a JSON object", argument),
				 errdetail("The value is of JSON type %s.", json_kind(value)),
				 errhint("Pass an object, such as {\"name\": \"Alice\"}.")));
}

/* The name in argument number n. */
text *
presence_args_name(FunctionCallInfo fcinfo, int n, const char *argument)
{
	text	   *value;

	if (PG_ARGISNULL(n))
		presence_args_reject_null(argument);
	value = PG_GETARG_TEXT_PP(n);
	presence_args_check_name(value, argument);
	return value;
}

/* The name in argument number n, or NULL. */
text *
presence_args_optional_name(FunctionCallInfo fcinfo, int n, const char *argument)
{
	return PG_ARGISNULL(n) ? NULL : presence_args_name(fcinfo, n, argument);
}

/* The JSON object in argument number n. */
Jsonb *
presence_args_object(FunctionCallInfo fcinfo, int n, const char *argument)
{
	Jsonb	   *value;

	if (PG_ARGISNULL(n))
		presence_args_reject_null(argument);
	value = PG_GETARG_JSONB_P(n);
	presence_args_check_object(value, argument);
	return value;
}

/* The JSON object in argument number n, or NULL. */
Jsonb *
presence_args_optional_object(FunctionCallInfo fcinfo, int n, const char *argument)
{
	return PG_ARGISNULL(n) ? NULL : presence_args_object(fcinfo, n, argument);
}

/*
 * The time in seconds in argument number n, from "least" to 30 days, in
 * milliseconds, rounded up.
 */
uint32
presence_args_milliseconds(FunctionCallInfo fcinfo, int n, const char *argument,
						   double least)
{
	double		seconds;

	if (PG_ARGISNULL(n))
		presence_args_reject_null(argument);
	seconds = PG_GETARG_FLOAT8(n);
	if (!(seconds >= least && seconds <= MAX_SECONDS))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is out of range", argument),
				 errdetail("The value of type double precision is %g.", seconds),
				 errhint("Pass a number of seconds from %g to %d, which is 30 days.",
						 least, MAX_SECONDS)));
	return (uint32) ceil(seconds * 1000);
}

/* The names in the array of argument number n. */
PresenceTexts
presence_args_names(FunctionCallInfo fcinfo, int n, const char *argument,
					bool nulls_allowed)
{
	PresenceTexts texts;

	if (PG_ARGISNULL(n))
		presence_args_reject_null(argument);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(n), TEXTOID, -1, false, TYPALIGN_INT,
					  &texts.datums, &texts.nulls, &texts.count);
	for (int i = 0; i < texts.count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!texts.nulls[i])
		{
			texts.datums[i] = PointerGetDatum(DatumGetTextPP(texts.datums[i]));
			presence_args_check_name((text *) DatumGetPointer(texts.datums[i]),
									 argument);
		}
		else if (!nulls_allowed)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument \"%s\" must not contain nulls", argument),
					 errdetail("Element %d of %d is NULL.", i + 1, texts.count),
					 errhint("Leave it out of the array.")));
	}
	return texts;
}
