/* Proves: two ranks of an application of any number of ranks exchange messages, also when the others are not there, and says what
 * a round trip of 8 bytes costs them. Every other message is longer, up to several rings; all bytes are checked.
 *
 * Arguments: the two ranks, round trips. The first rank prints "far: ok" and, on standard error, the median. They end without
 * MPI_Finalize, which would wait for the others. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LONGEST = 200000 };

static unsigned char out[LONGEST], in[LONGEST];

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void exchange(int first, int other, int tag, int bytes)
{
    MPI_Status status;
    int got;
    if (first)
        MPI_Send(out, bytes, MPI_BYTE, other, tag, MPI_COMM_WORLD);
    MPI_Recv(in, LONGEST, MPI_BYTE, MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, &status);
    MPI_Get_count(&status, MPI_BYTE, &got);
    if (status.MPI_SOURCE != other || got != bytes) {
        fprintf(stderr, "far: %d bytes of rank %d instead of %d of %d\n", got, status.MPI_SOURCE, bytes, other);
        _exit(1);
    }
    if (!first)
        MPI_Send(in, bytes, MPI_BYTE, other, tag, MPI_COMM_WORLD);
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (argc != 4)
        return 2;
    int a = atoi(argv[1]), b = atoi(argv[2]), rounds = atoi(argv[3]), first = rank == a;
    double *times = malloc((size_t)rounds * sizeof *times);
    if (!times)
        return 1;
    for (int round = 0; round < rounds; round++) {
        int bytes = 1 + (int)((unsigned)round * 7919u % LONGEST);
        for (int i = 0; first && i < bytes; i++)
            out[i] = (unsigned char)(i * 31 + round);
        exchange(first, first ? b : a, 2 * round, bytes);
        if (first && memcmp(in, out, (size_t)bytes)) {
            fprintf(stderr, "far: a byte of round %d is wrong\n", round);
            _exit(1);
        }
        double start = now_us();
        exchange(first, first ? b : a, 2 * round + 1, 8);
        times[round] = now_us() - start;
    }
    if (first) {
        qsort(times, (size_t)rounds, sizeof *times, ascending);
        printf("far: ok\n");
        fprintf(stderr, "far: %.1f us a round trip\n", times[rounds / 2]);
        fflush(stdout);
    }
    _exit(0);
}
