/*-------------------------------------------------------------------------
 *
 * state_mem.c
 *		Stores variable-length nodes in fixed-size cells of shared memory.
 *
 * The memory has a fixed size, presence.state_memory.  A node begins in one
 * cell, with a header, and continues in others if its data does not fit there.
 * Nodes are found through a hash table.  Its chains, the free list and the
 * cells of a node are linked by cell numbers, so the memory may be mapped at
 * any address.
 *
 * Links join nodes to rings, that is, circular lists with a first node.
 *
 * Nothing here takes a lock: callers hold the lock of state_entry.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/guc.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "state/state_mem.h"
#include "storage/shmem.h"

#define MORE_BYTES (PRESENCE_CELL_SIZE - (int) offsetof(MoreCell, data))
#define HEAD_BYTES (PRESENCE_CELL_SIZE - (int) offsetof(PresenceNode, data))

/* A cell in which the data of a node continues. */
typedef struct MoreCell
{
	uint32		more;
	Oid			database;		/* InvalidOid */
	char		data[FLEXIBLE_ARRAY_MEMBER];
} MoreCell;

StaticAssertDecl(offsetof(MoreCell, database) == offsetof(PresenceNode, database),
				 "scans must distinguish first cells from others");

typedef struct Arena
{
	uint32		ncells;			/* fixed */
	uint32		nbuckets;		/* power of two; fixed */
	uint32		free;			/* first free cell; 0: none */
	uint32		taken;			/* cells 1 to taken have been used */
	uint32		nfree;			/* free cells, including those never used */
	uint32		heads[FLEXIBLE_ARRAY_MEMBER];
} Arena;

static Arena *arena;

char	   *presence_state_mem_base;	/* the first cell is never used */

/* Number of cells in presence.state_memory, less the memory of the buckets. */
static uint32
count_cells(void)
{
	return (Size) presence_state_memory * 1024 /
		(PRESENCE_CELL_SIZE + 2 * sizeof(uint32));
}

/* Bytes before the cells. */
static Size
header_size(void)
{
	return CACHELINEALIGN(add_size(offsetof(Arena, heads),
								   mul_size(pg_nextpower2_32(count_cells()),
											sizeof(uint32))));
}

/* Bytes of shared memory that the cells need. */
Size
presence_state_mem_shmem_size(void)
{
	return add_size(header_size(), mul_size(count_cells() + 1, PRESENCE_CELL_SIZE));
}

/* Attach to the cells, initializing them when new. */
void
presence_state_mem_shmem_init(void *area, bool found)
{
	arena = area;
	presence_state_mem_base = (char *) area + header_size();
	if (found)
		return;
	memset(area, 0, presence_state_mem_shmem_size());
	arena->ncells = arena->nfree = count_cells();
	arena->nbuckets = pg_nextpower2_32(arena->ncells);
}

/* Number of cells. */
uint32
presence_state_mem_count(void)
{
	return arena->ncells;
}

/* Number of free cells. */
uint32
presence_state_mem_unused(void)
{
	return arena->nfree;
}

/* The last cell that has ever been used. */
uint32
presence_state_mem_taken(void)
{
	return arena->taken;
}

/* Insert a node before the first one, that is, at the end of the ring. */
void
presence_state_mem_ring_append(uint32 *first, PresenceRing ring, uint32 node)
{
	PresenceLinks *links = &presence_state_mem_node(node)->links[ring];
	PresenceLinks *next;

	if (*first == 0)
	{
		links->prev = links->next = *first = node;
		return;
	}
	next = &presence_state_mem_node(*first)->links[ring];
	links->next = *first;
	links->prev = next->prev;
	presence_state_mem_node(next->prev)->links[ring].next = node;
	next->prev = node;
}

/* Remove a node from a ring. */
void
presence_state_mem_ring_remove(uint32 *first, PresenceRing ring, uint32 node)
{
	PresenceLinks *links = &presence_state_mem_node(node)->links[ring];

	if (links->next == node)
	{
		*first = 0;
		return;
	}
	presence_state_mem_node(links->prev)->links[ring].next = links->next;
	presence_state_mem_node(links->next)->links[ring].prev = links->prev;
	if (*first == node)
		*first = links->next;
}

/* Make the second node of a ring the first. */
void
presence_state_mem_ring_rotate(uint32 *first, PresenceRing ring)
{
	*first = presence_state_mem_node(*first)->links[ring].next;
}

/* Number of cells of a node with so many bytes. */
uint32
presence_state_mem_for(int bytes)
{
	return bytes <= HEAD_BYTES ? 1 :
		1 + (bytes - HEAD_BYTES + MORE_BYTES - 1) / MORE_BYTES;
}

