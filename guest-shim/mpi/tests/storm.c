/* Numbered, checksummed messages of 1 B to 4 MiB in all directions, with wildcards. Usage: storm [SEED [MESSAGES]] */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 12 };

static uint64_t state;

static uint64_t next(uint64_t *s) {
    *s += 0x9e3779b97f4a7c15u;
    uint64_t z = *s;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t id_of(int from, int to, int number) {
    return (uint64_t)from << 40 | (uint64_t)to << 20 | (uint64_t)number;
}

static size_t size_of(int from, int to, int number) {
    uint64_t s = id_of(from, to, number) * 31 + state;
    int shift = (int)(next(&s) % 23);
    size_t bytes = (size_t)1 << shift;
    return bytes + next(&s) % bytes - (shift == 22 ? next(&s) % bytes : 0);
}

static void fill(unsigned char *data, size_t bytes, int from, int to, int number) {
    uint64_t s = id_of(from, to, number);
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = next(&s);
        memcpy(data + i, &word, bytes - i < 8 ? bytes - i : 8);
    }
}

static void die(const char *what, int from, int number) {
    fprintf(stderr, "storm: %s (message %d from %d)\n", what, number, from);
    MPI_Abort(MPI_COMM_WORLD, 3);
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank, size;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    state = argc > 1 ? strtoull(argv[1], 0, 10) : 1;
    int messages = argc > 2 ? atoi(argv[2]) : 60;
    size_t largest = (size_t)1 << 24;
    unsigned char *in = malloc(largest), *expected = malloc(largest), *out[WINDOW] = {0};
    MPI_Request sends[WINDOW];
    int *received = calloc((size_t)size, sizeof *received);
    for (int i = 0; i < WINDOW; i++) sends[i] = MPI_REQUEST_NULL;
    int total = messages * size, sent = 0, got = 0;
    uint64_t checksum = 0;
    while (sent < total || got < total) {
        if (sent < total) {
            int to = (rank + sent) % size, number = sent / size, slot;
            if (sent < WINDOW) slot = sent;
            else {
                int flag;
                MPI_Testany(WINDOW, sends, &slot, &flag, MPI_STATUS_IGNORE);
                if (!flag) slot = -1;
                else if (slot == MPI_UNDEFINED) slot = sent % WINDOW;
            }
            if (slot >= 0 && sends[slot] == MPI_REQUEST_NULL) {
                size_t bytes = size_of(rank, to, number);
                free(out[slot]);
                out[slot] = malloc(bytes);
                fill(out[slot], bytes, rank, to, number);
                if (number % 5 == 4) MPI_Issend(out[slot], (int)bytes, MPI_BYTE, to, number, MPI_COMM_WORLD, &sends[slot]);
                else MPI_Isend(out[slot], (int)bytes, MPI_BYTE, to, number, MPI_COMM_WORLD, &sends[slot]);
                sent++;
            }
        }
        int flag = 0;
        MPI_Status status;
        if (got < total) MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &flag, &status);
        if (flag) {
            int from = status.MPI_SOURCE, number = status.MPI_TAG, bytes;
            if (number != received[from]) die("out of order", from, number);
            received[from]++;
            MPI_Get_count(&status, MPI_BYTE, &bytes);
            if ((size_t)bytes != size_of(from, rank, number)) die("wrong length", from, number);
            int any = number % 2;
            MPI_Recv(in, (int)largest, MPI_BYTE, any ? MPI_ANY_SOURCE : from, any ? MPI_ANY_TAG : number, MPI_COMM_WORLD,
                     &status);
            if (status.MPI_SOURCE != from || status.MPI_TAG != number) die("received another message than probed", from, number);
            fill(expected, (size_t)bytes, from, rank, number);
            if (memcmp(in, expected, (size_t)bytes)) die("damaged", from, number);
            for (int i = 0; i < bytes; i++) checksum = checksum * 31 + in[i] * (uint64_t)(from + 1);
            checksum ^= (uint64_t)number << 32;
            got++;
        }
        if (sent == total && got == total) break;
    }
    MPI_Waitall(WINDOW, sends, MPI_STATUSES_IGNORE);
    uint64_t count = (uint64_t)got, all;
    MPI_Reduce(&count, &all, 1, MPI_UINT64_T, MPI_SUM, 0, MPI_COMM_WORLD);
    if (rank == 0) printf("storm: %llu messages, seed %llu: ok\n", (unsigned long long)all, (unsigned long long)state);
    MPI_Finalize();
    return 0;
}
