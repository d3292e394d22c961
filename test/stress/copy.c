/*-------------------------------------------------------------------------
 *
 * copy.c
 *		Keeps a listener's copy of the rooms, by the rules documented for
 *		listeners.
 *
 *	1. A gap in seq, or a new epoch: read every room again.
 *	2. join and update put the presence in, unless one with a higher id is there;
 *	   leave takes it out by its id; a bulk with lists does both.
 *	3. Any other bulk, and resync: read again.
 *
 * Events that a snapshot already includes are applied all the same: the result
 * is the same.
 *
 * A gap itself is a failure here: these listeners miss nothing.  Where a room is
 * exact, an event must also be consistent with the copy, and its counts,
 * user_joined and user_left must be correct.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "copy.h"

typedef struct Counts
{
	long long	connections;
	long long	users;
	long long	anonymous;
} Counts;

/* Make an empty copy. */
void
copy_init(Copy *copy)
{
	memset(copy, 0, sizeof(*copy));
	for (int i = 0; i < ALL_ROOMS; i++)
	{
		copy->rooms[i].size = channels_of_room(i);
		copy->rooms[i].members = calloc(copy->rooms[i].size, sizeof(Member));
	}
	copy_reset(copy);
}

/* Empty the copy of a room. */
void
copy_clear_room(Room *room)
{
	memset(room->members, 0, room->size * sizeof(Member));
	room->seq = -1;
	room->stale = false;
	room->compared = false;
	room->exact = false;
}

/* Empty the whole copy, except its counters. */
void
copy_reset(Copy *copy)
{
	for (int i = 0; i < ALL_ROOMS; i++)
		copy_clear_room(&copy->rooms[i]);
	copy->epoch[0] = '\0';
	copy->seq = -1;
	copy_make_stale(copy);
}

/* Mark every room to be read again. */
void
copy_make_stale(Copy *copy)
{
	for (int i = 0; i < ALL_ROOMS; i++)
	{
		copy->rooms[i].stale = channels_of_room(i) > 0;
		copy->rooms[i].exact = false;
	}
}

/*
 * From now on events must fit the rooms exactly that were equal to the table.
 * One that was read since may contain events that are still to come.
 */
void
copy_set_exact(Copy *copy)
{
	for (int i = 0; i < ALL_ROOMS; i++)
		copy->rooms[i].exact = copy->rooms[i].compared && !copy->rooms[i].stale;
}

/* The number of connections of a user in a room. */
static int
connections_of(const Room *room, int user)
{
	int			count = 0;

	for (int i = 0; i < room->size; i++)
		if (room->members[i].id != 0 && room->members[i].user == user)
			count++;
	return count;
}

/* The counts of a room. */
static Counts
count_room(const Room *room)
{
	Counts		counts = {0};
	bool		seen[USERS] = {false};

	for (int i = 0; i < room->size; i++)
	{
		int			user = room->members[i].user;

		if (room->members[i].id == 0)
			continue;
		counts.connections++;
		if (user < 0)
			counts.anonymous++;
		else if (!seen[user])
			counts.users++;
		if (user >= 0)
			seen[user] = true;
	}
	return counts;
}

/* The presence in an event or a snapshot. */
static Member
read_member(const Json *json, bool truncated)
{
	Member		member = {json_number(json, "id"), -1, NO_VERSION};
	const Json *meta = json_get(json, "meta");

	if (json_string(json, "user_id"))
		member.user = name_number(json_string(json, "user_id"));
	if (truncated || meta == NULL)
		member.version = UNTOLD_VERSION;
	else if (meta->kind == JSON_OBJECT)
		member.version = json_number(meta, "v");
	return member;
}

/* The slot of a presence in a room; NULL: not a channel of the harness. */
static Member *
find_place(Room *room, const Json *json)
{
	int			channel = name_number(json_string(json, "channel_name"));

	return channel >= 0 && channel < room->size ? &room->members[channel] : NULL;
}

/* Put a presence into its slot, unless a newer one is there. */
static void
put_member(Member *place, const Member *member)
{
	if (place->id <= member->id)
		*place = *member;
}

/*
 * Apply a join; returns what is wrong with it where it must fit, NULL if
 * nothing.
 */
static const char *
apply_join(Room *room, const Json *event)
{
	const Json *added = json_get(event, "added");
	Member	   *place = find_place(room, added);
	Member		member = read_member(added, json_true(event, "truncated"));
	bool		first = member.user >= 0 && connections_of(room, member.user) == 0;
	const char *wrong = NULL;

	if (place == NULL)
		return "a join of an unknown channel";
	if (place->id == member.id)
		wrong = "a join of a presence that is there";
	else if (place->id != 0)
		wrong = "a join of a channel that has not left";
	else if (first != json_true(event, "user_joined"))
		wrong = "user_joined is wrong";
	else if (json_true(event, "user_left"))
		wrong = "a join with user_left";
	put_member(place, &member);
	return wrong;
}