/* Take a cell; the caller has reserved it. */
static uint32
take_cell(void)
{
	uint32		cell = arena->free;

	Assert(arena->nfree > 0);
	arena->nfree--;
	if (cell != 0)
		arena->free = presence_state_mem_node(cell)->more;
	else
		cell = ++arena->taken;
	presence_state_mem_node(cell)->more = 0;
	presence_state_mem_node(cell)->database = InvalidOid;
	return cell;
}

/* Free a list of cells, linked by "more". */
static void
give_cells(uint32 first)
{
	while (first != 0)
	{
		PresenceNode *cell = presence_state_mem_node(first);
		uint32		more = cell->more;

		cell->database = InvalidOid;
		cell->more = arena->free;
		arena->free = first;
		arena->nfree++;
		first = more;
	}
}

/* Resize a node to so many bytes; data in the remaining cells is kept. */
void
presence_state_mem_resize(PresenceNode *node, int bytes)
{
	uint32	   *link = &node->more;
	uint32		surplus;

	node->cells = presence_state_mem_for(bytes);
	for (int i = 1; i < node->cells; i++)
	{
		if (*link == 0)
			*link = take_cell();
		link = &presence_state_mem_node(*link)->more;
	}
	surplus = *link;
	*link = 0;
	give_cells(surplus);
}

/* A run of bytes of a node, all in one cell. */
typedef struct Run
{
	char	   *data;
	int			length;
	uint32		more;			/* the next cell */
} Run;

/* The run that begins at an offset of a node. */
static Run
first_run(PresenceNode *node, int offset)
{
	Run			run = {node->data, HEAD_BYTES, node->more};

	while (offset >= run.length && run.more != 0)
	{
		MoreCell   *more = (MoreCell *) presence_state_mem_node(run.more);

		offset -= run.length;
		run.data = more->data;
		run.length = MORE_BYTES;
		run.more = more->more;
	}
	run.data += offset;
	run.length -= offset;
	return run;
}

/* The next run. */
static Run
next_run(Run run)
{
	MoreCell   *more = (MoreCell *) presence_state_mem_node(run.more);

	run.data = more->data;
	run.length = MORE_BYTES;
	run.more = more->more;
	return run;
}

/* Write bytes into a node. */
void
presence_state_mem_write(PresenceNode *node, int offset, const char *source, int length)
{
	for (Run run = first_run(node, offset);; run = next_run(run))
	{
		int			part = Min(length, run.length);

		memcpy(run.data, source, part);
		source += part;
		length -= part;
		if (length == 0)
			return;
	}
}

/* Read bytes of a node. */
void
presence_state_mem_read(PresenceNode *node, int offset, char *target, int length)
{
	for (Run run = first_run(node, offset);; run = next_run(run))
	{
		int			part = Min(length, run.length);

		memcpy(target, run.data, part);
		target += part;
		length -= part;
		if (length == 0)
			return;
	}
}

/* Whether a node, known to be long enough, has these bytes at an offset. */
bool
presence_state_mem_match(PresenceNode *node, int offset, const char *bytes, int length)
{
	for (Run run = first_run(node, offset);; run = next_run(run))
	{
		int			part = Min(length, run.length);

		if (memcmp(run.data, bytes, part) != 0)
			return false;
		bytes += part;
		length -= part;
		if (length == 0)
			return true;
	}
}

/* The chain that a hash falls into. */
static uint32 *
bucket_head(uint32 hash)
{
	return &arena->heads[hash & (arena->nbuckets - 1)];
}

/* Make a node of this process's database, which is in no ring yet. */
uint32
presence_state_mem_make(uint32 hash, const char *bytes, int length)
{
	uint32		index = take_cell();
	PresenceNode *node = presence_state_mem_node(index);
	uint32	   *head = bucket_head(hash);

	memset(node, 0, offsetof(PresenceNode, data));
	presence_state_mem_resize(node, length);
	presence_state_mem_write(node, 0, bytes, length);
	node->hash = hash;
	node->chain = *head;
	*head = index;
	node->database = MyDatabaseId;
	return index;
}

/* The first node of the chain that a hash falls into; 0: none. */
uint32
presence_state_mem_first(uint32 hash)
{
	return *bucket_head(hash);
}

/* Free a node, which is in no ring any more. */
void
presence_state_mem_free(uint32 index)
{
	uint32	   *link = bucket_head(presence_state_mem_node(index)->hash);

	while (*link != index)
		link = &presence_state_mem_node(*link)->chain;
	*link = presence_state_mem_node(index)->chain;
	give_cells(index);
}
