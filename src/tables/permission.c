/*-------------------------------------------------------------------------
 *
 * permission.c
 *		Decides who may do what touches no row: heartbeats, short-lived state,
 *		broadcasts.
 *
 * A heartbeat stands for an update of the channel's rows, so it asks for the
 * same rights.  Without row-level security the privilege to update the table
 * is enough; the answer is remembered for the session until the catalogs
 * change.  With it, the policies of an UPDATE decide row by row, and they may
 * depend on anything, so the table is asked each time: by an UPDATE whose
 * last condition, presence.note_touchable(), notes that a row has passed the
 * policies, and answers false, so that nothing is written.
 *
 * State and broadcasts belong to a room and are in no table.  Where row-level
 * security applies to somebody on presence.rooms, the room's row has to be among
 * those that he sees; elsewhere they are for whoever may call the functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "tables/extension.h"
#include "tables/permission.h"
#include "tables/store.h"
#include "tables/store_channels.h"
#include "tables/store_rooms.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/rls.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(presence_note_touchable);

/* What is remembered of a table; void once "valid" is false. */
typedef struct PermissionMemory
{
	bool		valid;
	Oid			user;
	bool		is_free;		/* no policies to ask */
} PermissionMemory;

static PermissionMemory of_presences;
static PermissionMemory of_rooms;
static bool watching;			/* callbacks are registered */

/*
 * The number of the last probe, and of the last one that found a row which
 * passes the policies.  A policy may call functions that probe themselves: no
 * probe takes another one's answer for its own, even where an error ended it.
 */
static int64 probes;
static int64 touchable;

/* A catalog has changed: ask again. */
static void
forget_syscache(Datum arg, int cacheid, uint32 hashvalue)
{
	of_presences.valid = of_rooms.valid = false;
}

/* A table has changed: ask again. */
static void
forget_relcache(Datum arg, Oid relid)
{
	of_presences.valid = of_rooms.valid = false;
}

/* Have changes of grants, roles and policies noticed. */
static void
watch_catalogs(void)
{
	if (watching)
		return;
	CacheRegisterSyscacheCallback(RELOID, forget_syscache, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, forget_syscache, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, forget_syscache, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, forget_syscache, (Datum) 0);
	CacheRegisterRelcacheCallback(forget_relcache, (Datum) 0);
	watching = true;
}

/* Whether no policies of a table apply to the current user. */
static bool
has_no_policies(Oid table)
{
	return check_enable_rls(table, InvalidOid, true) != RLS_ENABLED;
}

/* Ask the catalogs, and raise an error where the privilege is missing. */
static bool
may_touch_all(void)
{
	Oid			table = presence_extension_table("presences");

	if (pg_class_aclcheck(table, GetUserId(), ACL_UPDATE) != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(table, GetUserId(), ACL_UPDATE,
								  ACLMASK_ANY) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table presence.presences"),
				 errhint("Have the owner of the extension call presence_grant() for role \"%s\".",
						 GetUserNameFromId(GetUserId(), false))));
	return has_no_policies(table);
}

/* Ask the catalogs. */
static bool
may_see_all_rooms(void)
{
	return has_no_policies(presence_extension_table("rooms"));
}

/*
 * What is remembered for the current user, asking for it if need be.  What holds
 * while the owner is asked past row-level security is not remembered.
 */
static bool
recall(PermissionMemory *memory, bool (*ask) (void))
{
	if (InNoForceRLSOperation())
		return ask();
	if (memory->valid && memory->user == GetUserId())
		return memory->is_free;
	watch_catalogs();
	memory->valid = true;		/* asking may find that it is not */
	memory->user = InvalidOid;
	memory->is_free = ask();
	memory->user = GetUserId();
	return memory->is_free;
}

/*
 * Whether the current user may touch any channel.  Raises an error when it
 * may touch none.
 */
bool
presence_permission_touch_is_free(void)
{
	return recall(&of_presences, may_touch_all);
}

/*
 * Raise an error unless the current user may deal with what a room has in no
 * table.
 */
void
presence_permission_check_room(text *room)
{
	bool		visible;

	if (recall(&of_rooms, may_see_all_rooms))
		return;
	presence_store_connect();
	visible = presence_store_shows_room(PointerGetDatum(room));
	presence_store_finish();
	if (!visible)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for room \"%s\"", text_to_cstring(room)),
				 errdetail("The row-level security of presence.rooms shows role \"%s\" no such room.",
						   GetUserNameFromId(GetUserId(), false)),
				 errhint("Let somebody enter the room first, which makes it, or change the policies.")));
}

/* The answer to a probe; what a probe around it had found is found again. */
static bool
end_probe(int64 probe, int64 before)
{
	bool		passed = touchable == probe;

	touchable = before;
	return passed;
}

/* Whether the current user may touch this channel.  Needs SPI. */
bool
presence_permission_may_touch(text *channel)
{
	int64		before = touchable;
	int64		probe;

	if (presence_permission_touch_is_free())
		return true;
	probe = ++probes;
	touchable = 0;
	presence_store_probe_update(PointerGetDatum(channel), probe);
	return end_probe(probe, before);
}

/* Whether the current user may update this presence.  Needs SPI. */
bool
presence_permission_may_update(text *room, text *channel)
{
	int64		before = touchable;
	int64		probe;

	if (presence_permission_touch_is_free())
		return true;
	probe = ++probes;
	touchable = 0;
	presence_store_probe_pair(PointerGetDatum(room), PointerGetDatum(channel), probe);
	return end_probe(probe, before);
}

/*
 * presence.note_touchable(channel_name text, probe bigint) returns boolean
 *
 * Notes that a row may be updated; always false.
 */
Datum
presence_note_touchable(PG_FUNCTION_ARGS)
{
	if (!PG_ARGISNULL(1))
		touchable = PG_GETARG_INT64(1);
	PG_RETURN_BOOL(false);
}
