/* Proves: an access far outside memory ends the partition with one line and status 139. The argument chooses: 0 a hole
 * in the program area, 1 beyond memory (the ring area), 2 the stub, 3 the system area of the page tables, 4 not
 * canonical, 5 the doorbell page, where a program could otherwise forge a WAIT from a wrong place. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

__attribute__((noinline)) static void store_wild(volatile uint32_t *p)
{
    *p = 1;
}

int main(int argc, char **argv)
{
    static const uint64_t address[] = {0x4fffffff000, 0x4ff00000000, 0x1000, 0x6000010000, 0x800000000000, 0x7000000800};
    unsigned which = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
    if (which >= sizeof address / sizeof *address)
        return 2;
    printf("before 0x%llx\n", (unsigned long long)address[which]);
    fflush(stdout);
    store_wild((volatile uint32_t *)address[which]);
    puts("survived");
    return 1;
}
