/*-------------------------------------------------------------------------
 *
 * roster.c
 *		Remembers who has been announced as present, room by room.
 *
 * For a room with activity it holds every member that listeners have been
 * told of, and how many connections each user has, so that the counts in an
 * event and "the user's first" or "last connection" cost the same in every
 * room.  It is the worker's own memory: no locks.  Rooms that have been quiet
 * for longest are forgotten when the roster grows too large.
 *
 * A transaction that announces its changes itself makes a roster for the
 * moment.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "roster.h"
#include "utils/memutils.h"

/* Connections of one user in one room. */
typedef struct RosterUser
{
	const char *name;			/* key */
	char		status;			/* for simplehash */
	int64		connections;
} RosterUser;

static inline uint32
hash_string(const char *string)
{
	return hash_bytes((const unsigned char *) string, strlen(string));
}

#define SH_PREFIX members
#define SH_ELEMENT_TYPE PresenceRosterMember
#define SH_KEY_TYPE const char *
#define SH_KEY channel
#define SH_HASH_KEY(tb, key) hash_string(key)
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

#define SH_PREFIX users
#define SH_ELEMENT_TYPE RosterUser
#define SH_KEY_TYPE const char *
#define SH_KEY name
#define SH_HASH_KEY(tb, key) hash_string(key)
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

struct PresenceRosterRoom
{
	dlist_node	link;			/* in "recent" */
	char	   *name;
	MemoryContext context;		/* the roster's */
	members_hash *members;
	users_hash *users;
	int64		anonymous;
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
#define SH_HASH_KEY(tb, key) hash_string(key)
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

struct PresenceRoster
{
	MemoryContext context;		/* everything but this struct */
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
	roster->rooms = rooms_create(roster->context, 64, NULL);
	dlist_init(&roster->recent);
}

/* Forget a room. */
void
presence_roster_forget(PresenceRoster *roster, PresenceRosterRoom *room)
{
	members_iterator mi;
	users_iterator ui;
	PresenceRosterMember *member;
	RosterUser *user;

	members_start_iterate(room->members, &mi);
	while ((member = members_iterate(room->members, &mi)))
	{
		pfree(unconstify(char *, member->channel));
		if (member->user)
			pfree(member->user);
	}
	users_start_iterate(room->users, &ui);
	while ((user = users_iterate(room->users, &ui)))
		pfree(unconstify(char *, user->name));
	members_destroy(room->members);
	users_destroy(room->users);
	rooms_delete(roster->rooms, room->name);
	dlist_delete(&room->link);
	pfree(room->name);
	pfree(room);
}

/* Forget the rooms quiet for longest until the rest fits into a limit. */
void
presence_roster_trim(PresenceRoster *roster, Size limit)
{
	if (MemoryContextMemAllocated(roster->context, true) <= limit)
		return;

	/* Freed memory stays with the context: half of the rooms go at once. */
	for (uint32 n = roster->rooms->members / 2; n > 0; n--)
		presence_roster_forget(roster, dlist_tail_element(PresenceRosterRoom, link,
														  &roster->recent));
	if (MemoryContextMemAllocated(roster->context, true) > limit * 2)
		presence_roster_clear(roster);
}

/* A room, or NULL when it is not on the roster. */
PresenceRosterRoom *
presence_roster_find(PresenceRoster *roster, const char *name)
{
	RosterEntry *entry = rooms_lookup(roster->rooms, name);

	if (entry == NULL)
		return NULL;
	dlist_move_head(&roster->recent, &entry->room->link);
	return entry->room;
}

/* Put a room on the roster, with nobody in it. */
PresenceRosterRoom *
presence_roster_make(PresenceRoster *roster, const char *name)
{
	PresenceRosterRoom *room = MemoryContextAllocZero(roster->context,
													  sizeof(PresenceRosterRoom));
	bool		found;

	room->name = MemoryContextStrdup(roster->context, name);
	room->context = roster->context;
	room->members = members_create(roster->context, 4, NULL);
	room->users = users_create(roster->context, 4, NULL);
	rooms_insert(roster->rooms, room->name, &found)->room = room;
	Assert(!found);
	dlist_push_head(&roster->recent, &room->link);
	return room;
}

/* A member of a room, or NULL. */
PresenceRosterMember *
presence_roster_member(PresenceRosterRoom *room, const char *channel)
{
	return members_lookup(room->members, channel);
}

/* Count a connection of a user in; whether it is the first. */
static bool
count_in(PresenceRosterRoom *room, const char *name)
{
	RosterUser *user;
	bool		found;

	if (name == NULL)
	{
		room->anonymous++;
		return false;
	}
	user = users_insert(room->users, name, &found);
	if (!found)
	{
		user->name = MemoryContextStrdup(room->context, name);
		user->connections = 0;
	}
	user->connections++;
	return !found;
}

/* Count a connection of a user out; whether it was the last. */
static bool
count_out(PresenceRosterRoom *room, const char *name)
{
	RosterUser *user;
	char	   *copy;

	if (name == NULL)
	{
		room->anonymous--;
		return false;
	}
	user = users_lookup(room->users, name);
	Assert(user != NULL);
	if (--user->connections > 0)
		return false;
	copy = unconstify(char *, user->name);
	users_delete_item(room->users, user);
	pfree(copy);
	return true;
}

/* A channel enters, that is not in; whether it is its user's first. */
bool
presence_roster_join(PresenceRosterRoom *room, const char *channel, int64 id,
					 const char *user)
{
	PresenceRosterMember *member;
	bool		found;

	member = members_insert(room->members, channel, &found);
	Assert(!found);
	member->channel = MemoryContextStrdup(room->context, channel);
	member->id = id;
	member->user = user ? MemoryContextStrdup(room->context, user) : NULL;
	return count_in(room, user);
}

/* A member leaves; whether it was its user's last connection. */
bool
presence_roster_leave(PresenceRosterRoom *room, PresenceRosterMember *member)
{
	char	   *channel = unconstify(char *, member->channel);
	char	   *user = member->user;
	bool		last = count_out(room, user);

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

	*left = count_out(room, before);
	*joined = count_in(room, user);
	member->user = user ? MemoryContextStrdup(room->context, user) : NULL;
	if (before)
		pfree(before);
}

/* Whether a user has a connection in a room. */
bool
presence_roster_has_user(const PresenceRosterRoom *room, const char *user)
{
	return users_lookup(room->users, user) != NULL;
}

/* How many are in a room. */
PresenceRosterCounts
presence_roster_counts(const PresenceRosterRoom *room)
{
	PresenceRosterCounts counts;

	counts.connections = room->members->members;
	counts.users = room->users->members;
	counts.anonymous = room->anonymous;
	return counts;
}

/* The name of a room. */
const char *
presence_roster_room_name(const PresenceRosterRoom *room)
{
	return room->name;
}
