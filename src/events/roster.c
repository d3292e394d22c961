/*-------------------------------------------------------------------------
 *
 * roster.c
 *		Remembers who has been announced as present, room by room.
 *
 * For a room with activity it holds every member that listeners have been
 * told of, and how many connections each user has, so that the counts in an
 * event and "the user's first" or "last connection" cost the same in every
 * room.  It is the worker's own memory: no locks.
 *
 * Each room has a memory context.  When the roster grows too large the rooms
 * that have been quiet for longest are forgotten, but none that was in use a
 * moment ago: reading a large room again for each of its changes would cost far
 * more than its memory.
 *
 * A room that is read may hold dead presences that nobody has removed yet, and
 * that listeners know.  They are members, too, so that their leave can be told,
 * but they are not counted, as nobody who reads the room sees them.
 *
 * A transaction that announces its changes itself makes a roster for the
 * moment.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/hint.h"
#include "events/roster.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"

/* A room that was in use for less than this is not forgotten; microseconds. */
#define QUIET_TIME (10 * 1000 * 1000)

/* Connections of one user in one room. */
typedef struct RosterUser
{
	const char *name;			/* key */
	char		status;			/* for simplehash */
	int64		connections;	/* that live */
	int64		expired;
	List	   *expired_channels;	/* of these, and maybe of others */
} RosterUser;

#define SH_PREFIX members
#define SH_ELEMENT_TYPE PresenceRosterMember
#define SH_KEY_TYPE const char *
#define SH_KEY channel
#define SH_HASH_KEY(tb, key) presence_hint_hash(key)
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
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
	MemoryContext context;		/* everything of the room, this struct too */
	members_hash *members;
	users_hash *users;
	int64		anonymous;		/* that live */
	int64		expired;		/* members */
	int64		absent;			/* users with dead connections only */
};

typedef struct RosterEntry
{
	const char *name;			/* key: the room's own name */
	char		status;			/* for simplehash */
	PresenceRosterRoom *room;
} RosterEntry;

#define SH_PREFIX rooms
#define SH_ELEMENT_TYPE RosterEntry
#define SH_KEY_TYPE const char *
#define SH_KEY name
#define SH_HASH_KEY(tb, key) presence_hint_hash(key)
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

struct PresenceRoster
{
	MemoryContext context;		/* everything but this struct */
	Size		size;			/* of all rooms, in bytes */
	rooms_hash *rooms;
	dlist_head	recent;			/* rooms, the most recently used first */
};

/* Make an empty roster in a memory context. */
PresenceRoster *
presence_roster_create(MemoryContext parent)
{
	PresenceRoster *roster = MemoryContextAllocZero(parent, sizeof(PresenceRoster));

	roster->context = AllocSetContextCreate(parent, "presence roster",
											ALLOCSET_DEFAULT_SIZES);
	presence_roster_clear(roster);
	return roster;
}

/* Forget everything. */
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
 * Forget the rooms quiet for longest until the rest fits into a limit, in bytes;
 * the rest of all that was quiet for QUIET_TIME, where that does not.
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

/* A room is in use. */
static void
note_use(PresenceRosterRoom *room)
{
	room->used = presence_clock_now();
	dlist_move_head(&room->roster->recent, &room->link);
}

/* A room has taken memory. */
static void
note_size(PresenceRosterRoom *room)
{
	Size		size = MemoryContextMemAllocated(room->context, false);

	room->roster->size += size - room->size;
	room->size = size;
}

/* A room, or NULL when it is not on the roster. */
PresenceRosterRoom *
presence_roster_find(PresenceRoster *roster, const char *name)
{
	RosterEntry *entry = rooms_lookup(roster->rooms, name);

	if (entry == NULL)
		return NULL;
	note_use(entry->room);
	return entry->room;
}

/* Put a room on the roster, with nobody in it. */
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

/* A member of a room, or NULL. */
PresenceRosterMember *
presence_roster_member(PresenceRosterRoom *room, const char *channel)
{
	return members_lookup(room->members, channel);
}

