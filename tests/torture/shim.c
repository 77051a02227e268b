/* Counts the changing system calls of a process and breaks one of them.
 *
 * Loaded with LD_PRELOAD into a Python that tests.torture.processes starts. What is counted is every
 * call of libc's that changes a file below TORTURE_WATCH or sends to a socket: Python, SQLite, libpq
 * and Rust all go through libc. A line for each goes to TORTURE_LOG. TORTURE_CLOCK moves the clock.
 *
 *   TORTURE_MODE   at call number TORTURE_CALL
 *   before         SIGKILL instead of it
 *   half           half of the bytes, then SIGKILL; as `before` where it moves no bytes
 *   after          SIGKILL when it has returned
 *   full           from then on the disk is full: half of the bytes, then ENOSPC
 *   pause          SIGSTOP before it
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum mode { COUNT, BEFORE, HALF, AFTER, FULL, PAUSE };
static const char *const modes[] = {"count", "before", "half", "after", "full", "pause"};

static int armed, log_fd = -1;
static enum mode mode;
static long target, shift;
static atomic_long count, spilled;
static char watch[4096];

#define REAL(name)                                       \
    static __typeof__(name) *real;                       \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* From the environment; a forked process calls it when its environment is set. */
void torture_arm(void) {
    const char *clock = getenv("TORTURE_CLOCK"), *log = getenv("TORTURE_LOG");
    shift = clock ? atol(clock) : 0;
    if (!log) return;
    const char *place = getenv("TORTURE_WATCH"), *name = getenv("TORTURE_MODE");
    const char *number = getenv("TORTURE_CALL");
    snprintf(watch, sizeof watch, "%s", place ? place : "");
    target = number ? atol(number) : 0;
    for (int i = COUNT; i <= PAUSE; i++)
        if (name && !strcmp(name, modes[i])) mode = i;
    log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    armed = 1;
}

__attribute__((constructor)) static void loaded(void) { torture_arm(); }

static int inside(const char *path) {
    size_t length = strlen(watch);
    size_t all = strlen(path);
    /* SQLite's shared memory is made anew by whoever opens the database next. */
    if (all > 4 && !strcmp(path + all - 4, "-shm")) return 0;
    return length && !strncmp(path, watch, length) && (path[length] == '/' || !path[length]);
}

