/* Makes one call to the file system fail, for LD_PRELOAD.

   mta_fault(root, nth, error, lasting): from now on calls that concern files below `root` are counted, and the nth fails
   with `error`; with `lasting` all later ones fail too. nth 0: none fails. mta_calls(): how many were counted since, and
   mta_failed(): the name of the first call that failed, "" while none has.

   Counted are the calls that make, write, sync, rename and remove files, and those that look at free space. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_size;
static long nth, calls;
static int error_number, lasting;
static const char *failed = "";

void mta_fault(const char *path, long number, int error, int lasts) {
    pthread_mutex_lock(&lock);
    snprintf(root, sizeof root, "%s", path);
    root_size = strlen(root);
    nth = number;
    calls = 0;
    error_number = error;
    lasting = lasts;
    failed = "";
    pthread_mutex_unlock(&lock);
}

long mta_calls(void) { return calls; }

const char *mta_failed(void) { return failed; }

/* Whether this call fails; the error number, or 0. */
static int fails(const char *name) {
    int result = 0;
    pthread_mutex_lock(&lock);
    calls++;
    if (nth && (calls == nth || (lasting && calls > nth))) {
        result = error_number;
        if (!*failed)
            failed = name;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

static int below(const char *path) { return root_size && !strncmp(path, root, root_size); }

static int ours(int fd) {
    char link[64], path[PATH_MAX];
    if (!root_size)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0)
        return 0;
    path[n] = 0;
    return below(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define FAIL(concerned, name)                       \
    do {                                            \
        int error_ = (concerned) ? fails(name) : 0; \
        if (error_) {                               \
            errno = error_;                         \
            return -1;                              \
        }                                           \
    } while (0)

#define OPENS(name)                                                 \
    int name(const char *path, int flags, ...) {                    \
        va_list more;                                               \
        va_start(more, flags);                                      \
        mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                               \
        FAIL(below(path), "open");                                  \
        return REAL(name)(path, flags, mode);                       \
    }
OPENS(open)
OPENS(open64)

#define WRITES(name, offset_type)                                             \
    ssize_t name(int fd, const void *data, size_t n, offset_type offset) {    \
        FAIL(ours(fd), "pwrite");                                             \
        return REAL(name)(fd, data, n, offset);                               \
    }
WRITES(pwrite, off_t)
WRITES(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t n) {
    FAIL(ours(fd), "write");
    return REAL(write)(fd, data, n);
}

#define SYNCS(name)           \
    int name(int fd) {        \
        FAIL(ours(fd), #name); \
        return REAL(name)(fd); \
    }
SYNCS(fsync)
SYNCS(fdatasync)

/* These return the error instead of setting errno. */
#define ALLOCATES(name, type)                      \
    int name(int fd, type offset, type length) {   \
        int error = ours(fd) ? fails("fallocate") : 0; \
        return error ? error : REAL(name)(fd, offset, length); \
    }
ALLOCATES(posix_fallocate, off_t)
ALLOCATES(posix_fallocate64, off64_t)

int rename(const char *from, const char *to) {
    FAIL(below(from) || below(to), "rename");
    return REAL(rename)(from, to);
}

int unlink(const char *path) {
    FAIL(below(path), "unlink");
    return REAL(unlink)(path);
}

#define TRUNCATES(name, type)                   \
    int name(const char *path, type length) {   \
        FAIL(below(path), "truncate");          \
        return REAL(name)(path, length);        \
    }
TRUNCATES(truncate, off_t)
TRUNCATES(truncate64, off64_t)

#define LOOKS(name, type)                          \
    int name(const char *path, struct type *out) { \
        FAIL(below(path), "statvfs");              \
        return REAL(name)(path, out);              \
    }
LOOKS(statvfs, statvfs)
LOOKS(statvfs64, statvfs64)
