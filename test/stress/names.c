/*-------------------------------------------------------------------------
 *
 * names.c
 *		Makes names that exercise quoting in JSON and SQL arrays, and long names.
 *
 * Every name ends in a space and its number.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "names.h"

/* Characters that presence allows. */
#define LONGEST_NAME 255

int			big_room_size;

/* How many channels a room may have. */
int
channels_of_room(int room)
{
	return room == BIG_ROOM ? big_room_size : CHANNELS;
}

/* The name of a room. */
const char *
name_room(int room, char *buffer)
{
	static const char *const kinds[] = {"room", "\"ro\\om\"", "r\xc3\xa4um\t", "\xe9\x83\xa8\xe5\xb1\x8b"};

	snprintf(buffer, NAME_SIZE, "%s %d", kinds[room % 4], room);
	return buffer;
}

/* The name of a channel; every eighth is as long as it may be. */
const char *
name_channel(int channel, char *buffer)
{
	if (channel % 8 == 7)
		snprintf(buffer, NAME_SIZE, "%0*d %d", LONGEST_NAME - 1 - snprintf(NULL, 0, "%d", channel), 0, channel);
	else
		snprintf(buffer, NAME_SIZE, "channel %d", channel);
	return buffer;
}

/* The name of a user. */
const char *
name_user(int user, char *buffer)
{
	if (user % 3 == 2)
		snprintf(buffer, NAME_SIZE, "\xc3\xbcser, {\"%d\"} %d", user, user);
	else
		snprintf(buffer, NAME_SIZE, "user %d", user);
	return buffer;
}

/* The number in a name; -1: not a name of the harness. */
int
name_number(const char *name)
{
	const char *blank = name ? strrchr(name, ' ') : NULL;

	return blank ? atoi(blank + 1) : -1;
}
