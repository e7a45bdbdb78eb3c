/* A storm of numbered, checked messages of 1 B to 4 MiB in all directions.
 *
 * What it proves: the fabric and the MPI library lose, repeat, reorder and change no byte, whatever happens to the
 * partitions meanwhile. Every rank knows from the seed which messages every other rank sends it: number, tag,
 * length and content follow from (seed, source, destination, number). Messages are received by wildcards, by exact
 * calls, by Probe and Iprobe, by receives posted early; each one must be the next of its (source, tag), with
 * its length and every byte right. At the end all ranks compare what was sent with what was received.
 *
 * Works in rounds. In a round every rank sends 1 to 4 messages to every rank, itself too. Free of deadlock for any
 * eager threshold, also none: sends are Isend, except in rounds in which all ranks receive in ways that accept any
 * message; there some ranks post all receives and then use blocking Send. Two communicators take turns: as every
 * rank hears from every other in every round, nobody can be two rounds ahead, so wildcards never see a later round.
 * Memory is bounded: per round and direction one long message and otherwise --outstanding bytes at most.
 */
#include <mpi.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TAGS = 4, BURST_MAX = 4, HEADER = 8 };
static const int tag_value[TAGS] = {0, 7, 1000, 32767};

enum mode {
    WILD_RECV,      /* Recv(ANY_SOURCE, ANY_TAG) after all Isends */
    WILD_PROBE,     /* Probe(ANY_SOURCE, ANY_TAG), Get_count, Recv(exact) */
    WILD_IPROBE,    /* Iprobe and Test in turns, nothing blocks */
    WILD_POSTED,    /* Irecv(ANY_SOURCE, ANY_TAG) before the sends, Waitall */
    EXACT_POSTED,   /* Irecv(source, tag) before the sends, Waitall over all */
    BLOCKING_SEND,  /* Irecv(source, tag), then Send one by one, then Waitall */
    OPEN_MODES,     /* those above accept any message at any time */
    EXACT_RECV = OPEN_MODES, /* Recv(source, tag), sources and tags in an order of its own */
    SOURCE_ANY_TAG, /* Recv(source, ANY_TAG) */
    ANY_SOURCE_TAG, /* Recv(ANY_SOURCE, tag) */
    PROBE_SOURCE,   /* Probe(source, ANY_TAG), Recv(source, ANY_TAG) */
    MODES
};

struct message {
    uint64_t number; /* of this (source, destination), from 0 */
    int tag;         /* index into tag_value */
    int bytes;
    int taken;       /* received already in this round */
};

struct burst {
    int count;
    struct message message[BURST_MAX];
};

struct storm {
    int rank, ranks;
    uint64_t seed;
    int64_t bytes_max, outstanding;
    MPI_Comm comm[2];
    uint64_t *next_out, *next_in;   /* number of the next message per destination, per source */
    int64_t *sent, *received;       /* per peer: messages, bytes, digest */
    struct burst *out, *in;         /* of this round */
    unsigned char **send_buffer, **receive_buffer; /* BURST_MAX per peer */
    size_t *send_room, *receive_room;
    MPI_Request *request;
    uint64_t round;
};

static struct storm S;

static void die(const char *format, ...)
{
    char text[512];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    fprintf(stderr, "storm: rank %d round %llu: %s\n", S.rank, (unsigned long long)S.round, text);
    fflush(stderr);
    MPI_Abort(MPI_COMM_WORLD, 1);
    exit(1);
}

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t key(uint64_t kind, uint64_t a, uint64_t b, uint64_t c)
{
    return mix(mix(mix(mix(S.seed ^ kind << 56) ^ a) ^ b) ^ c);
}

/* Chosen shift of this round: rank r may send a long message to (r + shift) % ranks, everybody gets one source. */
static int long_shift(uint64_t round)
{
    return (int)(key(1, round, 0, 0) % (uint64_t)S.ranks);
}

static int burst_count(uint64_t round, int source, int destination)
{
    return 1 + (int)(key(2, round, (uint64_t)source, (uint64_t)destination) % BURST_MAX);
}

