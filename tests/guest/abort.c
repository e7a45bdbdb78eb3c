/* Proves: abort() ends the partition with status 134, with the output written before. */
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    puts("before");
    fflush(stdout);
    abort();
}
