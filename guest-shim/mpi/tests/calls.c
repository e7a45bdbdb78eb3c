/* One small check for every other function. Needs at least 2 ranks. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int rank, size;

#define CHECK(condition)                                                                                              \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "calls: rank %d of %d: line %d: %s\n", rank, size, __LINE__, #condition);                \
            MPI_Abort(MPI_COMM_WORLD, 1);                                                                             \
        }                                                                                                             \
    } while (0)

static void truncation(void) {
    MPI_Comm comm;
    MPI_Comm_dup(MPI_COMM_WORLD, &comm);
    MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    static char big[200000];
    int lengths[] = {10, 200000};
    for (int i = 0; i < 2; i++) {
        int bytes = lengths[i];
        if (rank == 0) MPI_Send(big, bytes, MPI_CHAR, 1, 5, comm);
        if (rank == 1) {
            int code, class;
            MPI_Status status;
            code = MPI_Recv(big, 4, MPI_CHAR, 0, 5, comm, &status);
            MPI_Error_class(code, &class);
            CHECK(class == MPI_ERR_TRUNCATE);
        }
    }
    int code = MPI_Send(big, -1, MPI_CHAR, 0, 5, comm), class;
    MPI_Error_class(code, &class);
    CHECK(class == MPI_ERR_COUNT);
    code = MPI_Send(big, 1, MPI_CHAR, size, 5, comm);
    MPI_Error_class(code, &class);
    CHECK(class == MPI_ERR_RANK);
    MPI_Comm_free(&comm);
    CHECK(comm == MPI_COMM_NULL);
}

static void split(void) {
    MPI_Comm half, same;
    MPI_Comm_split(MPI_COMM_WORLD, rank % 2, -rank, &half);
    int r, n, result;
    MPI_Comm_rank(half, &r);
    MPI_Comm_size(half, &n);
    CHECK(n == (size + 1 - rank % 2) / 2);
    int mine = rank, *all = malloc(sizeof(int) * (size_t)n);
    MPI_Allgather(&mine, 1, MPI_INT, all, 1, MPI_INT, half);
    for (int i = 1; i < n; i++) CHECK(all[i] == all[i - 1] - 2);
    CHECK(all[r] == rank);
    MPI_Comm_dup(half, &same);
    MPI_Comm_compare(half, same, &result);
    CHECK(result == MPI_CONGRUENT);
    MPI_Comm_compare(half, half, &result);
    CHECK(result == MPI_IDENT);
    /* The same tag and ranks in two communicators do not mix. */
    if (n > 1) {
        int a = 1, b = 2, x = 0, y = 0;
        MPI_Request requests[2];
        MPI_Irecv(&x, 1, MPI_INT, MPI_ANY_SOURCE, 0, same, &requests[0]);
        MPI_Irecv(&y, 1, MPI_INT, MPI_ANY_SOURCE, 0, half, &requests[1]);
        MPI_Send(&a, 1, MPI_INT, (r + 1) % n, 0, half);
        MPI_Send(&b, 1, MPI_INT, (r + 1) % n, 0, same);
        MPI_Waitall(2, requests, MPI_STATUSES_IGNORE);
        CHECK(x == 2 && y == 1);
    }
    MPI_Comm none;
    MPI_Comm_split(MPI_COMM_WORLD, rank ? MPI_UNDEFINED : 1, 0, &none);
    CHECK((none == MPI_COMM_NULL) == (rank != 0));
    if (none != MPI_COMM_NULL) MPI_Comm_free(&none);
    MPI_Comm_free(&half);
    MPI_Comm_free(&same);
    free(all);
}

