/* Preloaded into the bridge: lets steps on the files of its spool fail as a bad disk would.
 *
 * FAULTY_DISK names a file that says what fails at the moment; it is read at each step. It is empty (nothing fails), or
 *
 *     STEPS ERRNO [PART]
 *
 * STEPS are letters: w write, s sync, c create, r rename, u unlink, t truncate; ERRNO is a number, 0 for half a write that is
 * said to be half; PART is a piece of the names that are meant, such as queue.db-wal. Only names with "/spool/" are. How many
 * steps failed is in FAULTY_DISK.count, one octet for each. Everything else, such as sockets and the log, works as always.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* The errno to fail with, 0 for half a step, -1 to let it work. */
static int fault(char step, const char *name)
{
    const char *control = getenv("FAULTY_DISK");
    char text[256] = "", steps[32] = "", part[128] = "", count[512];
    int number = -1, saved = errno;
    if (!control || !name || !strstr(name, "/spool/")) return -1;
    int fd = syscall(SYS_openat, AT_FDCWD, control, O_RDONLY);
    if (fd >= 0) {
        if (syscall(SYS_read, fd, text, sizeof text - 1) < 0) text[0] = 0;
        syscall(SYS_close, fd);
    }
    int fields = sscanf(text, "%31s %d %127s", steps, &number, part);
    int meant = fields >= 2 && strchr(steps, step) && strstr(name, part);
    if (meant) {
        snprintf(count, sizeof count, "%s.count", control);
        fd = syscall(SYS_openat, AT_FDCWD, count, O_WRONLY | O_APPEND | O_CREAT, 0600);
        if (fd >= 0) {
            if (syscall(SYS_write, fd, &step, 1) < 0) number = -1;
            syscall(SYS_close, fd);
        }
    }
    errno = saved;
    return meant ? number : -1;
}

static int fault_of(char step, int fd)
{
    char link[64], name[512];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    errno = saved;
    if (length < 0) return -1;
    name[length] = 0;
    return fault(step, name);
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define FAIL(number) do { errno = (number); return -1; } while (0)

ssize_t write(int fd, const void *bytes, size_t length)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    int number = fault_of('w', fd);
    if (number > 0) FAIL(number);
    return real(fd, bytes, number == 0 && length > 1 ? length / 2 : length);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at)
{
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    int number = fault_of('w', fd);
    if (number > 0) FAIL(number);
    return real(fd, bytes, number == 0 && length > 1 ? length / 2 : length, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return pwrite64(fd, bytes, length, at); }

int fsync(int fd)
{
    REAL(int, "fsync", int);
    int number = fault_of('s', fd);
    if (number > 0) FAIL(number);
    return real(fd);
}

int fdatasync(int fd)
{
    REAL(int, "fdatasync", int);
    int number = fault_of('s', fd);
    if (number > 0) FAIL(number);
    return real(fd);
}

int ftruncate64(int fd, off64_t length)
{
    REAL(int, "ftruncate64", int, off64_t);
    int number = fault_of('t', fd);
    if (number > 0) FAIL(number);
    return real(fd, length);
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int unlink(const char *name)
{
    REAL(int, "unlink", const char *);
    int number = fault('u', name);
    if (number > 0) FAIL(number);
    return real(name);
}

int rename(const char *from, const char *to)
{
    REAL(int, "rename", const char *, const char *);
    int number = fault('r', from);
    if (number > 0) FAIL(number);
    return real(from, to);
}

int open64(const char *name, int flags, ...)
{
    REAL(int, "open64", const char *, int, ...);
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    int number = flags & O_CREAT ? fault('c', name) : -1;
    if (number > 0) FAIL(number);
    return real(name, flags, mode);
}

int open(const char *name, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    return open64(name, flags, mode);
}
