/*-------------------------------------------------------------------------
 *
 * listener.c
 *		Sessions that LISTEN and keep copies of the rooms.
 *
 * Listener 0 reads a room only when an event requires it; the others read
 * rooms at random times as well, as a client that connects would.  Listener 1
 * also cuts its connection, listens again, and asks presence_since what it has
 * missed; it reads its rooms again only if the answer is a resync.
 *
 *-------------------------------------------------------------------------
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "copy.h"
#include "harness.h"

/* Number of payloads kept for the report of a divergence. */
#define LOG_SIZE 20000

/* How many of them are shown per room, and for how many rooms. */
#define SHOWN 60
#define SHOWN_ROOMS 2

struct Listener
{
	int			number;
	pthread_t	thread;
	PGconn	   *conn;
	Random		random;
	pthread_mutex_t mutex;		/* protects all below */
	Copy		copy;
	int			mark;			/* the newest one received */
	bool		cut;			/* by itself: it is to resume */
	long long	resumed;		/* how often, without reading rooms */
	long long	restarted;		/* how often it had to read them */
	long long	replayed;		/* events from presence_since */
	char	   *log[LOG_SIZE];	/* ring of payloads and readings */
	long long	logged;
};

/* Keep a line for the report. */
static void
log_line(Listener *listener, const char *line)
{
	char	  **place = &listener->log[listener->logged++ % LOG_SIZE];

	free(*place);
	*place = strdup(line);
}

/* Read a room; false: the connection is lost. */
static bool
read_room(Listener *listener, int room)
{
	char		name[NAME_SIZE];
	char		line[400];
	const char *values[1] = {name_room(room, name)};
	PGresult   *result = PQexecParams(listener->conn, "SELECT presence_snapshot($1)",
									  1, NULL, values, NULL, NULL, 0);
	bool		good = PQresultStatus(result) == PGRES_TUPLES_OK;

	if (good && !copy_load(&listener->copy, room, PQgetvalue(result, 0, 0)))
		fail("a snapshot that contradicts itself: %s", PQgetvalue(result, 0, 0));
	if (!good && !is_fate(result))
		fail("presence_snapshot: %s", PQresultErrorMessage(result));
	snprintf(line, sizeof(line), "read \"room\":%d seq %lld of epoch %s", room,
			 listener->copy.rooms[room].seq, listener->copy.epoch);
	log_line(listener, line);
	PQclear(result);
	return good;
}

/* Read the rooms that must be read again. */
static void
read_stale_rooms(Listener *listener)
{
	for (int i = 0; i < ALL_ROOMS; i++)
		if (listener->copy.rooms[i].stale && !read_room(listener, i))
			return;
}

/* Whether a line of the log is about a room. */
static bool
speaks_of(const char *line, int room)
{
	char		tail[32];
	const char *at = strstr(line, "\"room\":");
	const char *end = at ? strstr(at, ",\"added\"") : NULL;

	/* Room names end in their numbers, however JSON escapes the rest. */
	snprintf(tail, sizeof(tail), " %d\"", room);
	if (at == NULL)
		return false;
	if (end == NULL)
		return strstr(at, ":all") || atoi(at + 7) == room;
	return strncmp(at + 7, "null", 4) == 0 ||
		strncmp(end - strlen(tail), tail, strlen(tail)) == 0;
}

/*
 * Show the last payloads that a listener received about a room, and all that it
 * received about two presences.
 */
static void
show_log(Listener *listener, int room, const long long *ids)
{
	long long	first = listener->logged > LOG_SIZE ? listener->logged - LOG_SIZE : 0;
	long long	begin = listener->logged;
	char		marks[2][40];

	for (int i = 0; i < 2; i++)
		snprintf(marks[i], sizeof(marks[i]), "\"id\":%lld,", ids[i]);
	for (int lines = 0; begin > first && lines < SHOWN; begin--)
		lines += speaks_of(listener->log[(begin - 1) % LOG_SIZE], room);
	for (long long i = first; i < listener->logged; i++)
	{
		const char *line = listener->log[i % LOG_SIZE];

		if ((i >= begin && speaks_of(line, room)) ||
			strstr(line, marks[0]) || strstr(line, marks[1]) ||
			(strncmp(line, "read", 4) == 0 && speaks_of(line, room)))
			printf("#     %lld: %.400s\n", i, line);
	}
}

