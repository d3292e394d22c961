/*-------------------------------------------------------------------------
 *
 * roster.c
 *		Remembers which presences have been announced, room by room.
 *
 * For each room with activity it holds every announced member, and how many
 * connections each user has, so that the counts in an event, user_joined and
 * user_left cost the same in rooms of any size.
 *
 * Each room has its own memory context.  When the roster exceeds its limit,
 * the least recently used rooms are evicted, but none that was used within
 * QUIET_TIME: reading a large room again for each of its changes would cost
 * far more than its memory.
 *
 * A loaded room may have expired presences that have not been removed yet and
 * have been announced.  They are members, too, so that their leave can be
 * announced, but they are not counted, because readers of the room do not see
 * them.
 *
 * Of rooms that are announced by their counts it also remembers when that was,
 * for as long as they must not be announced again, and whether they have
 * changed since.  This outlasts the memory of who is in them.
 *
 * The worker keeps one roster; a transaction that announces its own changes
 * makes a temporary one.  It is private memory: no locks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/guc.h"
#include "base/hint.h"
#include "events/roster.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"

/* A room is not evicted within this time of its last use; microseconds. */
#define QUIET_TIME (10 * 1000 * 1000)

/* Connections of one user in one room. */
typedef struct RosterUser
{
	const char *name;			/* key */
	char		status;			/* for simplehash */
	uint32		hash;			/* same */
	int64		connections;	/* not expired */
	int64		expired;
	List	   *expired_channels;	/* of the expired, maybe of others */
} RosterUser;

#define SH_PREFIX members
#define SH_ELEMENT_TYPE PresenceRosterMember
#define SH_KEY_TYPE const char *
#define SH_KEY channel
#define SH_HASH_KEY(tb, key) presence_hint_hash(key)
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

#define SH_PREFIX users
#define SH_ELEMENT_TYPE RosterUser
#define SH_KEY_TYPE const char *
#define SH_KEY name
#define SH_HASH_KEY(tb, key) presence_hint_hash(key)
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

struct PresenceRosterRoom
{
	PresenceRoster *roster;
	dlist_node	link;			/* in "recent" */
	PresenceTime used;
	Size		size;			/* of the context, as counted in the roster */
	char	   *name;
	PresenceRosterAnnounce announce;
	MemoryContext context;		/* everything of the room, this struct too */
	members_hash *members;
	users_hash *users;
	int64		anonymous;		/* not expired */
	int64		expired;		/* members */
	int64		absent;			/* users with expired connections only */
};

typedef struct RosterEntry
{
	const char *name;			/* key: the room's own name */
	char		status;			/* for simplehash */
	uint32		hash;			/* same */
	PresenceRosterRoom *room;
} RosterEntry;

#define SH_PREFIX rooms
#define SH_ELEMENT_TYPE RosterEntry
#define SH_KEY_TYPE const char *
#define SH_KEY name
#define SH_HASH_KEY(tb, key) presence_hint_hash(key)
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* A room whose counts were announced. */
typedef struct ToldRoom
{
	dlist_node	link;			/* in "told" */
	PresenceTime told;
	bool		owed;			/* they have changed since */
	char		name[FLEXIBLE_ARRAY_MEMBER];
} ToldRoom;

typedef struct ToldEntry
{
	const char *name;			/* key: the room's own name */
	char		status;			/* for simplehash */
	uint32		hash;			/* same */
	ToldRoom   *room;
} ToldEntry;

#define SH_PREFIX told
#define SH_ELEMENT_TYPE ToldEntry
#define SH_KEY_TYPE const char *
#define SH_KEY name
#define SH_HASH_KEY(tb, key) presence_hint_hash(key)
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

struct PresenceRoster
{
	MemoryContext parent;
	told_hash  *told_rooms;		/* in "parent"; NULL: none yet */
	dlist_head	told;			/* ToldRoom, the first one told first */
	int64		nowed;			/* of these */
	MemoryContext context;		/* the rest, but for this struct */
	Size		size;			/* of all rooms, in bytes */
	rooms_hash *rooms;
	dlist_head	recent;			/* rooms, the most recently used first */
};

