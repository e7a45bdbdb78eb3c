/* Proves: code that computes without messages runs at native speed. A fixed amount of work in integers, doubles and
 * memory that does not fit the first cache; the result depends on the argument only.
 *
 * stdout: the result. stderr: wall-clock seconds, to compare with the native run, and clock()'s CPU seconds.
 * Argument: millions of iterations (default 100). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { WORDS = 1 << 18 };
static double table[WORDS];

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    long iterations = (argc > 1 ? atol(argv[1]) : 100) * 1000000;
    for (int i = 0; i < WORDS; i++)
        table[i] = i * 0.5;
    double start = seconds(), sum = 0;
    uint64_t x = 88172645463325252u;
    for (long i = 0; i < iterations; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        double *cell = &table[x % WORDS];
        *cell = *cell * 0.75 + (double)(x >> 40);
        sum += *cell;
    }
    double took = seconds() - start;
    printf("compute: %ld iterations, state %016llx, sum %.17g\n", iterations, (unsigned long long)x, sum);
    fprintf(stderr, "compute: %.6f s, cpu %.6f s\n", took, (double)clock() / CLOCKS_PER_SEC);
    return 0;
}
