/* Messages between two ranks, for the binary `messages` of the tests crate: round trips of 8 bytes, transfers of 1 MiB there and
 * back, and an Allreduce of 8 bytes. It says on standard output
 *
 *   begin MEASURE
 *   MEASURE bytes B rounds R timed N median_ns M p99_ns P
 *
 * for each of round-trip, transfer and allreduce, and then `end`; times are those of rank 0, R counts warm-up and all. A wrong
 * byte ends the program.
 *
 * A time is from one reading of the clock to the next, so that there is one reading in each. Rank 1 sends back what it got, from
 * where it got it: what arrives at rank 0 has been received twice, and rank 0 alone has to look at it. */
#include <mpi.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    TAG = 7,
    TRANSFER_WORDS = 1 << 17, /* 1 MiB */
    PAGE_WORDS = 512,
    /* Of so many transfers one is looked at byte by byte. That takes long enough for rank 1 to fall asleep, so neither it nor
     * the next one is timed; of the others one word of every page is looked at. */
    LOOK_EVERY = 16,
};

struct options {
    long warm_up, round_trips, transfers, allreduces;
};

static int rank;

static void fail(const char *what)
{
    fprintf(stderr, "messages: rank %d: %s\n", rank, what);
    MPI_Abort(MPI_COMM_WORLD, 1);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static void *memory(size_t bytes)
{
    void *p = malloc(bytes);
    if (!p)
        fail("out of memory");
    return p;
}

static void begin(const char *measure)
{
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) {
        printf("begin %s\n", measure);
        fflush(stdout);
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Percentiles by nearest rank: each is a time that was measured. */
static void report(const char *measure, size_t bytes, long rounds, uint64_t *times_ns, long timed)
{
    if (rank != 0)
        return;
    qsort(times_ns, (size_t)timed, sizeof *times_ns, compare);
    printf("%s bytes %zu rounds %ld timed %ld median_ns %llu p99_ns %llu\n", measure, bytes, rounds, timed,
           (unsigned long long)times_ns[(timed + 1) / 2 - 1], (unsigned long long)times_ns[(timed * 99 + 99) / 100 - 1]);
    fflush(stdout);
}

static void round_trip(uint64_t *words, int count)
{
    if (rank == 0) {
        MPI_Send(words, count, MPI_UINT64_T, 1, TAG, MPI_COMM_WORLD);
        MPI_Recv(words, count, MPI_UINT64_T, 1, TAG, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    } else {
        MPI_Recv(words, count, MPI_UINT64_T, 0, TAG, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        MPI_Send(words, count, MPI_UINT64_T, 0, TAG, MPI_COMM_WORLD);
    }
}

static void round_trips(const struct options *o, uint64_t *times_ns)
{
    begin("round-trip");
    uint64_t before = 0;
    for (long i = -o->warm_up; i < o->round_trips; i++) {
        uint64_t expected = mix((uint64_t)i), word = rank == 0 ? expected : 0;
        round_trip(&word, 1);
        if (word != expected)
            fail("a message of 8 bytes has arrived changed");
        uint64_t now = now_ns();
        if (i >= 0)
            times_ns[i] = now - before;
        before = now;
    }
    report("round-trip", sizeof(uint64_t), o->warm_up + o->round_trips, times_ns, o->round_trips);
}

/* Word `at` of transfer `number`. */
static uint64_t word_of(long number, int at)
{
    return mix((uint64_t)number * TRANSFER_WORDS + (uint64_t)at);
}

static void transfers(const struct options *o, uint64_t *times_ns)
{
    uint64_t *words = memory(sizeof(uint64_t) * TRANSFER_WORDS);
    memset(words, 0, sizeof(uint64_t) * TRANSFER_WORDS);
    begin("transfer");
    long timed = 0, i = 0;
    for (; timed < o->transfers; i++) {
        int step = i % LOOK_EVERY ? PAGE_WORDS : 1;
        if (rank == 0)
            for (int at = 0; at < TRANSFER_WORDS; at += step)
                words[at] = word_of(i, at);
        uint64_t before = now_ns();
        round_trip(words, TRANSFER_WORDS);
        uint64_t time = now_ns() - before;
        if (rank == 0)
            for (int at = 0; at < TRANSFER_WORDS; at += step)
                if (words[at] != word_of(i, at))
                    fail("a message of 1 MiB has arrived changed");
        if (i % LOOK_EVERY > 1)
            times_ns[timed++] = time;
    }
    report("transfer", sizeof(uint64_t) * TRANSFER_WORDS, i, times_ns, timed);
    free(words);
}

static void allreduces(const struct options *o, uint64_t *times_ns)
{
    begin("allreduce");
    uint64_t before = 0;
    for (long i = -o->warm_up; i < o->allreduces; i++) {
        double mine = (double)i + rank, sum = 0;
        MPI_Allreduce(&mine, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
        /* Whole numbers: exact. */
        if (sum != 2 * (double)i + 1)
            fail("a sum of two doubles is wrong");
        uint64_t now = now_ns();
        if (i >= 0)
            times_ns[i] = now - before;
        before = now;
    }
    report("allreduce", sizeof(double), o->warm_up + o->allreduces, times_ns, o->allreduces);
}

static long number(const char *text)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text || *end != 0 || value < 1 || value > 100000000)
        fail("usage: messages WARM-UP ROUND-TRIPS TRANSFERS ALLREDUCES, each from 1 to 100000000");
    return value;
}

int main(int argc, char **argv)
{
    int ranks;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (ranks != 2)
        fail("it needs two ranks");
    long values[4];
    for (int i = 0; i < 4; i++)
        values[i] = number(i + 1 < argc ? argv[i + 1] : "");
    struct options o = {values[0], values[1], values[2], values[3]};
    long most = o.round_trips > o.allreduces ? o.round_trips : o.allreduces;
    size_t bytes = sizeof(uint64_t) * (size_t)(most > o.transfers ? most : o.transfers);
    uint64_t *times_ns = memory(bytes);
    /* Pages touched for the first time would be in the times. */
    memset(times_ns, 0, bytes);
    round_trips(&o, times_ns);
    transfers(&o, times_ns);
    allreduces(&o, times_ns);
    free(times_ns);
    if (rank == 0)
        printf("end\n");
    MPI_Finalize();
    return 0;
}
