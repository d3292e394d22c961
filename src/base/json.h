/*-------------------------------------------------------------------------
 *
 * json.h
 *		JSON text of bounded length, for the payloads of notifications.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_JSON_H
#define PRESENCE_JSON_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

/* Maximum length of a NOTIFY payload. */
#define PRESENCE_MAX_PAYLOAD 7999

/* Maximum length of a time, with its final zero byte. */
#define PRESENCE_JSON_TIME_SIZE 48

extern int	presence_json_format_time(char *buffer, TimestampTz time);
extern bool presence_json_append(StringInfo buf, Jsonb *value, int limit);
extern bool presence_json_double(Numeric number, double *result);
extern bool presence_json_is_text(const char *data, int length);
extern void presence_json_mend(char *payload);

#endif							/* PRESENCE_JSON_H */