static void groups(void) {
    MPI_Group world, first, rest;
    MPI_Comm_group(MPI_COMM_WORLD, &world);
    int zero = 0, result, r, n;
    MPI_Group_incl(world, 1, &zero, &first);
    MPI_Group_difference(world, first, &rest);
    MPI_Group_size(rest, &n);
    MPI_Group_rank(rest, &r);
    CHECK(n == size - 1 && r == (rank ? rank - 1 : MPI_UNDEFINED));
    int ranks[2] = {1, 0}, there[2];
    MPI_Group_translate_ranks(world, 2, ranks, rest, there);
    CHECK(there[0] == 0 && there[1] == MPI_UNDEFINED);
    MPI_Comm others;
    MPI_Comm_create(MPI_COMM_WORLD, rest, &others);
    CHECK((others == MPI_COMM_NULL) == (rank == 0));
    if (rank) {
        int sum, one = 1;
        MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, others);
        CHECK(sum == size - 1);
        MPI_Comm_free(&others);
        MPI_Comm_create_group(MPI_COMM_WORLD, rest, 3, &others);
        MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, others);
        CHECK(sum == size - 1);
        MPI_Comm_free(&others);
    }
    MPI_Group_compare(world, first, &result);
    CHECK(result == MPI_UNEQUAL);
    MPI_Group_free(&world), MPI_Group_free(&first), MPI_Group_free(&rest);
}