/* Make an empty roster in a memory context. */
PresenceRoster *
presence_roster_create(MemoryContext parent)
{
	PresenceRoster *roster = MemoryContextAllocZero(parent, sizeof(PresenceRoster));

	roster->parent = parent;
	dlist_init(&roster->told);
	roster->context = AllocSetContextCreate(parent, "presence roster",
											ALLOCSET_DEFAULT_SIZES);
	presence_roster_clear(roster);
	return roster;
}

/* Forget who is in which room. */
void
presence_roster_clear(PresenceRoster *roster)
{
	MemoryContextReset(roster->context);
	roster->size = 0;
	roster->rooms = rooms_create(roster->context, 64, NULL);
	dlist_init(&roster->recent);
}

/* Forget a room. */
void
presence_roster_forget(PresenceRoster *roster, PresenceRosterRoom *room)
{
	(void) rooms_delete(roster->rooms, room->name);
	dlist_delete(&room->link);
	roster->size -= room->size;
	MemoryContextDelete(room->context);
}

/*
 * Evict the least recently used rooms until the rest fits into a limit, in
 * bytes, or has been used within QUIET_TIME.
 */
void
presence_roster_trim(PresenceRoster *roster, Size limit)
{
	PresenceTime quiet = presence_clock_now() - QUIET_TIME;

	while (roster->size > limit)
	{
		PresenceRosterRoom *room = dlist_tail_element(PresenceRosterRoom, link,
													  &roster->recent);

		CHECK_FOR_INTERRUPTS();
		if (room->used > quiet)
			break;
		presence_roster_forget(roster, room);
	}
}

/* Note that a room is in use. */
static void
note_use(PresenceRosterRoom *room)
{
	room->used = presence_clock_now();
	dlist_move_head(&room->roster->recent, &room->link);
}

/* Account for memory that a room has allocated. */
static void
note_size(PresenceRosterRoom *room)
{
	Size		size = MemoryContextMemAllocated(room->context, false);

	room->roster->size += size - room->size;
	room->size = size;
}

/* Find a room; NULL if it is not on the roster. */
PresenceRosterRoom *
presence_roster_find(PresenceRoster *roster, const char *name)
{
	RosterEntry *entry = rooms_lookup(roster->rooms, name);

	if (entry == NULL)
		return NULL;
	note_use(entry->room);
	return entry->room;
}

/* Put an empty room on the roster. */
PresenceRosterRoom *
presence_roster_make(PresenceRoster *roster, const char *name)
{
	MemoryContext context = AllocSetContextCreate(roster->context,
												  "presence roster room",
												  ALLOCSET_SMALL_SIZES);
	PresenceRosterRoom *room = MemoryContextAllocZero(context,
													  sizeof(PresenceRosterRoom));
	bool		found;

	room->roster = roster;
	room->context = context;
	room->name = MemoryContextStrdup(context, name);
	room->members = members_create(context, 2, NULL);
	room->users = users_create(context, 2, NULL);
	rooms_insert(roster->rooms, room->name, &found)->room = room;
	Assert(!found);
	dlist_push_head(&roster->recent, &room->link);
	note_use(room);
	note_size(room);
	return room;
}

/* Find a member of a room by its channel, or NULL. */
PresenceRosterMember *
presence_roster_member(PresenceRosterRoom *room, const char *channel)
{
	return members_lookup(room->members, channel);
}

/* Find or make a user of a room. */
static RosterUser *
get_user(PresenceRosterRoom *room, const char *name, bool *found)
{
	RosterUser *user = users_insert(room->users, name, found);

	if (*found)
		return user;
	user->name = MemoryContextStrdup(room->context, name);
	user->connections = 0;
	user->expired = 0;
	user->expired_channels = NIL;
	room->absent++;
	return user;
}

/*
 * Add to the connections of a user; whether the user is added or, without any
 * left, removed.  "kept" gets the roster's own copy of the name, NULL if the
 * user is removed.
 */
