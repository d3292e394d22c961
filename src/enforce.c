/*-------------------------------------------------------------------------
 *
 * enforce.c
 *		Applies bans and deletions of rooms to those who entered beside them.
 *
 * A ban and an add that commit beside each other do not see each other, and
 * neither do the deletion of a room and an add.  The hints of both come to the
 * worker, which calls presence_enforce_note() for each hint that it announces,
 * and presence_enforce_run() afterwards: it looks, in the newest snapshot, for
 * presences of the users and rooms that the hints speak of.  Whichever hint
 * comes second finds the other transaction committed.
 *
 * A hint of somebody who entered is looked at only where the rules have changed
 * since they let it in (see "rules" in database.h), so this costs nothing while
 * nobody bans.  Where hints were lost, or the worker has just started, all
 * presences are looked at.
 *
 * This is the worker's own memory: no locks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "database.h"
#include "enforce.h"
#include "removal.h"
#include "store_presences.h"
#include "store_rooms.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* Presences removed in one transaction. */
#define BATCH 1000

/* Past so many names all presences are looked at instead. */
#define MAX_NAMES 10000

/* What is to be looked at; everything where "all" is set. */
static struct
{
	MemoryContext context;		/* of the lists and their strings */
	List	   *users;			/* who may be banned */
	List	   *rooms;			/* rooms that may be gone */
	bool		all;
}			wanted;

/* Look at all presences. */
void
presence_enforce_all(void)
{
	wanted.all = true;
}

/* Whether there is anything to look at. */
bool
presence_enforce_is_wanted(void)
{
	return wanted.all || wanted.users != NIL || wanted.rooms != NIL;
}

/* Add a text of a hint to a list. */
static void
note_name(List **names, const PresenceHint *hint, PresenceHintField field)
{
	const char *name = presence_hint_text(hint, field);
	MemoryContext old;

	if (name == NULL || wanted.all)
		return;
	if (list_length(*names) >= MAX_NAMES)
	{
		presence_enforce_all();
		return;
	}
	if (wanted.context == NULL)
		wanted.context = AllocSetContextCreate(TopMemoryContext, "presence enforce",
											   ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(wanted.context);
	*names = lappend(*names, pstrdup(name));
	MemoryContextSwitchTo(old);
}

/* Take note of a hint of a committed change. */
void
presence_enforce_note(const PresenceHint *hint)
{
	PresenceDatabase *database = presence_database_mine();

	if (hint->kind == PRESENCE_HINT_BAN)
		note_name(&wanted.users, hint, PRESENCE_FIELD_USER);
	else if (hint->kind == PRESENCE_HINT_ROOM_DELETED)
		note_name(&wanted.rooms, hint, PRESENCE_FIELD_ROOM);
	else if ((hint->kind == PRESENCE_HINT_JOIN ||
			  hint->kind == PRESENCE_HINT_UPDATE) &&
			 hint->rules != 0 &&
			 hint->rules != pg_atomic_read_u64(&database->rules))
	{
		note_name(&wanted.users, hint, PRESENCE_FIELD_USER);
		note_name(&wanted.rooms, hint, PRESENCE_FIELD_ROOM);
	}
}

/* A text[] of names; 0, which means all, where all are wanted. */
static Datum
name_array(List *names)
{
	Datum	   *datums = palloc(Max(list_length(names), 1) * sizeof(Datum));
	ListCell   *lc;

	if (wanted.all)
		return (Datum) 0;
	foreach(lc, names)
		datums[foreach_current_index(lc)] = CStringGetTextDatum(lfirst(lc));
	return PointerGetDatum(construct_array(datums, list_length(names), TEXTOID,
										   -1, false, TYPALIGN_INT));
}

/*
 * Remove a batch of presences that a ban is against; false: there is more, or
 * somebody has locked it.  Needs SPI and a transaction of its own.
 */
bool
presence_enforce_bans(void)
{
	Datum		users = name_array(wanted.users);

	if (!wanted.all && wanted.users == NIL)
		return true;
	(void) presence_removal_delete(presence_store_lock_banned(users, BATCH),
									  PRESENCE_REASON_BANNED);
	return !presence_store_banned_exist(users);
}

/*
 * Make rooms anew that are gone while somebody is in them.  Needs SPI and a
 * transaction of its own, with a lock_timeout: it waits for whoever is making
 * such a room.  Once both are committed, and the first one answered true,
 * presence_enforce_finish() is to be called.
 */
void
presence_enforce_rooms(void)
{
	if (wanted.all || wanted.rooms != NIL)
		presence_store_restore_rooms(name_array(wanted.rooms));
}

/* What was wanted has been done, and is committed. */
void
presence_enforce_finish(void)
{
	wanted.users = NIL;
	wanted.rooms = NIL;
	wanted.all = false;
	if (wanted.context)
		MemoryContextReset(wanted.context);
}