/* What `source` sends to `destination` in this round, `first` being the number of its first message. */
static struct burst plan(int source, int destination, uint64_t first)
{
    struct burst b = {.count = burst_count(S.round, source, destination)};
    int is_long = destination == (source + long_shift(S.round)) % S.ranks;
    int64_t small = S.outstanding / S.ranks / BURST_MAX;
    for (int i = 0; i < b.count; i++) {
        uint64_t r = key(3, first + (uint64_t)i, (uint64_t)source, (uint64_t)destination);
        int64_t limit = is_long && i == 0 ? S.bytes_max : small < S.bytes_max ? small : S.bytes_max;
        int log = 0;
        while (log < 40 && (int64_t)1 << (log + 1) <= limit)
            log++;
        /* Sizes are spread evenly over the powers of two up to the limit; one in 16 is the limit itself. */
        int64_t floor = (int64_t)1 << (r % (uint64_t)(log + 1));
        int64_t bytes = floor + (int64_t)((r >> 8) % (uint64_t)floor);
        if ((r >> 60) == 0 || bytes > limit)
            bytes = limit;
        b.message[i] = (struct message){.number = first + (uint64_t)i, .tag = (int)((r >> 56) % TAGS), .bytes = (int)bytes};
    }
    return b;
}

/* Content: the number (where there is room), then a random stream. `check` compares instead of writing and returns
 * the position of the first wrong byte, or -1. */
