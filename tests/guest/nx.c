/* Proves: data is not executable: a jump to it ends the partition with status 139. Argument: 0 data, 1 heap, 2 stack. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned char in_data[16] = {0xc3}; /* ret: the jump would return and the program would survive */

int main(int argc, char **argv)
{
    unsigned char in_stack[16] = {0xc3};
    unsigned char *in_heap = malloc(16);
    unsigned char *where[] = {in_data, in_heap, in_stack};
    unsigned which = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
    if (!in_heap || which > 2)
        return 2;
    memcpy(in_heap, in_data, 16);
    void (*volatile jump)(void);
    memcpy((void *)&jump, &where[which], sizeof jump);
    puts("before");
    fflush(stdout);
    jump();
    puts("survived");
    return 1;
}
