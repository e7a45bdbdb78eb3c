/* Proves: an illegal instruction ends the partition with one line and status 132. */
#include <stdio.h>

int main(void)
{
    puts("before");
    fflush(stdout);
    __asm__ volatile("ud2");
    puts("survived");
    return 1;
}
