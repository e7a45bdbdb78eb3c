/* Proves: a store through a null pointer ends the partition with one line (address 0, this function) and status 139. */
#include <stdio.h>

__attribute__((noinline)) static void store_to_null(volatile int *p)
{
    *p = 1;
}

int main(void)
{
    puts("before");
    fflush(stdout);
    store_to_null(NULL);
    puts("survived");
    return 1;
}
