/*-------------------------------------------------------------------------
 *
 * lifecycle.h
 *		Statements on databases that a worker would stand in the way of.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_LIFECYCLE_H
#define PRESENCE_LIFECYCLE_H

#include "postgres.h"

extern void presence_lifecycle_install(void);

#endif							/* PRESENCE_LIFECYCLE_H */