static bool
count_user(PresenceRosterRoom *room, const char *name, bool expired, int change,
		   char **kept)
{
	bool		found;
	RosterUser *user = get_user(room, name, &found);
	bool		was_absent = user->connections == 0;
	char	   *copy = unconstify(char *, user->name);

	if (expired)
		user->expired += change;
	else
		user->connections += change;
	room->absent += (user->connections == 0) - was_absent;
	*kept = copy;
	if (user->connections > 0 || user->expired > 0)
		return !found;
	list_free_deep(user->expired_channels);
	users_delete_item(room->users, user);
	room->absent--;
	pfree(copy);
	*kept = NULL;
	return found;
}

/*
 * Add or remove a connection; whether its user is added or removed with it.
 * "kept" gets the roster's own copy of the name, or NULL.
 */
static bool
count(PresenceRosterRoom *room, const char *name, bool expired, int change,
	  char **kept)
{
	*kept = NULL;
	if (expired)
		room->expired += change;
	if (name)
		return count_user(room, name, expired, change, kept);
	room->anonymous += expired ? 0 : change;
	return false;
}

/* Remember an expired member for presence_roster_next_expired(). */
static void
note_expired(PresenceRosterRoom *room, const PresenceRosterMember *member)
{
	MemoryContext old = MemoryContextSwitchTo(room->context);
	RosterUser *user = users_lookup(room->users, member->user);

	user->expired_channels = lappend(user->expired_channels, pstrdup(member->channel));
	MemoryContextSwitchTo(old);
}

/* Add a member; whether it is the first connection of its user. */
bool
presence_roster_join(PresenceRosterRoom *room, const char *channel, int64 id,
					 const char *user, bool expired)
{
	PresenceRosterMember *member;
	bool		found;
	bool		first;

	member = members_insert(room->members, channel, &found);
	Assert(!found);
	member->channel = MemoryContextStrdup(room->context, channel);
	member->expired = expired;
	member->id = id;
	first = count(room, user, expired, 1, &member->user);
	if (expired && user)
		note_expired(room, member);
	note_size(room);
	return first;
}

/* Next expired member of a user with no other kind of members, or NULL. */
PresenceRosterMember *
presence_roster_next_expired(PresenceRosterRoom *room, const char *name)
{
	RosterUser *user = name ? users_lookup(room->users, name) : NULL;

	if (user == NULL || user->connections > 0)
		return NULL;
	while (user->expired_channels != NIL)
	{
		char	   *channel = llast(user->expired_channels);
		PresenceRosterMember *member = members_lookup(room->members, channel);

		CHECK_FOR_INTERRUPTS();
		user->expired_channels = list_delete_last(user->expired_channels);
		pfree(channel);
		if (member && member->expired && member->user && strcmp(member->user, name) == 0)
			return member;
	}
	return NULL;
}

/* Remove a member; whether it was the last connection of its user. */
bool
presence_roster_leave(PresenceRosterRoom *room, PresenceRosterMember *member)
{
	char	   *channel = unconstify(char *, member->channel);
	char	   *ignored;
	bool		last = count(room, member->user, member->expired, -1, &ignored);

	members_delete_item(room->members, member);
	pfree(channel);
	return last;
}

/*
 * Change the user of a member.  The new one, which may be the same, is counted
 * first, since the old one's name may be freed.
 */
void
presence_roster_set_user(PresenceRosterRoom *room, PresenceRosterMember *member,
						 const char *user, bool *joined, bool *left)
{
	char	   *before = member->user;
	char	   *ignored;

	*joined = count(room, user, member->expired, 1, &member->user);
	*left = count(room, before, member->expired, -1, &ignored);
	if (member->expired && user)
		note_expired(room, member);
	note_size(room);
}

/* Whether a user has a connection in a room that has not expired. */
bool
presence_roster_has_user(const PresenceRosterRoom *room, const char *user)
{
	RosterUser *entry = users_lookup(room->users, user);

	return entry && entry->connections > 0;
}

/* The counts of a room, without expired members. */
PresenceRosterCounts
presence_roster_counts(const PresenceRosterRoom *room)
{
	PresenceRosterCounts counts;

	counts.connections = room->members->members - room->expired;
	counts.users = room->users->members - room->absent;
	counts.anonymous = room->anonymous;
	return counts;
}

