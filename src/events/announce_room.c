/*-------------------------------------------------------------------------
 *
 * announce_room.c
 *		Makes events of hints that have not been announced yet.
 *
 * The roster holds what has been announced, the table holds the current state,
 * and hints say where to look.  Hints may arrive in another order than their
 * transactions committed, and several may concern the same presence, so a hint
 * is not trusted: a join is announced if the table has the presence and the
 * roster does not, a leave if the roster has it, an update if both have it.
 * Everything else has been announced or no longer matters.  An exception is a
 * brief presence, one that joined and left in two transactions between two
 * turns: both are announced, because a client that read the room in between
 * has seen it.
 *
 * Roster, backlog and turn are private memory of the announcing process: no
 * locks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "events/announce_turn.h"
#include "miscadmin.h"
#include "tables/store_presences.h"

/*
 * A member has left.  It is announced with the user that listeners know, since
 * an update right before it may not have been announced.
 */
static void
announce_leave(PresenceTurn *turn, PresenceTurnRoom *room, PresenceRosterMember *member,
			   const PresenceWaiting *waiting)
{
	const PresenceHint *hint = waiting->hint;
	PresenceSubject *subject = waiting->subject;
	const char *user = presence_hint_text(hint, PRESENCE_FIELD_USER);
	PresenceEvent *event;
	bool		last;

	if (!presence_turn_same_user(user, member->user))
		user = member->user ? pstrdup(member->user) : NULL;
	last = presence_roster_leave(room->room, member);
	subject->turn.over = true;
	if (hint->announced)
		return;
	presence_turn_count_user(turn, user, -1);
	event = presence_turn_add_event(turn, room, PRESENCE_EVENT_LEAVE,
									presence_turn_row_of(hint));
	event->row->user = unconstify(char *, user);
	event->reason = hint->reason;
	event->user_left = last;
	event->left_at = hint->noted;
	if (subject->turn.join_event)
		subject->turn.join_event->undone = true;
	subject->turn.join_event = NULL;
}

/* The row of an expired member, from the table or the hint of its leave. */
static PresenceRow *
row_of_expired(PresenceTurn *turn, PresenceTurnRoom *room, const PresenceRosterMember *member)
{
	PresenceSubject *subject = presence_backlog_find(turn->backlog, member->id,
													 room->name, member->channel);
	List	   *rooms = list_make1(unconstify(char *, room->name));
	List	   *channels = list_make1(unconstify(char *, member->channel));
	PresenceRow *row;
	ListCell   *lc;

	if (subject && subject->leave)
		return presence_turn_row_of(subject->leave->hint);
	foreach(lc, presence_store_look_up(presence_turn_text_array(rooms),
									   presence_turn_text_array(channels),
									   turn->snapshot))
	{
		row = lfirst(lc);
		if (row->id == member->id)
			return row;
	}
	row = palloc0(sizeof(PresenceRow));
	row->id = member->id;
	row->room = unconstify(char *, room->name);
	row->channel = pstrdup(member->channel);
	return row;
}

/*
 * A user joins whose presences in the room have all expired, so that readers
 * do not see the user there.  Announce that they left first; it is not
 * announced again when they are removed.
 */
static void
announce_expired(PresenceTurn *turn, PresenceTurnRoom *room, const char *user)
{
	PresenceRosterMember *member;

	while ((member = presence_roster_next_expired(room->room, user)))
	{
		PresenceRow *row = row_of_expired(turn, room, member);
		bool		last;
		PresenceEvent *event;

		CHECK_FOR_INTERRUPTS();
		row->user = pstrdup(user);
		last = presence_roster_leave(room->room, member);
		event = presence_turn_add_event(turn, room, PRESENCE_EVENT_LEAVE, row);
		event->reason = PRESENCE_REASON_EXPIRED;
		event->user_left = last;
	}
}

/*
 * A join is not announced, so its leave must not be either: neither in this
 * turn, nor later if the roster is rebuilt while that hint is still pending.
 */
static void
drop_leave(PresenceTurn *turn, PresenceSubject *subject)
{
	PresenceWaiting *leave = subject->leave;

	if (leave == NULL || leave->hint->covered)
		return;
	presence_turn_see_user(turn, leave->hint);
	leave->hint->covered = true;
	subject->turn.over = true;
}

/*
 * Remove from the roster the member with the same room and channel as a
 * presence that joins; false if there is no join to announce.
 *
 * If the hint of the other presence's leave comes later, that leave is
 * announced first.  If there is no such hint and the joining presence is
 * brief, it came and went before the other one, which is still there.
 */
static bool
clear_place(PresenceTurn *turn, PresenceTurnRoom *room, PresenceRosterMember *member,
			PresenceSubject *subject)
{
	PresenceSubject *other;

	if (member->id == subject->key.id)
		return false;
	other = presence_backlog_find(turn->backlog, member->id, room->name,
								  subject->key.channel);
	if (other && other->leave && !other->leave->hint->covered)
	{
		presence_turn_touch(turn, other);
		presence_turn_see_user(turn, other->leave->hint);
		announce_leave(turn, room, member, other->leave);
		other->leave->hint->covered = true;
		return true;
	}
	if (subject->turn.brief)
	{
		drop_leave(turn, subject);
		return false;
	}
	(void) presence_roster_leave(room->room, member);
	return true;
}

