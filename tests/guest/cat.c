/* Proves: standard input is a stream to the end, standard output takes binary data unchanged. Short reads and
 * writes are legal and handled. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

int main(void)
{
    static char buffer[70000];
    long long total = 0;
    for (;;) {
        ssize_t n = read(0, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            perror("cat: read");
            return 1;
        }
        if (n == 0)
            break;
        for (ssize_t at = 0; at < n;) {
            ssize_t put = write(1, buffer + at, (size_t)(n - at));
            if (put < 0) {
                perror("cat: write");
                return 1;
            }
            at += put;
        }
        total += n;
    }
    fprintf(stderr, "cat: %lld bytes\n", total);
    return 0;
}
