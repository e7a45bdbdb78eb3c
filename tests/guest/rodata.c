/* Proves: segments have their own permissions: a write to constant data ends the partition with status 139. */
#include <stdio.h>

static const int constants[1024] = {1, 2, 3};

__attribute__((noinline)) static void store_to_constant(volatile int *p)
{
    *p = 7;
}

int main(void)
{
    printf("before %d\n", constants[1]);
    fflush(stdout);
    store_to_constant((volatile int *)(unsigned long)&constants[1]);
    printf("survived %d\n", constants[1]);
    return 1;
}