static int64_t content(unsigned char *data, int bytes, int source, int destination, uint64_t number, int check)
{
    uint64_t state = key(4, number, (uint64_t)source, (uint64_t)destination);
    for (int64_t at = 0; at < bytes; at += 8) {
        uint64_t word = at == 0 && bytes >= HEADER ? number : state;
        size_t n = bytes - at < 8 ? (size_t)(bytes - at) : 8;
        if (check && memcmp(data + at, &word, n) != 0)
            return at;
        if (!check)
            memcpy(data + at, &word, n);
        /* xorshift64: one step per word is enough here and cheap to make and to check. */
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    return -1;
}

static unsigned char *room(unsigned char **buffer, size_t *have, size_t slot, int64_t bytes)
{
    if ((int64_t)have[slot] < bytes) {
        free(buffer[slot]);
        buffer[slot] = malloc((size_t)bytes);
        if (!buffer[slot])
            die("out of memory for %lld bytes", (long long)bytes);
        have[slot] = (size_t)bytes;
    }
    return buffer[slot];
}

static void count(int64_t *table, int peer, const struct message *m, int source, int destination)
{
    table[3 * peer] += 1;
    table[3 * peer + 1] += m->bytes;
    uint64_t digest = key(5, m->number, (uint64_t)source, (uint64_t)destination) ^ (uint64_t)m->bytes;
    table[3 * peer + 2] = (int64_t)((uint64_t)table[3 * peer + 2] * 31 + digest);
}

/* A message has arrived from `source` with `tag`: it must be the first of that pair not received yet. */
static void accept(unsigned char *data, int source, int tag, int bytes)
{
    if (source < 0 || source >= S.ranks)
        die("message from rank %d, which does not exist", source);
    struct burst *b = &S.in[source];
    for (int i = 0; i < b->count; i++) {
        struct message *m = &b->message[i];
        if (m->taken || tag_value[m->tag] != tag)
            continue;
        uint64_t got = 0;
        if (bytes >= HEADER)
            memcpy(&got, data, HEADER);
        if (bytes != m->bytes)
            die("from rank %d tag %d: expected message %llu of %d bytes, got %d bytes (number field %llu)", source, tag,
                (unsigned long long)m->number, m->bytes, bytes, (unsigned long long)got);
        int64_t wrong = content(data, bytes, source, S.rank, m->number, 1);
        if (wrong >= 0)
            die("from rank %d tag %d: message %llu of %d bytes differs from byte %lld (number field %llu)", source, tag,
                (unsigned long long)m->number, bytes, (long long)wrong, (unsigned long long)got);
        m->taken = 1;
        return;
    }
    die("from rank %d tag %d: %d bytes that nobody sent, or sent twice", source, tag, bytes);
}

static void accept_status(unsigned char *data, MPI_Status *status)
{
    int bytes;
    MPI_Get_count(status, MPI_BYTE, &bytes);
    accept(data, status->MPI_SOURCE, status->MPI_TAG, bytes);
}

static size_t slot_of(int peer, int i)
{
    return (size_t)peer * BURST_MAX + (size_t)i;
}

static int64_t longest(void)
{
    int64_t bytes = 1;
    for (int s = 0; s < S.ranks; s++)
        for (int i = 0; i < S.in[s].count; i++)
            bytes = S.in[s].message[i].bytes > bytes ? S.in[s].message[i].bytes : bytes;
    return bytes;
}

static int incoming(void)
{
    int n = 0;
    for (int s = 0; s < S.ranks; s++)
        n += S.in[s].count;
    return n;
}

/* Fills all send buffers and, unless `blocking`, starts every Isend. Returns the number of requests started at
 * request[from]. The order over the peers differs from round to round; within a peer it is the order of numbers. */
static int send_all(MPI_Comm comm, int from, int blocking)
{
    int n = 0, start = (int)(key(6, S.round, (uint64_t)S.rank, 0) % (uint64_t)S.ranks);
    for (int i = 0; i < BURST_MAX; i++)
        for (int k = 0; k < S.ranks; k++) {
            int d = (start + k) % S.ranks;
            if (i >= S.out[d].count)
                continue;
            struct message *m = &S.out[d].message[i];
            unsigned char *data = room(S.send_buffer, S.send_room, slot_of(d, i), m->bytes);
            content(data, m->bytes, S.rank, d, m->number, 0);
            if (blocking)
                MPI_Send(data, m->bytes, MPI_BYTE, d, tag_value[m->tag], comm);
            else
                MPI_Isend(data, m->bytes, MPI_BYTE, d, tag_value[m->tag], comm, &S.request[from + n++]);
        }
    return n;
}

/* Irecv for every incoming message. With `wild` any may land in any buffer. */
static int post_all(MPI_Comm comm, int wild)
{
    int n = 0;
    int64_t any = longest();
    /* Bounded: with wildcards every buffer must hold the longest message, so only the first few are posted. */
    int limit = wild ? (int)(1 + 2 * S.outstanding / any) : incoming();
    for (int s = 0; s < S.ranks; s++)
        for (int i = 0; i < S.in[s].count && n < limit; i++, n++) {
            struct message *m = &S.in[s].message[i];
            size_t slot = wild ? (size_t)n : slot_of(s, i);
            unsigned char *data = room(S.receive_buffer, S.receive_room, slot, wild ? any : m->bytes);
            MPI_Irecv(data, (int)(wild ? any : m->bytes), MPI_BYTE, wild ? MPI_ANY_SOURCE : s,
                      wild ? MPI_ANY_TAG : tag_value[m->tag], comm, &S.request[n]);
        }
    return n;
}

static void receive_one(MPI_Comm comm, int source, int tag)
{
    MPI_Status status;
    int64_t bytes = longest();
    unsigned char *data = room(S.receive_buffer, S.receive_room, 0, bytes);
    MPI_Recv(data, (int)bytes, MPI_BYTE, source, tag, comm, &status);
    accept_status(data, &status);
}

static void probe_one(MPI_Comm comm, int source, int wild_tag)
{
    MPI_Status status;
    int bytes;
    MPI_Probe(source, MPI_ANY_TAG, comm, &status);
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    if (bytes < 1 || bytes > S.bytes_max)
        die("Probe reports %d bytes from rank %d", bytes, status.MPI_SOURCE);
    unsigned char *data = room(S.receive_buffer, S.receive_room, 0, bytes);
    int from = status.MPI_SOURCE, tag = status.MPI_TAG;
    MPI_Recv(data, bytes, MPI_BYTE, from, wild_tag ? MPI_ANY_TAG : tag, comm, &status);
    if (status.MPI_SOURCE != from || status.MPI_TAG != tag)
        die("Recv after Probe got rank %d tag %d, not rank %d tag %d", status.MPI_SOURCE, status.MPI_TAG, from, tag);
    accept_status(data, &status);
}

static void receive_iprobe(MPI_Comm comm, int sends)
{
    int left = incoming(), pending = sends;
    while (left || pending) {
        int flag = 0;
        MPI_Status status;
        if (left)
            MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm, &flag, &status);
        if (flag) {
            receive_one(comm, status.MPI_SOURCE, status.MPI_TAG);
            left--;
        }
        if (pending) {
            MPI_Test(&S.request[pending - 1], &flag, MPI_STATUS_IGNORE);
            pending -= flag;
        }
    }
}

