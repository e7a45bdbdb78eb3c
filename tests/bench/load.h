/* The load of `migrator bench`: rewrites pages and beats. The same code runs in a partition (beat.c) and under QEMU
 * (pvh.c), so it uses nothing but the compiler. */
#ifndef PARTITA_BENCH_LOAD_H
#define PARTITA_BENCH_LOAD_H

#include <stdint.h>

enum {
    PAGE_WORDS = 512,
    LINE_WORDS = 8,      /* one word of every cache line is rewritten: no part of a page stays what it was */
    PAGES_PER_UNIT = 64, /* what a beat of one byte counts in */
};

struct load {
    uint64_t *memory;  /* `pages` pages */
    uint64_t pages;    /* 0: idle */
    uint64_t rate;     /* pages per second; 0: as fast as it can */
    uint64_t random;   /* 0: one after the other */
    uint64_t beat_ns;
};

/* What differs from one machine to the other. A beat that cannot go out now (0) is tried again at once. */
static uint64_t load_now_ns(void);
static int load_beat(uint64_t pages_written);

static uint64_t load_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static void load_rewrite(const struct load *load, uint64_t number)
{
    uint64_t index = load->random ? load_mix(number * 0x9e3779b97f4a7c15u) % load->pages : number % load->pages;
    volatile uint64_t *page = load->memory + index * PAGE_WORDS;
    uint64_t value = load_mix(number + 1) | 1;
    for (unsigned i = 0; i < PAGE_WORDS; i += LINE_WORDS) {
        page[i] = value;
        value += 0x9e3779b97f4a7c15u;
    }
}

/* Never returns. */
static void load_run(const struct load *load)
{
    const uint64_t late_ns = 10000000;
    uint64_t written = 0;
    /* Every page is full of noise, which nothing can pack, before the first beat: whoever sees one knows that the working set is there. */
    for (uint64_t i = 0; i < load->pages * PAGE_WORDS; i++)
        load->memory[i] = load_mix(i + 1);
    uint64_t beat = load_now_ns(), due = beat;
    uint64_t interval = load->rate ? 1000000000u / load->rate : 0;
    for (;;) {
        uint64_t now = load_now_ns();
        if (load->pages && now >= due) {
            load_rewrite(load, written++);
            /* What was missed in a pause is not made up for: it would be a burst that no program has. */
            due = now > due + late_ns ? now : due + interval;
        }
        if (now - beat >= load->beat_ns && load_beat(written))
            beat = now;
    }
}

/* One byte for each beat: units of pages since the last one; what does not fit is carried on. */
static uint8_t load_byte(uint64_t pages_written)
{
    static uint64_t told;
    uint64_t units = (pages_written - told) / PAGES_PER_UNIT;
    if (units > 255)
        units = 255;
    told += units * PAGES_PER_UNIT;
    return (uint8_t)units;
}

#endif