/* Find or make a user of a room. */
static RosterUser *
get_user(PresenceRosterRoom *room, const char *name)
{
	bool		found;
	RosterUser *user = users_insert(room->users, name, &found);

	if (found)
		return user;
	user->name = MemoryContextStrdup(room->context, name);
	user->connections = 0;
	user->expired = 0;
	user->expired_channels = NIL;
	room->absent++;
	return user;
}

/* Count a connection of a user in or out; a user without any is forgotten. */
static void
count_user(PresenceRosterRoom *room, const char *name, bool expired, int change)
{
	RosterUser *user = get_user(room, name);
	bool		was_absent = user->connections == 0;
	char	   *copy;

	if (expired)
		user->expired += change;
	else
		user->connections += change;
	room->absent += (user->connections == 0) - was_absent;
	if (user->connections > 0 || user->expired > 0)
		return;
	copy = unconstify(char *, user->name);
	list_free_deep(user->expired_channels);
	users_delete_item(room->users, user);
	room->absent--;
	pfree(copy);
}

/* Count a connection in or out; whether its user comes or goes with it. */
static bool
count(PresenceRosterRoom *room, const char *name, bool expired, int change)
{
	bool		is_in;

	if (expired)
		room->expired += change;
	if (name == NULL)
	{
		room->anonymous += expired ? 0 : change;
		return false;
	}
	is_in = users_lookup(room->users, name) != NULL;
	count_user(room, name, expired, change);
	return is_in != (users_lookup(room->users, name) != NULL);
}

/* Remember a dead member of a user, so that it is found. */
static void
note_expired(PresenceRosterRoom *room, const PresenceRosterMember *member)
{
	MemoryContext old = MemoryContextSwitchTo(room->context);
	RosterUser *user = users_lookup(room->users, member->user);

	user->expired_channels = lappend(user->expired_channels, pstrdup(member->channel));
	MemoryContextSwitchTo(old);
}

/* A channel enters, that is not in; whether it is its user's first. */
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
	member->user = user ? MemoryContextStrdup(room->context, user) : NULL;
	first = count(room, user, expired, 1);
	if (expired && user)
		note_expired(room, member);
	note_size(room);
	return first;
}

/* A dead member of a user who has no other ones; NULL: there is none. */
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

/* A member leaves; whether it was its user's last connection. */
bool
presence_roster_leave(PresenceRosterRoom *room, PresenceRosterMember *member)
{
	char	   *channel = unconstify(char *, member->channel);
	char	   *user = member->user;
	bool		last = count(room, user, member->expired, -1);

	members_delete_item(room->members, member);
	pfree(channel);
	if (user)
		pfree(user);
	return last;
}

/* A member belongs to another user from now on. */
void
presence_roster_set_user(PresenceRosterRoom *room, PresenceRosterMember *member,
						 const char *user, bool *joined, bool *left)
{
	char	   *before = member->user;

	*left = count(room, before, member->expired, -1);
	*joined = count(room, user, member->expired, 1);
	member->user = user ? MemoryContextStrdup(room->context, user) : NULL;
	if (member->expired && user)
		note_expired(room, member);
	if (before)
		pfree(before);
	note_size(room);
}

/* Whether a user has a live connection in a room. */
bool
presence_roster_has_user(const PresenceRosterRoom *room, const char *user)
{
	RosterUser *entry = users_lookup(room->users, user);

	return entry && entry->connections > 0;
}

/* How many are in a room. */
PresenceRosterCounts
presence_roster_counts(const PresenceRosterRoom *room)
{
	PresenceRosterCounts counts;

	counts.connections = room->members->members - room->expired;
	counts.users = room->users->members - room->absent;
	counts.anonymous = room->anonymous;
	return counts;
}

/* The name of a room. */
const char *
presence_roster_room_name(const PresenceRosterRoom *room)
{
	return room->name;
}