/* Waits for `posted` receives and `sends` sends together, then checks the receives. Wildcard receives match in the
 * order in which they were posted, so checking them in that order checks the order of the messages. */
static void finish_posted(int posted, int sends, int wild)
{
    int n = posted + sends;
    MPI_Status *status = malloc((size_t)(n ? n : 1) * sizeof *status);
    if (!status)
        die("out of memory");
    MPI_Waitall(n, S.request, status);
    if (wild) {
        for (int i = 0; i < posted; i++)
            accept_status(S.receive_buffer[i], &status[i]);
        free(status);
        return;
    }
    /* Exact receives were posted for everything, in this order, or for nothing. */
    int k = 0;
    for (int s = 0; posted && s < S.ranks; s++)
        for (int i = 0; i < S.in[s].count; i++, k++)
            accept_status(S.receive_buffer[slot_of(s, i)], &status[k]);
    free(status);
}

/* Exact receives: tags in an order of this rank's own, sources too; within (source, tag) any order is the order. */
static void receive_exact(MPI_Comm comm, uint64_t r)
{
    for (int t = 0; t < TAGS; t++)
        for (int k = 0; k < S.ranks; k++) {
            int s = ((int)(r % (uint64_t)S.ranks) + (r >> 60 & 1 ? k : S.ranks - k)) % S.ranks;
            int tag = (t + (int)(r >> 32 & 3)) % TAGS;
            for (int i = 0; i < S.in[s].count; i++)
                if (S.in[s].message[i].tag == tag)
                    receive_one(comm, s, tag_value[tag]);
        }
}

static void receive_by_source(MPI_Comm comm, uint64_t r, int probe)
{
    for (int k = 0; k < S.ranks; k++) {
        int s = ((int)(r % (uint64_t)S.ranks) + k) % S.ranks;
        for (int i = 0; i < S.in[s].count; i++) {
            if (probe)
                probe_one(comm, s, 1);
            else
                receive_one(comm, s, MPI_ANY_TAG);
        }
    }
}

static void receive_by_tag(MPI_Comm comm, uint64_t r)
{
    for (int t = 0; t < TAGS; t++) {
        int tag = (t + (int)(r & 3)) % TAGS;
        for (int s = 0; s < S.ranks; s++)
            for (int i = 0; i < S.in[s].count; i++)
                if (S.in[s].message[i].tag == tag)
                    receive_one(comm, MPI_ANY_SOURCE, tag_value[tag]);
    }
}

