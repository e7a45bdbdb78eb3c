/* partita.h: units are defined, reported and shared out; errors are errors; the call works through a null check elsewhere.
 * PARTITA_NATIVE_SHARES stands in for the coordinator. Prints "units: FIRST COUNT" of every rank, in order. */
#include <mpi.h>
#include <partita.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    int rank, size, errors = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    int64_t total = 10 * (int64_t)size, first = 0, count = 0;
    errors += partita_define_units(total, 10 * rank, 11 + 10 * (size - rank)) == MPI_SUCCESS;
    errors += partita_define_units(-1, 0, 0) == MPI_SUCCESS;
    errors += partita_define_units(total, 10 * rank, 10) != MPI_SUCCESS;
    errors += partita_report_units(10, 0.25) != MPI_SUCCESS;
    errors += partita_report_units(10, -0.25) == MPI_SUCCESS;
    errors += PARTITA_CALL(partita_safe_point, ()) != MPI_SUCCESS;
    errors += partita_not_before(0.5) != MPI_SUCCESS;
    double speed = 0;
    errors += partita_host_speed(&speed) != MPI_SUCCESS || speed != 1.0;
    errors += partita_share(MPI_COMM_WORLD, &first, &count) != MPI_SUCCESS;
    int64_t mine[2] = {first, count}, all[2 * 64];
    MPI_Gather(mine, 2, MPI_INT64_T, all, 2, MPI_INT64_T, 0, MPI_COMM_WORLD);
    if (rank == 0) {
        printf("units:");
        for (int i = 0; i < size; i++)
            printf(" %d+%d", (int)all[2 * i], (int)all[2 * i + 1]);
        printf("\n");
    }
    MPI_Finalize();
    return errors;
}
