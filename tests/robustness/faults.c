/*
 * A disk that fails, for LD_PRELOAD: system calls that change files below a folder are counted, and the n-th of them
 * fails, alone or with all that follow. What is synced is copied to a second folder: what a machine has after a power
 * failure.
 *
 *     faults_watch(folder, durable)    from now on; NULL: no more
 *     faults_arm(nth, error, mode)     ONCE, FOREVER, or SHORT: a write writes half of it, and what follows fails
 *     faults_disarm()                  how many calls there were since faults_arm
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ONCE, FOREVER, SHORT };

static char folder[512], durable[512];
static int armed, nth, error_number, mode, seen;

void faults_watch(const char *watched, const char *copies)
{
    snprintf(folder, sizeof folder, "%s", watched == NULL ? "" : watched);
    snprintf(durable, sizeof durable, "%s", copies == NULL ? "" : copies);
}

void faults_arm(int number, int error, int how)
{
    nth = number;
    error_number = error;
    mode = how;
    seen = 0;
    armed = 1;
}

int faults_disarm(void)
{
    armed = 0;
    return seen;
}

static int is_watched(const char *path)
{
    size_t length = strlen(folder);

    return length > 0 && path != NULL && strncmp(path, folder, length) == 0 && path[length] == '/';
}

static const char *path_of(int descriptor, char *path, size_t room)
{
    char name[64];
    ssize_t length;

    snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
    length = readlink(name, path, room - 1);
    path[length < 0 ? 0 : length] = '\0';
    return path;
}

/* Whether this call fails: -1 with errno set, 0 otherwise. */
static int fails(void)
{
    if (!armed)
        return 0;
    seen++;
    if (seen < nth || (seen > nth && mode == ONCE))
        return 0;
    errno = error_number;
    return -1;
}

static int fails_on(int descriptor)
{
    char path[512];

    return is_watched(path_of(descriptor, path, sizeof path)) ? fails() : 0;
}

static void *next(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);

    if (found == NULL)
        abort();
    return found;
}

#define NEXT(name) ((__typeof__(&name))next(#name))

static const char *copy_of(const char *path, char *copy, size_t room)
{
    snprintf(copy, room, "%s%s", durable, path + strlen(folder));
    return copy;
}

static void keep(int descriptor)
{
    char path[512], copy[1100], data[65536];
    off_t place = 0;
    ssize_t size;
    int source, target;

    if (!is_watched(path_of(descriptor, path, sizeof path)) || durable[0] == '\0')
        return;
    /* Closing a second descriptor would drop SQLite's locks; but what can only be written is none of its files. */
    source = pread(descriptor, data, 1, 0) < 0 ? NEXT(open)(path, O_RDONLY | O_CLOEXEC) : descriptor;
    target = NEXT(open)(copy_of(path, copy, sizeof copy), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    while (target >= 0 && (size = pread(source, data, sizeof data, place)) > 0) {
        if (NEXT(write)(target, data, (size_t)size) != size)
            abort();
        place += size;
    }
    if (target >= 0)
        close(target);
    if (source >= 0 && source != descriptor)
        close(source);
}

ssize_t write(int descriptor, const void *data, size_t size)
{
    if (fails_on(descriptor) == 0)
        return NEXT(write)(descriptor, data, size);
    return mode == SHORT && seen == nth && size > 1 ? NEXT(write)(descriptor, data, size / 2) : -1;
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t place)
{
    if (fails_on(descriptor) == 0)
        return NEXT(pwrite)(descriptor, data, size, place);
    return mode == SHORT && seen == nth && size > 1 ? NEXT(pwrite)(descriptor, data, size / 2, place) : -1;
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off_t place)
{
    return pwrite(descriptor, data, size, place);
}

int fsync(int descriptor)
{
    if (fails_on(descriptor) != 0 || NEXT(fsync)(descriptor) != 0)
        return -1;
    keep(descriptor);
    return 0;
}

int fdatasync(int descriptor)
{
    if (fails_on(descriptor) != 0 || NEXT(fdatasync)(descriptor) != 0)
        return -1;
    keep(descriptor);
    return 0;
}

int ftruncate(int descriptor, off_t size) { return fails_on(descriptor) != 0 ? -1 : NEXT(ftruncate)(descriptor, size); }

int ftruncate64(int descriptor, off_t size) { return ftruncate(descriptor, size); }

int truncate(const char *path, off_t size)
{
    return is_watched(path) && fails() != 0 ? -1 : NEXT(truncate)(path, size);
}

int truncate64(const char *path, off_t size) { return truncate(path, size); }

int fallocate(int descriptor, int how, off_t place, off_t size)
{
    return fails_on(descriptor) != 0 ? -1 : NEXT(fallocate)(descriptor, how, place, size);
}

int fallocate64(int descriptor, int how, off_t place, off_t size) { return fallocate(descriptor, how, place, size); }

int posix_fallocate(int descriptor, off_t place, off_t size)
{
    return fails_on(descriptor) != 0 ? error_number : NEXT(posix_fallocate)(descriptor, place, size);
}

int posix_fallocate64(int descriptor, off_t place, off_t size) { return posix_fallocate(descriptor, place, size); }

int open(const char *path, int flags, ...)
{
    int permissions, writes = (flags & (O_WRONLY | O_RDWR | O_CREAT)) != 0;
    va_list more;

    va_start(more, flags);
    permissions = va_arg(more, int);
    va_end(more);
    return writes && is_watched(path) && fails() != 0 ? -1 : NEXT(open)(path, flags, permissions);
}

int open64(const char *path, int flags, ...)
{
    va_list more;
    int permissions;

    va_start(more, flags);
    permissions = va_arg(more, int);
    va_end(more);
    return open(path, flags, permissions);
}

void *mmap(void *address, size_t size, int protection, int flags, int descriptor, off_t place)
{
    if (descriptor >= 0 && armed && fails_on(descriptor) != 0)
        return MAP_FAILED;
    return NEXT(mmap)(address, size, protection, flags, descriptor, place);
}

void *mmap64(void *address, size_t size, int protection, int flags, int descriptor, off_t place)
{
    return mmap(address, size, protection, flags, descriptor, place);
}

int rename(const char *old, const char *new)
{
    char one[1100], other[1100];

    if (is_watched(old) && fails() != 0)
        return -1;
    if (is_watched(old) && is_watched(new) && durable[0] != '\0')
        NEXT(rename)(copy_of(old, one, sizeof one), copy_of(new, other, sizeof other));
    return NEXT(rename)(old, new);
}

int link(const char *old, const char *new)
{
    char one[1100], other[1100];

    if (is_watched(old) && fails() != 0)
        return -1;
    if (is_watched(old) && is_watched(new) && durable[0] != '\0' &&
        NEXT(link)(copy_of(old, one, sizeof one), copy_of(new, other, sizeof other)) != 0)
        errno = 0;
    return NEXT(link)(old, new);
}

int unlink(const char *path)
{
    char copy[1100];

    if (is_watched(path) && fails() != 0)
        return -1;
    if (is_watched(path) && durable[0] != '\0')
        NEXT(unlink)(copy_of(path, copy, sizeof copy));
    return NEXT(unlink)(path);
}
