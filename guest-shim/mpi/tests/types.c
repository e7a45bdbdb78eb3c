/* Random nested datatypes: what they are and the bytes they pack and unpack, one line a type. The same object file is linked with
 * this library and with another one of the MPI 5.0 ABI, and both must print the same lines.
 *
 * usage: types SEED NUMBER [DEPTH]      (NUMBER types, from nothing but the seed; nested at most DEPTH deep, default 4) */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BYTES_MAX = 4096, REACH_MAX = 1 << 14, COUNT_MAX = 3, ROOM = 4 * COUNT_MAX * REACH_MAX };

static uint64_t state;

static unsigned below(unsigned limit)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (unsigned)((state >> 11) % limit);
}

static int between(int low, int high)
{
    return low + (int)below((unsigned)(high - low + 1));
}

static uint64_t hash(const void *bytes, size_t number)
{
    const unsigned char *at = bytes;
    uint64_t value = 0xcbf29ce484222325;
    for (size_t i = 0; i < number; i++)
        value = (value ^ at[i]) * 0x100000001b3;
    return value;
}

static const struct {
    MPI_Datatype type;
    const char *name;
} leaves[] = {
    {MPI_CHAR, "char"}, {MPI_BYTE, "byte"}, {MPI_SHORT, "short"}, {MPI_INT, "int"}, {MPI_UNSIGNED, "unsigned"},
    {MPI_LONG, "long"}, {MPI_FLOAT, "float"}, {MPI_DOUBLE, "double"}, {MPI_C_DOUBLE_COMPLEX, "complex"},
    {MPI_INT64_T, "int64"}, {MPI_UINT16_T, "uint16"}, {MPI_DOUBLE_INT, "double_int"}, {MPI_SHORT_INT, "short_int"},
    {MPI_2INT, "2int"},
};

static char text[1 << 16];
static size_t used;

#define SAY(...) (used += (size_t)snprintf(text + used, used < sizeof text ? sizeof text - used : 0, __VA_ARGS__))

static MPI_Datatype make(int depth);

/* Whether a type is small enough to be tried. */
static int fits(MPI_Datatype type)
{
    int bytes;
    MPI_Aint lower, extent, true_lower, true_extent;
    MPI_Type_size(type, &bytes);
    MPI_Type_get_extent(type, &lower, &extent);
    MPI_Type_get_true_extent(type, &true_lower, &true_extent);
    return bytes == 0 || (bytes <= BYTES_MAX && labs(lower) < REACH_MAX && labs(extent) < REACH_MAX && labs(true_lower) < REACH_MAX && true_extent < REACH_MAX);
}

static MPI_Datatype simple(int kind, MPI_Datatype of)
{
    MPI_Datatype new;
    int count = between(1, 4), length = between(1, 3);
    switch (kind) {
    case 0: SAY("dup("); MPI_Type_dup(of, &new); break;
    case 1: SAY("contiguous(%d ", count); MPI_Type_contiguous(count, of, &new); break;
    case 2: {
        int stride = between(-5, 5);
        SAY("vector(%d %d %d ", count, length, stride);
        MPI_Type_vector(count, length, stride, of, &new);
        break;
    }
    case 3: {
        MPI_Aint stride = between(-100, 100);
        SAY("hvector(%d %d %ld ", count, length, stride);
        MPI_Type_create_hvector(count, length, stride, of, &new);
        break;
    }
    default: {
        /* Of elements that go backwards MPICH 5.0.2 joins what does not belong together. */
        MPI_Aint lower = between(-64, 64), extent = between(1, 256);
        SAY("resized(%ld %ld ", lower, extent);
        MPI_Type_create_resized(of, lower, extent, &new);
    }
    }
    return new;
}

static MPI_Datatype with_lists(int kind, MPI_Datatype of)
{
    MPI_Datatype new;
    int count = between(1, 4), length = between(1, 3), lengths[4], places[4];
    MPI_Aint bytes[4];
    static const char *const names[] = {"indexed", "hindexed", "indexed_block", "hindexed_block"};
    SAY("%s(%d", names[kind], count);
    for (int i = 0; i < count; i++) {
        lengths[i] = between(0, 3), places[i] = between(-10, 20), bytes[i] = between(-100, 300);
        SAY(" %d@%ld", kind < 2 ? lengths[i] : length, kind % 2 ? bytes[i] : places[i]);
    }
    SAY(" ");
    switch (kind) {
    case 0: MPI_Type_indexed(count, lengths, places, of, &new); break;
    case 1: MPI_Type_create_hindexed(count, lengths, bytes, of, &new); break;
    case 2: MPI_Type_create_indexed_block(count, length, places, of, &new); break;
    default: MPI_Type_create_hindexed_block(count, length, bytes, of, &new);
    }
    return new;
}