/* Report an event that does not fit, the first time with those before it. */
static void
report_misfit(Listener *listener, const char *payload, const char *trouble)
{
	static atomic_flag told = ATOMIC_FLAG_INIT;
	Json	   *event = json_parse(payload);
	const Json *presence = json_get(event, "removed");
	long long	ids[2] = {-1, -1};

	if (presence == NULL || presence->kind != JSON_OBJECT)
		presence = json_get(event, "added");
	ids[0] = json_number(presence, "id");
	fail("listener %d: %s", listener->number, trouble);
	if (!atomic_flag_test_and_set(&told) && json_string(event, "room"))
		show_log(listener, name_number(json_string(event, "room")), ids);
	json_free(event);
}

/* Process a notification. */
static int
take_notification(Listener *listener, PGnotify *notify)
{
	char		trouble[9000];

	if (strcmp(notify->relname, "converge") == 0)
		return atoi(notify->extra);
	log_line(listener, notify->extra);
	if (listener->resumed + listener->restarted > 0 && copy_has(&listener->copy, notify->extra))
		return 0;
	if (strlen(notify->extra) > 7999)
		report_misfit(listener, notify->extra, "a payload that is too long");
	if (!copy_apply(&listener->copy, notify->extra, trouble, sizeof(trouble)))
		report_misfit(listener, notify->extra, trouble);
	return 0;
}

/* Process all notifications that have arrived. */
static void
take_notifications(Listener *listener)
{
	PGnotify   *notify;
	int			mark = 0;

	pthread_mutex_lock(&listener->mutex);
	while ((notify = PQnotifies(listener->conn)) != NULL)
	{
		int			seen = take_notification(listener, notify);

		mark = seen ? seen : mark;
		PQfreemem(notify);
	}
	read_stale_rooms(listener);
	if (listener->number > 0 && random_below(&listener->random, 100) == 0)
		(void) read_room(listener, random_below(&listener->random, ROOMS));
	if (mark)
		listener->mark = mark;
	pthread_mutex_unlock(&listener->mutex);
}

/* Apply what presence_since returned. */
static void
take_answer(Listener *listener, const PGresult *result)
{
	int			rows = PQntuples(result);
	char	   *first = rows > 0 ? PQgetvalue(result, 0, 0) : "";
	char		trouble[9000];

	if (rows == 1 && strstr(first, "\"event\": \"resync\""))
	{
		copy_restart(&listener->copy, first);
		listener->restarted++;
		return;
	}
	listener->resumed++;
	listener->replayed += rows;
	for (int i = 0; i < rows; i++)
	{
		log_line(listener, PQgetvalue(result, i, 0));
		if (!copy_apply(&listener->copy, PQgetvalue(result, i, 0), trouble, sizeof(trouble)))
			report_misfit(listener, PQgetvalue(result, i, 0), trouble);
	}
}

/* Ask what was missed; false: that failed, so the copy begins anew. */
static bool
resume(Listener *listener)
{
	char		seq[32];
	const char *values[2] = {listener->copy.epoch, seq};
	PGresult   *result;
	bool		good;

	snprintf(seq, sizeof(seq), "%lld", listener->copy.seq);
	result = PQexecParams(listener->conn, "SELECT presence_since($1, $2)",
						  2, NULL, values, NULL, NULL, 0);
	good = PQresultStatus(result) == PGRES_TUPLES_OK;
	if (!good && !is_fate(result))
		fail("presence_since: %s", PQresultErrorMessage(result));
	pthread_mutex_lock(&listener->mutex);
	log_line(listener, "resumed: \"room\":all");
	if (good)
		take_answer(listener, result);
	pthread_mutex_unlock(&listener->mutex);
	PQclear(result);
	return good;
}

/* Cut the connection for a moment, now and then. */
static void
cut_off(Listener *listener)
{
	if (listener->number != 1 || atomic_load(&paused) ||
		random_below(&listener->random, 30) != 0)
		return;
	PQfinish(listener->conn);
	listener->conn = NULL;
	listener->cut = true;
	nap(0.001 * random_below(&listener->random, 300));
}

/*
 * Connect and listen.  After a cut of its own the listener resumes; else it
 * begins with an empty copy.
 */
static bool
begin_listening(Listener *listener)
{
	PGresult   *result;
	bool		good;

	if (listener->conn && !connection_may_break())
		fail("listener %d lost its connection: %s", listener->number,
			 PQerrorMessage(listener->conn));
	PQfinish(listener->conn);
	listener->conn = connect_patiently("listener");
	if (listener->conn == NULL)
		return false;
	result = PQexec(listener->conn, "LISTEN presence_changed; LISTEN converge");
	good = PQresultStatus(result) == PGRES_COMMAND_OK;
	PQclear(result);
	if (good && listener->cut && resume(listener))
	{
		listener->cut = false;
		return true;
	}
	listener->cut = false;
	pthread_mutex_lock(&listener->mutex);
	copy_reset(&listener->copy);
	log_line(listener, "connected: \"room\":all");
	pthread_mutex_unlock(&listener->mutex);
	return good;
}

