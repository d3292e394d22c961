/*-------------------------------------------------------------------------
 *
 * json.c
 *		Reads JSON into a tree.
 *
 * Strict where that detects a wrong payload (syntax, trailing bytes), lax in
 * what the payloads of presence do not need (numbers are integers, escapes
 * beyond ASCII become a question mark).
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "json.h"

static Json *parse_value(const char **at);

static void
skip_space(const char **at)
{
	while (**at == ' ' || **at == '\n' || **at == '\t' || **at == '\r')
		(*at)++;
}

/* Skip the given character; false: the next one is different. */
static bool
accept(const char **at, char c)
{
	skip_space(at);
	if (**at != c)
		return false;
	(*at)++;
	return true;
}

/* The character that an escape represents. */
static char
unescape(const char **at)
{
	static const char from[] = "bfnrt";
	static const char to[] = "\b\f\n\r\t";
	char		c = *(*at)++;
	const char *known = strchr(from, c);

	if (c == 'u')
	{
		long		code = strtol((char[5]) {(*at)[0], (*at)[1], (*at)[2], (*at)[3], 0}, NULL, 16);

		*at += 4;
		return code < 128 ? (char) code : '?';
	}
	return known ? to[known - from] : c;
}

/* A string, after its first quote; NULL: it does not end. */
static char *
parse_string(const char **at)
{
	const char *quote = *at;
	char	   *result;
	char	   *end;

	/* Texts may be long and have many strings: search no further than needed. */
	while (*quote && *quote != '"')
		quote += 1 + (*quote == '\\' && quote[1]);
	result = end = malloc(quote - *at + 1);
	while (**at && **at != '"')
	{
		if (**at != '\\')
			*end++ = *(*at)++;
		else
		{
			(*at)++;
			*end++ = unescape(at);
		}
	}
	*end = '\0';
	if (accept(at, '"'))
		return result;
	free(result);
	return NULL;
}

/* The members of an array or object, after its bracket; false: wrong. */
static bool
parse_members(const char **at, Json *parent, char close)
{
	Json	  **link = &parent->first;

	if (accept(at, close))
		return true;
	do
	{
		char	   *name = NULL;

		if (close == '}')
		{
			if (!accept(at, '"') || !(name = parse_string(at)) || !accept(at, ':'))
			{
				free(name);
				return false;
			}
		}
		*link = parse_value(at);
		if (*link == NULL)
		{
			free(name);
			return false;
		}
		(*link)->name = name;
		link = &(*link)->next;
	} while (accept(at, ','));
	return accept(at, close);
}

/* A word or a number; false: neither. */
static bool
parse_scalar(const char **at, Json *json)
{
	static const struct
	{
		const char *word;
		JsonKind	kind;
	}			words[] = {{"null", JSON_NULL}, {"false", JSON_FALSE}, {"true", JSON_TRUE}};
	char	   *end;

	for (int i = 0; i < 3; i++)
	{
		size_t		length = strlen(words[i].word);

		if (strncmp(*at, words[i].word, length) == 0)
		{
			json->kind = words[i].kind;
			*at += length;
			return true;
		}
	}
	json->kind = JSON_NUMBER;
	json->number = strtoll(*at, &end, 10);
	if (end == *at)
		return false;
	*at = end + strspn(end, ".0123456789eE+-");
	return true;
}

/* Any value; NULL: wrong. */
static Json *
parse_value(const char **at)
{
	Json	   *json = calloc(1, sizeof(Json));
	bool		good;

	if (accept(at, '"'))
	{
		json->kind = JSON_STRING;
		json->string = parse_string(at);
		good = json->string != NULL;
	}
	else if (accept(at, '{') || accept(at, '['))
	{
		bool		object = (*at)[-1] == '{';

		json->kind = object ? JSON_OBJECT : JSON_ARRAY;
		good = parse_members(at, json, object ? '}' : ']');
	}
	else
		good = parse_scalar(at, json);
	if (good)
		return json;
	json_free(json);
	return NULL;
}

/* Read a text; NULL: it is not JSON. */
Json *
json_parse(const char *text)
{
	Json	   *json = parse_value(&text);

	skip_space(&text);
	if (json == NULL || *text == '\0')
		return json;
	json_free(json);
	return NULL;
}

/* Free a value, and the siblings after it. */
void
json_free(Json *json)
{
	while (json)
	{
		Json	   *next = json->next;

		json_free(json->first);
		free(json->name);
		free(json->string);
		free(json);
		json = next;
	}
}

/* A member of an object; NULL: it has none of the name. */
const Json *
json_get(const Json *object, const char *name)
{
	if (object == NULL || object->kind != JSON_OBJECT)
		return NULL;
	for (const Json *member = object->first; member; member = member->next)
		if (strcmp(member->name, name) == 0)
			return member;
	return NULL;
}

/* A member that is a number; -1: it is not. */
long long
json_number(const Json *object, const char *name)
{
	const Json *member = json_get(object, name);

	return member && member->kind == JSON_NUMBER ? member->number : -1;
}

/* Whether a member is true. */
bool
json_true(const Json *object, const char *name)
{
	const Json *member = json_get(object, name);

	return member && member->kind == JSON_TRUE;
}

/* A member that is a string; NULL: it is not. */
const char *
json_string(const Json *object, const char *name)
{
	const Json *member = json_get(object, name);

	return member && member->kind == JSON_STRING ? member->string : NULL;
}
