/* Times collectives: microseconds per call, the slowest rank's, the median of rounds. Runs with any MPI library.
 *
 * usage: collective_bench COLLECTIVE BYTES...      (allgather, alltoall, gather, scatter: of one block) */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 9 };

static int rank, ranks;
static char *from, *to;

static void call(const char *name, int bytes)
{
    MPI_Comm all = MPI_COMM_WORLD;
    int doubles = bytes / 8 ? bytes / 8 : 1;
    if (!strcmp(name, "broadcast")) MPI_Bcast(from, bytes, MPI_BYTE, 0, all);
    else if (!strcmp(name, "gather")) MPI_Gather(from, bytes, MPI_BYTE, to, bytes, MPI_BYTE, 0, all);
    else if (!strcmp(name, "scatter")) MPI_Scatter(from, bytes, MPI_BYTE, to, bytes, MPI_BYTE, 0, all);
    else if (!strcmp(name, "allgather")) MPI_Allgather(from, bytes, MPI_BYTE, to, bytes, MPI_BYTE, all);
    else if (!strcmp(name, "alltoall")) MPI_Alltoall(from, bytes, MPI_BYTE, to, bytes, MPI_BYTE, all);
    else if (!strcmp(name, "reduce")) MPI_Reduce(from, to, doubles, MPI_DOUBLE, MPI_SUM, 0, all);
    else if (!strcmp(name, "allreduce")) MPI_Allreduce(from, to, doubles, MPI_DOUBLE, MPI_SUM, all);
    else if (!strcmp(name, "barrier")) MPI_Barrier(all);
    else {
        if (rank == 0)
            fprintf(stderr, "collective_bench: %s: unknown collective\n", name);
        MPI_Abort(all, 2);
    }
}

static int by_size(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    for (int i = 2; i < argc; i++) {
        int bytes = atoi(argv[i]), calls = bytes <= 4096 ? 100 : bytes <= 65536 ? 20 : 5;
        double times[ROUNDS];
        from = calloc((size_t)ranks, (size_t)bytes + 8), to = calloc((size_t)ranks, (size_t)bytes + 8);
        for (int round = -1; round < ROUNDS; round++) {
            MPI_Barrier(MPI_COMM_WORLD);
            double start = MPI_Wtime(), mine, slowest;
            for (int n = 0; n < calls; n++)
                call(argv[1], bytes);
            mine = (MPI_Wtime() - start) / calls * 1e6;
            MPI_Allreduce(&mine, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
            if (round >= 0)
                times[round] = slowest;
        }
        qsort(times, ROUNDS, sizeof *times, by_size);
        if (rank == 0)
            printf("%d %.2f\n", bytes, times[ROUNDS / 2]);
        free(from), free(to);
    }
    MPI_Finalize();
    return 0;
}
