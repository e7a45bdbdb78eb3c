/* The bench's writer under QEMU: the load of load.h, beats out of COM1. Its command line says what to do:
 *
 *   pages=N rate=N random=0|1 beat_us=N      (`-append`) */
#include <stdint.h>

#include "load.h"

enum { COM1 = 0x3f8, PIT_COUNTER = 0x40, PIT_COMMAND = 0x43, MEMORY = 16 << 20 };

/* Xen's hvm_start_info. */
struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line, rsdp;
};

static uint64_t tsc_start, tsc_per_ms;

static void out(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t in(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static uint64_t tsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static unsigned pit_counter(void)
{
    out(PIT_COMMAND, 0); /* latch counter 0 */
    unsigned low = in(PIT_COUNTER);
    return low | (unsigned)in(PIT_COUNTER) << 8;
}

/* The time stamp counter against 20 ms of the PIT, which runs at 1.193182 MHz and counts down. */
static void calibrate(void)
{
    const unsigned ticks_wanted = 23864;
    out(PIT_COMMAND, 0x30);
    out(PIT_COUNTER, 0xff);
    out(PIT_COUNTER, 0xff);
    unsigned first = pit_counter(), now;
    uint64_t start = tsc();
    do
        now = pit_counter();
    while (first - now < ticks_wanted);
    tsc_start = start;
    tsc_per_ms = (tsc() - start) * 1193 / (first - now);
}

static uint64_t load_now_ns(void)
{
    uint64_t passed = tsc() - tsc_start;
    return passed / tsc_per_ms * 1000000 + passed % tsc_per_ms * 1000000 / tsc_per_ms;
}

static int load_beat(uint64_t pages_written)
{
    out(COM1, load_byte(pages_written));
    return 1;
}

/* The number behind `name=`; 0 if it is not there. */
static uint64_t option(const char *line, const char *name)
{
    for (int at = 0, n; at < 4096 && line[at]; at++) {
        for (n = 0; name[n] && line[at + n] == name[n]; n++)
            ;
        if (name[n] || line[at + n] != '=')
            continue;
        uint64_t value = 0;
        for (at += n + 1; line[at] >= '0' && line[at] <= '9'; at++)
            value = value * 10 + (uint64_t)(line[at] - '0');
        return value;
    }
    return 0;
}

void main(const struct start_info *info);

void main(const struct start_info *info)
{
    const char *line = (const char *)info->command_line;
    struct load load = {
        .memory = (uint64_t *)(uintptr_t)MEMORY,
        .pages = option(line, "pages"),
        .rate = option(line, "rate"),
        .random = option(line, "random"),
        .beat_ns = option(line, "beat_us") * 1000,
    };
    out(COM1 + 1, 0);    /* no interrupts */
    out(COM1 + 3, 0x03); /* 8 bits, no parity */
    out(COM1 + 2, 0x01); /* with its buffer, so that no beat is lost */
    calibrate();
    load_run(&load);
}
