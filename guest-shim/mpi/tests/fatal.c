/* Errors that must end all ranks with one line: fatal truncate|abort|rank */
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    int rank, data[100] = {0};
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (!strcmp(argv[1], "truncate")) {
        if (rank == 0) MPI_Send(data, 100, MPI_INT, 1, 0, MPI_COMM_WORLD);
        if (rank == 1) MPI_Recv(data, 10, MPI_INT, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    } else if (!strcmp(argv[1], "abort")) {
        if (rank == 1) MPI_Abort(MPI_COMM_WORLD, 42);
    } else if (rank == 0) {
        MPI_Send(data, 1, MPI_INT, 77, 0, MPI_COMM_WORLD);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Finalize();
    return 0;
}
