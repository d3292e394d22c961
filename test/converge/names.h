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

/* Long enough for every name. */
#define NAME_SIZE	300

extern const char *name_room(int room, char *buffer);
extern const char *name_channel(int channel, char *buffer);
extern const char *name_user(int user, char *buffer);
extern int	name_number(const char *name);

#endif							/* CONVERGE_NAMES_H */
