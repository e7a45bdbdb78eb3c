/* Communicators with two groups, topologies, datatypes and their origin, infos, attributes: what the conformance suite found
 * wrong once, and what it does not look at. Runs with any MPI 4 library. */
#include <mpi.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static int failures;

#define CHECK(what) \
    do { \
        if (!(what)) { \
            failures++; \
            fprintf(stderr, "objects.c:%d: %s\n", __LINE__, #what); \
        } \
    } while (0)

/* Bounds that were set by hand are not moved by other parts; complex numbers are aligned like their parts. */
static void bounds(void)
{
    MPI_Datatype wide, both, pair;
    MPI_Aint lower, extent;
    MPI_Type_create_resized(MPI_INT, -8, 32, &wide);
    int lengths[2] = {1, 1};
    MPI_Aint places[2] = {0, 100};
    MPI_Datatype types[2] = {wide, MPI_INT};
    MPI_Type_create_struct(2, lengths, places, types, &both);
    MPI_Type_get_extent(both, &lower, &extent);
#ifdef PARTITA_MPI /* as the standard says; MPICH 4 lets the other part move them */
    CHECK(lower == -8 && extent == 32);
#endif
    struct complex_and_char {
        char c;
        double _Complex z;
    };
    places[0] = offsetof(struct complex_and_char, c), places[1] = offsetof(struct complex_and_char, z);
    types[0] = MPI_CHAR, types[1] = MPI_C_DOUBLE_COMPLEX;
    MPI_Type_create_struct(2, lengths, places, types, &pair);
    MPI_Type_get_extent(pair, &lower, &extent);
    CHECK(lower == 0 && extent == sizeof(struct complex_and_char));
    MPI_Type_free(&wide);
    MPI_Type_free(&both);
    MPI_Type_free(&pair);
}

/* What a type was made of outlives the handles; elements are counted inside of structs. */
static void origin(void)
{
    MPI_Datatype inner, outer, again;
    MPI_Type_vector(2, 3, 5, MPI_INT, &inner);
    MPI_Type_contiguous(4, inner, &outer);
    MPI_Type_free(&inner);
    int integers, addresses, types, combiner, values[3];
    MPI_Type_get_envelope(outer, &integers, &addresses, &types, &combiner);
    CHECK(integers == 1 && addresses == 0 && types == 1 && combiner == MPI_COMBINER_CONTIGUOUS);
    MPI_Type_get_contents(outer, 1, 0, 1, values, NULL, &again);
    CHECK(values[0] == 4);
    MPI_Type_get_contents(again, 3, 0, 1, values, NULL, &inner);
    CHECK(values[0] == 2 && values[1] == 3 && values[2] == 5 && inner == MPI_INT);
    MPI_Type_free(&again);
    MPI_Type_free(&outer);

    int lengths[2] = {1, 2}, number;
    MPI_Aint places[2] = {0, 8};
    MPI_Datatype parts[2] = {MPI_INT, MPI_SHORT}, mixed;
    MPI_Type_create_struct(2, lengths, places, parts, &mixed);
    MPI_Type_commit(&mixed);
    MPI_Status status;
    MPI_Status_set_elements(&status, mixed, 5); /* an int, two shorts, an int, a short */
#ifdef PARTITA_MPI /* MPICH takes the number for one of whole elements */
    MPI_Get_elements(&status, mixed, &number);
    CHECK(number == 5);
    MPI_Get_count(&status, mixed, &number);
    CHECK(number == MPI_UNDEFINED);
#endif
    MPI_Type_free(&mixed);
}

/* A persistent request keeps the type that the program has freed. */
static void persistent(int rank)
{
    MPI_Datatype two;
    MPI_Request requests[2];
    int from[2] = {rank, 7}, to[2] = {-1, -1};
    MPI_Type_contiguous(2, MPI_INT, &two);
    MPI_Type_commit(&two);
    MPI_Send_init(from, 1, two, 0, 1, MPI_COMM_SELF, &requests[0]);
    MPI_Recv_init(to, 1, two, 0, 1, MPI_COMM_SELF, &requests[1]);
    MPI_Type_free(&two);
    for (int round = 0; round < 2; round++) {
        MPI_Startall(2, requests);
        MPI_Waitall(2, requests, MPI_STATUSES_IGNORE);
        CHECK(to[0] == rank && to[1] == 7);
    }
    MPI_Request_free(&requests[0]);
    MPI_Request_free(&requests[1]);
}

/* Two groups: the sum of the other side arrives, messages name the ranks of the other side, both become one again. */
static void two_groups(int rank, int size)
{
    if (size < 2)
        return;
    MPI_Comm half, both, copy, all;
    int low = rank < size / 2, other = low ? size - size / 2 : size / 2, number, sum, flag;
    MPI_Comm_split(MPI_COMM_WORLD, low, rank, &half);
    MPI_Intercomm_create(half, 0, MPI_COMM_WORLD, low ? size / 2 : 0, 5, &both);
    MPI_Comm_test_inter(both, &flag);
    MPI_Comm_remote_size(both, &number);
    CHECK(flag && number == other);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, both);
    int first = low ? size / 2 : 0;
    CHECK(sum == other * first + other * (other - 1) / 2);
    MPI_Request request;
    MPI_Comm_idup(both, &copy, &request);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    MPI_Comm_compare(both, copy, &flag);
    CHECK(flag == MPI_CONGRUENT);
    int mine, got = -1;
    MPI_Comm_rank(half, &mine);
    if (mine == 0) {
        MPI_Sendrecv(&rank, 1, MPI_INT, 0, 3, &got, 1, MPI_INT, 0, 3, copy, MPI_STATUS_IGNORE);
        CHECK(got == first);
    }
    MPI_Intercomm_merge(copy, low, &all);
    MPI_Comm_rank(all, &number);
    CHECK(number == (low ? rank + size - size / 2 : rank - size / 2));
    MPI_Comm_free(&all);
    MPI_Comm_free(&copy);
    MPI_Comm_free(&both);
    MPI_Comm_free(&half);
}

