/* Records what a process does to the files below a folder, for LD_PRELOAD.

   MTA_RECORD_ROOT  the folder, without a slash at its end
   MTA_RECORD_LOG   where records are appended; all processes share the file

   A record is a header and `tail` octets; each is appended by one call, so records of several processes never mix.
   Writes and changes of names are recorded before they are made, the end of a sync after it: what stands before the
   beginning of a sync whose end is there as well is on the disk, everything else may or may not be.
   An answer "250 2.0.0 queued as ID" on any descriptor is recorded before it is sent. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/aio_abi.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 1, ZEROS, SIZE, SYNC_BEGINS, SYNC_ENDS, CREATE, RENAME, UNLINK, ANSWER };

struct header {
    uint32_t tail;
    uint32_t kind;
    uint64_t inode;
    uint64_t offset;
    uint64_t length;
};

static int log_fd = -1;
static const char *root;
static size_t root_size;

static void setup(void) {
    if (log_fd >= 0 || root)
        return;
    root = getenv("MTA_RECORD_ROOT");
    const char *path = getenv("MTA_RECORD_LOG");
    if (!root || !path) {
        root = "";
        return;
    }
    root_size = strlen(root);
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    log_fd = fd < 0 ? -1 : syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 900);
}

static void note(uint32_t kind, uint64_t inode, uint64_t offset, uint64_t length, const void *tail, size_t n) {
    struct header h = {(uint32_t)n, kind, inode, offset, length};
    struct iovec parts[2] = {{&h, sizeof h}, {(void *)tail, n}};
    int before = errno;
    if (syscall(SYS_writev, log_fd, parts, 2) != (long)(sizeof h + n)) {
        static const char text[] = "recorder: the recording is incomplete\n";
        syscall(SYS_write, 2, text, sizeof text - 1);
        _exit(70);
    }
    errno = before;
}

static int below(const char *path) {
    return root_size && !strncmp(path, root, root_size) && (path[root_size] == '/' || !path[root_size]);
}

/* The inode behind a descriptor of ours, 0 for any other. */
static uint64_t ours(int fd) {
    char link[64], path[PATH_MAX];
    struct stat st;
    setup();
    if (log_fd < 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0)
        return 0;
    path[n] = 0;
    return below(path) && !fstat(fd, &st) ? st.st_ino : 0;
}

static void answers(const char *data, size_t n) {
    static const char words[] = "250 2.0.0 queued as ";
    const char *at = data, *end = data + n;
    setup();
    while (log_fd >= 0 && (at = memmem(at, end - at, words, sizeof words - 1))) {
        at += sizeof words - 1;
        if (end - at >= 12)
            note(ANSWER, 0, 0, 0, at, 12);
    }
}

static void written(int fd, const void *data, size_t n, int64_t offset) {
    uint64_t inode = ours(fd);
    if (!inode)
        return;
    const char *p = data;
    int zero = n > 0 && p[0] == 0 && !memcmp(p, p + 1, n - 1);
    note(zero ? ZEROS : WRITE, inode, (uint64_t)offset, n, p, zero ? 0 : n);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite(int fd, const void *data, size_t n, off_t offset) {
    written(fd, data, n, offset);
    return REAL(pwrite)(fd, data, n, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t offset) {
    written(fd, data, n, offset);
    return REAL(pwrite64)(fd, data, n, offset);
}

ssize_t write(int fd, const void *data, size_t n) {
    if (n > 20)
        answers(data, n);
    if (ours(fd))
        written(fd, data, n, lseek(fd, 0, SEEK_CUR));
    return REAL(write)(fd, data, n);
}

/* Replies of many connections leave by one io_submit, which has no function of its own in the C library. */
long syscall(long number, ...) {
    static long (*real)(long, ...);
    long a[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(arguments, long);
    va_end(arguments);
    if (!real)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    if (number == SYS_io_submit)
        for (long i = 0; i < a[1]; i++) {
            const struct iocb *one = ((struct iocb **)a[2])[i];
            answers((const char *)one->aio_buf, one->aio_nbytes);
        }
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

#define SYNC(name)                              \
    int name(int fd) {                          \
        uint64_t inode = ours(fd);              \
        if (inode)                              \
            note(SYNC_BEGINS, inode, 0, 0, 0, 0); \
        int result = REAL(name)(fd);            \
        if (inode && !result)                   \
            note(SYNC_ENDS, inode, 0, 0, 0, 0); \
        return result;                          \
    }
SYNC(fsync)
SYNC(fdatasync)

#define SIZES(name, type)                        \
    int name(int fd, type length) {              \
        uint64_t inode = ours(fd);               \
        if (inode)                               \
            note(SIZE, inode, 0, length, 0, 0);  \
        return REAL(name)(fd, length);           \
    }
SIZES(ftruncate, off_t)
SIZES(ftruncate64, off64_t)

#define SIZES_BY_NAME(name, type)                             \
    int name(const char *path, type length) {                 \
        struct stat st;                                       \
        setup();                                              \
        if (log_fd >= 0 && below(path) && !stat(path, &st))   \
            note(SIZE, st.st_ino, 0, length, 0, 0);           \
        return REAL(name)(path, length);                      \
    }
SIZES_BY_NAME(truncate, off_t)
SIZES_BY_NAME(truncate64, off64_t)

#define ALLOCATES(name, type)                                    \
    int name(int fd, type offset, type length) {                 \
        uint64_t inode = ours(fd);                               \
        struct stat st;                                          \
        if (inode && !fstat(fd, &st) && st.st_size < offset + length) \
            note(SIZE, inode, 0, offset + length, 0, 0);         \
        return REAL(name)(fd, offset, length);                   \
    }
ALLOCATES(posix_fallocate, off_t)
ALLOCATES(posix_fallocate64, off64_t)

static int opened(int fd, const char *path, int flags, int was_there) {
    struct stat st;
    if (fd >= 0 && log_fd >= 0 && below(path) && !fstat(fd, &st) && S_ISREG(st.st_mode)) {
        if (!was_there)
            note(CREATE, st.st_ino, 0, 0, path, strlen(path));
        else if (flags & O_TRUNC)
            note(SIZE, st.st_ino, 0, 0, 0, 0);
    }
    return fd;
}

#define OPENS(name)                                                        \
    int name(const char *path, int flags, ...) {                           \
        va_list more;                                                      \
        va_start(more, flags);                                             \
        mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0;        \
        va_end(more);                                                      \
        setup();                                                           \
        int was_there = !(flags & O_CREAT) || !access(path, F_OK);         \
        return opened(REAL(name)(path, flags, mode), path, flags, was_there); \
    }
OPENS(open)
OPENS(open64)

int rename(const char *from, const char *to) {
    setup();
    if (log_fd >= 0 && below(from) && below(to)) {
        char both[2 * PATH_MAX];
        int n = snprintf(both, sizeof both, "%s%c%s", from, 0, to);
        note(RENAME, 0, 0, 0, both, n);
    }
    return REAL(rename)(from, to);
}

int unlink(const char *path) {
    setup();
    if (log_fd >= 0 && below(path))
        note(UNLINK, 0, 0, 0, path, strlen(path));
    return REAL(unlink)(path);
}
