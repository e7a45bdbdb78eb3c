/* The writer of `migrator bench`: rank 0 rewrites pages and beats; it is the one that moves.
 *
 *   beat PAGES RATE ORDER BEAT_US       RATE pages a second, 0: as fast as it can; ORDER sequential or random
 *
 * Alone, its beats are bytes on standard output, one each. With another rank they are messages, and rank 1, which stays,
 * answers them and prints what it observes (observe.h). Runs until it is ended. */
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"
#include "observe.h"

static int ranks;
static MPI_Request answer = MPI_REQUEST_NULL;

static uint64_t load_now_ns(void)
{
    return observe_clock_ns(CLOCK_MONOTONIC);
}

static int load_beat(uint64_t pages_written)
{
    if (ranks > 1) {
        /* One beat is under way at a time: beats that queue for a slow observer would fill the gap of a move. */
        int answered;
        MPI_Test(&answer, &answered, MPI_STATUS_IGNORE);
        if (!answered)
            return 0;
        MPI_Irecv(NULL, 0, MPI_BYTE, 1, 0, MPI_COMM_WORLD, &answer);
        MPI_Send(&pages_written, 1, MPI_UINT64_T, 1, 0, MPI_COMM_WORLD);
        return 1;
    }
    uint8_t byte = load_byte(pages_written);
    if (write(1, &byte, 1) != 1)
        exit(1);
    return 1;
}

static void observe_for_ever(void)
{
    for (uint64_t before = 0, written;; before = written) {
        MPI_Recv(&written, 1, MPI_UINT64_T, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        observe(written - before);
        MPI_Send(NULL, 0, MPI_BYTE, 0, 0, MPI_COMM_WORLD);
    }
}

static int usage(void)
{
    fputs("usage: beat PAGES RATE sequential|random BEAT_US; PAGES below 2^28 that fit into memory\n", stderr);
    return 2;
}

static int number(const char *text, uint64_t *value)
{
    char *end;
    *value = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == 0;
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    struct load load = {0};
    uint64_t beat_us;
    if (argc != 5 || !number(argv[1], &load.pages) || !number(argv[2], &load.rate) || !number(argv[4], &beat_us))
        return usage();
    load.random = !strcmp(argv[3], "random");
    load.beat_ns = beat_us * 1000;
    if (load.pages >> 28 || (!load.random && strcmp(argv[3], "sequential")))
        return usage();
    if (rank == 1)
        observe_for_ever();
    if (rank > 1)
        MPI_Recv(&beat_us, 1, MPI_UINT64_T, 0, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE); /* nobody sends it */
    if (load.pages && !(load.memory = aligned_alloc(4096, load.pages * 4096)))
        return usage();
    load_run(&load);
}
