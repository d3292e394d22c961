/*-------------------------------------------------------------------------
 *
 * chaos_big.c
 *		Keeps changing one room with very many members.
 *
 * Members send heartbeats, except a slice that is left to expire; slices leave
 * and join again; single members join, change and leave.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "chaos.h"
#include "names.h"

/* Members that join or send heartbeats in one statement. */
#define CHUNK 5000

/* Names of the channels from %d to %d, as names.c has them, and users for them. */
#define CHANNEL "CASE mod(i, 8) WHEN 7 THEN repeat('0', 254 - length(i::text)) || ' ' || i ELSE 'channel ' || i END"
#define SLICE_OF_CHANNELS "ARRAY(SELECT " CHANNEL " FROM generate_series(%d, %d) i ORDER BY i)"
#define SLICE_OF_USERS "ARRAY(SELECT CASE WHEN mod(i, 5) > 0 THEN 'user ' || 3 * mod(i, 8) END" \
	" FROM generate_series(%d, %d) i ORDER BY i)"

/* A slice of the members; "to" is excluded. */
typedef struct Slice
{
	int			from;
	int			to;
} Slice;

static int	filled;				/* channels below this have joined once */
static Slice silent;			/* left to expire */

static Slice
pick_slice(Random *random, int limit)
{
	Slice		slice = {random_below(random, big_room_size), 0};

	slice.to = Min(slice.from + 1 + random_below(random, limit), big_room_size);
	return slice;
}

/* A slice joins; for present members that is a heartbeat. */
static void
enter(PGconn *conn, Slice slice)
{
	char		sql[700];

	snprintf(sql, sizeof(sql), "SELECT presence_add_many('room %d', " SLICE_OF_CHANNELS ", " SLICE_OF_USERS ")",
			 BIG_ROOM, slice.from, slice.to - 1, slice.from, slice.to - 1);
	(void) chaos_run(conn, sql);
}

/* A slice sends heartbeats, in one call. */
static void
beat(PGconn *conn, Slice slice)
{
	char		sql[400];

	if (slice.from >= slice.to)
		return;
	snprintf(sql, sizeof(sql), "SELECT presence_touch_many(" SLICE_OF_CHANNELS ")", slice.from, slice.to - 1);
	(void) chaos_run(conn, sql);
}

/* A slice leaves, some members by name, some as rows. */
static void
leave(PGconn *conn, Random *random, Slice slice)
{
	char		sql[400];

	if (random_below(random, 2))
		snprintf(sql, sizeof(sql), "SELECT presence_leave_all_many(" SLICE_OF_CHANNELS ")", slice.from, slice.to - 1);
	else
		snprintf(sql, sizeof(sql), "DELETE FROM presence.presences WHERE room = 'room %d' AND mod(id, 40) = %d",
				 BIG_ROOM, random_below(random, 40));
	(void) chaos_run(conn, sql);
}

/* Single members join, change or leave, one after the other. */
static void
trickle(PGconn *conn, Random *random)
{
	for (int i = 0; i < 30 && !atomic_load(&paused); i++)
	{
		char		channel[NAME_SIZE];
		char		room[NAME_SIZE];
		char		meta[60];
		const char *values[3] = {name_room(BIG_ROOM, room), name_channel(random_below(random, big_room_size), channel), meta};

		snprintf(meta, sizeof(meta), "{\"v\": %d}", random_below(random, 1000000));
		switch (random_below(random, 3))
		{
			case 0:
				(void) chaos_run_with(conn, "SELECT presence_add($1, $2, 'user 1', $3)", 3, values);
				break;
			case 1:
				(void) chaos_run_with(conn, "SELECT presence_update($1, $2, $3)", 3, values);
				break;
			default:
				(void) chaos_run_with(conn, "SELECT presence_remove($1, $2)", 2, values);
		}
	}
}

/*
 * All members join, chunk by chunk, with heartbeats of those present
 * meanwhile; a pause interrupts this.
 */
static void
fill(PGconn *conn)
{
	while (filled < big_room_size && !atomic_load(&paused) && !atomic_load(&finished))
	{
		Slice		chunk = {filled, Min(filled + CHUNK, big_room_size)};

		enter(conn, chunk);
		if (filled / CHUNK % 4 == 3)
			beat(conn, (Slice) {0, filled});
		filled = chunk.to;
	}
}

/* One act in the room. */
void
chaos_crowd(PGconn *conn, Random *random)
{
	if (random_below(random, 40) == 0)
		filled = 0;
	fill(conn);
	if (random_below(random, 4) == 0)
		silent = pick_slice(random, big_room_size / 20 + 1);
	beat(conn, (Slice) {0, silent.from});
	beat(conn, (Slice) {silent.to, big_room_size});
	switch (random_below(random, 4))
	{
		case 0:
			leave(conn, random, pick_slice(random, big_room_size / 20 + 1));
			break;
		case 1:
			enter(conn, pick_slice(random, big_room_size / 10 + 1));
			break;
		default:
			trickle(conn, random);
	}
	chaos_wait(chaos_between(random, 0.05, 0.3));
}
