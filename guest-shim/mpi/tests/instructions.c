/* Calls whose instructions are counted by instructions.py. Rank 1 runs under callgrind; rank 0 is its partner and brings everything to
 * where rank 1 does not have to wait, so that the count is that of the work and the same in every run. What happens when is agreed
 * on in a file that both map, not by messages.
 *
 * usage: instructions FILE       (of 4 KiB of zeros) */
#include <fcntl.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CALLS = 200, COLLECTIVES = 50, BLOCKS = 64 };

static volatile int *steps; /* steps[rank]: how far that rank is */
static int rank;

/* Goes on when the other rank has come as far. */
static void meet(void)
{
    int step = steps[rank] + 1;
    __atomic_store_n(&steps[rank], step, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&steps[1 - rank], __ATOMIC_SEQ_CST) < step)
        usleep(200);
}

#define MEASURED __attribute__((noinline)) static void

static double data[2 * BLOCKS], result[2 * BLOCKS];

MEASURED measure_send(void)
{
    for (int i = 0; i < CALLS; i++)
        MPI_Send(data, 1, MPI_DOUBLE, 0, 1, MPI_COMM_WORLD);
}

MEASURED measure_recv(void)
{
    for (int i = 0; i < CALLS; i++)
        MPI_Recv(data, 1, MPI_DOUBLE, 0, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

MEASURED measure_isend_wait(void)
{
    for (int i = 0; i < CALLS; i++) {
        MPI_Request request;
        MPI_Isend(data, 1, MPI_DOUBLE, 0, 1, MPI_COMM_WORLD, &request);
        MPI_Wait(&request, MPI_STATUS_IGNORE);
    }
}

static MPI_Request request;

MEASURED measure_irecv(void)
{
    MPI_Irecv(data, 1, MPI_DOUBLE, 0, 1, MPI_COMM_WORLD, &request);
}

MEASURED measure_wait(void)
{
    MPI_Wait(&request, MPI_STATUS_IGNORE);
}

MEASURED measure_iprobe_nothing(void)
{
    int flag;
    for (int i = 0; i < CALLS; i++)
        MPI_Iprobe(0, 1, MPI_COMM_WORLD, &flag, MPI_STATUS_IGNORE);
}

MEASURED measure_iprobe_found(void)
{
    int flag;
    for (int i = 0; i < CALLS; i++)
        MPI_Iprobe(0, 1, MPI_COMM_WORLD, &flag, MPI_STATUS_IGNORE);
}

MEASURED measure_allreduce(void)
{
    MPI_Allreduce(data, result, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
}

MEASURED measure_barrier(void)
{
    MPI_Barrier(MPI_COMM_WORLD);
}

MEASURED measure_pack(MPI_Datatype vector)
{
    for (int i = 0; i < CALLS; i++) {
        int at = 0;
        MPI_Pack(data, 1, vector, result, sizeof result, &at, MPI_COMM_WORLD);
    }
}

/* Rank 0: sends what rank 1 will receive, takes what it has sent. */
static void give(int number)
{
    for (int i = 0; i < number; i++)
        MPI_Send(data, 1, MPI_DOUBLE, 1, 1, MPI_COMM_WORLD);
}

static void take(int number)
{
    for (int i = 0; i < number; i++)
        MPI_Recv(data, 1, MPI_DOUBLE, 1, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

#define WITH(partner_before, measured, partner_after) \
    do { \
        if (rank == 0) { partner_before; } \
        meet(); \
        if (rank == 1) { measured; } \
        meet(); \
        if (rank == 0) { partner_after; } \
        meet(); \
    } while (0)

/* A collective in which rank 0 has been for a while when rank 1 comes. */
#define LAST(measured) \
    for (int i = 0; i < COLLECTIVES; i++) { \
        meet(); \
        if (rank == 1) \
            usleep(10000); \
        measured; \
    }

int main(int argc, char **argv)
{
    int file = argc == 2 ? open(argv[1], O_RDWR) : -1;
    steps = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (steps == MAP_FAILED) {
        perror("instructions: FILE");
        return 2;
    }
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    /* Once before it counts: tables grow, pages are touched. */
    for (int round = 0; round < 2; round++) {
        if (rank == 0)
            give(CALLS), take(CALLS);
        else
            take(0), measure_recv(), measure_send();
        MPI_Barrier(MPI_COMM_WORLD);
    }
    WITH(, measure_send(), take(CALLS));
    WITH(give(CALLS), measure_recv(), );
    WITH(, measure_isend_wait(), take(CALLS));
    for (int i = 0; i < CALLS; i++) {
        WITH(, measure_irecv(), );
        WITH(give(1), measure_wait(), );
    }
    WITH(, measure_iprobe_nothing(), );
    WITH(give(1), measure_iprobe_found(), );
    if (rank == 1)
        MPI_Recv(data, 1, MPI_DOUBLE, 0, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    LAST(measure_allreduce());
    LAST(measure_barrier());
    MPI_Datatype vector;
    MPI_Type_vector(BLOCKS, 1, 2, MPI_DOUBLE, &vector);
    MPI_Type_commit(&vector);
    if (rank == 1)
        measure_pack(vector);
    MPI_Type_free(&vector);
    MPI_Finalize();
    return 0;
}
