/* Collectives against results computed by every rank for itself. Prints floating-point sums bit by bit, to be compared
   with another MPI. */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int rank, size;
static MPI_Comm comm;

#define CHECK(condition)                                                                                              \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "collectives: rank %d of %d: %s:%d: %s\n", rank, size, __FILE__, __LINE__, #condition);  \
            MPI_Abort(MPI_COMM_WORLD, 1);                                                                             \
        }                                                                                                             \
    } while (0)

static int value(int who, int i) { return (who + 1) * 1000003 + i * 7919; }

static int *numbers(int count, int who) {
    int *array = malloc(sizeof(int) * (size_t)(count + 1));
    for (int i = 0; i < count; i++) array[i] = value(who, i);
    return array;
}

static void move(int count) {
    for (int root = 0; root < size; root++) {
        int *data = numbers(count, rank == root ? root : 99);
        MPI_Bcast(data, count, MPI_INT, root, comm);
        for (int i = 0; i < count; i++) CHECK(data[i] == value(root, i));
        free(data);

        int *mine = numbers(count, rank), *all = malloc(sizeof(int) * (size_t)(count * size + 1));
        MPI_Gather(mine, count, MPI_INT, all, count, MPI_INT, root, comm);
        if (rank == root)
            for (int p = 0; p < size; p++)
                for (int i = 0; i < count; i++) CHECK(all[p * count + i] == value(p, i));
        memset(mine, 0, sizeof(int) * (size_t)count);
        MPI_Scatter(all, count, MPI_INT, mine, count, MPI_INT, root, comm);
        for (int i = 0; i < count; i++) CHECK(mine[i] == value(rank, i));
        free(mine);
        free(all);
    }
    int *mine = numbers(count, rank), *all = calloc((size_t)(count * size + 1), sizeof(int));
    MPI_Allgather(mine, count, MPI_INT, all, count, MPI_INT, comm);
    for (int p = 0; p < size; p++)
        for (int i = 0; i < count; i++) CHECK(all[p * count + i] == value(p, i));
    memset(all, 0, sizeof(int) * (size_t)(count * size));
    memcpy(all + rank * count, mine, sizeof(int) * (size_t)count);
    MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, all, count, MPI_INT, comm);
    for (int p = 0; p < size; p++)
        for (int i = 0; i < count; i++) CHECK(all[p * count + i] == value(p, i));
    int *to = malloc(sizeof(int) * (size_t)(count * size + 1));
    for (int p = 0; p < size; p++)
        for (int i = 0; i < count; i++) to[p * count + i] = value(rank * 17 + p, i);
    MPI_Alltoall(to, count, MPI_INT, all, count, MPI_INT, comm);
    for (int p = 0; p < size; p++)
        for (int i = 0; i < count; i++) CHECK(all[p * count + i] == value(p * 17 + rank, i));
    MPI_Alltoall(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, to, count, MPI_INT, comm);
    for (int i = 0; i < count * size; i++) CHECK(to[i] == all[i]);
    free(to);
    free(all);
    free(mine);
}

static void vary(int base) {
    int *counts = calloc((size_t)size, sizeof(int)), *at = calloc((size_t)size, sizeof(int));
    int total = 0;
    for (int p = 0; p < size; p++) {
        counts[p] = base * p + (p % 2);
        at[p] = total + 3;
        total += counts[p] + 3;
    }
    int *mine = numbers(counts[rank], rank), *all = calloc((size_t)(total + 1), sizeof(int));
    MPI_Allgatherv(mine, counts[rank], MPI_INT, all, counts, at, MPI_INT, comm);
    for (int p = 0; p < size; p++)
        for (int i = 0; i < counts[p]; i++) CHECK(all[at[p] + i] == value(p, i));
    memset(mine, 0, sizeof(int) * (size_t)counts[rank]);
    MPI_Scatterv(all, counts, at, MPI_INT, mine, counts[rank], MPI_INT, size - 1, comm);
    for (int i = 0; i < counts[rank]; i++) CHECK(mine[i] == value(rank, i));
    memset(all, 0, sizeof(int) * (size_t)total);
    MPI_Gatherv(mine, counts[rank], MPI_INT, all, counts, at, MPI_INT, 0, comm);
    if (rank == 0)
        for (int p = 0; p < size; p++)
            for (int i = 0; i < counts[p]; i++) CHECK(all[at[p] + i] == value(p, i));

    int *sc = calloc((size_t)size, sizeof(int)), *sd = calloc((size_t)size, sizeof(int));
    int *rc = calloc((size_t)size, sizeof(int)), *rd = calloc((size_t)size, sizeof(int));
    int ns = 0, nr = 0;
    for (int p = 0; p < size; p++) {
        sc[p] = (rank + 2 * p) * base % 501;
        rc[p] = (p + 2 * rank) * base % 501;
        sd[p] = ns;
        rd[p] = nr;
        ns += sc[p];
        nr += rc[p];
    }
    int *out = malloc(sizeof(int) * (size_t)(ns + 1)), *in = malloc(sizeof(int) * (size_t)(nr + 1));
    for (int p = 0; p < size; p++)
        for (int i = 0; i < sc[p]; i++) out[sd[p] + i] = value(rank * 100 + p, i);
    MPI_Request request;
    MPI_Ialltoallv(out, sc, sd, MPI_INT, in, rc, rd, MPI_INT, comm, &request);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    for (int p = 0; p < size; p++)
        for (int i = 0; i < rc[p]; i++) CHECK(in[rd[p] + i] == value(p * 100 + rank, i));
    free(out), free(in), free(sc), free(sd), free(rc), free(rd), free(mine), free(all), free(counts), free(at);
}

