/*-------------------------------------------------------------------------
 *
 * announce_turn.c
 *		Collects the rooms, users and events of one announcement.
 *
 * A turn is private memory of the announcing process: no locks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "events/announce_turn.h"
#include "miscadmin.h"
#include "tables/store_presences.h"
#include "utils/array.h"
#include "utils/builtins.h"

/* Add a presence to the subjects of this turn. */
void
presence_turn_touch(PresenceTurn *turn, PresenceSubject *subject)
{
	if (subject->turn.touched)
		return;
	subject->turn.touched = true;
	turn->subjects = lappend(turn->subjects, subject);
}

/* Find or make the entry of a room. */
PresenceTurnRoom *
presence_turn_room(PresenceTurn *turn, const char *name)
{
	bool		found;
	PresenceTurnRoom *room = turnrooms_insert(turn->rooms, name, &found);

	if (!found)
	{
		memset(&room->room, 0, sizeof(PresenceTurnRoom) - offsetof(PresenceTurnRoom, room));
		room->room = presence_roster_find(turn->roster, name);
	}
	return room;
}

/* Find or make the entry of a user; NULL if anonymous. */
PresenceTurnUser *
presence_turn_user(PresenceTurn *turn, const char *name)
{
	bool		found;
	PresenceTurnUserEntry *entry;

	if (name == NULL)
		return NULL;
	entry = turnusers_insert(turn->users, name, &found);
	if (!found)
	{
		entry->user = palloc0(sizeof(PresenceTurnUser));
		entry->user->name = name;
		entry->user->last_seen = DT_NOBEGIN;
		turn->named = lappend(turn->named, entry->user);
	}
	return entry->user;
}

/* Count connections of a user that events of this turn add or remove. */
void
presence_turn_count_user(PresenceTurn *turn, const char *name, int change)
{
	PresenceTurnUser *user = presence_turn_user(turn, name);

	if (user)
		user->change += change;
}

/*
 * Note that a connection of a user has left, or belongs to another user now,
 * and when it was last seen.  That is noted even if there is nothing to
 * announce, because it joined in the same turn, or its transaction has
 * announced it.
 */
void
presence_turn_see_user(PresenceTurn *turn, const PresenceHint *hint)
{
	PresenceTurnUser *user = presence_turn_user(turn, presence_hint_leaver(hint));

	if (user == NULL)
		return;
	user->left = true;
	user->last_seen = Max(user->last_seen, hint->last_seen);
}

/* Add an event to a room, with the current counts of the room. */
PresenceEvent *
presence_turn_add_event(PresenceTurn *turn, PresenceTurnRoom *room,
						PresenceEventKind kind, PresenceRow *row)
{
	PresenceEvent *event = palloc0(sizeof(PresenceEvent));

	event->kind = kind;
	event->room = room->name;
	event->row = row;
	if (room->room)
		event->counts = presence_roster_counts(room->room);
	if (!room->ordered)
		turn->order = lappend(turn->order, unconstify(char *, room->name));
	room->ordered = true;
	room->events = lappend(room->events, event);
	return event;
}

/* The row of a presence, as the hint of its leave or a whole join has it. */
PresenceRow *
presence_turn_row_of(const PresenceHint *hint)
{
	PresenceRow *row = palloc0(sizeof(PresenceRow));

	row->id = hint->id;
	row->room = unconstify(char *, presence_hint_text(hint, PRESENCE_FIELD_ROOM));
	row->channel = unconstify(char *, presence_hint_text(hint, PRESENCE_FIELD_CHANNEL));
	row->user = unconstify(char *, presence_hint_text(hint, PRESENCE_FIELD_USER));
	row->meta = presence_hint_meta(hint);
	row->truncated = hint->truncated;
	row->joined_at = hint->joined_at;
	return row;
}

/* A text[] of strings. */
Datum
presence_turn_text_array(List *strings)
{
	Datum	   *datums = palloc(Max(list_length(strings), 1) * sizeof(Datum));
	ListCell   *lc;

	foreach(lc, strings)
	{
		CHECK_FOR_INTERRUPTS();
		datums[foreach_current_index(lc)] = CStringGetTextDatum(lfirst(lc));
	}
	return PointerGetDatum(construct_array(datums, list_length(strings), TEXTOID,
										   -1, false, TYPALIGN_INT));
}