/* How a room is announced; for the caller to change. */
PresenceRosterAnnounce *
presence_roster_announce(PresenceRosterRoom *room)
{
	return &room->announce;
}

/* The name of a room. */
const char *
presence_roster_room_name(const PresenceRosterRoom *room)
{
	return room->name;
}

/* --------------------------------------------------------------- their counts */

/* When the counts of a room may be announced again. */
static PresenceTime
due_time(const ToldRoom *room)
{
	return room->told + (PresenceTime) presence_counts_interval * 1000;
}

/* Find or make the note of when a room's counts were announced. */
static ToldRoom *
get_told(PresenceRoster *roster, const char *name, bool *found)
{
	ToldEntry  *entry;
	ToldRoom   *room;

	if (roster->told_rooms == NULL)
		roster->told_rooms = told_create(roster->parent, 16, NULL);
	entry = told_lookup(roster->told_rooms, name);
	*found = entry != NULL;
	if (*found)
		return entry->room;
	room = MemoryContextAllocZero(roster->parent, offsetof(ToldRoom, name) + strlen(name) + 1);
	strcpy(room->name, name);
	told_insert(roster->told_rooms, room->name, found)->room = room;
	*found = false;
	return room;
}

/* Forget when the counts of a room were announced. */
static void
forget_told(PresenceRoster *roster, ToldRoom *room)
{
	roster->nowed -= room->owed;
	dlist_delete(&room->link);
	(void) told_delete(roster->told_rooms, room->name);
	pfree(room);
}

/*
 * Whether the counts of a room may be announced now, at most once per
 * presence.counts_interval.  If so, they are.
 */
bool
presence_roster_tell(PresenceRoster *roster, const char *name, PresenceTime now)
{
	bool		found;
	ToldRoom   *room = get_told(roster, name, &found);

	if (found && now < due_time(room))
		return false;
	if (found)
		dlist_delete(&room->link);
	dlist_push_tail(&roster->told, &room->link);
	roster->nowed -= room->owed;
	room->owed = false;
	room->told = now;
	return true;
}

/* Have the counts of a room announced as soon as they may be. */
void
presence_roster_owe(PresenceRoster *roster, const char *name)
{
	bool		found;
	ToldRoom   *room = get_told(roster, name, &found);

	if (!found)
	{
		room->told = PG_INT64_MIN / 2;	/* never */
		dlist_push_head(&roster->told, &room->link);
	}
	roster->nowed += !room->owed;
	room->owed = true;
}

/* Take the names of the rooms whose counts are due. */
List *
presence_roster_take_owed(PresenceRoster *roster, PresenceTime now)
{
	List	   *names = NIL;

	while (!dlist_is_empty(&roster->told))
	{
		ToldRoom   *room = dlist_head_element(ToldRoom, link, &roster->told);

		CHECK_FOR_INTERRUPTS();
		if (now < due_time(room))
			break;
		if (room->owed)
			names = lappend(names, pstrdup(room->name));
		forget_told(roster, room);
	}
	return names;
}

/* Whether the counts of any room have changed since they were announced. */
bool
presence_roster_owes(const PresenceRoster *roster)
{
	return roster->nowed > 0;
}

/*
 * When counts may become due; PG_INT64_MAX if there are none.  Rooms that may
 * be announced again, but have not changed, are forgotten.
 */
PresenceTime
presence_roster_next_owed(PresenceRoster *roster, PresenceTime now)
{
	while (roster->nowed > 0)
	{
		ToldRoom   *room = dlist_head_element(ToldRoom, link, &roster->told);

		if (room->owed || now < due_time(room))
			return due_time(room);
		forget_told(roster, room);
	}
	return PG_INT64_MAX;
}

/* No counts are to be announced any more. */
void
presence_roster_forget_owed(PresenceRoster *roster)
{
	while (!dlist_is_empty(&roster->told))
		forget_told(roster, dlist_head_element(ToldRoom, link, &roster->told));
}
