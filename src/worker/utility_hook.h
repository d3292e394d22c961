/*-------------------------------------------------------------------------
 *
 * utility_hook.h
 *		Hooks for statements that conflict with a worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_UTILITY_HOOK_H
#define PRESENCE_UTILITY_HOOK_H

#include "postgres.h"

extern void presence_utility_hook_install(void);
extern void presence_utility_hook_on_discard(void (*callback) (void));

#endif							/* PRESENCE_UTILITY_HOOK_H */
