/* Proves: memory is given back and used again: malloc, calloc, realloc and free of 1 byte to MAX bytes, and mmap and
 * munmap, in a random pattern with verified content. The blocks asked for add up to far more than the memory of a
 * partition, so an allocator under malloc that only moves on (munmap that frees nothing, brk that never shrinks)
 * runs out. Fresh mmap and calloc memory must be zero even where it was used before.
 *
 * Arguments: MAX in KiB (default 4096), operations (default 20000), seed (default 1), and the most KiB alive at once
 * (default 32768). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { SLOTS = 256 };
enum kind { EMPTY, HEAP, MAPPED };

struct block {
    enum kind kind;
    unsigned char *data;
    size_t bytes;
    uint64_t key;
};

static struct block block[SLOTS];
static uint64_t state, alive, total;

static uint64_t random64(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1du;
}

static void die(const char *what, size_t bytes)
{
    printf("malloc_storm: %s (%zu bytes; %llu alive, %llu so far)\n", what, bytes, (unsigned long long)alive,
           (unsigned long long)total);
    exit(1);
}

/* First and last bytes and one per page: enough to see an overlap, and every page is touched. */
static size_t probe(size_t i, size_t bytes)
{
    size_t at = i * 4096;
    return at < bytes ? at : bytes - 1;
}

static void fill(struct block *b)
{
    for (size_t i = 0; i <= b->bytes / 4096 + 1; i++)
        b->data[probe(i, b->bytes)] = (unsigned char)(b->key + probe(i, b->bytes) / 4096);
}

static void verify(const struct block *b, size_t bytes)
{
    for (size_t i = 0; bytes && i <= bytes / 4096; i++) {
        size_t at = i * 4096;
        if (at < bytes && b->data[at] != (unsigned char)(b->key + at / 4096) && at != b->bytes - 1)
            die("content changed", b->bytes);
    }
}

static void zero(const struct block *b)
{
    for (size_t i = 0; i <= b->bytes / 4096 + 1; i++)
        if (b->data[probe(i, b->bytes)])
            die("fresh memory is not zero", b->bytes);
}

static void drop(struct block *b)
{
    verify(b, b->bytes);
    if (b->kind == HEAP)
        free(b->data);
    else if (b->kind == MAPPED && munmap(b->data, b->bytes) != 0)
        die("munmap failed", b->bytes);
    alive -= b->bytes;
    b->kind = EMPTY;
    b->bytes = 0;
}

static void take(struct block *b, size_t bytes, unsigned how)
{
    b->bytes = bytes;
    b->key = random64();
    b->kind = how < 3 ? HEAP : MAPPED;
    if (how == 0)
        b->data = calloc(1, bytes);
    else if (b->kind == HEAP)
        b->data = malloc(bytes);
    else
        b->data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!b->data || b->data == MAP_FAILED)
        die(b->kind == HEAP ? "malloc failed" : "mmap failed", bytes);
    alive += bytes;
    total += bytes;
    if (how == 0 || b->kind == MAPPED)
        zero(b);
    fill(b);
}

static void resize(struct block *b, size_t bytes)
{
    verify(b, b->bytes);
    unsigned char *data = realloc(b->data, bytes);
    if (!data)
        die("realloc failed", bytes);
    b->data = data;
    size_t common = bytes < b->bytes ? bytes : b->bytes;
    verify(b, common);
    alive += bytes - b->bytes;
    total += bytes;
    b->bytes = bytes;
    fill(b);
}

int main(int argc, char **argv)
{
    size_t max = (size_t)(argc > 1 ? atol(argv[1]) : 4096) << 10;
    long operations = argc > 2 ? atol(argv[2]) : 20000;
    state = 0x9e3779b97f4a7c15u ^ (uint64_t)(argc > 3 ? atol(argv[3]) : 1);
    uint64_t limit = (uint64_t)(argc > 4 ? atol(argv[4]) : 32768) << 10;
    unsigned bits = 0;
    while ((size_t)2 << bits <= max)
        bits++;
    for (long i = 0; i < operations; i++) {
        struct block *b = &block[random64() % SLOTS];
        uint64_t r = random64();
        size_t bytes = (size_t)1 << (r % (bits + 1));
        bytes += (size_t)((r >> 8) % bytes);
        bytes = bytes > max ? max : bytes;
        unsigned how = (unsigned)(r >> 60) % 4;
        if (b->kind == HEAP && how == 1 && alive + bytes <= limit) {
            resize(b, bytes);
            continue;
        }
        if (b->kind != EMPTY)
            drop(b);
        else if (alive + bytes <= limit)
            take(b, bytes, how);
    }
    for (int i = 0; i < SLOTS; i++)
        if (block[i].kind != EMPTY)
            drop(&block[i]);
    printf("malloc_storm: ok, %llu MiB in %ld operations\n", (unsigned long long)(total >> 20), operations);
    return 0;
}
