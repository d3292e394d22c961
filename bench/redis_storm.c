/*-------------------------------------------------------------------------
 *
 * redis_storm.c
 *		The storm of joins or leaves, by Redis: the set of a room's members, and
 *		a message to whoever listens.
 *
 *	redis_storm SOCKET join|leave ROOMS MEMBERS PIPELINE
 *
 * Sends SADD (or SREM) and PUBLISH for each member of each room, PIPELINE
 * members at a time, and reads the messages as a subscriber.  Prints the
 * seconds until the last message was here.
 *
 *-------------------------------------------------------------------------
 */
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client.h"

/* Lines of a message, and of the answer to SUBSCRIBE, as Redis sends them. */
#define MESSAGE_LINES 7
#define SUBSCRIBED_LINES 6

static int	publisher;
static int	subscriber;

/* Open a connection to Redis. */
static int
open_redis(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int			fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *) &address, sizeof(address)) != 0)
		die("cannot connect", path);
	return fd;
}

/* Send all of it. */
static void
send_bytes(int fd, const char *data, size_t length)
{
	while (length > 0)
	{
		ssize_t		sent = write(fd, data, length);

		if (sent <= 0)
			die("cannot send", "to Redis");
		data += sent;
		length -= sent;
	}
}

/* Read what is there; how many lines ended in it.  None is an error. */
static long
read_lines(int fd)
{
	static char buffer[1 << 18];
	ssize_t		length = read(fd, buffer, sizeof(buffer));
	long		lines = 0;

	if (length <= 0)
		die("connection lost", "Redis");
	if (buffer[0] == '-')
		die("Redis", buffer);
	for (ssize_t i = 0; i < length; i++)
		lines += buffer[i] == '\n';
	return lines;
}

/* Write the commands of a member; how many bytes. */
static int
write_member(char *buffer, const char *verb, const char *event, long room, long member)
{
	char		channel[64];
	char		name[32];
	char		payload[300];
	int			length;

	snprintf(channel, sizeof(channel), CHANNEL_PREFIX "%lld", CHANNEL_BASE + member);
	snprintf(name, sizeof(name), "room-%ld", room);
	snprintf(payload, sizeof(payload), "{\"event\":\"%s\",\"room\":\"%s\",\"channel_name\":\"%s\",\"user_id\":\"user-%ld\"}",
			 event, name, channel, member);
	length = sprintf(buffer, "*3\r\n$4\r\n%s\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n",
					 verb, strlen(name), name, strlen(channel), channel);
	return length + sprintf(buffer + length, "*3\r\n$7\r\nPUBLISH\r\n$8\r\npresence\r\n$%zu\r\n%s\r\n",
							strlen(payload), payload);
}

/* Read answers and messages until so many lines of both have come. */
static void
read_until(long *answers, long want_answers, long *messages, long want_messages)
{
	struct pollfd fds[] = {{publisher, POLLIN, 0}, {subscriber, POLLIN, 0}};

	while (*answers < want_answers || *messages < want_messages)
	{
		if (poll(fds, 2, 10000) <= 0)
			die("timeout", "Redis");
		if (fds[0].revents)
			*answers += read_lines(publisher);
		if (fds[1].revents)
			*messages += read_lines(subscriber);
	}
}

/* All members of all rooms; seconds. */
static double
storm(bool join, long rooms, long members, long pipeline)
{
	char	   *buffer = malloc(pipeline * 1000);
	long		count = rooms * members;
	long		answers = 0;
	long		messages = -SUBSCRIBED_LINES;
	double		start;

	send_bytes(subscriber, "SUBSCRIBE presence\r\n", strlen("SUBSCRIBE presence\r\n"));
	read_until(&answers, 0, &messages, 0);
	start = now();
	for (long i = 0; i < count;)
	{
		size_t		length = 0;

		for (long end = i + pipeline; i < end && i < count; i++)
			length += write_member(buffer + length, join ? "SADD" : "SREM",
								   join ? "join" : "leave", i / members, i);
		send_bytes(publisher, buffer, length);
		read_until(&answers, 2 * i, &messages, 0);
	}
	read_until(&answers, 2 * count, &messages, MESSAGE_LINES * count);
	return now() - start;
}

int
main(int argc, char **argv)
{
	if (argc != 6)
		die("usage", "redis_storm SOCKET join|leave ROOMS MEMBERS PIPELINE");
	publisher = open_redis(argv[1]);
	subscriber = open_redis(argv[1]);
	printf("%.3f\n", storm(strcmp(argv[2], "join") == 0, atol(argv[3]), atol(argv[4]), atol(argv[5])));
	return 0;
}
