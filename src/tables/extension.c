/*-------------------------------------------------------------------------
 *
 * extension.c
 *		Looks up the extension in the catalogs: its owner and its tables.
 *
 * Statements whose result must not depend on the caller run as the owner of
 * the extension, between presence_extension_become_owner() and
 * presence_extension_become_caller().  They bypass row-level security, and
 * cannot SET ROLE.  No cleanup is needed if an error is raised in between: the
 * abort of the (sub)transaction restores the caller.
 *
 * Table locks are ordinary heavyweight locks, held until the transaction ends.
 * Nothing is cached between calls, because the extension may be dropped and
 * created again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_trigger.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "tables/extension.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* OID of the extension, as this transaction sees it; InvalidOid if none. */
Oid
presence_extension_oid(void)
{
	return get_extension_oid("presence", true);
}

/* Whether the extension exists, as this transaction sees it. */
bool
presence_extension_exists(void)
{
	return OidIsValid(presence_extension_oid());
}

/* Find the extension and its owner in the catalog; false if there is none. */
bool
presence_extension_find(Oid *oid, Oid *owner)
{
	Relation	relation = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum("presence"));
	scan = systable_beginscan(relation, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	*oid = InvalidOid;
	*owner = BOOTSTRAP_SUPERUSERID;
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_extension form = (Form_pg_extension) GETSTRUCT(tuple);

		*oid = form->oid;
		*owner = form->extowner;
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return OidIsValid(*oid);
}

/* Owner of the extension. */
Oid
presence_extension_owner(void)
{
	Oid			oid;
	Oid			owner;

	(void) presence_extension_find(&oid, &owner);
	return owner;
}

/* Switch to a user, bypassing row-level security. */
PresenceSession
presence_extension_become(Oid owner)
{
	PresenceSession caller;

	GetUserIdAndSecContext(&caller.user, &caller.context);
	SetUserIdAndSecContext(owner,
						   caller.context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_NOFORCE_RLS);
	return caller;
}

/* The same for the owner of the extension. */
PresenceSession
presence_extension_become_owner(void)
{
	return presence_extension_become(presence_extension_owner());
}

/* Switch back to the caller. */
void
presence_extension_become_caller(PresenceSession session)
{
	SetUserIdAndSecContext(session.user, session.context);
}

/* OID of a table of the extension. */
Oid
presence_extension_table(const char *name)
{
	Oid			schema = get_namespace_oid("presence", true);
	Oid			table = OidIsValid(schema) ? get_relname_relid(name, schema) :
		InvalidOid;

	if (!OidIsValid(table))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table presence.%s does not exist", name),
				 errhint("Run CREATE EXTENSION presence in this database.")));
	return table;
}

/*
 * Lock a table; false if that takes longer than *wait milliseconds, which is
 * reduced by the time spent.  Polls rather than waits: so no other session
 * queues behind a waiting lock request, and a timeout raises no error that
 * would have to be caught.
 */
bool
presence_extension_try_lock(const char *name, LOCKMODE mode, int *wait)
{
	Oid			table = presence_extension_table(name);

	for (;;)
	{
		if (ConditionalLockRelationOid(table, mode))
			return true;
		if (*wait <= 0)
			return false;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(1000);
		--*wait;
	}
}

/* How many blocks a table has; locks it until the end of the transaction. */
BlockNumber
presence_extension_blocks(const char *name, LOCKMODE mode)
{
	Relation	relation = table_open(presence_extension_table(name), mode);
	BlockNumber blocks = RelationGetNumberOfBlocks(relation);

	table_close(relation, NoLock);
	return blocks;
}

/* Whether a table has triggers, those of foreign keys included. */
bool
presence_extension_has_triggers(const char *name)
{
	Relation	relation = table_open(presence_extension_table(name), AccessShareLock);
	bool		any = relation->trigdesc != NULL;

	table_close(relation, AccessShareLock);
	return any;
}

/*
 * Find a user's trigger that may silently suppress inserts into a table, or
 * updates of it; returns its name, or NULL.
 */
char *
presence_extension_suppressor(const char *name, bool insert)
{
	Relation	relation = table_open(presence_extension_table(name), AccessShareLock);
	TriggerDesc *triggers = relation->trigdesc;
	char	   *suppressor = NULL;

	for (int i = 0; triggers && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];

		if (TRIGGER_FOR_BEFORE(trigger->tgtype) && TRIGGER_FOR_ROW(trigger->tgtype) &&
			(insert ? TRIGGER_FOR_INSERT(trigger->tgtype) :
			 TRIGGER_FOR_UPDATE(trigger->tgtype)) &&
			trigger->tgenabled != TRIGGER_DISABLED &&
			strcmp(trigger->tgname, "presence_renew_id") != 0)
		{
			suppressor = pstrdup(trigger->tgname);
			break;
		}
	}
	table_close(relation, AccessShareLock);
	return suppressor;
}

/* Whether a trigger of a table fires: nobody has dropped or disabled it. */
bool
presence_extension_fires(const char *name, const char *trigger)
{
	Relation	relation = table_open(presence_extension_table(name), AccessShareLock);
	TriggerDesc *triggers = relation->trigdesc;
	bool		fires = false;

	for (int i = 0; triggers && i < triggers->numtriggers; i++)
		if (strcmp(triggers->triggers[i].tgname, trigger) == 0)
			fires = triggers->triggers[i].tgenabled != TRIGGER_DISABLED;
	table_close(relation, AccessShareLock);
	return fires;
}
