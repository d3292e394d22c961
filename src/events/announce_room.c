/*-------------------------------------------------------------------------
 *
 * announce_room.c
 *		Makes events of hints, as far as they are news.
 *
 * The roster holds what listeners have been told, the table holds what is,
 * and the hints say where to look.  Hints may come in another order than the
 * transactions committed, and more than one may speak of the same presence,
 * so a hint is not believed: a join is told when the table shows the presence
 * and the roster does not, a leave when the roster shows it, an update when
 * both do.  All the rest has been told or no longer matters; but a presence
 * that came and went in two transactions between two turns is told to have
 * joined and left: who read the room in between has seen it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "events/announce_turn.h"
#include "miscadmin.h"
#include "tables/store_presences.h"

/*
 * A member has left.  It leaves as the user that listeners know it by: an
 * update right before may not have been told.
 */
static void
announce_leave(PresenceTurn *turn, PresenceTurnRoom *room, PresenceRosterMember *member,
		   const PresenceWaiting *waiting)
{
	const PresenceHint *hint = waiting->hint;
	PresenceSubject *subject = waiting->subject;
	const char *user = member->user ? pstrdup(member->user) : NULL;
	bool		last = presence_roster_leave(room->room, member);
	PresenceEvent *event;

	subject->turn.over = true;
	if (hint->announced)
		return;
	presence_turn_count_user(turn, user, -1);
	event = presence_turn_add_event(turn, room, PRESENCE_EVENT_LEAVE,
									presence_turn_row_of_leave(hint));
	event->row->user = unconstify(char *, user);
	event->reason = hint->reason;
	event->user_left = last;
	event->left_at = hint->noted;
	if (subject->turn.join_event)
		subject->turn.join_event->undone = true;
	subject->turn.join_event = NULL;
}

/* The presence of a dead member, as the table or the hint that it left has it. */
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
		return presence_turn_row_of_leave(subject->leave->hint);
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
 * A user comes whose presences in the room are all dead, and whom nobody sees
 * there: they leave first, and not again when somebody removes them.
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
 * A join is not told, so its leave must not be either: not now, and not by
 * whoever builds the roster anew and finds that hint still waiting.
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
 * Take off the roster who has the place of a presence that joins; false: the
 * place is not free, there is no join to tell.
 *
 * The hint that the other one left comes later: that is told first.  Where no
 * such hint exists the other one is there still: the presence has been told
 * already, or it came and went before the other one came.
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

/* A member's user or meta has changed. */
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
 * A presence left that is not on the roster: tell both ends of a brief one.
 * Nothing more can be told of it.
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

/* Tell what a hint says, as far as it is news. */
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

/* A broadcast goes to its room as it is. */
static void
announce_broadcast(PresenceTurn *turn, const PresenceHint *hint)
{
	PresenceTurnRoom *room = presence_turn_room(turn, presence_hint_text(hint,
																		 PRESENCE_FIELD_ROOM));

	presence_turn_add_event(turn, room, PRESENCE_EVENT_BROADCAST, NULL)->payload =
		presence_hint_text(hint, PRESENCE_FIELD_PAYLOAD);
}

/* A user has chosen; what counts is what held before the first choice. */
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

/* Tell all hints, in their order. */
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
