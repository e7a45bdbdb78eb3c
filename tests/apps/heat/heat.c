/* 2-D heat equation on an N x N grid: explicit Euler, blocks on a 2-D process grid, halo exchange with
 * Irecv/Isend/Waitall, residual by Allreduce.
 *
 * What it proves in a partition: the commonest pattern of a simulation (neighbour exchange overlapped with
 * computation, now and then a reduction) gives the bits of a native run, wherever the ranks are.
 *
 * Every cell is computed by the same operations in the same order however the grid is cut, so the field, its
 * checksum, the residual (a maximum) and the rank-ordered energy with the same number of ranks do not depend on
 * timing, placement or the reduction algorithm. Only the last value, `allreduce`, depends on the order in which
 * MPI_Allreduce adds. No libm function is used: glibc chooses
 * their implementation, and with it their last bit, by the processor.
 *
 * With --rest FROM,TO,MS every rank sleeps at the end of these steps: a program that falls idle for a while.
 * With --shift N the list of --work moves on by one rank every N steps: a load that shifts, the same wherever the ranks are.
 * With --balance K the ranks have whole rows, which they share out anew every K steps as the coordinator says (balance.c).
 */
#include "heat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RANKS_MAX = 4096, SIZE_MAX_CELLS = 1 << 15 };

static const char *const usage =
    "usage: heat [--size N] [--steps S] [--seed X] [--work W0,W1,...] [--shift N] [--every K] [--progress] [--rest FROM,TO,MS] [--balance K]";

enum { UP, DOWN, LEFT, RIGHT, SIDES };

void fail(const char *what)
{
    fprintf(stderr, "heat: %s\n", what);
    MPI_Abort(MPI_COMM_WORLD, 2);
    exit(2);
}

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static long number(const char *text, long low, long high)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text || *end != 0 || value < low || value > high)
        fail(usage);
    return value;
}

/* Entry `rank` of a comma-separated list; 0 where the list is shorter. */
int work_of(const char *list, int rank)
{
    for (int i = 0; *list; i++) {
        char *end;
        long value = strtol(list, &end, 10);
        if (end == list || value < 0 || value > 1000000 || (*end != 0 && *end != ','))
            fail("--work wants a list of whole numbers, for example 0,0,3,1");
        if (i == rank)
            return (int)value;
        list = *end ? end + 1 : end;
    }
    return 0;
}

static struct options parse(int argc, char **argv, int rank)
{
    struct options o = {.size = 256, .steps = 200, .every = 10, .seed = 1, .work_list = ""};
    int progress = 0;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--progress")) {
            progress = 1;
            continue;
        }
        if (!strcmp(argv[i], "--size"))
            o.size = (int)number(value, 1, SIZE_MAX_CELLS);
        else if (!strcmp(argv[i], "--steps"))
            o.steps = (int)number(value, 0, 1000000000);
        else if (!strcmp(argv[i], "--every"))
            o.every = (int)number(value, 1, 1000000000);
        else if (!strcmp(argv[i], "--seed"))
            o.seed = (uint64_t)number(value, 0, 1000000000);
        else if (!strcmp(argv[i], "--work")) {
            o.work = work_of(value, rank);
            o.work_list = value;
        } else if (!strcmp(argv[i], "--rest")) {
            if (sscanf(value, "%d,%d,%d", &o.rest_from, &o.rest_to, &o.rest_ms) != 3 || o.rest_ms < 0)
                fail("--rest wants two steps and milliseconds, for example 100,200,50");
        } else if (!strcmp(argv[i], "--shift"))
            o.shift = (int)number(value, 1, 1000000000);
        else if (!strcmp(argv[i], "--balance"))
            o.balance = (int)number(value, 1, 1000000000);
        else
            fail(usage);
        i++;
    }
    if (o.shift && o.balance)
        fail("--shift and --balance exclude each other: rows keep their work");
    /* About 20 progress lines, at steps with a residual. */
    if (progress)
        o.progress_every = o.every * (1 + o.steps / o.every / 20);
    return o;
}

double *cells(size_t n)
{
    double *p = calloc(n ? n : 1, sizeof *p);
    if (!p)
        fail("out of memory");
    return p;
}

