/* Proves: an integer division by zero ends the partition with one line and status 136. */
#include <stdio.h>

int main(void)
{
    volatile int one = 1, zero = 0; /* both volatile: gcc turns 1 / x into comparisons */
    puts("before");
    fflush(stdout);
    printf("survived %d\n", one / zero);
    return 1;
}
