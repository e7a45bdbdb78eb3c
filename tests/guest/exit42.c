/* Proves: the exit status passes through; output without a newline is not lost, and handlers run. */
#include <stdio.h>
#include <stdlib.h>

static void handler(void)
{
    fputs("at exit", stdout);
}

int main(void)
{
    atexit(handler);
    fputs("to stderr\n", stderr);
    return 42;
}
