#!/usr/bin/env python3
"""Measures the algorithms of the collectives against each other: what the table in src/collective/select.rs should say.

usage: collective_bench.py [--np N,N...] [--bytes B,B...] [--only COLLECTIVE]... [--runner COMMAND]

Prints, for every collective, number of ranks and size, the median microseconds per call of each algorithm, the fastest
one, and what the table takes (marked * where that is over a quarter slower than the fastest). Ranks are processes; with
more ranks than cores the numbers say how much work an algorithm is, not how it would do on as many cores. --runner is
called as COMMAND -np N PROGRAM ARGUMENTS. Exit status: 0 done, 1 failed, 2 wrong use.
"""

import argparse
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BIN = HERE.parent.parent / "bin"
ALGORITHMS = {
    "broadcast": ["binomial", "scatter-ring"],
    "gather": ["linear", "binomial"],
    "scatter": ["linear", "binomial"],
    "allgather": ["at-once", "bruck", "ring"],
    "alltoall": ["at-once", "bruck", "pairwise"],
    "reduce": ["binomial", "rabenseifner"],
    "allreduce": ["recursive-doubling", "rabenseifner"],
}
SLOWER_MAX = 1.25


def measure(options, program, name, ranks, algorithm):
    """{bytes: microseconds}; the table's choice if no algorithm is given."""
    environment = {**os.environ, "PARTITA_COLLECTIVES": f"{name}:{algorithm}" if algorithm else ""}
    words = [*options.runner, "-np", str(ranks), program, name, *map(str, options.bytes)]
    run = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600)
    if run.returncode != 0:
        sys.exit(f"collective_bench: {name} {algorithm}: status {run.returncode}: {run.stderr.strip()}")
    return {int(size): float(time) for size, time in (line.split() for line in run.stdout.splitlines())}


def main():
    def numbers(text):
        return [int(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--np", type=numbers, default=[2, 4, 8])
    parser.add_argument("--bytes", type=numbers, default=[8, 256, 2048, 16384, 131072])
    parser.add_argument("--only", action="append", choices=ALGORITHMS)
    parser.add_argument("--runner", type=shlex.split, default=[str(BIN / "mpirun-native")])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="collective-bench-") as work:
        program = pathlib.Path(work) / "collective_bench"
        source = HERE / "collective_bench.c"
        if subprocess.run([BIN / "mpicc", "-native", "-O2", "-w", source, "-o", program]).returncode != 0:
            return 1
        print("| collective | ranks | bytes | microseconds | fastest | the table |\n|---|---|---|---|---|---|")
        for name in options.only or ALGORITHMS:
            for ranks in options.np:
                found = {a: measure(options, program, name, ranks, a) for a in ALGORITHMS[name]}
                table = measure(options, program, name, ranks, None)
                for size in options.bytes:
                    times = {algorithm: result[size] for algorithm, result in found.items()}
                    best = min(times, key=times.get)
                    listed = ", ".join(f"{algorithm} {time}" for algorithm, time in times.items())
                    mark = " *" if table[size] > SLOWER_MAX * times[best] else ""
                    print(f"| {name} | {ranks} | {size} | {listed} | {best} | {table[size]}{mark} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
