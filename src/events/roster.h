/*-------------------------------------------------------------------------
 *
 * roster.h
 *		Which presences have been announced, by room.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_ROSTER_H
#define PRESENCE_ROSTER_H

#include "postgres.h"

#include "base/clock.h"
#include "lib/ilist.h"
#include "nodes/pg_list.h"
#include "tables/store_rooms.h"

typedef struct PresenceRoster PresenceRoster;
typedef struct PresenceRosterRoom PresenceRosterRoom;

typedef struct PresenceRosterMember
{
	const char *channel;		/* key */
	char		status;			/* for simplehash */
	uint32		hash;			/* same */
	bool		expired;		/* not removed yet; not counted */
	int64		id;
	char	   *user;			/* NULL: anonymous; shared by all of the user */
} PresenceRosterMember;

typedef struct PresenceRosterCounts
{
	int64		connections;
	int64		users;
	int64		anonymous;
} PresenceRosterCounts;

/* How a room is announced. */
typedef struct PresenceRosterAnnounce
{
	PresenceAnnounce own;		/* as its row says */
	PresenceAnnounce now;		/* as it was announced last */
} PresenceRosterAnnounce;

extern PresenceRoster *presence_roster_create(MemoryContext parent);
extern void presence_roster_clear(PresenceRoster *roster);
extern void presence_roster_forget(PresenceRoster *roster,
								   PresenceRosterRoom *room);
extern void presence_roster_trim(PresenceRoster *roster, Size limit);

extern PresenceRosterRoom *presence_roster_find(PresenceRoster *roster,
												const char *room);
extern PresenceRosterRoom *presence_roster_make(PresenceRoster *roster,
												const char *room);
extern PresenceRosterMember *presence_roster_member(PresenceRosterRoom *room,
													const char *channel);
extern bool presence_roster_join(PresenceRosterRoom *room, const char *channel,
								 int64 id, const char *user, bool expired);
extern PresenceRosterMember *presence_roster_next_expired(PresenceRosterRoom *room,
														  const char *user);
extern bool presence_roster_leave(PresenceRosterRoom *room,
								  PresenceRosterMember *member);
extern void presence_roster_set_user(PresenceRosterRoom *room,
									 PresenceRosterMember *member,
									 const char *user, bool *joined, bool *left);
extern bool presence_roster_has_user(const PresenceRosterRoom *room,
									 const char *user);
extern PresenceRosterCounts presence_roster_counts(const PresenceRosterRoom *room);
extern PresenceRosterAnnounce *presence_roster_announce(PresenceRosterRoom *room);
extern const char *presence_roster_room_name(const PresenceRosterRoom *room);

/* When counts of rooms are announced. */
extern bool presence_roster_tell(PresenceRoster *roster, const char *room,
								 PresenceTime now);
extern void presence_roster_owe(PresenceRoster *roster, const char *room);
extern List *presence_roster_take_owed(PresenceRoster *roster, PresenceTime now);
extern bool presence_roster_owes(const PresenceRoster *roster);
extern PresenceTime presence_roster_next_owed(PresenceRoster *roster, PresenceTime now);
extern void presence_roster_forget_owed(PresenceRoster *roster);

#endif							/* PRESENCE_ROSTER_H */