static void cut(struct grid *g, const struct options *o)
{
    int size = o->size;
    MPI_Comm_rank(g->comm, &g->rank);
    MPI_Comm_size(g->comm, &g->ranks);
    /* The most square process grid: rows is the largest divisor not above the square root. */
    for (int r = 1; r * r <= g->ranks; r++)
        if (g->ranks % r == 0)
            g->rows = o->balance ? g->ranks : r;
    g->columns = g->ranks / g->rows;
    if (g->columns > size || g->rows > size)
        fail("--size is too small for this many ranks");
    int row = g->rank / g->columns, column = g->rank % g->columns;
    g->row0 = (int)((int64_t)size * row / g->rows);
    g->row1 = (int)((int64_t)size * (row + 1) / g->rows);
    g->column0 = (int)((int64_t)size * column / g->columns);
    g->column1 = (int)((int64_t)size * (column + 1) / g->columns);
    g->height = g->row1 - g->row0;
    g->width = g->column1 - g->column0;
    g->stride = g->width + 2;
    g->neighbour[UP] = row > 0 ? g->rank - g->columns : MPI_PROC_NULL;
    g->neighbour[DOWN] = row + 1 < g->rows ? g->rank + g->columns : MPI_PROC_NULL;
    g->neighbour[LEFT] = column > 0 ? g->rank - 1 : MPI_PROC_NULL;
    g->neighbour[RIGHT] = column + 1 < g->columns ? g->rank + 1 : MPI_PROC_NULL;
    allocate(g);
}

void allocate(struct grid *g)
{
    size_t n = (size_t)(g->height + 2) * (size_t)g->stride;
    g->now = cells(n);
    g->next = cells(n);
    g->scratch = cells(n);
    for (int side = 0; side < 2; side++) {
        g->column_out[side] = cells((size_t)g->height);
        g->column_in[side] = cells((size_t)g->height);
    }
}

/* Noise in [0, 1) everywhere, and one cell in 512 a thousand times hotter. */
static void fill(struct grid *g, int size, uint64_t seed)
{
    for (int i = 0; i < g->height; i++)
        for (int j = 0; j < g->width; j++) {
            uint64_t index = (uint64_t)(g->row0 + i) * (uint64_t)size + (uint64_t)(g->column0 + j);
            uint64_t r = mix(mix(seed) ^ index);
            double value = (double)(r >> 11) * 0x1p-53;
            g->now[(size_t)(i + 1) * (size_t)g->stride + (size_t)(j + 1)] = r % 512 ? value : 1000 * value;
        }
}

static void start_halo(struct grid *g, MPI_Request request[2 * SIDES])
{
    double *u = g->now;
    size_t stride = (size_t)g->stride, last = (size_t)g->height * stride;
    for (int i = 0; i < g->height; i++) {
        g->column_out[0][i] = u[(size_t)(i + 1) * stride + 1];
        g->column_out[1][i] = u[(size_t)(i + 1) * stride + (size_t)g->width];
    }
    double *in[SIDES] = {u + 1, u + last + stride + 1, g->column_in[0], g->column_in[1]};
    double *out[SIDES] = {u + stride + 1, u + last + 1, g->column_out[0], g->column_out[1]};
    for (int side = 0; side < SIDES; side++) {
        int count = side < LEFT ? g->width : g->height;
        /* A message carries the side it leaves from; it arrives at the opposite one (UP <-> DOWN, LEFT <-> RIGHT). */
        MPI_Irecv(in[side], count, MPI_DOUBLE, g->neighbour[side], side ^ 1, g->comm, &request[side]);
        MPI_Isend(out[side], count, MPI_DOUBLE, g->neighbour[side], side, g->comm, &request[SIDES + side]);
    }
}

static void finish_halo(struct grid *g, MPI_Request request[2 * SIDES])
{
    MPI_Waitall(2 * SIDES, request, MPI_STATUSES_IGNORE);
    for (int side = 0; side < 2; side++) {
        if (g->neighbour[LEFT + side] == MPI_PROC_NULL)
            continue;
        size_t column = side ? (size_t)g->width + 1 : 0;
        for (int i = 0; i < g->height; i++)
            g->now[(size_t)(i + 1) * (size_t)g->stride + column] = g->column_in[side][i];
    }
}

/* Rows [i0, i1), columns [j0, j1) of `out`, local numbers from 1. */
void sweep(const struct grid *g, double *out, int i0, int i1, int j0, int j1)
{
    size_t stride = (size_t)g->stride;
    for (int i = i0; i < i1; i++) {
        const double *u = g->now + (size_t)i * stride;
        double *v = out + (size_t)i * stride;
        for (int j = j0; j < j1; j++) {
            const double *c = u + j;
            v[j] = c[0] + 0.2 * (((c[-(ptrdiff_t)stride] + c[stride]) + (c[-1] + c[1])) - 4.0 * c[0]);
        }
    }
}

/* Extra work that changes nothing: sweeps into an array that nobody reads but this sink. */
volatile double sink;

static void burn(struct grid *g, int times)
{
    for (int k = 0; k < times; k++) {
        sweep(g, g->scratch, 1, g->height + 1, 1, g->width + 1);
        sink = g->scratch[(size_t)g->stride + 1];
    }
}