#define INTEGERS(type, mpi)                                                                                           \
    static void reduce_##mpi(int count) {                                                                             \
        type *mine = malloc(sizeof(type) * (size_t)(count + 1)), *all = calloc((size_t)count + 1, sizeof(type));      \
        for (int i = 0; i < count; i++) mine[i] = (type)value(rank, i);                                               \
        MPI_Op ops[] = {MPI_SUM, MPI_PROD, MPI_MAX, MPI_MIN, MPI_BAND, MPI_BOR, MPI_BXOR, MPI_LAND, MPI_LOR, MPI_LXOR}; \
        for (int o = 0; o < 10; o++) {                                                                                \
            MPI_Allreduce(mine, all, count, MPI_##mpi, ops[o], comm);                                                 \
            for (int i = 0; i < count; i++) {                                                                         \
                type e = (type)value(0, i);                                                                           \
                    for (int p = 1; p < size; p++) {                                                                  \
                        type v = (type)value(p, i);                                                                   \
                        e = (type)(o == 0 ? e + v : o == 1 ? e * v : o == 2 ? (e > v ? e : v) : o == 3 ? (e < v ? e : v) \
                            : o == 4 ? (e & v) : o == 5 ? (e | v) : o == 6 ? (e ^ v) : o == 7 ? (e && v)              \
                            : o == 8 ? (e || v) : (!e != !v));                                                        \
                    }                                                                                                 \
                CHECK(all[i] == e);                                                                                   \
            }                                                                                                         \
        }                                                                                                             \
        free(mine), free(all);                                                                                        \
    }
INTEGERS(int8_t, INT8_T)
INTEGERS(uint8_t, UINT8_T)
INTEGERS(int16_t, INT16_T)
INTEGERS(uint16_t, UINT16_T)
INTEGERS(int32_t, INT32_T)
INTEGERS(uint32_t, UINT32_T)
INTEGERS(int64_t, INT64_T)
INTEGERS(uint64_t, UINT64_T)

static uint64_t bits_of(const void *data, size_t bytes) {
    uint64_t hash = 1469598103934665603u;
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ ((const unsigned char *)data)[i]) * 1099511628211u;
    return hash;
}

/* Sums whose last bits depend on the order. */
static void floats(int count) {
    double *mine = malloc(sizeof(double) * (size_t)(count * size + 1)), *all = calloc((size_t)(count * size + 1), sizeof(double));
    for (int i = 0; i < count * size; i++) mine[i] = 1.0 / (1 + rank * 7 + i % 1013) * (rank % 2 ? 1e8 : 1e-3);
    uint64_t hash[6] = {0};
    MPI_Allreduce(mine, all, count, MPI_DOUBLE, MPI_SUM, comm);
    hash[0] = bits_of(all, sizeof(double) * (size_t)count);
    for (int root = 0; root < size; root += size > 1 ? size - 1 : 1) {
        MPI_Reduce(mine, all, count, MPI_DOUBLE, MPI_SUM, root, comm);
        if (rank == root) hash[1] ^= bits_of(all, sizeof(double) * (size_t)count);
    }
    MPI_Scan(mine, all, count, MPI_DOUBLE, MPI_SUM, comm);
    hash[2] = bits_of(all, sizeof(double) * (size_t)count);
    memset(all, 0, sizeof(double) * (size_t)count);
    MPI_Exscan(mine, all, count, MPI_DOUBLE, MPI_SUM, comm);
    hash[3] = bits_of(all, rank ? sizeof(double) * (size_t)count : 0);
    MPI_Reduce_scatter_block(mine, all, count, MPI_DOUBLE, MPI_SUM, comm);
    hash[4] = bits_of(all, sizeof(double) * (size_t)count);
    MPI_Allreduce(MPI_IN_PLACE, mine, count, MPI_DOUBLE, MPI_PROD, comm);
    hash[5] = bits_of(mine, sizeof(double) * (size_t)count);
    uint64_t *table = malloc(sizeof hash * (size_t)size);
    MPI_Gather(hash, 6, MPI_UINT64_T, table, 6, MPI_UINT64_T, 0, comm);
    const char *names[] = {"allreduce", "reduce", "scan", "exscan", "reduce_scatter_block", "allreduce product in place"};
    if (rank == 0)
        for (int k = 0; k < 6; k++) {
            uint64_t h = 0;
            for (int p = 0; p < size; p++) h = h * 31 + table[p * 6 + k];
            printf("np %d count %d %s %016llx\n", size, count, names[k], (unsigned long long)h);
        }
    free(table), free(mine), free(all);
}

