/*-------------------------------------------------------------------------
 *
 * state_mem.h
 *		Variable-length nodes in cells of shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRESENCE_STATE_MEM_H
#define PRESENCE_STATE_MEM_H

#include "postgres.h"

#include "base/clock.h"

#define PRESENCE_CELL_SIZE 192

/* Flags of a node. */
#define PRESENCE_NODE_ROOM		0x01	/* else an entry */
#define PRESENCE_NODE_DIRTY		0x02	/* a change is to be announced */
#define PRESENCE_NODE_TOMBSTONE	0x04	/* tombstone of an entry */
#define PRESENCE_NODE_VACANT	0x08	/* a room without entries */

/* Each node may be in one ring of each kind. */
typedef enum PresenceRing
{
	PRESENCE_RING_AGE,
	PRESENCE_RING_PEERS,
	PRESENCE_RING_MEMBERS,
	PRESENCE_NRINGS
} PresenceRing;

/* Neighbours in a ring. */
typedef struct PresenceLinks
{
	uint32		prev;
	uint32		next;
} PresenceLinks;

/*
 * A node is identified by the number of its first cell; 0 is none.  The fields
 * up to "cells" belong to state_mem.c, the rest to state_entry.c.
 */
typedef struct PresenceNode
{
	uint32		more;			/* next cell of the node or of the free list */
	Oid			database;		/* InvalidOid: free, or not a first cell */
	uint32		hash;
	uint32		chain;			/* next node in the bucket */
	PresenceLinks links[PRESENCE_NRINGS];
	uint16		cells;			/* number of cells */

	uint16		record;			/* of a room: index of its database's record */
	uint32		flags;
	uint32		room;			/* of an entry */
	uint32		entries;		/* of a room: its first entry */
	uint32		dirty;			/* of a room: its first dirty entry */
	uint32		ndirty;			/* of a room: its dirty entries */
	uint32		count;			/* of a room: its entries */
	uint16		key_length;		/* or that of a room's name */
	uint16		value_length;
	PresenceTime updated;		/* or when a room was last announced */
	PresenceTime expires;		/* or when a vacant room may go */
	uint64		serial;			/* of an entry: its unique serial number */
	char		data[FLEXIBLE_ARRAY_MEMBER];
} PresenceNode;

extern char *presence_state_mem_base;

/* The node that begins in a cell. */
static inline PresenceNode *
presence_state_mem_node(uint32 cell)
{
	return (PresenceNode *) (presence_state_mem_base + (Size) cell * PRESENCE_CELL_SIZE);
}

extern Size presence_state_mem_shmem_size(void);
extern void presence_state_mem_shmem_init(void *area, bool found);

extern uint32 presence_state_mem_count(void);
extern uint32 presence_state_mem_unused(void);
extern uint32 presence_state_mem_taken(void);
extern uint32 presence_state_mem_for(int bytes);

extern uint32 presence_state_mem_make(uint32 hash, const char *bytes, int length);
extern void presence_state_mem_resize(PresenceNode *node, int bytes);
extern void presence_state_mem_free(uint32 index);
extern uint32 presence_state_mem_first(uint32 hash);

extern void presence_state_mem_write(PresenceNode *node, int offset,
									 const char *source, int length);
extern void presence_state_mem_read(PresenceNode *node, int offset, char *target,
									int length);
extern bool presence_state_mem_match(PresenceNode *node, int offset,
									 const char *bytes, int length);

extern void presence_state_mem_ring_append(uint32 *first, PresenceRing ring,
										   uint32 node);
extern void presence_state_mem_ring_remove(uint32 *first, PresenceRing ring,
										   uint32 node);
extern void presence_state_mem_ring_rotate(uint32 *first, PresenceRing ring);

#endif							/* PRESENCE_STATE_MEM_H */
