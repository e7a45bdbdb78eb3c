/* Linked to an MPI program with -Wl,--wrap=MPI_Waitall: rank 1 observes how regularly its exchanges with its neighbours
 * end (observe.h). The program itself is unchanged. */
#include <mpi.h>

#include "observe.h"

int __real_MPI_Waitall(int count, MPI_Request requests[], MPI_Status statuses[]);
int __wrap_MPI_Waitall(int count, MPI_Request requests[], MPI_Status statuses[]);

int __wrap_MPI_Waitall(int count, MPI_Request requests[], MPI_Status statuses[])
{
    static int rank = -1;
    int result = __real_MPI_Waitall(count, requests, statuses);
    if (rank < 0)
        MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == 1)
        observe(0);
    return result;
}