static void exchange(enum mode mode, uint64_t r)
{
    MPI_Comm comm = S.comm[S.round % 2];
    int wild = mode == WILD_POSTED, posted = 0, left = incoming();
    if (mode == WILD_POSTED || mode == EXACT_POSTED || mode == BLOCKING_SEND)
        posted = post_all(comm, wild);
    int sends = send_all(comm, posted, mode == BLOCKING_SEND);
    switch (mode) {
    case WILD_RECV:
        while (left--)
            receive_one(comm, MPI_ANY_SOURCE, MPI_ANY_TAG);
        break;
    case WILD_PROBE:
        while (left--)
            probe_one(comm, MPI_ANY_SOURCE, 0);
        break;
    case WILD_IPROBE:
        receive_iprobe(comm, sends);
        return;
    case EXACT_RECV:
        receive_exact(comm, r);
        break;
    case SOURCE_ANY_TAG:
    case PROBE_SOURCE:
        receive_by_source(comm, r, mode == PROBE_SOURCE);
        break;
    case ANY_SOURCE_TAG:
        receive_by_tag(comm, r);
        break;
    default:
        break;
    }
    if (wild) {
        /* The posted receives may be fewer than the messages: the sends of two such ranks end only when both have
         * received the rest, so that comes before waiting for sends. */
        finish_posted(posted, 0, 1);
        for (; left > posted; left--)
            receive_one(comm, MPI_ANY_SOURCE, MPI_ANY_TAG);
        MPI_Waitall(sends, S.request + posted, MPI_STATUSES_IGNORE);
        return;
    }
    finish_posted(posted, sends, 0);
}

/* Some ranks come late, so that messages wait for receives and receives for messages. */
static void dawdle(uint64_t r)
{
    static volatile uint64_t sink;
    if (r % 4)
        return;
    for (uint64_t i = r >> 32 & 0x3ffff; i > 0; i--)
        sink += i;
}

static void do_round(void)
{
    for (int p = 0; p < S.ranks; p++) {
        S.out[p] = plan(S.rank, p, S.next_out[p]);
        S.in[p] = plan(p, S.rank, S.next_in[p]);
    }
    uint64_t r = key(7, S.round, (uint64_t)S.rank, 0);
    int open = key(8, S.round, 0, 0) % 2 == 0;
    dawdle(r);
    enum mode mode = (enum mode)(r >> 16 & 0xffff) % (open ? OPEN_MODES : MODES);
    if (!open && mode == BLOCKING_SEND)
        mode = EXACT_POSTED;
    exchange(mode, r);
    for (int p = 0; p < S.ranks; p++) {
        for (int i = 0; i < S.out[p].count; i++)
            count(S.sent, p, &S.out[p].message[i], S.rank, p);
        for (int i = 0; i < S.in[p].count; i++) {
            if (!S.in[p].message[i].taken)
                die("message %llu of rank %d was never received", (unsigned long long)S.in[p].message[i].number, p);
            count(S.received, p, &S.in[p].message[i], p, S.rank);
        }
        S.next_out[p] += (uint64_t)S.out[p].count;
        S.next_in[p] += (uint64_t)S.in[p].count;
    }
}

/* Messages of all ranks in this round; every rank computes the same. */
static int64_t round_messages(void)
{
    int64_t n = 0;
    for (int s = 0; s < S.ranks; s++)
        for (int d = 0; d < S.ranks; d++)
            n += burst_count(S.round, s, d);
    return n;
}

/* Everybody learns what everybody else sent it and compares. Rank 0 prints the verdict. */
static void conclude(double seconds)
{
    size_t n = 3 * (size_t)S.ranks;
    int64_t *claimed = calloc(n, sizeof *claimed);
    if (!claimed)
        die("out of memory");
    MPI_Alltoall(S.sent, 3, MPI_LONG_LONG, claimed, 3, MPI_LONG_LONG, MPI_COMM_WORLD);
    for (size_t i = 0; i < n; i++)
        if (claimed[i] != S.received[i])
            die("rank %d says it sent %lld (item %d), received %lld", (int)(i / 3), (long long)claimed[i], (int)(i % 3),
                (long long)S.received[i]);
    free(claimed);
    MPI_Barrier(MPI_COMM_WORLD);
    for (int c = 0; c < 2; c++) {
        int flag = 0;
        MPI_Status status;
        MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, S.comm[c], &flag, &status);
        if (flag)
            die("a message of rank %d tag %d is left over", status.MPI_SOURCE, status.MPI_TAG);
    }
    long long mine[2] = {0, 0}, all[2] = {0, 0};
    for (int p = 0; p < S.ranks; p++) {
        mine[0] += S.received[3 * p];
        mine[1] += S.received[3 * p + 1];
    }
    MPI_Reduce(mine, all, 2, MPI_LONG_LONG, MPI_SUM, 0, MPI_COMM_WORLD);
    if (S.rank == 0) {
        printf("storm: ok seed=%llu ranks=%d rounds=%llu messages=%lld bytes=%lld\n", (unsigned long long)S.seed, S.ranks,
               (unsigned long long)S.round, all[0], all[1]);
        fflush(stdout);
        fprintf(stderr, "storm: %.3f s, %.1f MB/s\n", seconds, (double)all[1] / 1e6 / seconds);
    }
}

