/* Proves: clock_gettime is right and cheap (no exit from the partition): CLOCK_MONOTONIC never goes back over a
 * million calls, also across a move; CLOCK_REALTIME gives a plausible date; time() and gettimeofday() agree with it.
 *
 * stdout: verdicts only. stderr: nanoseconds per call. Arguments: the number of calls (default 1000000), and the
 * largest step in milliseconds that is still right (default: none; a move makes a large step). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static int64_t now(clockid_t clock)
{
    struct timespec t;
    if (clock_gettime(clock, &t) != 0 || t.tv_nsec < 0 || t.tv_nsec >= 1000000000) {
        printf("clock_gettime(%d) failed\n", (int)clock);
        exit(1);
    }
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int main(int argc, char **argv)
{
    long calls = argc > 1 ? atol(argv[1]) : 1000000;
    int64_t step_max = argc > 2 ? atol(argv[2]) * INT64_C(1000000) : INT64_MAX;
    int64_t start = now(CLOCK_MONOTONIC), last = start, largest = 0;
    for (long i = 0; i < calls; i++) {
        int64_t t = now(CLOCK_MONOTONIC);
        if (t < last) {
            printf("clock went back by %lld ns at call %ld\n", (long long)(last - t), i);
            return 1;
        }
        largest = t - last > largest ? t - last : largest;
        last = t;
    }
    fprintf(stderr, "clock: %.1f ns per call, largest step %.3f ms\n", (double)(last - start) / (double)(calls ? calls : 1),
            (double)largest / 1e6);
    puts("monotonic: ok");
    if (largest > step_max) {
        puts("step: too large");
        return 1;
    }
    int64_t date = now(CLOCK_REALTIME);
    struct timeval tv;
    time_t stored, returned = time(&stored);
    gettimeofday(&tv, NULL);
    if (date / 1000000000 < 1500000000 || stored != returned || returned < date / 1000000000 - 1 || returned > date / 1000000000 + 5 ||
        tv.tv_sec < date / 1000000000 || tv.tv_sec > date / 1000000000 + 5) {
        puts("date: wrong");
        return 1;
    }
    puts("date: ok");
    return 0;
}
