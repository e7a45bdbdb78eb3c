/* Notes in a partition that stays how regularly something comes from one that moves, and prints it:
 *
 *   W BEGIN_US BEATS PAGES GAP_MAX_NS BUCKET:COUNT,...
 *
 * for every 10 ms in which something came; BEGIN_US is CLOCK_REALTIME. A gap belongs to the window in which it ends. Bucket b of
 * a gap of n ns: 8 for each power of two, b = 8 * e + (the three bits below the leading one), e = floor(log2 n). */
#ifndef PARTITA_BENCH_OBSERVE_H
#define PARTITA_BENCH_OBSERVE_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { WINDOW_US = 10000, BUCKETS = 8 * 64, TEXT_BYTES = 1 << 16, LINE_BYTES_MAX = 8192 };
/* Lines go out together: a system call is a gap of its own. */
static const uint64_t FLUSH_US = 100000;

static struct {
    uint64_t begin_us, beats, pages, gap_max_ns, last_ns, flushed_us;
    uint32_t buckets[BUCKETS];
    char text[TEXT_BYTES];
    size_t used;
} seen;

static uint64_t observe_clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void observe_flush(void)
{
    for (size_t at = 0; at < seen.used;) {
        ssize_t n = write(1, seen.text + at, seen.used - at);
        if (n <= 0)
            break;
        at += (size_t)n;
    }
    seen.used = 0;
}

static void observe_close_window(void)
{
    if (seen.used + LINE_BYTES_MAX > TEXT_BYTES)
        observe_flush();
    char *text = seen.text + seen.used;
    size_t n = (size_t)snprintf(text, LINE_BYTES_MAX, "W %llu %llu %llu %llu ", (unsigned long long)seen.begin_us,
                                (unsigned long long)seen.beats, (unsigned long long)seen.pages, (unsigned long long)seen.gap_max_ns);
    for (int b = 0, first = 1; b < BUCKETS; b++)
        if (seen.buckets[b]) {
            n += (size_t)snprintf(text + n, LINE_BYTES_MAX - n, "%s%d:%u", first ? "" : ",", b, seen.buckets[b]);
            first = 0;
        }
    text[n++] = '\n';
    seen.used += n;
    seen.beats = seen.pages = seen.gap_max_ns = 0;
    memset(seen.buckets, 0, sizeof seen.buckets);
}

/* Something came, and with it the news of so many more pages written. */
static void observe(uint64_t pages)
{
    uint64_t now_us = observe_clock_ns(CLOCK_REALTIME) / 1000, now_ns = observe_clock_ns(CLOCK_MONOTONIC);
    if (!seen.last_ns) {
        seen.last_ns = now_ns;
        seen.begin_us = seen.flushed_us = now_us - now_us % WINDOW_US;
        return;
    }
    uint64_t gap = now_ns > seen.last_ns ? now_ns - seen.last_ns : 1;
    if (now_us >= seen.begin_us + WINDOW_US) {
        observe_close_window();
        seen.begin_us = now_us - now_us % WINDOW_US;
        if (now_us >= seen.flushed_us + FLUSH_US) {
            observe_flush();
            seen.flushed_us = now_us;
        }
    }
    int exponent = 63 - __builtin_clzll(gap);
    int part = (int)((exponent >= 3 ? gap >> (exponent - 3) : gap << (3 - exponent)) & 7);
    seen.buckets[8 * exponent + part]++;
    seen.beats++;
    seen.pages += pages;
    if (gap > seen.gap_max_ns)
        seen.gap_max_ns = gap;
    seen.last_ns = now_ns;
}

#endif
