/*-------------------------------------------------------------------------
 *
 * slow_flush.c
 *		Makes each flush to disk take a millisecond more.
 *
 * Preloaded (LD_PRELOAD) into a server of the benchmark, so that a fast disk
 * behaves like the network disk of a usual cloud machine.  The flush itself
 * is done as always.
 *
 *-------------------------------------------------------------------------
 */
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>

static void
linger(void)
{
	struct timespec ts = {0, 1000 * 1000};

	nanosleep(&ts, NULL);
}

int
fdatasync(int fd)
{
	int			result = (int) syscall(SYS_fdatasync, fd);

	linger();
	return result;
}

int
fsync(int fd)
{
	int			result = (int) syscall(SYS_fsync, fd);

	linger();
	return result;
}
