/*
 * mpi.h for building the Rust crate "mpi" (rsmpi): the real header and, after it, what only the crate's bindings mention.
 */
#ifndef PARTITA_RSMPI_MPI_H
#define PARTITA_RSMPI_MPI_H
#define PARTITA_RSMPI 1
#include "../mpi.h"
#endif