static void modes(void) {
    int right = (rank + 1) % size, left = (rank + size - 1) % size, out = rank, in = -1, flag;
    MPI_Request request, both[2];
    MPI_Status status;
    MPI_Issend(&out, 1, MPI_INT, right, 1, MPI_COMM_WORLD, &request);
    MPI_Recv(&in, 1, MPI_INT, left, 1, MPI_COMM_WORLD, &status);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    CHECK(in == left && status.MPI_SOURCE == left && status.MPI_TAG == 1);
    int room = 4096 + MPI_BSEND_OVERHEAD;
    void *buffer = malloc((size_t)room), *back;
    MPI_Buffer_attach(buffer, room);
    MPI_Bsend(&out, 1, MPI_INT, right, 2, MPI_COMM_WORLD);
    MPI_Recv(&in, 1, MPI_INT, left, 2, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Buffer_detach(&back, &room);
    CHECK(back == buffer && room == 4096 + MPI_BSEND_OVERHEAD);
    free(buffer);
    in = rank;
    MPI_Sendrecv_replace(&in, 1, MPI_INT, right, 3, left, 3, MPI_COMM_WORLD, &status);
    CHECK(in == left);
    MPI_Irecv(&in, 1, MPI_INT, left, 77, MPI_COMM_WORLD, &request);
    MPI_Cancel(&request);
    MPI_Wait(&request, &status);
    MPI_Test_cancelled(&status, &flag);
    CHECK(flag);
    MPI_Send_init(&out, 1, MPI_INT, right, 4, MPI_COMM_WORLD, &both[0]);
    MPI_Recv_init(&in, 1, MPI_INT, left, 4, MPI_COMM_WORLD, &both[1]);
    for (int i = 0; i < 5; i++) {
        out = i, in = -1;
        MPI_Startall(2, both);
        MPI_Waitall(2, both, MPI_STATUSES_IGNORE);
        CHECK(in == i && both[0] != MPI_REQUEST_NULL);
    }
    MPI_Request_free(&both[0]), MPI_Request_free(&both[1]);
    MPI_Recv(&in, 1, MPI_INT, MPI_PROC_NULL, 0, MPI_COMM_WORLD, &status);
    CHECK(status.MPI_SOURCE == MPI_PROC_NULL);
    int count;
    MPI_Get_count(&status, MPI_INT, &count);
    CHECK(count == 0);
    /* The empty status has an error of its own, that of a single receive is left alone. */
    status.MPI_ERROR = 77;
    MPI_Request_get_status(MPI_REQUEST_NULL, &flag, &status);
    CHECK(flag && status.MPI_SOURCE == MPI_ANY_SOURCE && status.MPI_TAG == MPI_ANY_TAG && status.MPI_ERROR == MPI_SUCCESS);
    status.MPI_ERROR = 77;
    MPI_Sendrecv(&out, 1, MPI_INT, rank, 9, &in, 1, MPI_INT, rank, 9, MPI_COMM_WORLD, &status);
    CHECK(status.MPI_SOURCE == rank && status.MPI_ERROR == 77);
    /* To oneself: long, longer than any ring. */
    int n = 300000, *a = malloc(sizeof(int) * (size_t)n), *b = calloc((size_t)n, sizeof(int));
    for (int i = 0; i < n; i++) a[i] = i;
    MPI_Isend(a, n, MPI_INT, 0, 9, MPI_COMM_SELF, &request);
    MPI_Probe(0, 9, MPI_COMM_SELF, &status);
    MPI_Get_count(&status, MPI_INT, &count);
    CHECK(count == n);
    MPI_Recv(b, n, MPI_INT, 0, 9, MPI_COMM_SELF, &status);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    CHECK(!memcmp(a, b, sizeof(int) * (size_t)n));
    /* Long messages in both directions at once, without a receive posted first. */
    MPI_Sendrecv(a, n, MPI_INT, right, 10, b, n, MPI_INT, left, 10, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    CHECK(!memcmp(a, b, sizeof(int) * (size_t)n));
    free(a), free(b);
}

static void several(void) {
    if (rank == 0) {
        int n = size - 1, *in = calloc((size_t)n, sizeof(int)), *where = calloc((size_t)n, sizeof(int)), index, done = 0, out;
        MPI_Request *requests = malloc(sizeof(MPI_Request) * (size_t)n);
        for (int i = 0; i < n; i++) MPI_Irecv(&in[i], 1, MPI_INT, i + 1, 6, MPI_COMM_WORLD, &requests[i]);
        MPI_Waitany(n, requests, &index, MPI_STATUS_IGNORE);
        CHECK(in[index] == index + 1 && requests[index] == MPI_REQUEST_NULL);
        done = 1;
        while (done < n) {
            MPI_Waitsome(n, requests, &out, where, MPI_STATUSES_IGNORE);
            for (int i = 0; i < out; i++) CHECK(in[where[i]] == where[i] + 1);
            done += out;
        }
        MPI_Waitany(n, requests, &index, MPI_STATUS_IGNORE);
        CHECK(index == MPI_UNDEFINED);
        free(in), free(where), free(requests);
    } else {
        MPI_Send(&rank, 1, MPI_INT, 0, 6, MPI_COMM_WORLD);
    }
}

static void types(void) {
    double matrix[10][10], column[10];
    for (int i = 0; i < 100; i++) matrix[i / 10][i % 10] = rank * 1000 + i;
    MPI_Datatype vector;
    MPI_Type_vector(10, 1, 10, MPI_DOUBLE, &vector);
    MPI_Type_commit(&vector);
    int right = (rank + 1) % size, left = (rank + size - 1) % size, bytes;
    MPI_Sendrecv(&matrix[0][3], 1, vector, right, 0, column, 10, MPI_DOUBLE, left, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    for (int i = 0; i < 10; i++) CHECK(column[i] == left * 1000 + i * 10 + 3);
    MPI_Sendrecv(column, 10, MPI_DOUBLE, right, 0, &matrix[0][7], 1, vector, left, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    CHECK(matrix[9][8] == rank * 1000 + 98 && matrix[4][7] == (left + size - 1) % size * 1000 + 43);
    MPI_Type_size(vector, &bytes);
    CHECK(bytes == 80);
    struct thing { char c; double d; int i[3]; } things[4], got[4];
    memset(got, 0, sizeof got);
    MPI_Datatype structure, parts[3] = {MPI_CHAR, MPI_DOUBLE, MPI_INT};
    int lengths[3] = {1, 1, 3};
    MPI_Aint base, at[3], lower, extent;
    MPI_Get_address(&things[0], &base);
    MPI_Get_address(&things[0].c, &at[0]), MPI_Get_address(&things[0].d, &at[1]), MPI_Get_address(&things[0].i, &at[2]);
    for (int i = 0; i < 3; i++) at[i] -= base;
    MPI_Type_create_struct(3, lengths, at, parts, &structure);
    MPI_Type_commit(&structure);
    MPI_Type_get_extent(structure, &lower, &extent);
    CHECK(extent == sizeof(struct thing) && lower == 0);
    for (int i = 0; i < 4; i++) things[i] = (struct thing){(char)('a' + i), rank + i * 0.5, {i, rank, 3}};
    MPI_Bcast(rank == 0 ? things : got, 4, structure, 0, MPI_COMM_WORLD);
    if (rank) CHECK(got[3].c == 'd' && got[3].d == 1.5 && got[2].i[0] == 2 && got[2].i[1] == 0);
    struct thing *all = calloc((size_t)(4 * size), sizeof *all);
    MPI_Allgather(things, 4, structure, all, 4, structure, MPI_COMM_WORLD);
    for (int p = 0; p < size; p++) CHECK(all[4 * p + 1].d == p + 0.5 && all[4 * p + 1].i[1] == p);
    char packed[200];
    int position = 0;
    MPI_Pack(things, 2, structure, packed, 200, &position, MPI_COMM_WORLD);
    CHECK(position == 42);
    position = 0;
    memset(got, 0, sizeof got);
    MPI_Unpack(packed, 200, &position, got, 2, structure, MPI_COMM_WORLD);
    CHECK(got[1].d == rank + 0.5);
    free(all);
    MPI_Type_free(&vector), MPI_Type_free(&structure);
    CHECK(vector == MPI_DATATYPE_NULL);
}

static int copies, deletes;
static int on_copy(MPI_Comm c, int k, void *extra, void *in, void *out, int *flag) {
    (void)c, (void)k, (void)extra;
    copies++, *flag = 1, *(void **)out = (char *)in + 1;
    return MPI_SUCCESS;
}
static int on_delete(MPI_Comm c, int k, void *value, void *extra) {
    (void)c, (void)k, (void)value, (void)extra;
    deletes++;
    return MPI_SUCCESS;
}

static void attributes(void) {
    int key, flag, *bound;
    char *value;
    MPI_Comm comm;
    MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &bound, &flag);
    CHECK(flag && *bound >= 32767);
    MPI_Comm_create_keyval(on_copy, on_delete, &key, 0);
    MPI_Comm_set_attr(MPI_COMM_WORLD, key, (void *)8);
    MPI_Comm_dup(MPI_COMM_WORLD, &comm);
    MPI_Comm_get_attr(comm, key, &value, &flag);
    CHECK(flag && value == (char *)9 && copies == 1);
    MPI_Comm_free(&comm);
    CHECK(deletes == 1);
    MPI_Comm_delete_attr(MPI_COMM_WORLD, key);
    MPI_Comm_free_keyval(&key);
    CHECK(deletes == 2 && key == MPI_KEYVAL_INVALID);
}

static void nonblocking(void) {
    MPI_Request requests[3];
    int one = 1, sum = 0, root = rank == 0 ? 42 : 0;
    MPI_Ibarrier(MPI_COMM_WORLD, &requests[0]);
    MPI_Iallreduce(&one, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD, &requests[1]);
    MPI_Ibcast(&root, 1, MPI_INT, 0, MPI_COMM_WORLD, &requests[2]);
    MPI_Waitall(3, requests, MPI_STATUSES_IGNORE);
    CHECK(sum == size && root == 42);
}

int main(int argc, char **argv) {
    int flag, version, sub, length;
    MPI_Initialized(&flag);
    CHECK(!flag);
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    char name[MPI_MAX_PROCESSOR_NAME], text[MPI_MAX_ERROR_STRING];
    MPI_Get_processor_name(name, &length);
    CHECK((int)strlen(name) == length);
    MPI_Error_string(MPI_ERR_TRUNCATE, text, &length);
    MPI_Get_version(&version, &sub);
    CHECK(version >= 3 && length > 0 && MPI_Wtime() > 0 && MPI_Wtick() > 0);
    truncation(), split(), groups(), modes(), several(), types(), attributes(), nonblocking();
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Finalize();
    MPI_Finalized(&flag);
    CHECK(flag);
    if (rank == 0) printf("calls: ok\n");
    return 0;
}