/* The same for a leave. */
static const char *
apply_leave(Room *room, const Json *event)
{
	const Json *removed = json_get(event, "removed");
	Member	   *place = find_place(room, removed);
	Member		member = read_member(removed, json_true(event, "truncated"));
	Member		before;

	if (place == NULL)
		return "a leave of an unknown channel";
	before = *place;
	if (before.id != member.id)
		return "a leave of a presence that is not there";
	memset(place, 0, sizeof(*place));
	if (before.user != member.user)
		return "a leave of another user's presence";
	if (json_true(event, "user_joined"))
		return "a leave with user_joined";
	if (json_true(event, "user_left") !=
		(before.user >= 0 && connections_of(room, before.user) == 0))
		return "user_left is wrong";
	return NULL;
}

/* The same for an update. */
static const char *
apply_update(Room *room, const Json *event)
{
	const Json *added = json_get(event, "added");
	const Json *previous = json_get(event, "previous");
	Member	   *place = find_place(room, added);
	Member		member = read_member(added, json_true(event, "truncated"));
	Member		before;
	bool		joined;
	bool		left;

	if (place == NULL)
		return "an update of an unknown channel";
	before = *place;
	joined = member.user >= 0 && member.user != before.user &&
		connections_of(room, member.user) == 0;
	put_member(place, &member);
	if (before.id != member.id)
		return "an update of a presence that is not there";
	left = before.user >= 0 && member.user != before.user &&
		connections_of(room, before.user) == 0;
	if ((previous != NULL) != (before.user != member.user))
		return "previous is wrong";
	if (previous && name_number(json_string(previous, "user_id")) != before.user)
		return "previous tells another user";
	if (joined != json_true(event, "user_joined") ||
		left != json_true(event, "user_left"))
		return "user_joined or user_left of an update is wrong";
	return NULL;
}

/*
 * The same for a bulk with lists: first the leaves, some of them of presences
 * that joined in the meantime, then the joins.
 */
static const char *
apply_bulk(Room *room, const Json *event)
{
	const char *wrong = NULL;
	Member	   *place;

	for (const Json *json = json_get(event, "left")->first; json; json = json->next)
	{
		place = find_place(room, json);
		if (place && place->id == json_number(json, "id"))
			memset(place, 0, sizeof(*place));
	}
	for (const Json *json = json_get(event, "joined")->first; json; json = json->next)
	{
		place = find_place(room, json);
		if (place == NULL || place->id != 0)
			wrong = "a bulk lists a join of a channel that is there";
		if (place)
		{
			Member		member = read_member(json, true);

			put_member(place, &member);
		}
	}
	return wrong;
}

/* Returns what is wrong with the counts of an event; NULL if nothing. */
static const char *
check_counts(const Room *room, const Json *event)
{
	Counts		counts = count_room(room);

	if (counts.connections != json_number(event, "connections"))
		return "connections is wrong";
	if (counts.users != json_number(event, "users"))
		return "users is wrong";
	if (counts.anonymous != json_number(event, "anonymous"))
		return "anonymous is wrong";
	return NULL;
}

/* Apply an event of one room. */
static const char *
apply_to_room(Copy *copy, Room *room, const char *kind, const Json *event)
{
	const char *wrong;

	if (strcmp(kind, "bulk") == 0)
	{
		copy->bulks++;
		if (!json_true(event, "bulk_change"))
			return "a bulk without bulk_change";
		if (json_get(event, "joined") == NULL ||
			json_get(event, "joined")->kind != JSON_ARRAY)
		{
			room->stale = true;
			room->exact = false;
			return NULL;
		}
		wrong = apply_bulk(room, event);
	}
	else if (strcmp(kind, "join") == 0)
		wrong = apply_join(room, event);
	else if (strcmp(kind, "leave") == 0)
		wrong = apply_leave(room, event);
	else if (strcmp(kind, "update") == 0)
		wrong = apply_update(room, event);
	else
		return "an event of a kind that does not exist";

	if (!room->exact)
		return NULL;
	copy->checked++;
	return wrong ? wrong : check_counts(room, event);
}

/* Apply a resync of one room or all. */
static const char *
apply_resync(Copy *copy, const char *name)
{
	int			number = name_number(name);

	copy->resyncs++;
	if (name == NULL)
		copy_make_stale(copy);
	else if (number >= 0 && number < ALL_ROOMS)
	{
		copy->rooms[number].stale = true;
		copy->rooms[number].exact = false;
	}
	return NULL;
}

