/*-------------------------------------------------------------------------
 *
 * name.c
 *		Gives names the hash by which shared tables find them.
 *
 * Shared memory serves all databases, which may use the same names, so the
 * hash is within the database.  A table compares the database as well.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/hash.h"
#include "base/name.h"
#include "miscadmin.h"

/* Name what is called so in this process's database. */
PresenceName
presence_name_make(const char *data, int length)
{
	PresenceName name;

	name.data = data;
	name.length = length;
	name.hash = presence_hash_within(MyDatabaseId, data, length);
	return name;
}

/* The same of a text, which must not be compressed. */
PresenceName
presence_name_of_text(const text *value)
{
	return presence_name_make(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}
