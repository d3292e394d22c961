/*-------------------------------------------------------------------------
 *
 * utility_hook.h
 *		Statements on databases that a worker would stand in the way of.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_UTILITY_HOOK_H
#define PRESENCE_UTILITY_HOOK_H

#include "postgres.h"

extern void presence_utility_hook_install(void);

#endif							/* PRESENCE_UTILITY_HOOK_H */