/* Follow epoch and seq. */
static const char *
apply_number(Copy *copy, const Json *event)
{
	const char *epoch = json_string(event, "epoch");
	long long	seq = json_number(event, "seq");
	const char *wrong = NULL;

	if (epoch == NULL)
	{
		copy->unnumbered++;
		return NULL;
	}
	if (strcmp(epoch, copy->epoch) != 0)
	{
		copy_make_stale(copy);
		snprintf(copy->epoch, sizeof(copy->epoch), "%s", epoch);
	}
	else if (copy->seq >= 0 && seq != copy->seq + 1)
	{
		copy_make_stale(copy);
		wrong = "a gap in seq";
	}
	copy->seq = seq;
	return wrong;
}

/* Whether a numbered event was applied before: it came both ways. */
bool
copy_has(const Copy *copy, const char *payload)
{
	Json	   *event = json_parse(payload);
	const char *epoch = json_string(event, "epoch");
	bool		has = epoch && strcmp(epoch, copy->epoch) == 0 &&
		json_number(event, "seq") <= copy->seq;

	json_free(event);
	return has;
}

/* Go on from a resync that presence_since answered: read all rooms again. */
void
copy_restart(Copy *copy, const char *resync)
{
	Json	   *event = json_parse(resync);
	const char *epoch = json_string(event, "epoch");

	snprintf(copy->epoch, sizeof(copy->epoch), "%s", epoch ? epoch : "");
	copy->seq = epoch ? json_number(event, "seq") : -1;
	copy_make_stale(copy);
	json_free(event);
}

/* Apply an event; false, with the reason: it is wrong. */
bool
copy_apply(Copy *copy, const char *payload, char *trouble, int size)
{
	Json	   *event = json_parse(payload);
	const char *kind = json_string(event, "event");
	const char *name = json_string(event, "room");
	int			number = name_number(name);
	const char *wrong;

	copy->events++;
	if (kind == NULL)
		wrong = "a payload that is not JSON, or has no event";
	else
	{
		wrong = apply_number(copy, event);
		if (strcmp(kind, "resync") == 0)
			apply_resync(copy, name);
		else if (name && strcmp(name, HELD_ROOM) == 0)
			;					/* of holder.c; not copied */
		else if (number < 0 || number >= ALL_ROOMS)
			wrong = "an event of an unknown room";
		else if (wrong == NULL)
		{
			if (json_string(event, "epoch") == NULL)
				copy->rooms[number].exact = false;
			wrong = apply_to_room(copy, &copy->rooms[number], kind, event);
		}
	}
	if (wrong)
		snprintf(trouble, size, "%s: %s", wrong, payload);
	json_free(event);
	return wrong == NULL;
}

/* Apply a snapshot of a room; false: it is not one. */
bool
copy_load(Copy *copy, int room, const char *snapshot)
{
	Json	   *json = json_parse(snapshot);
	const Json *members = json_get(json, "members");
	const char *epoch = json_string(json, "epoch");
	Room	   *target = &copy->rooms[room];
	Counts		counts;
	bool		good = members != NULL;

	copy_clear_room(target);
	if (epoch && strcmp(epoch, copy->epoch) != 0)
	{
		/* The server has restarted; its first event comes later. */
		copy_make_stale(copy);
		snprintf(copy->epoch, sizeof(copy->epoch), "%s", epoch);
		copy->seq = -1;
	}
	target->seq = epoch ? json_number(json, "seq") : -1;
	target->stale = false;
	for (const Json *member = good ? members->first : NULL; member; member = member->next)
	{
		Member	   *place = find_place(target, member);

		if (place)
			*place = read_member(member, false);
	}
	counts = count_room(target);
	good = good && counts.connections == json_number(json, "connections") &&
		counts.users == json_number(json, "users") &&
		counts.anonymous == json_number(json, "anonymous");
	json_free(json);
	return good;
}

/* Whether a presence in a copy equals the one in the table. */
static bool
same_member(const Member *a, const Member *truth)
{
	if (a->id != truth->id || a->id == 0)
		return a->id == truth->id;
	return a->user == truth->user &&
		(a->version == truth->version || a->version == UNTOLD_VERSION);
}

/* Report each presence in which a copy differs from the table; how many. */
int
copy_differences(Copy *copy, const Copy *truth,
				 CopyTell tell, void *arg)
{
	int			count = 0;

	for (int r = 0; r < ALL_ROOMS; r++)
	{
		copy->rooms[r].compared = true;
		for (int c = 0; c < channels_of_room(r); c++)
		{
			const Member *a = &copy->rooms[r].members[c];
			const Member *b = &truth->rooms[r].members[c];

			if (same_member(a, b))
				continue;
			count++;
			if (tell)
				tell(arg, r, c, a, b);
		}
	}
	return count;
}
