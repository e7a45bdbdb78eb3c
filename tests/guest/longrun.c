/* Proves: processor state (general, SSE and AVX registers) survives moves: the loop below keeps eight vectors of four
 * doubles live in registers from beginning to end; with AVX in ymm registers where the processor has it, chosen when
 * the program starts. Only additions and multiplications in a fixed order, no fused ones, so both versions give the
 * same bits.
 *
 * Arguments: rounds (default 300; a round is 100000 steps), or --until-told to go on until there is something to read from
 * standard input, which is looked at after every progress line and has to be a file: the end of one is not its end.
 * stdout: a progress line per second with a sequence number, then rounds and checksum. stderr: seconds and version. */
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef double vector __attribute__((vector_size(32)));

enum { VECTORS = 8, STEPS = 100000 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* A contracting map, so that the numbers stay bounded: every component moves towards its neighbour's. */
#define BODY                                                                                                  \
    vector a = v[0], b = v[1], c = v[2], d = v[3], e = v[4], f = v[5], g = v[6], h = v[7];                    \
    for (int i = 0; i < STEPS; i++) {                                                                         \
        a = a * 0.75 + b * 0.2499, b = b * 0.75 + c * 0.2499, c = c * 0.75 + d * 0.2499;                      \
        d = d * 0.75 + e * 0.2499, e = e * 0.75 + f * 0.2499, f = f * 0.75 + g * 0.2499;                      \
        g = g * 0.75 + h * 0.2499, h = h * 0.75 + (1.0 - a) * 0.2499;                                         \
    }                                                                                                         \
    v[0] = a, v[1] = b, v[2] = c, v[3] = d, v[4] = e, v[5] = f, v[6] = g, v[7] = h;

__attribute__((noinline, target("avx"))) static void round_avx(vector *v)
{
    BODY
}

__attribute__((noinline)) static void round_sse(vector *v)
{
    BODY
}

int main(int argc, char **argv)
{
    static vector v[VECTORS];
    long rounds = 300, done = 0, line = 0;
    char told;
    if (argc > 1)
        rounds = strcmp(argv[1], "--until-told") ? atol(argv[1]) : LONG_MAX;
    for (int i = 0; i < VECTORS; i++)
        v[i] = (vector){i + 0.125, i * 0.5, 1.0 / (i + 1), i * i * 0.01};
    __builtin_cpu_init();
    int avx = __builtin_cpu_supports("avx");
    double start = now(), shown = start;
    while (done < rounds) {
        if (avx)
            round_avx(v);
        else
            round_sse(v);
        /* A little of the round number goes in, so that the state never settles. */
        v[done % VECTORS][done % 4] += (double)(done % 1000) * 0x1p-10;
        done++;
        double t = now();
        if (t - shown >= 1) {
            shown = t;
            printf("longrun: line %ld round %ld\n", ++line, done);
            fflush(stdout);
            if (rounds == LONG_MAX && read(0, &told, 1) == 1)
                break;
        }
    }
    uint64_t sum = 0;
    for (int i = 0; i < VECTORS; i++)
        for (int k = 0; k < 4; k++) {
            uint64_t bits;
            double x = v[i][k];
            memcpy(&bits, &x, sizeof bits);
            sum = (sum ^ bits) * 0x100000001b3u;
        }
    printf("longrun: rounds %ld checksum 0x%016llx\n", done, (unsigned long long)sum);
    fprintf(stderr, "longrun: %.3f s, %s\n", now() - start, avx ? "AVX" : "SSE");
    return 0;
}
