/* Proves: a page that is written during a migration arrives with its last content. P pages are rewritten in turn as
 * fast as possible; each holds a counter and words derived from it, which are checked before every rewrite and all
 * together at the end. Also the worst case for pre-copy: its dirty rate never falls.
 *
 * Arguments: pages (default 4096), seconds (default 0: for ever), and microseconds of computing between pages
 * (default 0), which sets the dirty rate. stdout: one line per second with a sequence number. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PAGE_WORDS = 512, PROBES = 8 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint64_t word(uint64_t page, uint64_t counter, unsigned i)
{
    uint64_t x = (page << 32 ^ counter) + i * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    return x ^ (x >> 27);
}

/* Word 0 is the counter; PROBES words, spread over the page, follow from it. */
static void check(const uint64_t *page, uint64_t number, uint64_t counter)
{
    if (page[0] != counter) {
        printf("writer: page %llu has counter %llu, not %llu\n", (unsigned long long)number, (unsigned long long)page[0],
               (unsigned long long)counter);
        exit(1);
    }
    for (unsigned i = 1; i <= PROBES; i++)
        if (page[i * (PAGE_WORDS / PROBES) - 1] != word(number, counter, i)) {
            printf("writer: page %llu, counter %llu: probe %u is wrong\n", (unsigned long long)number, (unsigned long long)counter, i);
            exit(1);
        }
}

static void rewrite(uint64_t *page, uint64_t number, uint64_t counter)
{
    page[0] = counter;
    for (unsigned i = 1; i <= PROBES; i++)
        page[i * (PAGE_WORDS / PROBES) - 1] = word(number, counter, i);
}

int main(int argc, char **argv)
{
    uint64_t pages = argc > 1 ? strtoull(argv[1], NULL, 10) : 4096;
    double limit = argc > 2 ? strtod(argv[2], NULL) : 0, pause = argc > 3 ? strtod(argv[3], NULL) * 1e-6 : 0;
    uint64_t *memory = pages && pages < 1u << 30 ? aligned_alloc(4096, pages * 4096) : NULL;
    if (!memory) {
        fputs("usage: writer [PAGES] [SECONDS] [MICROSECONDS]; or out of memory\n", stderr);
        return 2;
    }
    for (uint64_t p = 0; p < pages; p++)
        rewrite(memory + p * PAGE_WORDS, p, 0);
    double start = now(), shown = start;
    uint64_t counter = 0, line = 0, writes = 0;
    for (int stop = 0; !stop; counter++) {
        for (uint64_t p = 0; p < pages; p++) {
            uint64_t *page = memory + p * PAGE_WORDS;
            check(page, p, counter);
            rewrite(page, p, counter + 1);
            writes++;
            if (pause > 0)
                for (double until = now() + pause; now() < until;)
                    ;
            if (writes % 256)
                continue;
            double t = now();
            if (t - shown >= 1) {
                shown = t;
                printf("writer: line %llu writes %llu\n", (unsigned long long)++line, (unsigned long long)writes);
                fflush(stdout);
            }
        }
        stop = limit > 0 && now() - start >= limit;
    }
    for (uint64_t p = 0; p < pages; p++)
        check(memory + p * PAGE_WORDS, p, counter);
    fprintf(stderr, "writer: %.0f pages/s\n", (double)writes / (now() - start));
    puts("writer: ok");
    return 0;
}