static void whole(int folder, const char *path, char *into, size_t size) {
    char base[4096] = "";
    if (path[0] != '/') {
        char link[64];
        if (folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t got = readlink(link, base, sizeof base - 2);
        base[got < 0 ? 0 : got] = 0;
        strcat(base, "/");
    }
    snprintf(into, size, "%s%s", base, path);
}

_Noreturn static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* What to do with a call: COUNT is to make it as it is. */
static enum mode met(const char *call, const char *path, long size) {
    char line[8300];
    long number = atomic_fetch_add(&count, 1) + 1;
    int length = snprintf(line, sizeof line, "%ld %s %ld %s\n", number, call, size, path);
    syscall(SYS_write, log_fd, line, length);
    if (mode == FULL) return target && number >= target ? FULL : COUNT;
    if (number != target) return COUNT;
    if (mode == BEFORE || (mode == HALF && size < 2)) die();
    if (mode == PAUSE) {
        length = snprintf(line, sizeof line, "paused %d\n", getpid());
        syscall(SYS_write, log_fd, line, length);
        syscall(SYS_kill, getpid(), SIGSTOP);
        return COUNT;
    }
    return mode;
}

static enum mode met_path(const char *call, int folder, const char *path) {
    char place[8192];
    if (!armed || !path) return COUNT;
    whole(folder, path, place, sizeof place);
    return inside(place) ? met(call, place, 0) : COUNT;
}

static enum mode met_file(const char *call, int file, long size) {
    char link[64], place[4096];
    if (!armed) return COUNT;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t got = readlink(link, place, sizeof place - 1);
    if (got < 0) return COUNT;
    place[got] = 0;
    if (!strncmp(place, "socket:", 7)) return met(call, "socket", size);
    return inside(place) ? met(call, place, size) : COUNT;
}

static int full(void) { errno = ENOSPC; return -1; }

/* Calls that move no bytes; TAKES says whether they need room on the disk. */
#define PLAIN(name, parameters, arguments, meeting, takes)         \
    int name parameters {                                         \
        REAL(name);                                               \
        enum mode now = meeting;                                  \
        if (now == FULL && takes) return full();                  \
        int result = real arguments, kept = errno;                \
        if (now == AFTER) die();                                  \
        errno = kept;                                             \
        return result;                                            \
    }

PLAIN(rename, (const char *a, const char *b), (a, b), met_path("rename", AT_FDCWD, b), 0)
PLAIN(renameat, (int f, const char *a, int g, const char *b), (f, a, g, b), met_path("rename", g, b), 0)
PLAIN(renameat2, (int f, const char *a, int g, const char *b, unsigned o), (f, a, g, b, o),
      met_path("rename", g, b), 0)
PLAIN(link, (const char *a, const char *b), (a, b), met_path("link", AT_FDCWD, b), 1)
PLAIN(linkat, (int f, const char *a, int g, const char *b, int o), (f, a, g, b, o),
      met_path("link", g, b), 1)
PLAIN(symlink, (const char *a, const char *b), (a, b), met_path("symlink", AT_FDCWD, b), 1)
PLAIN(symlinkat, (const char *a, int g, const char *b), (a, g, b), met_path("symlink", g, b), 1)
PLAIN(unlink, (const char *a), (a), met_path("unlink", AT_FDCWD, a), 0)
PLAIN(unlinkat, (int f, const char *a, int o), (f, a, o), met_path("unlink", f, a), 0)
PLAIN(rmdir, (const char *a), (a), met_path("rmdir", AT_FDCWD, a), 0)
PLAIN(mkdir, (const char *a, mode_t m), (a, m), met_path("mkdir", AT_FDCWD, a), 1)
PLAIN(mkdirat, (int f, const char *a, mode_t m), (f, a, m), met_path("mkdir", f, a), 1)
PLAIN(chmod, (const char *a, mode_t m), (a, m), met_path("chmod", AT_FDCWD, a), 0)
PLAIN(fchmodat, (int f, const char *a, mode_t m, int o), (f, a, m, o), met_path("chmod", f, a), 0)
PLAIN(utimensat, (int f, const char *a, const struct timespec t[2], int o), (f, a, t, o),
      met_path("utime", f, a), 0)
PLAIN(fchmod, (int f, mode_t m), (f, m), met_file("chmod", f, 0), 0)
PLAIN(truncate, (const char *a, off_t n), (a, n), met_path("truncate", AT_FDCWD, a), 0)
PLAIN(truncate64, (const char *a, off64_t n), (a, n), met_path("truncate", AT_FDCWD, a), 0)
PLAIN(ftruncate, (int f, off_t n), (f, n), met_file("truncate", f, 0), n > 0)
PLAIN(ftruncate64, (int f, off64_t n), (f, n), met_file("truncate", f, 0), n > 0)
PLAIN(fallocate, (int f, int o, off_t a, off_t n), (f, o, a, n), met_file("allocate", f, 0), 1)
PLAIN(posix_fallocate, (int f, off_t a, off_t n), (f, a, n), met_file("allocate", f, 0), 1)
PLAIN(fsync, (int f), (f), met_file("fsync", f, 0), 0)
PLAIN(fdatasync, (int f), (f), met_file("fsync", f, 0), 0)

#define OPENS(flags) (((flags) & O_ACCMODE) != O_RDONLY || ((flags) & (O_CREAT | O_TRUNC)))
#define OPEN(name, parameters, arguments, folder, path)                                     \
    int name parameters {                                                                  \
        REAL(name);                                                                        \
        va_list rest;                                                                      \
        va_start(rest, flags);                                                             \
        mode_t m = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;               \
        va_end(rest);                                                                      \
        enum mode now = OPENS(flags) ? met_path("open", folder, path) : COUNT;             \
        if (now == FULL && (flags & O_CREAT) && faccessat(folder, path, F_OK, 0)) return full(); \
        int result = real arguments, kept = errno;                                         \
        if (now == AFTER) die();                                                           \
        errno = kept;                                                                      \
        return result;                                                                     \
    }

OPEN(open, (const char *path, int flags, ...), (path, flags, m), AT_FDCWD, path)
OPEN(open64, (const char *path, int flags, ...), (path, flags, m), AT_FDCWD, path)
OPEN(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, m), folder, path)
OPEN(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, m), folder, path)

