/* Preloaded into a gateway. While the file FAILING_SYNC_TRIGGER is there, syncs of files below FAILING_SYNC_BELOW fail
   with EIO, or, where the trigger is not empty, hang. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(int fd) {
    const char *below = getenv("FAILING_SYNC_BELOW"), *trigger = getenv("FAILING_SYNC_TRIGGER");
    char link[64], path[4096];
    struct stat state;
    ssize_t length;
    if (!below || !trigger || stat(trigger, &state) != 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    if (strncmp(path, below, strlen(below)) != 0)
        return 0;
    if (state.st_size > 0) {
        while (access(trigger, F_OK) == 0)
            usleep(5000);
        return 0;
    }
    errno = EIO;
    return 1;
}

int fdatasync(int fd) {
    return fails(fd) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd) {
    return fails(fd) ? -1 : (int)syscall(SYS_fsync, fd);
}
