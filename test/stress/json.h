/*-------------------------------------------------------------------------
 *
 * json.h
 *		A reader of JSON, as small as the payloads of presence allow.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CONVERGE_JSON_H
#define CONVERGE_JSON_H

#include <stdbool.h>

typedef enum JsonKind
{
	JSON_NULL,
	JSON_FALSE,
	JSON_TRUE,
	JSON_NUMBER,
	JSON_STRING,
	JSON_ARRAY,
	JSON_OBJECT
} JsonKind;

/* A value; "first" points to the members of an array or object. */
typedef struct Json
{
	JsonKind	kind;
	long long	number;
	char	   *name;			/* of a member of an object */
	char	   *string;
	struct Json *first;
	struct Json *next;
} Json;

extern Json *json_parse(const char *text);
extern void json_free(Json *json);
extern const Json *json_get(const Json *object, const char *name);
extern long long json_number(const Json *object, const char *name);
extern bool json_true(const Json *object, const char *name);
extern const char *json_string(const Json *object, const char *name);

#endif							/* CONVERGE_JSON_H */
