/* Proves: argc, argv and the environment arrive as given (spaces, empty strings, order), and nothing else does.
 * The environment is printed sorted, since its order means nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int main(int argc, char **argv)
{
    printf("argc %d\n", argc);
    for (int i = 1; i < argc; i++)
        printf("argv[%d] '%s'\n", i, argv[i]);
    size_t n = 0;
    while (environ && environ[n])
        n++;
    if (n)
        qsort(environ, n, sizeof *environ, compare);
    for (size_t i = 0; i < n; i++)
        printf("env %s\n", environ[i]);
    return 0;
}