static void step(struct grid *g, struct balance *b, int work)
{
    MPI_Request request[2 * SIDES];
    int h = g->height, w = g->width;
    start_halo(g, request);
    double start = MPI_Wtime();
    sweep(g, g->next, 2, h, 2, w);
    double inner = MPI_Wtime() - start;
    finish_halo(g, request);
    start = MPI_Wtime();
    /* cut() sees to it that every rank has at least one row and one column. */
    sweep(g, g->next, 1, 2, 1, w + 1);
    if (h > 1)
        sweep(g, g->next, h, h + 1, 1, w + 1);
    sweep(g, g->next, 2, h, 1, 2);
    if (w > 1)
        sweep(g, g->next, 2, h, w, w + 1);
    if (b)
        balance_burn(b, g);
    else
        burn(g, work);
    if (b)
        balance_report(b, g, inner + MPI_Wtime() - start);
    double *old = g->now;
    g->now = g->next;
    g->next = old;
}

static void rest(int ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    nanosleep(&time, NULL);
}

/* Largest change in the last step, over all ranks: a maximum, so the order of the reduction does not matter. */
static double residual(const struct grid *g)
{
    double mine = 0, all = 0;
    for (int i = 1; i <= g->height; i++)
        for (int j = 1; j <= g->width; j++) {
            size_t at = (size_t)i * (size_t)g->stride + (size_t)j;
            double change = g->now[at] - g->next[at];
            change = change < 0 ? -change : change;
            mine = change > mine ? change : mine;
        }
    MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_MAX, g->comm);
    return all;
}

struct share {
    uint64_t checksum;
    double energy;
};

/* The checksum is a sum of hashes of (cell number, bits) modulo 2^64: the same for any cut of the grid. The
 * energy is added in rank order on rank 0. */
static void report(const struct grid *g, const struct options *o, double residual_last)
{
    struct share mine = {0, 0}, *all = NULL;
    for (int i = 0; i < g->height; i++)
        for (int j = 0; j < g->width; j++) {
            double value = g->now[(size_t)(i + 1) * (size_t)g->stride + (size_t)(j + 1)];
            uint64_t bits;
            memcpy(&bits, &value, sizeof bits);
            uint64_t index = (uint64_t)(g->row0 + i) * (uint64_t)o->size + (uint64_t)(g->column0 + j);
            mine.checksum += mix(mix(index) ^ bits);
            mine.energy += value * value;
        }
    if (o->balance) {
        balance_print(g, o, mine.checksum, residual_last);
        return;
    }
    double allreduce;
    MPI_Allreduce(&mine.energy, &allreduce, 1, MPI_DOUBLE, MPI_SUM, g->comm);
    if (g->rank == 0) {
        all = malloc((size_t)g->ranks * sizeof *all);
        if (!all)
            fail("out of memory");
    }
    MPI_Gather(&mine, (int)sizeof mine, MPI_BYTE, all, (int)sizeof mine, MPI_BYTE, 0, g->comm);
    if (g->rank == 0) {
        struct share sum = {0, 0};
        for (int r = 0; r < g->ranks; r++) {
            sum.checksum += all[r].checksum;
            sum.energy += all[r].energy;
        }
        printf("heat: size %d steps %d seed %llu ranks %d residual %.17g checksum 0x%016llx energy %.17g allreduce %.17g\n",
               o->size, o->steps, (unsigned long long)o->seed, g->ranks, residual_last,
               (unsigned long long)sum.checksum, sum.energy, allreduce);
        fflush(stdout);
        free(all);
    }
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    struct grid g = {.comm = MPI_COMM_WORLD};
    MPI_Comm_rank(g.comm, &g.rank);
    struct options o = parse(argc, argv, g.rank);
    cut(&g, &o);
    struct balance *b = o.balance ? balance_begin(&g, &o) : NULL;
    fill(&g, o.size, o.seed);
    MPI_Barrier(g.comm);
    double start = MPI_Wtime(), last = 0;
    for (int s = 1; s <= o.steps; s++) {
        if (o.shift)
            o.work = work_of(o.work_list, (g.rank + (s - 1) / o.shift) % g.ranks);
        step(&g, b, o.work);
        if (s > o.rest_from && s <= o.rest_to)
            rest(o.rest_ms);
        if (s % o.every == 0 || s == o.steps)
            last = residual(&g);
        if (b && s % o.balance == 0 && s != o.steps)
            balance_shift(b, &g, &o);
        if (s % o.every && s != o.steps)
            continue;
        if (g.rank == 0 && o.progress_every && (s % o.progress_every == 0 || s == o.steps)) {
            printf("heat: step %d/%d residual %.6e\n", s, o.steps, last);
            fflush(stdout);
        }
    }
    double seconds = MPI_Wtime() - start;
    report(&g, &o, last);
    if (g.rank == 0)
        fprintf(stderr, "heat: %.3f s\n", seconds);
    MPI_Finalize();
    return 0;
}
