#!/usr/bin/env python3
"""Makes ELF files that a loader has to refuse, from a good static one.

usage: bad_elf.py GOOD DIRECTORY

Each file is wrong in one way, which its name tells; `vmm run` must end with one clear error and status 2.
"""

import os
import struct
import sys

PHDR = 56
PT_LOAD, PT_INTERP = 1, 3
U64 = (1 << 64) - 1
# Offsets in the ELF header and in a program header (ELF-64 specification).
E_CLASS, E_DATA, E_TYPE, E_MACHINE, E_ENTRY, E_PHOFF, E_PHENTSIZE, E_PHNUM = 4, 5, 16, 18, 24, 32, 54, 56
P_TYPE, P_FLAGS, P_OFFSET, P_VADDR, P_PADDR, P_FILESZ, P_MEMSZ, P_ALIGN = 0, 4, 8, 16, 24, 32, 40, 48


def put(image, fmt, at, value):
    struct.pack_into("<" + fmt, image, at, value)


def get(image, fmt, at):
    return struct.unpack_from("<" + fmt, image, at)[0]


def loads(image):
    """File offsets of the PT_LOAD program headers."""
    first, count = get(image, "Q", E_PHOFF), get(image, "H", E_PHNUM)
    return [at for at in range(first, first + count * PHDR, PHDR) if get(image, "I", at + P_TYPE) == PT_LOAD]


def header(fmt, at, value):
    return lambda image, segments: put(image, fmt, at, value)


def segment(which, *fields):
    def change(image, segments):
        for at, value in fields:
            put(image, "Q", segments[which] + at, value(image, segments[which]) if callable(value) else value)

    return change


def overlap(image, segments):
    for field in (P_VADDR, P_PADDR):
        put(image, "Q", segments[1] + field, get(image, "Q", segments[0] + field))


def interpreter(image, segments):
    """A GNU_STACK or other header that is not PT_LOAD becomes PT_INTERP: the file is dynamically linked."""
    first, count = get(image, "Q", E_PHOFF), get(image, "H", E_PHNUM)
    at = next(a for a in range(first, first + count * PHDR, PHDR) if a not in segments)
    put(image, "I", at + P_TYPE, PT_INTERP)


def no_loads(image, segments):
    for at in segments:
        put(image, "I", at + P_TYPE, 0)


CHANGES = {
    "machine-aarch64": header("H", E_MACHINE, 183),
    "machine-386": header("H", E_MACHINE, 3),
    "class-32": header("B", E_CLASS, 1),
    "big-endian": header("B", E_DATA, 2),
    "magic": header("B", 1, 0x66),
    "type-relocatable": header("H", E_TYPE, 1),
    "type-core": header("H", E_TYPE, 4),
    "phnum-zero": header("H", E_PHNUM, 0),
    "phnum-huge": header("H", E_PHNUM, 0xFFFF),
    "phentsize-small": header("H", E_PHENTSIZE, 8),
    "phoff-beyond-file": header("Q", E_PHOFF, 1 << 40),
    "phoff-overflow": header("Q", E_PHOFF, U64 - 16),
    "entry-outside": header("Q", E_ENTRY, 0x123),
    "entry-not-canonical": header("Q", E_ENTRY, 1 << 63),
    "no-load": no_loads,
    "interpreter": interpreter,
    "filesz-beyond-file": segment(0, (P_FILESZ, 1 << 32), (P_MEMSZ, 1 << 32)),
    "offset-beyond-file": segment(0, (P_OFFSET, 1 << 40)),
    "offset-overflow": segment(0, (P_OFFSET, U64 & ~0xFFF)),
    "memsz-below-filesz": segment(0, (P_MEMSZ, lambda i, at: get(i, "Q", at + P_FILESZ) - 1)),
    "memsz-huge": segment(-1, (P_MEMSZ, 1 << 46)),
    "memsz-overflow": segment(-1, (P_MEMSZ, U64)),
    "vaddr-overflow": segment(-1, (P_VADDR, U64 & ~0xFFF)),
    "vaddr-zero": segment(0, (P_VADDR, 0)),
    "vaddr-in-rings": segment(-1, (P_VADDR, 0x50_0000_0000)),
    "vaddr-in-system-area": segment(-1, (P_VADDR, 0x60_0000_0000)),
    "vaddr-offset-misaligned": segment(-1, (P_VADDR, lambda i, at: get(i, "Q", at + P_VADDR) + 1)),
    "overlap": overlap,
}

# A prefix of the file of so many bytes.
LENGTHS = {"empty": 0, "truncated-magic": 3, "truncated-header": 40, "truncated-program-headers": 100, "truncated-segments": 8192}


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: bad_elf.py GOOD DIRECTORY")
    with open(sys.argv[1], "rb") as f:
        good = f.read()
    if good[:6] != b"\x7fELF\x02\x01" or get(good, "H", E_TYPE) != 2 or len(loads(good)) < 3:
        sys.exit(f"bad_elf.py: {sys.argv[1]} is not a static ET_EXEC ELF with several segments")
    os.makedirs(sys.argv[2], exist_ok=True)
    images = {name: good[:n] for name, n in LENGTHS.items()}
    for name, change in CHANGES.items():
        image = bytearray(good)
        change(image, loads(good))
        images[name] = bytes(image)
    images["script"] = b"#!/bin/sh\necho not an ELF\n"
    for name, image in images.items():
        path = os.path.join(sys.argv[2], name)
        with open(path, "wb") as f:
            f.write(image)
        os.chmod(path, 0o755)


main()
