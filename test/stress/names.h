/*-------------------------------------------------------------------------
 *
 * names.h
 *		The rooms, channels and users of the harness, numbered from 0.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CONVERGE_NAMES_H
#define CONVERGE_NAMES_H

#define ROOMS		16
#define CHANNELS	160
#define USERS		24

/* One more room, which the writers do not use; mostly it has no channels. */
#define BIG_ROOM	ROOMS
#define ALL_ROOMS	(ROOMS + 1)

/* The room of holder.c, which is not copied. */
#define HELD_ROOM	"held"

extern int	big_room_size;

/* Long enough for every name. */
#define NAME_SIZE	300

extern const char *name_room(int room, char *buffer);
extern const char *name_channel(int channel, char *buffer);
extern const char *name_user(int user, char *buffer);
extern int	channels_of_room(int room);
extern int	name_number(const char *name);

#endif							/* CONVERGE_NAMES_H */
