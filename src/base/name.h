/*-------------------------------------------------------------------------
 *
 * name.h
 *		Names of rooms, channels and users, with their hashes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_NAME_H
#define PRESENCE_NAME_H

#include "postgres.h"

/* A name has at most 255 characters of at most 4 bytes. */
#define PRESENCE_MAX_NAME_CHARS 255
#define PRESENCE_MAX_NAME_BYTES (PRESENCE_MAX_NAME_CHARS * 4)

/* A name in this process's database; "data" belongs to the caller. */
typedef struct PresenceName
{
	const char *data;
	int			length;			/* bytes */
	uint32		hash;
} PresenceName;

/* Whether two names are equal, for tables local to this process. */
static inline bool
presence_name_equal(const PresenceName *a, const PresenceName *b)
{
	return a->hash == b->hash && a->length == b->length &&
		memcmp(a->data, b->data, a->length) == 0;
}

extern PresenceName presence_name_make(const char *data, int length);
extern PresenceName presence_name_of_text(const text *value);

#endif							/* PRESENCE_NAME_H */