/* A presence has joined. */
static void
announce_join(PresenceTurn *turn, PresenceTurnRoom *room, const PresenceWaiting *waiting)
{
	const PresenceHint *hint = waiting->hint;
	PresenceSubject *subject = waiting->subject;
	PresenceRow *row = subject->turn.row;
	PresenceRosterMember *member = presence_roster_member(room->room,
														  subject->key.channel);
	PresenceEvent *event;
	const char *user;
	bool		first;

	if (row == NULL && !hint->announced)
	{
		drop_leave(turn, subject);
		return;
	}
	if (member && !clear_place(turn, room, member, subject))
		return;
	user = row ? row->user : presence_hint_text(hint, PRESENCE_FIELD_USER);
	if (!hint->announced)
		announce_expired(turn, room, user);
	first = presence_roster_join(room->room, subject->key.channel, hint->id,
								 user, false);
	if (hint->announced)
		return;
	presence_turn_count_user(turn, row->user, 1);
	event = presence_turn_add_event(turn, room, PRESENCE_EVENT_JOIN, row);
	event->user_joined = first;
	subject->turn.updated = true;
	subject->turn.join_event = event;
}

/* The user or meta of a member has changed. */
static void
announce_update(PresenceTurn *turn, PresenceTurnRoom *room, PresenceRosterMember *member,
				const PresenceWaiting *waiting)
{
	const PresenceHint *hint = waiting->hint;
	PresenceSubject *subject = waiting->subject;
	PresenceRow *row = subject->turn.row;
	const char *user = hint->announced ?
		presence_hint_text(hint, PRESENCE_FIELD_USER) : row ? row->user : NULL;
	bool		changed = !presence_turn_same_user(member->user, user);
	const char *before = member->user ? pstrdup(member->user) : NULL;
	bool		joined = false;
	bool		left = false;
	PresenceEvent *event;

	if (!hint->announced && (row == NULL || subject->turn.updated))
		return;
	if (changed && !hint->announced)
	{
		announce_expired(turn, room, user);
		member = presence_roster_member(room->room, subject->key.channel);
	}
	if (changed)
		presence_roster_set_user(room->room, member, user, &joined, &left);
	if (hint->announced)
		return;
	if (changed)
	{
		presence_turn_count_user(turn, before, -1);
		presence_turn_count_user(turn, user, 1);
	}
	subject->turn.updated = true;
	event = presence_turn_add_event(turn, room, PRESENCE_EVENT_UPDATE, row);
	event->user_changed = changed;
	event->previous_user = before;
	event->user_joined = joined;
	event->user_left = left;
	event->left_at = hint->noted;
}

/*
 * A presence that is not on the roster has left: announce both the join and
 * the leave of a brief one.  Its other hints have nothing to announce.
 */
static void
announce_brief(PresenceTurn *turn, PresenceTurnRoom *room, const PresenceWaiting *waiting)
{
	PresenceSubject *subject = waiting->subject;
	PresenceRosterMember *member;

	subject->turn.over = true;
	if (!subject->turn.brief)
		return;
	announce_join(turn, room, subject->join);
	member = presence_roster_member(room->room, subject->key.channel);
	if (member && member->id == subject->key.id)
		announce_leave(turn, room, member, waiting);
	subject->turn.brief = false;
	subject->turn.row = NULL;
}

/* Announce the change that a hint stands for, unless that has been done. */
static void
announce_change(PresenceTurn *turn, const PresenceWaiting *waiting)
{
	const PresenceHint *hint = waiting->hint;
	PresenceTurnRoom *room = presence_turn_room(turn, presence_hint_text(hint,
																		 PRESENCE_FIELD_ROOM));
	PresenceRosterMember *member;

	room->self_announced |= hint->announced;
	if (hint->kind == PRESENCE_HINT_JOIN)
	{
		announce_join(turn, room, waiting);
		return;
	}
	presence_turn_see_user(turn, hint);
	member = presence_roster_member(room->room, waiting->subject->key.channel);
	if (member == NULL || member->id != hint->id)
	{
		if (hint->kind == PRESENCE_HINT_LEAVE)
			announce_brief(turn, room, waiting);
	}
	else if (hint->kind == PRESENCE_HINT_LEAVE)
		announce_leave(turn, room, member, waiting);
	else
		announce_update(turn, room, member, waiting);
}

/* Announce a broadcast as it is. */
static void
announce_broadcast(PresenceTurn *turn, const PresenceHint *hint)
{
	PresenceTurnRoom *room = presence_turn_room(turn, presence_hint_text(hint,
																		 PRESENCE_FIELD_ROOM));

	presence_turn_add_event(turn, room, PRESENCE_EVENT_BROADCAST, NULL)->payload =
		presence_hint_text(hint, PRESENCE_FIELD_PAYLOAD);
}

/* A user has changed status or message; keep those before the first change. */
static void
announce_choice(PresenceTurn *turn, const PresenceHint *hint)
{
	PresenceTurnUser *user = presence_turn_user(turn, presence_hint_text(hint,
																		 PRESENCE_FIELD_USER));

	if (user->chose)
		return;
	user->chose = true;
	user->chosen_before = presence_hint_text(hint, PRESENCE_FIELD_PREVIOUS);
	user->message_before = presence_hint_text(hint, PRESENCE_FIELD_PAYLOAD);
}

/* Announce all hints, in their order. */
void
presence_turn_announce_hints(PresenceTurn *turn, PresenceWaiting *const *now, int nhints)
{
	for (int i = 0; i < nhints; i++)
	{
		const PresenceHint *hint = now[i]->hint;

		CHECK_FOR_INTERRUPTS();
		if (now[i]->subject)
		{
			if (!hint->covered)
				announce_change(turn, now[i]);
		}
		else if (hint->announced)
			continue;
		else if (hint->kind == PRESENCE_HINT_BROADCAST)
			announce_broadcast(turn, hint);
		else if (hint->kind == PRESENCE_HINT_STATUS)
			announce_choice(turn, hint);
	}
}
