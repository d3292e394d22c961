/*-------------------------------------------------------------------------
 *
 * permission.h
 *		Permission checks of heartbeats, short-lived state and broadcasts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_PERMISSION_H
#define PRESENCE_PERMISSION_H

#include "postgres.h"

extern bool presence_permission_touch_is_free(void);
extern bool presence_permission_is_free(void);
extern void presence_permission_check_room(text *room);
extern void presence_permission_check_events(void);
extern bool presence_permission_may_touch(text *channel);
extern bool presence_permission_may_update(text *room, text *channel);

#endif							/* PRESENCE_PERMISSION_H */