/* The thread of a listener. */
static void *
listener_main(void *argument)
{
	Listener   *listener = argument;

	while (!atomic_load(&finished))
	{
		struct pollfd fd = {.events = POLLIN};

		if ((listener->conn == NULL || PQstatus(listener->conn) != CONNECTION_OK) &&
			!begin_listening(listener))
			continue;
		fd.fd = PQsocket(listener->conn);
		(void) poll(&fd, 1, 20);
		if (PQconsumeInput(listener->conn))
			take_notifications(listener);
		cut_off(listener);
	}
	PQfinish(listener->conn);
	return NULL;
}

/* Start a listener. */
Listener *
listener_start(int number)
{
	Listener   *listener = calloc(1, sizeof(Listener));

	listener->number = number;
	listener->random = options.seed * 2000 + number + 1;
	pthread_mutex_init(&listener->mutex, NULL);
	copy_init(&listener->copy);
	pthread_create(&listener->thread, NULL, listener_main, listener);
	return listener;
}

/* Wait until a listener has exited. */
void
listener_join(Listener *listener)
{
	pthread_join(listener->thread, NULL);
}

/* Whether all notifications before a mark have been processed. */
bool
listener_has_seen(Listener *listener, int mark)
{
	bool		seen;

	pthread_mutex_lock(&listener->mutex);
	seen = listener->mark == mark;
	pthread_mutex_unlock(&listener->mutex);
	return seen;
}

/* The rooms in which a copy differs, and the first differing presence. */
typedef struct Report
{
	int			lines;
	bool		rooms[ALL_ROOMS];
	long long	ids[ALL_ROOMS][2];
} Report;

static void
tell_difference(void *argument, int room, int channel, const Member *copy, const Member *truth)
{
	Report	   *report = argument;

	if (!report->rooms[room])
	{
		report->ids[room][0] = copy->id;
		report->ids[room][1] = truth->id;
	}
	report->rooms[room] = true;
	if (report->lines++ < 20)
		printf("#   room %d channel %d: copy id %lld user %d v %lld, table id %lld user %d v %lld\n",
			   room, channel, copy->id, copy->user, copy->version,
			   truth->id, truth->user, truth->version);
}

/* Compare a copy with the table; returns how many presences differ. */
int
listener_compare(Listener *listener, const void *truth, bool tell)
{
	Report		report = {0};
	int			count;

	pthread_mutex_lock(&listener->mutex);
	if (tell)
		printf("# listener %d\n", listener->number);
	count = copy_differences(&listener->copy, truth, tell ? tell_difference : NULL, &report);
	for (int i = 0, shown = 0; i < ALL_ROOMS && shown < SHOWN_ROOMS; i++)
		if (report.rooms[i])
		{
			printf("#   what it was told of room %d:\n", i);
			show_log(listener, i, report.ids[i]);
			shown++;
		}
	pthread_mutex_unlock(&listener->mutex);
	return count;
}

/* The copy is correct: from now on every event must fit. */
void
listener_set_exact(Listener *listener)
{
	pthread_mutex_lock(&listener->mutex);
	copy_set_exact(&listener->copy);
	pthread_mutex_unlock(&listener->mutex);
}

/* Print what a listener received. */
void
listener_report(Listener *listener)
{
	Copy	   *copy = &listener->copy;

	printf("# converge: %s: listener %d: %lld events, %lld of them without seq, %lld checked exactly, %lld bulks, %lld resyncs\n",
		   options.name, listener->number, copy->events, copy->unnumbered, copy->checked,
		   copy->bulks, copy->resyncs);
	if (listener->number == 1)
		printf("# converge: %s: listener 1 was cut off, resumed %lld times by %lld events, and read all rooms again %lld times\n",
			   options.name, listener->resumed, listener->replayed, listener->restarted);
	if (listener->number == 1 && chaos_is("none") && listener->resumed < listener->restarted)
		fail("a listener that was cut off read all rooms again %lld times, and resumed %lld times",
			 listener->restarted, listener->resumed);
}

/* Add up what all listeners received. */
void
listener_count(Listener *listener, long long *events, long long *resyncs)
{
	*events += listener->copy.events;
	*resyncs += listener->copy.resyncs;
}