static MPI_Datatype array(int distributed, MPI_Datatype of)
{
    MPI_Datatype new;
    int dims = between(1, 3), order = below(2) ? MPI_ORDER_C : MPI_ORDER_FORTRAN, sizes[3], part[3], start[3], grid[3], ways[3], size = 1;
    SAY("%s(%s", distributed ? "darray" : "subarray", order == MPI_ORDER_C ? "C" : "F");
    for (int i = 0; i < dims; i++) {
        sizes[i] = between(1, 5), part[i] = between(1, sizes[i]), start[i] = between(0, sizes[i] - part[i]);
        ways[i] = below(3) == 0 ? MPI_DISTRIBUTE_NONE : below(2) ? MPI_DISTRIBUTE_BLOCK : MPI_DISTRIBUTE_CYCLIC;
        grid[i] = ways[i] == MPI_DISTRIBUTE_NONE ? 1 : between(1, 3), size *= grid[i];
        if (distributed)
            SAY(" %d/%d:%d", sizes[i], grid[i], ways[i]);
        else
            SAY(" %d+%d/%d", start[i], part[i], sizes[i]);
    }
    SAY(" ");
    int arguments[3] = {MPI_DISTRIBUTE_DFLT_DARG, MPI_DISTRIBUTE_DFLT_DARG, MPI_DISTRIBUTE_DFLT_DARG};
    if (distributed)
        MPI_Type_create_darray(size, between(0, size - 1), dims, sizes, ways, arguments, grid, order, of, &new);
    else
        MPI_Type_create_subarray(dims, sizes, part, start, order, of, &new);
    return new;
}

static void drop(MPI_Datatype type)
{
    int integers, addresses, types, combiner;
    MPI_Type_get_envelope(type, &integers, &addresses, &types, &combiner);
    if (combiner != MPI_COMBINER_NAMED)
        MPI_Type_free(&type);
}

/* Where MPICH 5.0.2 is not the standard's, the question is not asked: bounds set by hand hide those of the other parts and are
 * not padded (MPICH lets both count, and pads); a struct of one basic type is padded, too (it is not); what is empty moves no
 * bounds (it does). So a struct has no empty parts, and keeps its natural bounds only if its parts are two leaves of different sizes. */
static MPI_Datatype structure(int depth)
{
    MPI_Datatype parts[4], new;
    int count = between(1, 4), lengths[4], natural = count == 2 && below(2), bytes, first = 0;
    MPI_Aint places[4];
    SAY("struct(");
    for (int i = 0; i < count; i++) {
        lengths[i] = between(1, 3), places[i] = between(-50, 200);
        SAY("%s%d@%ld ", i ? ", " : "", lengths[i], places[i]);
        parts[i] = make(natural ? 0 : depth - 1);
        MPI_Type_size(parts[i], &bytes);
        if (bytes == 0) {
            SAY("=empty, int");
            drop(parts[i]);
            parts[i] = MPI_INT;
        }
        natural = natural && bytes != first;
        first = bytes;
    }
    MPI_Type_create_struct(count, lengths, places, parts, &new);
    for (int i = 0; i < count; i++)
        drop(parts[i]);
    if (!natural) {
        MPI_Datatype unbound = new;
        MPI_Type_create_resized(unbound, -8, 160, &new);
        MPI_Type_free(&unbound);
    }
    SAY(natural ? ")" : " -8 160)");
    return new;
}

/* A random type. One that is unfit is replaced by a leaf. */
static MPI_Datatype make(int depth)
{
    MPI_Datatype new;
    if (depth == 0 || below(6) == 0) {
        unsigned leaf = below(sizeof leaves / sizeof *leaves);
        SAY("%s", leaves[leaf].name);
        return leaves[leaf].type;
    }
    int kind = between(0, 11);
    if (kind == 11) {
        new = structure(depth);
    } else {
        size_t from = used;
        MPI_Datatype inner = make(depth - 1);
        char *name = strdup(text + from);
        used = from;
        new = kind < 5 ? simple(kind, inner) : kind < 9 ? with_lists(kind - 5, inner) : array(kind - 9, inner);
        SAY("%s)", name);
        free(name);
        drop(inner);
    }
    if (fits(new))
        return new;
    MPI_Type_free(&new);
    SAY("=unfit, int");
    return MPI_INT;
}

