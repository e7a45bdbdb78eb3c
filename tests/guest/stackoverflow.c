/* Proves: endless recursion meets the guard below the stack and ends the partition with one line and status 139; it does not
 * run into the heap. */
#include <stdio.h>

__attribute__((noinline)) static unsigned dive(unsigned depth)
{
    volatile unsigned char frame[256];
    frame[depth % sizeof frame] = (unsigned char)depth;
    return dive(depth + 1) + frame[depth % sizeof frame];
}

int main(void)
{
    puts("before");
    fflush(stdout);
    printf("survived %u\n", dive(0));
    return 1;
}
