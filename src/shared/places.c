/*-------------------------------------------------------------------------
 *
 * places.c
 *		Keeps account of the places in rooms that the running transaction has
 *		reserved and used.
 *
 * From its first reservation on, the transaction knows for each room how many
 * of its members it has added and removed, so that it may itself fill the
 * places that it frees; for others they become free at its commit
 * (occupancy.c).  It holds as many reserved places as it has needed at once, so
 * that a rollback to any savepoint finds those that it needs then.
 *
 * A place that is reserved for a row is "pending" until the row is written and
 * noted as a hint (xact.c).
 *
 * Reservations are rolled back with their subtransaction: the log has, for
 * each room in which a subtransaction reserved places, how many there were
 * before.  xact.c knows where the log of a subtransaction begins.
 *
 * A transaction without reservations keeps no account.  At its commit the
 * changes of each room are counted from its hints.
 *
 * It is private memory of the transaction, in TopTransactionContext: no locks
 * but those that occupancy.c takes.  The end of the transaction, and rollbacks
 * to savepoints, neither fail nor allocate.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "shared/places.h"
#include "utils/memutils.h"

/* What the transaction has done in a room. */
typedef struct Account
{
	int64		joined;			/* members that it has added */
	int64		left;			/* members that it has removed */
	int64		pending;		/* rows that it is about to add */
	int64		held;			/* places reserved for it */
} Account;

/* A room with an account. */
typedef struct RoomAccount
{
	PresenceName name;			/* key */
	char		status;			/* for simplehash */
	Account    *account;
} RoomAccount;

#define SH_PREFIX rooms
#define SH_ELEMENT_TYPE RoomAccount
#define SH_KEY_TYPE PresenceName
#define SH_KEY name
#define SH_HASH_KEY(tb, key) (key).hash
#define SH_EQUAL(tb, a, b) presence_name_equal(&(a), &(b))
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* A room's account before a subtransaction reserved places there. */
typedef struct LogEntry
{
	PresenceName name;
	Account    *account;
	int64		pending;
	int64		held;
} LogEntry;

/* Rooms of the running transaction, or NULL. */
static rooms_hash *rooms;
static bool complete;			/* all hints noted so far are counted there */

static LogEntry *log_entries;
static int	nlog;
static int	maxlog;

/* Whether the transaction keeps an account. */
bool
presence_places_is_active(void)
{
	return complete;
}

/* The account of a room, or NULL. */
static Account *
find_account(const PresenceName *name)
{
	RoomAccount *room = rooms ? rooms_lookup(rooms, *name) : NULL;

	return room ? room->account : NULL;
}

/* Find or make a room; its name is copied. */
static RoomAccount *
get_room(const PresenceName *name)
{
	PresenceName kept = *name;
	RoomAccount *room = rooms_lookup(rooms, *name);
	Account    *account;
	char	   *copy;
	bool		found;

	if (room)
		return room;
	/* Allocate first: if that fails, the table must not have the key. */
	account = MemoryContextAllocZero(rooms->ctx, sizeof(Account));
	copy = MemoryContextAlloc(rooms->ctx, name->length);
	memcpy(copy, name->data, name->length);
	kept.data = copy;
	room = rooms_insert(rooms, kept, &found);
	room->account = account;
	return room;
}

/* The room of a hint about a member who joins or leaves; false: another one. */
static bool
room_of(const PresenceHint *hint, PresenceName *name)
{
	const char *room = presence_hint_text(hint, PRESENCE_FIELD_ROOM);

	if (hint->kind != PRESENCE_HINT_JOIN && hint->kind != PRESENCE_HINT_LEAVE)
		return false;
	*name = presence_name_make(room, strlen(room));
	return true;
}

/* Count a hint once more (1), or drop one that was counted (-1). */
void
presence_places_note(const PresenceHint *hint, int count)
{
	PresenceName name;
	Account    *account;

	if (!room_of(hint, &name))
		return;
	account = count > 0 ? get_room(&name)->account : find_account(&name);
	if (account == NULL)
		return;
	if (hint->kind == PRESENCE_HINT_JOIN)
		account->joined += count;
	else
		account->left += count;
}

/* Begin to keep an account; the hints are those noted so far. */
void
presence_places_begin(PresenceHint **hints, int nhints)
{
	rooms = rooms_create(AllocSetContextCreate(TopTransactionContext,
											   "presence xact places",
											   ALLOCSET_DEFAULT_SIZES),
						 16, NULL);
	for (int i = 0; i < nhints; i++)
	{
		CHECK_FOR_INTERRUPTS();
		presence_places_note(hints[i], 1);
	}
	complete = true;
}

/* Ensure that the log has space for one more entry. */
static void
reserve_log(void)
{
	int			max = Max(maxlog * 2, 16);

	if (nlog < maxlog)
		return;
	log_entries = log_entries ? repalloc_huge(log_entries, max * sizeof(LogEntry)) :
		MemoryContextAlloc(rooms->ctx, max * sizeof(LogEntry));
	maxlog = max;
}