/* In a ring, also of two and of one, what goes right comes from the left. */
static void ring(int rank, int size)
{
    MPI_Comm ring;
    int dims[1] = {0}, periods[1] = {1}, left, right, got[2] = {-1, -1};
    MPI_Dims_create(size, 1, dims);
    CHECK(dims[0] == size);
    MPI_Cart_create(MPI_COMM_WORLD, 1, dims, periods, 0, &ring);
    MPI_Cart_shift(ring, 0, 1, &left, &right);
    int to[2] = {10 * rank, 10 * rank + 1}; /* to the left, to the right */
    MPI_Neighbor_alltoall(to, 1, MPI_INT, got, 1, MPI_INT, ring);
    CHECK(got[0] == 10 * left + 1 && got[1] == 10 * right);
    MPI_Request request;
    MPI_Allreduce_init(MPI_IN_PLACE, got, 2, MPI_INT, MPI_SUM, ring, MPI_INFO_NULL, &request);
    for (int round = 0; round < 3; round++) {
        got[0] = rank + round, got[1] = 1;
        MPI_Start(&request);
        MPI_Wait(&request, MPI_STATUS_IGNORE);
        CHECK(got[0] == size * (size - 1) / 2 + size * round && got[1] == size);
    }
    MPI_Request_free(&request);
    MPI_Comm_free(&ring);
}

static int deleted;

static int count_deletion(MPI_Comm comm, int key, void *value, void *extra)
{
    (void)comm, (void)key, (void)value, (void)extra;
    deleted++;
    return deleted == 1 ? MPI_ERR_OTHER : MPI_SUCCESS;
}

/* An attribute whose function fails stays. Handles fit a positive INTEGER. */
static void handles(void)
{
    MPI_Comm comm;
    int key, flag;
    void *value;
    MPI_Comm_dup(MPI_COMM_SELF, &comm);
    MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, count_deletion, &key, NULL);
    MPI_Comm_set_attr(comm, key, &key);
    CHECK(MPI_Comm_delete_attr(comm, key) != MPI_SUCCESS);
    MPI_Comm_get_attr(comm, key, &value, &flag);
    CHECK(flag && value == &key);
    MPI_Comm_free(&comm);
    CHECK(deleted == 2);
    MPI_Comm_free_keyval(&key);

    MPI_Info info;
    char text[8];
    MPI_Info_create(&info);
    MPI_Info_set(info, "key", "value");
    info = MPI_Info_f2c(MPI_Info_c2f(info));
    MPI_Info_get(info, "key", 7, text, &flag);
    CHECK(flag && strcmp(text, "value") == 0);
    MPI_Info_free(&info);
    char data[8];
    MPI_Aint at = 0;
    int numbers[2] = {1, -2}, back[2];
    MPI_Pack_external("external32", numbers, 2, MPI_INT, data, 8, &at);
    CHECK(at == 8 && memcmp(data, "\0\0\0\1\377\377\377\376", 8) == 0);
    at = 0;
    MPI_Unpack_external("external32", data, 8, &at, back, 2, MPI_INT);
    CHECK(back[0] == 1 && back[1] == -2);
}

int main(int argc, char **argv)
{
    int rank, size;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    bounds();
    origin();
    persistent(rank);
    two_groups(rank, size);
    ring(rank, size);
    handles();
    int all;
    MPI_Allreduce(&failures, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    MPI_Finalize();
    if (rank == 0)
        printf("objects: %s\n", all ? "FAILED" : "ok");
    return all != 0;
}