/* Calls that move bytes: SOME makes it with n of them. To a full disk the first goes in part. */
#define BYTES(name, parameters, arguments, file, size, some)              \
    ssize_t name parameters {                                            \
        REAL(name);                                                      \
        size_t n = size;                                                 \
        enum mode now = met_file(#name, file, n);                        \
        if (now == FULL) {                                               \
            if (is_socket(file)) now = COUNT;                            \
            else if (n < 2 || atomic_exchange(&spilled, 1)) return full(); \
        }                                                                \
        if (now == HALF || now == FULL) n /= 2;                          \
        ssize_t result = now == HALF || now == FULL ? some : real arguments; \
        int kept = errno;                                                \
        if (now == HALF || now == AFTER) die();                          \
        errno = kept;                                                    \
        return result;                                                   \
    }

static int is_socket(int file) {
    struct stat found;
    return !fstat(file, &found) && S_ISSOCK(found.st_mode);
}

static size_t total(const struct iovec *parts, int many) {
    size_t n = 0;
    for (int i = 0; i < many; i++) n += parts[i].iov_len;
    return n;
}

/* The first n bytes of several pieces, as one. */
static const char *joined(const struct iovec *parts, int many, size_t n) {
    char *all = malloc(n + 1);
    size_t at = 0;
    for (int i = 0; i < many && at < n; i++) {
        size_t take = parts[i].iov_len < n - at ? parts[i].iov_len : n - at;
        memcpy(all + at, parts[i].iov_base, take);
        at += take;
    }
    return all;
}

BYTES(write, (int f, const void *b, size_t k), (f, b, k), f, k, real(f, b, n))
BYTES(pwrite, (int f, const void *b, size_t k, off_t o), (f, b, k, o), f, k, real(f, b, n, o))
BYTES(pwrite64, (int f, const void *b, size_t k, off64_t o), (f, b, k, o), f, k, real(f, b, n, o))
BYTES(writev, (int f, const struct iovec *v, int c), (f, v, c), f, total(v, c),
      syscall(SYS_write, f, joined(v, c, n), n))
BYTES(pwritev, (int f, const struct iovec *v, int c, off_t o), (f, v, c, o), f, total(v, c),
      syscall(SYS_pwrite64, f, joined(v, c, n), n, o))
BYTES(sendfile, (int f, int g, off_t *o, size_t k), (f, g, o, k), f, k, real(f, g, o, n))
BYTES(sendfile64, (int f, int g, off64_t *o, size_t k), (f, g, o, k), f, k, real(f, g, o, n))
BYTES(copy_file_range, (int g, off64_t *p, int f, off64_t *o, size_t k, unsigned x),
      (g, p, f, o, k, x), f, k, real(g, p, f, o, n, x))
BYTES(send, (int f, const void *b, size_t k, int x), (f, b, k, x), f, k, real(f, b, n, x))
BYTES(sendto, (int f, const void *b, size_t k, int x, const struct sockaddr *a, socklen_t l),
      (f, b, k, x, a, l), f, k, real(f, b, n, x, a, l))
BYTES(sendmsg, (int f, const struct msghdr *h, int x), (f, h, x), f, total(h->msg_iov, h->msg_iovlen),
      syscall(SYS_sendto, f, joined(h->msg_iov, h->msg_iovlen, n), n, x, h->msg_name, h->msg_namelen))

/* The clock. */

int clock_gettime(clockid_t which, struct timespec *at) {
    REAL(clock_gettime);
    int result = real(which, at);
    if (!result && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) at->tv_sec += shift;
    return result;
}

int gettimeofday(struct timeval *at, void *zone) {
    REAL(gettimeofday);
    int result = real(at, zone);
    if (!result) at->tv_sec += shift;
    return result;
}

time_t time(time_t *into) {
    REAL(time);
    time_t at = real(NULL) + shift;
    if (into) *into = at;
    return at;
}
