/* Application-level balancing of heat: the units of work are the rows of the grid (partita.h).
 *
 * Every rank has a strip of rows, says what a step of them costs, and takes up the rows that the coordinator gives it. A row keeps
 * its extra work (--work, by the rank that has it first) when it changes hands, so that the imbalance is in the data. Nothing that
 * is printed depends on who has which rows: energies are added row by row, in the order of the rows.
 *
 * Under another MPI library nobody shares anything out, and the rows stay where they are.
 */
#include "heat.h"

#include <partita.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct balance {
    int *weight; /* extra sweeps of every row of the grid */
    int shifts;
};

static void define(const struct grid *g, const struct options *o)
{
    (void)PARTITA_CALL(partita_define_units, (o->size, g->row0, g->height));
}

struct balance *balance_begin(struct grid *g, const struct options *o)
{
    struct balance *b = malloc(sizeof *b);
    int *weight = malloc((size_t)o->size * sizeof *weight);
    if (!b || !weight)
        fail("out of memory");
    for (int r = 0; r < g->ranks; r++) {
        int work = work_of(o->work_list, r);
        int end = (int)((int64_t)o->size * (r + 1) / g->ranks);
        for (int row = (int)((int64_t)o->size * r / g->ranks); row < end; row++)
            weight[row] = work;
    }
    *b = (struct balance){weight, 0};
    define(g, o);
    return b;
}

void balance_burn(struct balance *b, struct grid *g)
{
    for (int i = 0; i < g->height; i++)
        for (int k = 0; k < b->weight[g->row0 + i]; k++) {
            sweep(g, g->scratch, i + 1, i + 2, 1, g->width + 1);
            sink = g->scratch[(size_t)(i + 1) * (size_t)g->stride + 1];
        }
}

void balance_report(struct balance *b, const struct grid *g, double seconds)
{
    (void)b;
    (void)PARTITA_CALL(partita_report_units, (g->height, seconds));
    if (partita_report_progress)
        partita_report_progress((unsigned long long)g->height);
}

static int overlap(int a0, int a1, int b0, int b1)
{
    int start = a0 > b0 ? a0 : b0, end = a1 < b1 ? a1 : b1;
    return end > start ? end - start : 0;
}

/* Sends every row to whom it belongs now: `old` and `new` are first row and number of rows of every rank. */
static void move_rows(struct grid *g, const int *old, const int *new)
{
    int r = g->ranks, me = g->rank;
    int *counts = malloc(4 * (size_t)r * sizeof *counts);
    double *from = cells((size_t)g->height * (size_t)g->width), *to = cells((size_t)new[2 * me + 1] * (size_t)g->width);
    if (!counts)
        fail("out of memory");
    for (int i = 0; i < g->height; i++)
        memcpy(from + (size_t)i * (size_t)g->width, g->now + (size_t)(i + 1) * (size_t)g->stride + 1, (size_t)g->width * sizeof *from);
    int *out = counts, *out_at = counts + r, *in = counts + 2 * r, *in_at = counts + 3 * r;
    for (int p = 0, sent = 0, got = 0; p < r; p++) {
        out[p] = g->width * overlap(old[2 * me], old[2 * me] + old[2 * me + 1], new[2 * p], new[2 * p] + new[2 * p + 1]);
        in[p] = g->width * overlap(new[2 * me], new[2 * me] + new[2 * me + 1], old[2 * p], old[2 * p] + old[2 * p + 1]);
        out_at[p] = sent;
        in_at[p] = got;
        sent += out[p];
        got += in[p];
    }
    MPI_Alltoallv(from, out, out_at, MPI_DOUBLE, to, in, in_at, MPI_DOUBLE, g->comm);
    double *arrays[] = {g->now, g->next, g->scratch, g->column_out[0], g->column_out[1], g->column_in[0], g->column_in[1]};
    for (size_t k = 0; k < sizeof arrays / sizeof *arrays; k++)
        free(arrays[k]);
    g->row0 = new[2 * me];
    g->height = new[2 * me + 1];
    g->row1 = g->row0 + g->height;
    allocate(g);
    for (int i = 0; i < g->height; i++)
        memcpy(g->now + (size_t)(i + 1) * (size_t)g->stride + 1, to + (size_t)i * (size_t)g->width, (size_t)g->width * sizeof *to);
    free(from);
    free(to);
    free(counts);
}

void balance_shift(struct balance *b, struct grid *g, const struct options *o)
{
    int64_t first = g->row0, count = g->height;
    (void)PARTITA_CALL(partita_safe_point, ());
    (void)PARTITA_CALL(partita_share, (g->comm, &first, &count));
    int mine[4] = {g->row0, g->height, (int)first, (int)count};
    int *all = malloc(8 * (size_t)g->ranks * sizeof *all);
    if (!all)
        fail("out of memory");
    int *old = all + 4 * g->ranks, *new = all + 6 * g->ranks, changed = 0;
    MPI_Allgather(mine, 4, MPI_INT, all, 4, MPI_INT, g->comm);
    for (int p = 0; p < g->ranks; p++) {
        memcpy(old + 2 * p, all + 4 * p, 2 * sizeof *old);
        memcpy(new + 2 * p, all + 4 * p + 2, 2 * sizeof *new);
        changed |= old[2 * p + 1] != new[2 * p + 1];
        if (new[2 * p + 1] < 1)
            fail("a rank was given no rows");
    }
    if (changed) {
        move_rows(g, old, new);
        define(g, o);
        b->shifts++;
        if (g->rank == 0) {
            fprintf(stderr, "heat: rows shared out anew:");
            for (int p = 0; p < g->ranks; p++)
                fprintf(stderr, " %d", new[2 * p + 1]);
            fprintf(stderr, "\n");
        }
    }
    free(all);
}

void balance_print(const struct grid *g, const struct options *o, uint64_t checksum, double residual_last)
{
    double *rows = cells((size_t)g->height), *all = cells((size_t)o->size);
    int *counts = malloc(2 * (size_t)g->ranks * sizeof *counts), *at = counts + g->ranks;
    if (!counts)
        fail("out of memory");
    for (int i = 0; i < g->height; i++)
        for (int j = 0; j < g->width; j++) {
            double value = g->now[(size_t)(i + 1) * (size_t)g->stride + (size_t)(j + 1)];
            rows[i] += value * value;
        }
    MPI_Gather(&g->height, 1, MPI_INT, counts, 1, MPI_INT, 0, g->comm);
    for (int p = 0, before = 0; p < g->ranks; p++) {
        at[p] = before;
        before += g->rank == 0 ? counts[p] : 0;
    }
    MPI_Gatherv(rows, g->height, MPI_DOUBLE, all, counts, at, MPI_DOUBLE, 0, g->comm);
    uint64_t sum = 0;
    MPI_Reduce(&checksum, &sum, 1, MPI_UINT64_T, MPI_SUM, 0, g->comm);
    if (g->rank == 0) {
        double energy = 0;
        for (int i = 0; i < o->size; i++)
            energy += all[i];
        printf("heat: size %d steps %d seed %llu residual %.17g checksum 0x%016llx energy %.17g balanced\n", o->size,
               o->steps, (unsigned long long)o->seed, residual_last, (unsigned long long)sum, energy);
        fflush(stdout);
    }
    free(rows);
    free(all);
    free(counts);
}