static void places(int count) {
    struct pair { double value; int index; } *mine = calloc((size_t)count, sizeof *mine), *all = calloc((size_t)count, sizeof *all);
    for (int i = 0; i < count; i++) mine[i].value = (rank * 5 + i) % 3, mine[i].index = rank;
    for (int o = 0; o < 2; o++) {
        MPI_Allreduce(mine, all, count, MPI_DOUBLE_INT, o ? MPI_MAXLOC : MPI_MINLOC, comm);
        for (int i = 0; i < count; i++) {
            int best = 0;
            for (int p = 1; p < size; p++) {
                int a = (best * 5 + i) % 3, b = (p * 5 + i) % 3;
                if (o ? b > a : b < a) best = p;
            }
            CHECK(all[i].index == best && all[i].value == (best * 5 + i) % 3);
        }
    }
    free(mine), free(all);
    long double x = rank + 0.5L, sum, most;
    MPI_Allreduce(&x, &sum, 1, MPI_LONG_DOUBLE, MPI_SUM, comm);
    MPI_Allreduce(&x, &most, 1, MPI_LONG_DOUBLE, MPI_MAX, comm);
    CHECK(sum == size * (size - 1) / 2 + 0.5L * size && most == size - 0.5L);
    double z[2] = {1, rank}, product[2];
    MPI_Allreduce(z, product, 1, MPI_C_DOUBLE_COMPLEX, MPI_PROD, comm);
    double re = 1, im = 0;
    for (int p = 0; p < size; p++) {
        double r = re - im * p;
        im = re * p + im, re = r;
    }
    CHECK(product[0] == re && product[1] == im);
}

/* Matrices of 2 x 2: associative, not commutative. */
static void multiply(void *a, void *b, int *count, MPI_Datatype *type) {
    (void)type;
    uint32_t(*x)[4] = a, (*y)[4] = b;
    for (int i = 0; i < *count; i++) {
        uint32_t z[4] = {x[i][0] * y[i][0] + x[i][1] * y[i][2], x[i][0] * y[i][1] + x[i][1] * y[i][3],
                         x[i][2] * y[i][0] + x[i][3] * y[i][2], x[i][2] * y[i][1] + x[i][3] * y[i][3]};
        memcpy(y[i], z, sizeof z);
    }
}

static void matrices(int count) {
    MPI_Datatype matrix;
    MPI_Op op;
    MPI_Type_contiguous(4, MPI_UINT32_T, &matrix);
    MPI_Type_commit(&matrix);
    MPI_Op_create(multiply, 0, &op);
    uint32_t(*mine)[4] = malloc(sizeof(*mine) * (size_t)count), (*all)[4] = malloc(sizeof(*all) * (size_t)count);
    uint32_t(*e)[4] = malloc(sizeof(*e) * (size_t)count), (*f)[4] = malloc(sizeof(*f) * (size_t)count);
    for (int p = 0; p < size; p++) {
        for (int i = 0; i < count; i++)
            for (int k = 0; k < 4; k++) f[i][k] = (uint32_t)value(p * 4 + k, i);
        if (p == rank) memcpy(mine, f, sizeof(*f) * (size_t)count);
        if (p) multiply(e, f, &count, &matrix);
        memcpy(e, f, sizeof(*f) * (size_t)count);
    }
    MPI_Allreduce(mine, all, count, matrix, op, comm);
    CHECK(!memcmp(all, e, sizeof(*e) * (size_t)count));
    for (int root = 0; root < size; root++) {
        memset(all, 0, sizeof(*all) * (size_t)count);
        MPI_Reduce(mine, all, count, matrix, op, root, comm);
        if (rank == root) CHECK(!memcmp(all, e, sizeof(*e) * (size_t)count));
    }
    MPI_Scan(mine, all, count, matrix, op, comm);
    if (rank == size - 1) CHECK(!memcmp(all, e, sizeof(*e) * (size_t)count));
    MPI_Op_free(&op);
    MPI_Type_free(&matrix);
    free(mine), free(all), free(e), free(f);
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    comm = MPI_COMM_WORLD;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    int counts[] = {0, 1, 7, 500, 700, 3000, 40000, 100000};
    for (int c = 0; c < 8; c++) {
        MPI_Barrier(comm);
        move(counts[c]);
        if (counts[c] <= 3000) {
            vary(counts[c]);
            reduce_INT8_T(counts[c]), reduce_INT16_T(counts[c]), reduce_INT32_T(counts[c]), reduce_INT64_T(counts[c]);
#if !defined(MPICH_VERSION) /* MPICH 4.0.2 compares MPI_UINT8_T and others as if they were signed. */
            reduce_UINT8_T(counts[c]), reduce_UINT16_T(counts[c]), reduce_UINT32_T(counts[c]), reduce_UINT64_T(counts[c]);
#endif
        }
        if (counts[c]) floats(counts[c]), places(counts[c]), matrices(counts[c] % 5000 + 1);
    }
    if (rank == 0) printf("collectives: ok\n");
    MPI_Finalize();
    return 0;
}
