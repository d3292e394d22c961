/*-------------------------------------------------------------------------
 *
 * json.c
 *		Writes jsonb as text of bounded length.
 *
 * The text of a jsonb may be ten thousand times as long as the jsonb:
 * 1e131071 takes a dozen bytes, but has 131,072 digits.  So it would be wrong
 * to write the whole text and then check its length.  The functions here never
 * build a text much longer than the limit, and stop when they exceed it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <errno.h>
#include <math.h>

#include "base/json.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"

PG_FUNCTION_INFO_V1(presence_test_write_json);

/* Maximum number of digits of a numeric before the decimal point. */
#define MAX_DIGITS 131072

/* State of writing one text. */
typedef struct Writer
{
	StringInfo	buf;
	int			limit;			/* of buf->len */
	Datum		too_large;		/* this number and larger ones do not fit; 0
								 * until needed */
	Datum		too_small;		/* the same for negative numbers */
} Writer;

/* A power of ten, with a sign. */
static Datum
power_of_ten(const char *sign, int exponent)
{
	char		number[32];

	snprintf(number, sizeof(number), "%s1e%d", sign, exponent);
	return DirectFunctionCall3(numeric_in, CStringGetDatum(number),
							   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

/* Compare two numbers. */
static int
compare_numbers(Datum a, Datum b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, a, b));
}

/* Whether the text of a number is short enough to be built. */
static bool
is_short(Writer *writer, Numeric number)
{
	Datum		value = NumericGetDatum(number);

	if (numeric_is_nan(number) || numeric_is_inf(number))
		return true;
	if (DatumGetInt32(DirectFunctionCall1(numeric_scale, value)) > writer->limit)
		return false;
	if (writer->limit >= MAX_DIGITS)
		return true;
	if (writer->too_large == (Datum) 0)
	{
		writer->too_large = power_of_ten("", writer->limit);
		writer->too_small = power_of_ten("-", writer->limit);
	}
	return compare_numbers(value, writer->too_large) < 0 &&
		compare_numbers(value, writer->too_small) > 0;
}

/* Append a number; false if it does not fit. */
static bool
append_number(Writer *writer, Numeric number)
{
	char	   *text;

	if (!is_short(writer, number))
		return false;
	text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(number)));

	appendStringInfoString(writer->buf, text);
	pfree(text);
	return true;
}

/* Append a string; false if it does not fit. */
static bool
append_string(Writer *writer, const JsonbValue *string)
{
	char	   *text;

	if (string->val.string.len > writer->limit - writer->buf->len)
		return false;
	text = pnstrdup(string->val.string.val, string->val.string.len);

	escape_json(writer->buf, text);
	pfree(text);
	return true;
}

/* Append a scalar; false if it does not fit. */
static bool
append_scalar(Writer *writer, const JsonbValue *scalar)
{
	switch (scalar->type)
	{
		case jbvNull:
			appendStringInfoString(writer->buf, "null");
			return true;
		case jbvBool:
			appendStringInfoString(writer->buf, scalar->val.boolean ? "true" : "false");
			return true;
		case jbvNumeric:
			return append_number(writer, scalar->val.numeric);
		case jbvString:
			return append_string(writer, scalar);
		default:
			elog(ERROR, "unexpected type of jsonb scalar: %d", (int) scalar->type);
			return false;
	}
}

/*
 * Append one token; "comma" says whether it follows another one in its array
 * or object.  Returns false if it does not fit.
 */
static bool
append_token(Writer *writer, JsonbIteratorToken token, const JsonbValue *value,
			 bool comma)
{
	bool		fits;

	if (comma && token != WJB_END_ARRAY && token != WJB_END_OBJECT)
		appendStringInfoString(writer->buf, ", ");
	switch (token)
	{
		case WJB_BEGIN_ARRAY:
			appendStringInfoChar(writer->buf, '[');
			return true;
		case WJB_END_ARRAY:
			appendStringInfoChar(writer->buf, ']');
			return true;
		case WJB_BEGIN_OBJECT:
			appendStringInfoChar(writer->buf, '{');
			return true;
		case WJB_END_OBJECT:
			appendStringInfoChar(writer->buf, '}');
			return true;
		case WJB_KEY:
			fits = append_string(writer, value);
			appendStringInfoString(writer->buf, ": ");
			return fits;
		default:
			return append_scalar(writer, value);
	}
}

/* Append all tokens of an iterator; false if they do not fit. */
static bool
append_all(Writer *writer, JsonbIterator **iterator)
{
	JsonbIteratorToken token;
	JsonbValue	value;
	bool		bare = false;	/* a scalar, which iterates as an array */
	bool		comma = false;

	while ((token = JsonbIteratorNext(iterator, &value, false)) != WJB_DONE)
	{
		CHECK_FOR_INTERRUPTS();
		if (token == WJB_BEGIN_ARRAY && value.val.array.rawScalar)
			bare = true;
		else if (!(bare && token == WJB_END_ARRAY) &&
				 !append_token(writer, token, &value, comma))
			return false;
		if (writer->buf->len > writer->limit)
			return false;
		comma = token != WJB_BEGIN_ARRAY && token != WJB_BEGIN_OBJECT && token != WJB_KEY;
	}
	return true;
}