static void *table(size_t n, size_t size)
{
    void *p = calloc(n, size);
    if (!p)
        die("out of memory");
    return p;
}

static void set_up(void)
{
    MPI_Comm_rank(MPI_COMM_WORLD, &S.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &S.ranks);
    MPI_Comm_dup(MPI_COMM_WORLD, &S.comm[0]);
    MPI_Comm_dup(MPI_COMM_WORLD, &S.comm[1]);
    size_t n = (size_t)S.ranks;
    S.next_out = table(n, sizeof *S.next_out);
    S.next_in = table(n, sizeof *S.next_in);
    S.sent = table(3 * n, sizeof *S.sent);
    S.received = table(3 * n, sizeof *S.received);
    S.out = table(n, sizeof *S.out);
    S.in = table(n, sizeof *S.in);
    S.send_buffer = table(n * BURST_MAX, sizeof *S.send_buffer);
    S.receive_buffer = table(n * BURST_MAX, sizeof *S.receive_buffer);
    S.send_room = table(n * BURST_MAX, sizeof *S.send_room);
    S.receive_room = table(n * BURST_MAX, sizeof *S.receive_room);
    S.request = table(2 * n * BURST_MAX, sizeof *S.request);
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    double seconds = 0;
    long long messages = 0;
    int progress = 0;
    S.seed = 1;
    S.bytes_max = 4 << 20;
    S.outstanding = 4 << 20;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--progress")) {
            progress = 1;
            continue;
        }
        if (!strcmp(argv[i], "--seed"))
            S.seed = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "--seconds"))
            seconds = strtod(value, NULL);
        else if (!strcmp(argv[i], "--messages"))
            messages = strtoll(value, NULL, 10);
        else if (!strcmp(argv[i], "--max-bytes"))
            S.bytes_max = strtoll(value, NULL, 10);
        else if (!strcmp(argv[i], "--outstanding"))
            S.outstanding = strtoll(value, NULL, 10);
        else
            die("usage: storm [--seed X] [--seconds S | --messages M] [--max-bytes B] [--outstanding B] [--progress]");
        i++;
    }
    set_up();
    if (S.bytes_max < 1 || S.bytes_max > 1 << 30 || S.outstanding < (int64_t)S.ranks * BURST_MAX || S.outstanding > 1 << 30)
        die("--max-bytes must be 1 to 2^30, --outstanding at least 4 per rank and at most 2^30");
    if (messages <= 0 && seconds <= 0)
        messages = 1000;

    MPI_Barrier(MPI_COMM_WORLD);
    double start = MPI_Wtime(), shown = start;
    int64_t done = 0;
    for (int more = 1; more;) {
        done += round_messages();
        do_round();
        S.round++;
        double now = MPI_Wtime();
        if (S.rank == 0 && progress && now - shown >= 1) {
            shown = now;
            printf("storm: round %llu messages %lld\n", (unsigned long long)S.round, (long long)done);
            fflush(stdout);
        }
        if (messages > 0)
            more = done < messages;
        else if (S.round % 8 == 0) {
            more = now - start < seconds;
            MPI_Bcast(&more, 1, MPI_INT, 0, MPI_COMM_WORLD);
        }
    }
    conclude(MPI_Wtime() - start);
    MPI_Finalize();
    return 0;
}
