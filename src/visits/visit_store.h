/*-------------------------------------------------------------------------
 *
 * visit_store.h
 *		Statements on presence.visits.
 *
 * All functions expect SPI to be connected.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_VISIT_STORE_H
#define PRESENCE_VISIT_STORE_H

#include "postgres.h"

#include "base/hint.h"

/* A row to be written: names as text datums. */
typedef struct PresenceVisit
{
	Datum		room;
	Datum		channel;
	Datum		user;
	bool		anonymous;		/* the user is NULL */
	TimestampTz joined_at;
	TimestampTz left_at;
	PresenceReason reason;
} PresenceVisit;

extern void presence_visit_store_add(const PresenceVisit *visits, int count);
extern int64 presence_visit_store_forget(int64 after, TimestampTz before);

#endif							/* PRESENCE_VISIT_STORE_H */
