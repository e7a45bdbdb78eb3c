/* Proves: what a program has in files goes where its partition goes, whether it was written before, while or after the partition
 * moved. Two files grow side by side, are written over, cut off, replaced by rename and compared with a copy in memory.
 *
 * Arguments: a directory for new files, a mapped file of which byte i is the highest of the 32-bit product i * 2654435761,
 * rounds. Prints "small" when it has files, waits for a line or the end of standard input, makes them larger, prints "big" and
 * goes through its rounds. The last line has lengths and a sum; status 1 with a line on standard error if a byte is wrong. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILES = 2, SMALL = 200000, BIG = 1500000, MAX = 2000000, PIECE = 20000 };

static unsigned char model[FILES][MAX], buffer[MAX];
static size_t length[FILES];
static int fds[FILES], mapped;
static char paths[FILES][256], fresh[256];
static uint64_t state = 1;

static uint32_t below(uint32_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % n;
}

static void fail(const char *what)
{
    fprintf(stderr, "archive: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void put(int fd, const unsigned char *data, size_t n, size_t at)
{
    for (size_t done = 0; done < n;) {
        ssize_t wrote = pwrite(fd, data + done, n - done, (off_t)(at + done));
        if (wrote <= 0)
            fail("write");
        done += (size_t)wrote;
    }
}

static void get(int fd, size_t n, size_t at)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(fd, buffer + done, n - done, (off_t)(at + done));
        if (got <= 0)
            fail("read");
        done += (size_t)got;
    }
}

static void scribble(int f, size_t at, size_t n)
{
    for (size_t i = 0; i < n; i++)
        model[f][at + i] = (unsigned char)below(256);
    put(fds[f], model[f] + at, n, at);
    if (at + n > length[f])
        length[f] = at + n;
}

static void grow(size_t to)
{
    while (length[0] < to || length[1] < to) {
        int f = (int)below(FILES);
        if (length[f] < to)
            scribble(f, length[f], 1 + below(PIECE));
    }
}

static void compare(int f, size_t at, size_t n)
{
    get(fds[f], n, at);
    if (memcmp(buffer, model[f] + at, n))
        fail("a byte is wrong");
}

static void change(int f)
{
    size_t n = 1 + below(PIECE), at = below((uint32_t)(length[f] - n));
    switch (below(8)) {
    case 0: /* cut off, and as long again by a hole */
        at = length[f] - n;
        if (ftruncate(fds[f], (off_t)at) || ftruncate(fds[f], (off_t)(at + n)))
            fail("ftruncate");
        memset(model[f] + at, 0, n);
        length[f] = at + n;
        break;
    case 1: { /* replaced by another one */
        int fd = open(fresh, O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (fd < 0)
            fail("open");
        put(fd, model[f], length[f], 0);
        if (rename(fresh, paths[f]) || close(fds[f]))
            fail("rename");
        fds[f] = fd;
        break;
    }
    default:
        scribble(f, at, n);
    }
    grow(SMALL);
}

static void compare_mapped(size_t bytes)
{
    size_t n = 1 + below(PIECE < bytes ? PIECE : (uint32_t)bytes), at = below((uint32_t)(bytes - n + 1));
    get(mapped, n, at);
    for (size_t i = 0; i < n; i++)
        if (buffer[i] != (unsigned char)((uint32_t)(at + i) * 2654435761u >> 24))
            fail("a byte of the mapped file is wrong");
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    snprintf(fresh, sizeof fresh, "%s/fresh", argv[1]);
    mapped = open(argv[2], O_RDONLY);
    off_t bytes = mapped < 0 ? -1 : lseek(mapped, 0, SEEK_END);
    if (bytes <= 0)
        fail(argv[2]);
    for (int f = 0; f < FILES; f++) {
        snprintf(paths[f], sizeof paths[f], "%s/file-%d", argv[1], f);
        fds[f] = open(paths[f], O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (fds[f] < 0)
            fail(paths[f]);
    }
    grow(SMALL);
    puts("small");
    fflush(stdout);
    getchar();
    grow(BIG);
    puts("big");
    fflush(stdout);
    for (long round = atol(argv[3]); round > 0; round--) {
        int f = (int)below(FILES);
        change(f);
        size_t n = 1 + below(PIECE);
        compare(f, below((uint32_t)(length[f] - n)), n);
        compare_mapped((size_t)bytes);
    }
    uint32_t sum = 2166136261u;
    for (int f = 0; f < FILES; f++) {
        compare(f, 0, length[f]);
        if (lseek(fds[f], 0, SEEK_END) != (off_t)length[f])
            fail("a length is wrong");
        for (size_t i = 0; i < length[f]; i++)
            sum = (sum ^ buffer[i]) * 16777619u;
    }
    printf("archive: %zu and %zu bytes, sum %08x\n", length[0], length[1], (unsigned)sum);
    return 0;
}