static void say_origin(MPI_Datatype type)
{
    int integers, addresses, types, combiner;
    MPI_Type_get_envelope(type, &integers, &addresses, &types, &combiner);
    SAY(" envelope %d %d %d %d", integers, addresses, types, combiner);
    if (combiner == MPI_COMBINER_NAMED)
        return;
    int values[64];
    MPI_Aint places[64];
    MPI_Datatype parts[64];
    memset(values, 0, sizeof values), memset(places, 0, sizeof places);
    MPI_Type_get_contents(type, 64, 64, 64, values, places, parts);
    SAY(" contents %016llx", (unsigned long long)(hash(values, sizeof values) ^ hash(places, sizeof places)));
    for (int i = 0; i < types; i++)
        drop(parts[i]);
}

static char from[2 * ROOM], to[2 * ROOM], packed[COUNT_MAX * BYTES_MAX + 64];

/* Packs, unpacks and sends `count` elements around the middle of the buffers. */
static void say_bytes(MPI_Datatype type, int count)
{
    int bytes, room, at = 0, marked = 0;
    MPI_Type_size(type, &bytes);
    MPI_Pack_size(count, type, MPI_COMM_SELF, &room);
    memset(packed, 0, sizeof packed);
    MPI_Pack(from + ROOM, count, type, packed, sizeof packed, &at, MPI_COMM_SELF);
    SAY(" x%d: pack %d (size %s) %016llx", count, at, room >= count * bytes ? "ok" : "short", (unsigned long long)hash(packed, (size_t)at));
    /* Places that overlap are marked once: what is there after an unpack is nobody's promise. */
    char *ones = malloc((size_t)at + 1);
    memset(ones, 1, (size_t)at + 1), memset(to, 0, sizeof to);
    int begin = 0;
    MPI_Unpack(ones, at, &begin, to + ROOM, count, type, MPI_COMM_SELF);
    free(ones);
    for (size_t i = 0; i < sizeof to; i++)
        marked += to[i];
    if (marked != at) {
        SAY(" overlap %d", marked);
        return;
    }
    memset(to, 0, sizeof to);
    begin = 0;
    MPI_Unpack(packed, at, &begin, to + ROOM, count, type, MPI_COMM_SELF);
    SAY(" unpack %d %016llx", begin, (unsigned long long)hash(to, sizeof to));
    memset(to, 0, sizeof to);
    MPI_Sendrecv(from + ROOM, count, type, 0, 1, to + ROOM, count, type, 0, 1, MPI_COMM_SELF, MPI_STATUS_IGNORE);
    SAY(" sent %016llx", (unsigned long long)hash(to, sizeof to));
    /* MPICH 5.0.2 dies of the external form of pairs, of some structs, and of nothing. */
    if (bytes == 0 || strstr(text, "_int") || strstr(text, "2int") || strstr(text, "struct"))
        return;
    MPI_Aint place = 0, external;
    MPI_Pack_external_size("external32", count, type, &external);
    memset(packed, 0, sizeof packed);
    if (external <= (MPI_Aint)sizeof packed) {
        MPI_Pack_external("external32", from + ROOM, count, type, packed, sizeof packed, &place);
        SAY(" external %ld %ld %016llx", (long)external, (long)place, (unsigned long long)hash(packed, (size_t)place));
    }
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    if (argc < 3) {
        fprintf(stderr, "usage: types SEED NUMBER [DEPTH]\n");
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    unsigned long long seed = strtoull(argv[1], NULL, 0), number = strtoull(argv[2], NULL, 0);
    int depth = argc > 3 ? atoi(argv[3]) : 4;
    for (size_t i = 0; i < sizeof from; i++)
        from[i] = (char)(i * 2654435761u >> 13);
    for (unsigned long long i = 0; i < number; i++) {
        state = (seed * 1000003 + i + 1) * 0x9e3779b97f4a7c15ull | 1;
        for (int warm = 0; warm < 8; warm++)
            below(2);
        used = 0;
        int bytes;
        MPI_Aint lower, extent, true_lower, true_extent;
        MPI_Datatype type = make(between(1, depth));
        MPI_Type_commit(&type);
        MPI_Type_size(type, &bytes);
        MPI_Type_get_extent(type, &lower, &extent);
        MPI_Type_get_true_extent(type, &true_lower, &true_extent);
        SAY(": size %d", bytes);
        if (bytes > 0) /* MPICH gives an empty type no bounds even if they are set by hand somewhere inside */
            SAY(" bounds %ld %ld true %ld %ld", (long)lower, (long)extent, (long)true_lower, (long)true_extent);
        say_origin(type);
        say_bytes(type, between(0, COUNT_MAX));
        printf("%llu/%llu %s\n", seed, i, text);
        drop(type);
    }
    MPI_Finalize();
    return 0;
}
