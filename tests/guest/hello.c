/* Proves: entry, auxiliary vector, libc start-up, stdout and a normal exit. */
#include <stdio.h>

int main(void)
{
    puts("hello from C");
    return 0;
}