/*
 * Append a jsonb, formatted as by its output function, if the whole buffer
 * then has at most "limit" bytes.  Otherwise returns false and leaves the
 * buffer unchanged.  The cost depends on the limit, not on the length of the
 * text.
 */
bool
presence_json_append(StringInfo buf, Jsonb *value, int limit)
{
	Writer		writer = {buf, limit};
	JsonbIterator *iterator = JsonbIteratorInit(&value->root);
	int			start = buf->len;
	bool		fits = append_all(&writer, &iterator);

	while (iterator)
	{
		JsonbIterator *parent = iterator->parent;

		pfree(iterator);
		iterator = parent;
	}
	if (writer.too_large != (Datum) 0)
	{
		pfree(DatumGetPointer(writer.too_large));
		pfree(DatumGetPointer(writer.too_small));
	}
	if (!fits)
	{
		buf->len = start;
		buf->data[start] = '\0';
	}
	return fits;
}

/* Convert a number to double; false if it is too large or too small. */
bool
presence_json_double(Numeric number, double *result)
{
	StringInfoData buf;
	Writer		writer = {&buf, PRESENCE_MAX_PAYLOAD};
	bool		fits;

	initStringInfo(&buf);
	fits = append_number(&writer, number);
	if (fits)
	{
		errno = 0;
		*result = strtod(buf.data, NULL);
		fits = isfinite(*result) && (errno == 0 || *result != 0.0);
	}
	pfree(buf.data);
	return fits;
}

/*
 * Whether a text is valid for listeners with client encoding UTF8.  In a
 * database with encoding SQL_ASCII it may not be; otherwise the server
 * converts it.
 */
bool
presence_json_is_text(const char *data, int length)
{
	return GetDatabaseEncoding() != PG_SQL_ASCII ||
		pg_verify_mbstr(PG_UTF8, data, length, true);
}

/* Write what comes before a number, and its digits, so many; returns the end. */
static char *
write_digits(char *target, char before, int number, int digits)
{
	*target++ = before;
	return pg_ultostr_zeropad(target, number, digits);
}

/* Format the seconds of a time; returns the length, 0 if it has none. */
static int
format_second(char *buffer, TimestampTz second)
{
	char	   *end = buffer;
	struct pg_tm tm;
	fsec_t		fsec;

	if (timestamp2tm(second, NULL, &tm, &fsec, NULL, NULL) != 0)
		return 0;
	end = tm.tm_year < 0 ? write_digits(end, '-', -tm.tm_year, 3) :
		pg_ultostr_zeropad(end, tm.tm_year, 4);
	end = write_digits(end, '-', tm.tm_mon, 2);
	end = write_digits(end, '-', tm.tm_mday, 2);
	end = write_digits(end, 'T', tm.tm_hour, 2);
	end = write_digits(end, ':', tm.tm_min, 2);
	end = write_digits(end, ':', tm.tm_sec, 2);
	return end - buffer;
}

/*
 * Format a time in UTC, as ISO 8601 with microseconds, into a buffer of
 * PRESENCE_JSON_TIME_SIZE bytes.  Returns its length; 0 if it is infinite.
 * Times of one second mostly follow each other, so its text is kept.
 */
int
presence_json_format_time(char *buffer, TimestampTz time)
{
	static const char rest[] = ".000000+00:00";
	static char text[PRESENCE_JSON_TIME_SIZE];
	static TimestampTz formatted = DT_NOEND;
	static int	length;
	int			micros = (int) (time % USECS_PER_SEC);

	if (micros < 0)
		micros += USECS_PER_SEC;
	if (TIMESTAMP_NOT_FINITE(time))
		return 0;
	if (time - micros != formatted)
	{
		formatted = DT_NOEND;
		length = format_second(text, time - micros);
		if (length == 0)
			return 0;
		formatted = time - micros;
	}
	memcpy(buffer, text, length);
	memcpy(buffer + length, rest, sizeof(rest));
	for (char *digit = buffer + length + 6; micros > 0; micros /= 10)
		*digit-- += micros % 10;
	return length + sizeof(rest) - 1;
}

/*
 * Replace bytes that are not valid UTF-8 with question marks: otherwise the
 * server would close the connections of listeners that use UTF8.
 */
void
presence_json_mend(char *payload)
{
	int			rest = strlen(payload);

	if (presence_json_is_text(payload, rest))
		return;
	while (rest > 0)
	{
		int			length = pg_encoding_verifymbchar(PG_UTF8, payload, rest);

		if (length <= 0)
		{
			*payload = '?';
			length = 1;
		}
		payload += length;
		rest -= length;
	}
}

/*
 * presence_test_write_json(value jsonb, max_bytes integer) returns text
 *
 * Format a jsonb with presence_json_append(); NULL if it does not fit.  For
 * tests, which declare it.
 */
Datum
presence_test_write_json(PG_FUNCTION_ARGS)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (!presence_json_append(&buf, PG_GETARG_JSONB_P(0), PG_GETARG_INT32(1)))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text_with_len(buf.data, buf.len));
}
