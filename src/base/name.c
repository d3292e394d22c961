/*-------------------------------------------------------------------------
 *
 * name.c
 *		Makes names with their hashes, for tables in shared memory.
 *
 * Several databases may use the same names, so the hash includes the database.
 * Tables in shared memory compare the database as well.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/hash.h"
#include "base/name.h"
#include "miscadmin.h"

/* Make a name in this process's database. */
PresenceName
presence_name_make(const char *data, int length)
{
	PresenceName name;

	name.data = data;
	name.length = length;
	name.hash = presence_hash_within(MyDatabaseId, data, length);
	return name;
}

/* The same from a text, which must not be compressed. */
PresenceName
presence_name_of_text(const text *value)
{
	return presence_name_make(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}