/* The last entry of the log, if it is of a room since a savepoint, or NULL. */
static LogEntry *
last_log(const Account *account, int savepoint)
{
	if (nlog <= savepoint || log_entries[nlog - 1].account != account)
		return NULL;
	return &log_entries[nlog - 1];
}

/*
 * Record the account of a room before it changes.  Rows that were written
 * without a reservation need places after a rollback, too.
 */
static void
log_account(const RoomAccount *room, int savepoint)
{
	const Account *account = room->account;
	LogEntry   *entry;

	if (last_log(account, savepoint))
		return;
	entry = &log_entries[nlog++];
	entry->name = room->name;
	entry->account = room->account;
	entry->pending = account->pending;
	entry->held = Max(account->held, account->joined - account->left);
}

/*
 * Reserve places for rows that are about to be written.  "later" says that
 * presence_places_use() will be called for each of them; else they have been
 * written, and will be noted next.  "savepoint" is where the log of the running
 * subtransaction begins.  The caller fills in what else is requested.
 */
PresenceOccupancyAnswer
presence_places_reserve(const PresenceName *name, PresenceOccupancyRequest *request,
						int places, bool later, int savepoint)
{
	RoomAccount *room = get_room(name);
	Account    *account = room->account;
	PresenceOccupancyAnswer answer;

	reserve_log();
	request->held = account->held;
	request->needed = account->joined - account->left + account->pending + places;
	answer = presence_occupancy_reserve(name, request);
	if (answer != PRESENCE_OCCUPANCY_RESERVED)
		return answer;
	log_account(room, savepoint);
	account->held = Max(account->held, request->needed);
	if (later)
		account->pending += places;
	return answer;
}

/* A row for which a place was reserved has been written. */
void
presence_places_use(const PresenceName *name)
{
	Account    *account = find_account(name);

	if (account && account->pending > 0)
		account->pending--;
}

/* Set the number of places that are held in a room, giving back the others. */
static void
hold(const PresenceName *name, Account *account, int64 places)
{
	if (places >= account->held)
		return;
	presence_occupancy_return(name, account->held - places);
	account->held = places;
}

/*
 * Some places that were reserved for later turned out not to be needed.  They
 * are given back, unless a rollback to a savepoint may need them.
 */
void
presence_places_return(const PresenceName *name, int places, int savepoint)
{
	Account    *account = find_account(name);
	LogEntry   *entry;

	if (account == NULL)
		return;
	account->pending -= Min(places, account->pending);
	entry = last_log(account, savepoint);
	if (entry)
		hold(name, account,
			 Max(entry->held, account->joined - account->left + account->pending));
}

/* Number of places that the transaction holds in a room. */
int64
presence_places_held(const PresenceName *name)
{
	Account    *account = find_account(name);

	return account ? account->held : 0;
}

/* Where the log of a subtransaction that begins now begins. */
int
presence_places_savepoint(void)
{
	return nlog;
}

/* Roll reservations back to where the log was. */
void
presence_places_roll_back(int savepoint)
{
	while (nlog > savepoint)
	{
		LogEntry   *entry = &log_entries[--nlog];

		hold(&entry->name, entry->account, entry->held);
		entry->account->pending = entry->pending;
	}
}

/* Settle what is on the account of each room. */
static void
settle_accounts(bool committed)
{
	rooms_iterator iterator;
	RoomAccount *room;

	rooms_start_iterate(rooms, &iterator);
	while ((room = rooms_iterate(rooms, &iterator)))
	{
		Account    *account = room->account;

		if (committed && account->joined + account->left + account->held > 0)
			presence_occupancy_settle(&room->name, account->joined,
									  account->left, account->held);
		else if (account->held > 0)
			presence_occupancy_return(&room->name, account->held);
	}
}

/* Settle changes without an account, each run of hints in one room together. */
static void
settle_hints(PresenceHint **hints, int nhints)
{
	PresenceName room = {NULL};
	int64		changes[] = {0, 0};

	for (int i = 0; i < nhints; i++)
	{
		PresenceName name;

		if (!room_of(hints[i], &name))
			continue;
		if (room.data && !presence_name_equal(&room, &name))
		{
			presence_occupancy_settle(&room, changes[0], changes[1], 0);
			changes[0] = changes[1] = 0;
		}
		room = name;
		changes[hints[i]->kind == PRESENCE_HINT_LEAVE]++;
	}
	if (room.data)
		presence_occupancy_settle(&room, changes[0], changes[1], 0);
}

/*
 * The transaction has ended, with these hints if it committed.  The memory is
 * freed with TopTransactionContext.
 */
void
presence_places_settle(bool committed, PresenceHint **hints, int nhints)
{
	if (complete)
		settle_accounts(committed);
	else if (committed && nhints > 0 && presence_occupancy_in_use())
		settle_hints(hints, nhints);
	rooms = NULL;
	complete = false;
	log_entries = NULL;
	nlog = maxlog = 0;
}
