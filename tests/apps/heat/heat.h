/* What heat.c and balance.c share. */
#ifndef HEAT_H
#define HEAT_H

#include <mpi.h>
#include <stddef.h>
#include <stdint.h>

struct options {
    int size, steps, every, progress_every;
    uint64_t seed;
    int work; /* extra sweeps per step of this rank */
    const char *work_list;
    int shift; /* steps after which the list moves on by one rank, 0: never */
    int rest_from, rest_to, rest_ms; /* steps at whose end every rank sleeps, and for how long */
    int balance; /* steps between two sharings-out, 0: never */
};

struct grid {
    MPI_Comm comm;
    int rank, ranks;
    int rows, columns;             /* process grid */
    int row0, row1, column0, column1; /* cells of this rank: [row0, row1) x [column0, column1) */
    int height, width, stride;     /* local cells, and cells from one local row to the next (with halo) */
    int neighbour[4];              /* rank or MPI_PROC_NULL */
    double *now, *next, *scratch;
    double *column_out[2], *column_in[2];
};

void fail(const char *what);
double *cells(size_t n);
/* Makes the arrays of a grid whose height, width and stride are set, full of zeros. */
void allocate(struct grid *g);
/* Entry `rank` of a comma-separated list; 0 where the list is shorter. */
int work_of(const char *list, int rank);
/* Rows [i0, i1), columns [j0, j1) of `out`, local numbers from 1. */
void sweep(const struct grid *g, double *out, int i0, int i1, int j0, int j1);
extern volatile double sink;

/* Balancing inside the application: rows change hands as the coordinator says. */
struct balance;
struct balance *balance_begin(struct grid *g, const struct options *o);
void balance_burn(struct balance *b, struct grid *g);
void balance_report(struct balance *b, const struct grid *g, double seconds);
void balance_shift(struct balance *b, struct grid *g, const struct options *o);
void balance_print(const struct grid *g, const struct options *o, uint64_t checksum, double residual_last);

#endif
