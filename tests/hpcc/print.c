/* What HPCC calls right before MPI_Finalize ("can be replaced at the time of installation"): copies its result file to
 * standard output on rank 0, since a partition's files end with it. */
#include <mpi.h>
#include <stdio.h>

int HPCC_external_finalize(int argc, char *argv[], void *extdata)
{
    int rank;
    (void)argc, (void)argv, (void)extdata;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    FILE *file = rank == 0 ? fopen("hpccoutf.txt", "r") : NULL;
    if (file) {
        for (int c; (c = getc(file)) != EOF;)
            putchar(c);
        fclose(file);
        fflush(stdout);
    }
    return 0;
}
