/* Proves: mapped files are readable by system calls, stdio and mmap and cannot be written; files in memory can be
 * written, read again, positioned, shortened, renamed if that is offered, and removed.
 *
 * Arguments: the mapped file (default /data/in.txt) and a directory for new files (default /tmp). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int failures;

static void check(int ok, const char *what)
{
    printf("%s: %s\n", what, ok ? "ok" : "FAILED");
    failures += !ok;
}

static unsigned sum(const unsigned char *data, size_t n)
{
    unsigned s = 2166136261u;
    for (size_t i = 0; i < n; i++)
        s = (s ^ data[i]) * 16777619u;
    return s;
}

static size_t read_all(int fd, unsigned char *data, size_t room)
{
    size_t at = 0;
    ssize_t n;
    while (at < room && (n = read(fd, data + at, room - at)) > 0)
        at += (size_t)n;
    return at;
}

static void mapped(const char *path)
{
    static unsigned char data[1 << 20], again[1 << 20];
    int fd = open(path, O_RDONLY);
    check(fd >= 3, "open the mapped file");
    if (fd < 0)
        return;
    struct stat st;
    check(fstat(fd, &st) == 0 && S_ISREG(st.st_mode), "fstat says regular file");
    size_t n = read_all(fd, data, sizeof data);
    printf("file: %zu bytes, sum %08x\n", n, sum(data, n));
    check((off_t)n == st.st_size, "read as many bytes as fstat says");
    check(read(fd, again, 1) == 0, "read at the end gives 0");
    check(lseek(fd, 0, SEEK_CUR) == (off_t)n && lseek(fd, 0, SEEK_END) == (off_t)n, "lseek tells the position and the end");
    check(lseek(fd, 1, SEEK_SET) == 1 && read_all(fd, again, sizeof again) == n - 1 && !memcmp(again, data + 1, n - 1),
          "read again from position 1");
    check(lseek(fd, -1, SEEK_SET) == -1 && errno == EINVAL, "a negative position is refused");
    check(write(fd, "x", 1) == -1 && errno == EBADF, "write to a descriptor open for reading is refused");
    void *map = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
    check(map != MAP_FAILED && !memcmp(map, data, n), "mmap shows the same bytes");
    if (map != MAP_FAILED)
        check(munmap(map, n) == 0, "munmap");
    check(close(fd) == 0 && close(fd) == -1 && errno == EBADF, "close, once");
    fd = open(path, O_RDWR);
    check(fd == -1 && (errno == EACCES || errno == EROFS || errno == EPERM), "open the mapped file for writing is refused");
    FILE *f = fopen(path, "r");
    size_t lines = 0;
    for (int c; f && (c = getc(f)) != EOF;)
        lines += c == '\n';
    printf("stdio: %zu lines\n", lines);
    check(f && !ferror(f) && fclose(f) == 0, "read by stdio");
}

static void written(const char *directory)
{
    char path[256], other[256], line[64];
    snprintf(path, sizeof path, "%s/partita-files.tmp", directory);
    snprintf(other, sizeof other, "%s/partita-files.new", directory);
    check(open(path, O_RDONLY) == -1 && errno == ENOENT, "a file that is not there");
    FILE *f = fopen(path, "w");
    check(f != NULL, "create a file");
    if (!f)
        return;
    for (int i = 0; i < 10000; i++)
        fprintf(f, "line %d\n", i);
    check(fclose(f) == 0, "write 10000 lines");
    f = fopen(path, "r+");
    int right = f != NULL;
    for (int i = 0; f && i < 10000; i++) {
        int number = -1;
        right &= fgets(line, sizeof line, f) && sscanf(line, "line %d", &number) == 1 && number == i;
    }
    check(right, "read them again");
    check(f && fseek(f, 5, SEEK_SET) == 0 && fputc('X', f) == 'X' && fclose(f) == 0, "overwrite one byte");
    int fd = open(path, O_RDWR | O_APPEND);
    struct stat before, after;
    check(fstat(fd, &before) == 0 && write(fd, "tail\n", 5) == 5 && fstat(fd, &after) == 0 && after.st_size == before.st_size + 5,
          "append");
    check(lseek(fd, 0, SEEK_SET) == 0 && read(fd, line, 7) == 7 && !memcmp(line, "line X\n", 7), "see the overwritten byte");
    close(fd);
    fd = open(path, O_RDWR | O_TRUNC);
    check(fstat(fd, &after) == 0 && after.st_size == 0, "truncate on open");
    check(lseek(fd, 100000, SEEK_SET) == 100000 && write(fd, "end", 3) == 3 && lseek(fd, 50000, SEEK_SET) == 50000 &&
              read(fd, line, 1) == 1 && line[0] == 0,
          "a hole reads as zeros");
    check(unlink(path) == 0 && open(path, O_RDONLY) == -1 && errno == ENOENT, "unlink while open");
    check(lseek(fd, 100000, SEEK_SET) == 100000 && read(fd, line, 3) == 3 && !memcmp(line, "end", 3), "it lives on until close");
    close(fd);
    f = fopen(path, "w");
    if (f)
        fclose(f);
    /* rename is not among the calls that a partition must offer; report, do not fail. */
    int renamed = rename(path, other);
    fprintf(stderr, "files: rename: %s\n", renamed == 0 ? "offered" : strerror(errno));
    check(unlink(renamed == 0 ? other : path) == 0, "remove");
}

int main(int argc, char **argv)
{
    mapped(argc > 1 ? argv[1] : "/data/in.txt");
    written(argc > 2 ? argv[2] : "/tmp");
    printf("files: %s\n", failures ? "failed" : "ok");
    return failures != 0;
}
