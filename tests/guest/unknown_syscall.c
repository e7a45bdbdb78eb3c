/* Proves: a system call that does not exist gives ENOSYS, twice, and one warning per number on stderr; the program goes on.
 * Calls that Linux has and a partition has no use for fail or succeed, but never end it. */
/* stdout: only what must be the same everywhere; stderr: what the others answered. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
    static const struct {
        long number;
        const char *name;
    } others[] = {{SYS_getpgrp, "getpgrp"}, {SYS_getppid, "getppid"}, {SYS_getuid, "getuid"}, {SYS_sched_yield, "sched_yield"},
                  {SYS_socket, "socket"},   {SYS_fork, "fork"},       {SYS_kill, "kill(0,0)"}};
    for (int i = 0; i < 2; i++) {
        errno = 0;
        long result = syscall(4242, 1, 2, 3);
        printf("syscall 4242: %ld %s\n", result, errno == ENOSYS ? "ENOSYS" : strerror(errno));
    }
    for (unsigned i = 0; i < sizeof others / sizeof *others; i++) {
        errno = 0;
        long result = syscall(others[i].number, 0, 0, 0);
        if (others[i].number == SYS_fork && result == 0)
            _exit(0);
        fprintf(stderr, "%s: %s%s\n", others[i].name, result < 0 ? "error " : "ok", result < 0 ? strerror(errno) : "");
    }
    puts("still here");
    return 0;
}
