/*-------------------------------------------------------------------------
 *
 * permission.c
 *		Checks permissions for operations that access no table: heartbeats,
 *		short-lived state, broadcasts, events.
 *
 * A heartbeat stands for an update of the channel's rows, so it requires the
 * same privileges.  Without row-level security the privilege to update the
 * table is enough; the result is cached in the session until the catalogs
 * change.  With it, the policies for UPDATE decide row by row, and may depend
 * on anything, so each heartbeat probes the table.  The probe is an UPDATE
 * whose last condition, presence.note_touchable(), notes that a row has passed
 * the policies and returns false, so that nothing is written.
 *
 * State and broadcasts belong to a room, but are in no table.  If row-level
 * security on presence.rooms applies to the current user, it must show the
 * room's row to that user.  Otherwise the privilege to execute the functions
 * is enough.
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

/* Cached result for a table. */
typedef struct CachedPermission
{
	bool		valid;
	Oid			user;
	bool		is_free;		/* no policies apply */
} CachedPermission;

static CachedPermission presences_cache;
static CachedPermission rooms_cache;
static bool registered;			/* are the callbacks registered? */

/*
 * Number of the last probe, and of the last one that found a row which passes
 * the policies.  A policy may call functions that probe themselves.  The
 * numbers keep a probe from taking the result of another one for its own, even
 * if that was ended by an error.
 */
static int64 probes;
static int64 touchable;

/* Invalidation callback for syscaches. */
static void
forget_syscache(Datum arg, int cacheid, uint32 hashvalue)
{
	presences_cache.valid = rooms_cache.valid = false;
}

/* Invalidation callback for the relcache. */
static void
forget_relcache(Datum arg, Oid relid)
{
	presences_cache.valid = rooms_cache.valid = false;
}

/* Register callbacks for changes of grants, roles and policies. */
static void
register_callbacks(void)
{
	if (registered)
		return;
	CacheRegisterSyscacheCallback(RELOID, forget_syscache, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, forget_syscache, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, forget_syscache, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, forget_syscache, (Datum) 0);
	CacheRegisterRelcacheCallback(forget_relcache, (Datum) 0);
	registered = true;
}

/* Whether no policies on a table apply to the current user. */
static bool
has_no_policies(Oid table)
{
	return check_enable_rls(table, InvalidOid, true) != RLS_ENABLED;
}

/* Check the catalogs; raises an error if the privilege is missing. */
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

/*
 * Whether the current user may read and update every column of every presence,
 * so that one statement can add some and update others.
 */
bool
presence_permission_is_free(void)
{
	AclMode		needed = ACL_SELECT | ACL_UPDATE;

	return presence_permission_touch_is_free() &&
		pg_class_aclmask(presence_extension_table("presences"), GetUserId(),
						 needed, ACLMASK_ALL) == needed;
}

/* Check the catalogs. */
static bool
may_see_all_rooms(void)
{
	return has_no_policies(presence_extension_table("rooms"));
}

/*
 * Get the cached result for the current user, looking it up if necessary.  It
 * is not cached while row-level security is bypassed as the owner.
 */
static bool
cached_permission(CachedPermission *cache, bool (*look_up) (void))
{
	if (InNoForceRLSOperation())
		return look_up();
	if (cache->valid && cache->user == GetUserId())
		return cache->is_free;
	register_callbacks();
	cache->valid = true;		/* an invalidation meanwhile resets it */
	cache->user = InvalidOid;
	cache->is_free = look_up();
	cache->user = GetUserId();
	return cache->is_free;
}

/*
 * Whether the current user may touch every channel.  Raises an error if the
 * privilege to touch any is missing.
 */
bool
presence_permission_touch_is_free(void)
{
	return cached_permission(&presences_cache, may_touch_all);
}

/*
 * Raise an error unless the current user may use state and broadcasts of a
 * room.
 */
void
presence_permission_check_room(text *room)
{
	bool		visible;

	if (cached_permission(&rooms_cache, may_see_all_rooms))
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

/*
 * Raise an error if row-level security on presence.presences applies to the
 * current user: events speak of all presences.
 */
void
presence_permission_check_events(void)
{
	if (has_no_policies(presence_extension_table("presences")))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for the events of presence"),
			 errdetail("Row-level security of presence.presences applies to role \"%s\", and events speak of all presences.",
					   GetUserNameFromId(GetUserId(), false)),
			 errhint("Read the rooms with presence_snapshot(), or ask as a role to which no policies apply.")));
}

/* Result of a probe; restores what an enclosing probe had found. */
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
