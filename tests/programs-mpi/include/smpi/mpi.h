/* What simgrid's copies of NPB expect of simgrid's simulated MPI, in terms of a real one. */
#include <mpi.h>
#include <stdlib.h>
#define SMPI_SHARED_MALLOC(bytes) malloc(bytes)
#define SMPI_SHARED_FREE(memory) free(memory)
/* The simulator would run a share of the iterations and guess the rest. */
#define SMPI_SAMPLE_GLOBAL(start, condition, step, iterations, deviation) for (start; condition; step)
