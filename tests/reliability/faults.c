/* Preloaded into a process, counts its file operations below one folder, and at a chosen one sends a signal or lets it and
   all later ones fail.  Knows libc's calls; knows nothing of who makes them.

   A write that is struck by a signal has written its first half.  safetensors renames its temporary files by a system call
   of its own, which is not seen; its other calls are. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Lies in memory that parents and children share, so that it can be read when the process is gone. */
static struct { long operations, written; char last[PATH_MAX + 32]; } *seen;
static struct { char root[PATH_MAX]; size_t length; long at; int signal, error; long room; int reads; } plan;

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* From now on strike at operation number `at` (0: never): with `signal`, or failing with `error` from there on.  Writes
   fail also once `room` bytes (-1: no limit) were written.  `reads`: opening a file to read it counts too. */
void faults_arm(const char *root, long at, int signal, int error, long room, int reads) {
    seen->operations = seen->written = 0;
    seen->last[0] = 0;
    snprintf(plan.root, sizeof plan.root, "%s", root);
    plan.at = at, plan.signal = signal, plan.error = error, plan.room = room, plan.reads = reads;
    plan.length = strlen(root);
}

long faults_operations(void) { return seen->operations; }
const char *faults_last(void) { return seen->last; }

__attribute__((constructor)) static void begin(void) {
    seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const char *at = getenv("FAULTS_AT"), *room = getenv("FAULTS_ROOM"), *root = getenv("FAULTS_ROOT");
    if (root) faults_arm(root, at ? atol(at) : 0, 0, ENOSPC, room ? atol(room) : -1, 0);
}

static int below(const char *path) {
    return plan.length && !strncmp(path, plan.root, plan.length) && (path[plan.length] == '/' || !path[plan.length]);
}

static int named(int folder, const char *path, char *full) {
    char place[PATH_MAX] = "", link[64];
    if (path[0] == '/') { snprintf(full, PATH_MAX, "%s", path); return below(full); }
    if (folder == AT_FDCWD) {
        if (!getcwd(place, sizeof place)) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        if (readlink(link, place, sizeof place - 1) < 0) return 0;
    }
    if (snprintf(full, PATH_MAX, "%s/%s", place, path) >= PATH_MAX) return 0;
    return below(full);
}

static int opened(int file, char *full) {
    char link[64];
    ssize_t length;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    length = readlink(link, full, PATH_MAX - 1);
    full[length < 0 ? 0 : length] = 0;
    return length > 0 && below(full);
}

/* Count an operation.  0: do it; 1: the signal is due; -1: fail, with errno set. */
static int strike(const char *name, const char *path) {
    long number = __atomic_add_fetch(&seen->operations, 1, __ATOMIC_SEQ_CST);
    if (plan.at && number > plan.at && plan.signal) return 0;
    snprintf(seen->last, sizeof seen->last, "%s %s", name, path);
    if (!plan.at || number < plan.at) return 0;
    if (plan.signal) return 1;
    errno = plan.error;
    return -1;
}

static int due(const char *name, const char *path) {
    int struck = strike(name, path);
    if (struck > 0) kill(getpid(), plan.signal);
    return struck < 0;
}

static ssize_t limited(const char *name, int file, const void *data, size_t size, ssize_t (*go)(int, const void *, size_t)) {
    char path[PATH_MAX];
    if (!opened(file, path)) return go(file, data, size);
    int struck = strike(name, path);
    if (struck < 0) return -1;
    if (struck > 0) {
        if (plan.signal == SIGKILL && size > 1) go(file, data, size / 2);
        kill(getpid(), plan.signal);
    }
    if (plan.room >= 0) {
        long left = plan.room - seen->written;
        if (left <= 0) { errno = plan.error; return -1; }
        if ((long)size > left) size = left;
    }
    ssize_t done = go(file, data, size);
    if (done > 0) seen->written += done;
    return done;
}

ssize_t write(int file, const void *data, size_t size) { REAL(write); return limited("write", file, data, size, real); }

ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(writev);
    char path[PATH_MAX];
    if (!opened(file, path)) return real(file, parts, count);
    return count ? write(file, parts[0].iov_base, parts[0].iov_len) : 0;
}

#define PWRITE(name, type) \
    ssize_t name(int file, const void *data, size_t size, type place) { \
        REAL(name); \
        char path[PATH_MAX]; \
        if (opened(file, path) && due(#name, path)) return -1; \
        return real(file, data, size, place); }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define COPY(name, given, passed, target) \
    ssize_t name given { REAL(name); char path[PATH_MAX]; if (opened(target, path) && due(#name, path)) return -1; return real passed; }
COPY(sendfile, (int to, int from, off_t *place, size_t size), (to, from, place, size), to)
COPY(sendfile64, (int to, int from, off64_t *place, size_t size), (to, from, place, size), to)
COPY(copy_file_range, (int from, off64_t *a, int to, off64_t *b, size_t size, unsigned int flags), (from, a, to, b, size, flags), to)

static int counts(int flags) { return plan.reads || flags & (O_CREAT | O_TRUNC); }

#define OPEN(name, folder, given, passed) \
    int name given { \
        REAL(name); \
        char full[PATH_MAX]; \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); } \
        if (counts(flags) && named(folder, path, full) && due(#name, full)) return -1; \
        return real passed; }
OPEN(open, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, folder, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
OPEN(openat64, folder, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))

#define ON_FILE(name, given, passed) \
    int name given { REAL(name); char path[PATH_MAX]; if (opened(file, path) && due(#name, path)) return -1; return real passed; }
ON_FILE(fsync, (int file), (file))
ON_FILE(fdatasync, (int file), (file))
ON_FILE(ftruncate, (int file, off_t size), (file, size))
ON_FILE(ftruncate64, (int file, off64_t size), (file, size))

#define ON_PATH(name, folder, given, passed) \
    int name given { REAL(name); char full[PATH_MAX]; if (named(folder, path, full) && due(#name, full)) return -1; return real passed; }
ON_PATH(mkdir, AT_FDCWD, (const char *path, mode_t mode), (path, mode))
ON_PATH(mkdirat, folder, (int folder, const char *path, mode_t mode), (folder, path, mode))
ON_PATH(truncate, AT_FDCWD, (const char *path, off_t size), (path, size))
ON_PATH(truncate64, AT_FDCWD, (const char *path, off64_t size), (path, size))

/* Making room works on a full disk: these only take part in counting and in signals. */
#define FREEING(name, folder, given, passed) \
    int name given { REAL(name); char full[PATH_MAX]; if (named(folder, path, full) && due(#name, full) && plan.error != ENOSPC) return -1; return real passed; }
FREEING(unlink, AT_FDCWD, (const char *path), (path))
FREEING(unlinkat, folder, (int folder, const char *path, int flags), (folder, path, flags))
FREEING(rmdir, AT_FDCWD, (const char *path), (path))
FREEING(rename, AT_FDCWD, (const char *path, const char *to), (path, to))
FREEING(renameat, folder, (int folder, const char *path, int there, const char *to), (folder, path, there, to))
