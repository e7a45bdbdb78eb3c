#!/usr/bin/env python3
"""Counts the instructions of hot MPI calls in the native build of the library, with callgrind.

usage: instructions.py [--json FILE] [--compare FILE] [--profile FUNCTION]

Prints a table of instructions per call (see instructions.c for what each row does). --compare FILE adds the numbers of an
earlier --json and fails if a row has grown by more than a tenth. --profile send prints which functions of the library the
instructions of a row are in. Exit status: 0 done, 1 failed or grown, 2 wrong use. Needs valgrind.
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BIN = HERE.parent.parent / "bin"
CALLS, COLLECTIVES = 200, 50  # as in instructions.c
GROWTH_MAX = 1.1
ROWS = {
    "send": "MPI_Send of 8 bytes, eager",
    "recv": "MPI_Recv of 8 bytes that are there",
    "isend_wait": "MPI_Isend of 8 bytes and MPI_Wait",
    "irecv": "MPI_Irecv of 8 bytes that come later",
    "wait": "MPI_Wait for it when they are there",
    "iprobe_nothing": "MPI_Iprobe that finds nothing (a poll, 2 ranks)",
    "iprobe_found": "MPI_Iprobe that finds a message",
    "allreduce": "MPI_Allreduce of a double, 2 ranks, the other is there",
    "barrier": "MPI_Barrier, 2 ranks, the other is there",
    "pack": "MPI_Pack of a vector of 64 doubles",
}


def measure(work, profile):
    """Runs the program; returns {row: instructions per call}."""
    program, steps = work / "instructions", work / "steps"
    subprocess.run([BIN / "mpicc", "-native", "-O2", "-g", "-fno-ipa-icf", HERE / "instructions.c", "-o", program], check=True)
    steps.write_bytes(bytes(4096))
    out = work / "callgrind.out"
    wanted = f"measure_{profile}" if profile else "measure_*"
    wrapper = work / "run"
    wrapper.write_text(
        "#!/bin/sh\n"
        'case $PARTITA_NATIVE in *:1:2:*) ;; *) exec "$@" ;; esac\n'
        f"exec valgrind -q --tool=callgrind --callgrind-out-file={out} --toggle-collect='{wanted}' \"$@\"\n"
    )
    wrapper.chmod(0o755)
    subprocess.run([BIN / "mpirun-native", "-np", "2", wrapper, program, steps], check=True, timeout=300, stdout=sys.stderr)
    options = ["--inclusive=no"] if profile else ["--inclusive=yes"]
    shown = subprocess.run(["callgrind_annotate", *options, "--threshold=100", out], check=True, capture_output=True, text=True).stdout
    if profile:
        print("\n".join(shown.splitlines()[:60]))
        sys.exit(0)
    found = {}
    for row in ROWS:
        line = re.search(rf"^\s*([\d,]+)\s.*:measure_{row}\b", shown, re.MULTILINE)
        if not line:
            sys.exit(f"instructions: callgrind has not seen measure_{row}")
        found[row] = int(line[1].replace(",", ""))
    # The two warming rounds count for these.
    for row in ("send", "recv"):
        found[row] /= 3
    calls = {"allreduce": COLLECTIVES, "barrier": COLLECTIVES}
    return {row: round(count / calls.get(row, CALLS)) for row, count in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--compare", type=pathlib.Path)
    parser.add_argument("--profile", choices=ROWS, metavar="ROW", help=", ".join(ROWS))
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("instructions: valgrind is missing: apt-get install valgrind", file=sys.stderr)
        return 1
    before = json.loads(options.compare.read_text()) if options.compare else {}
    with tempfile.TemporaryDirectory(prefix="instructions-") as work:
        try:
            counts = measure(pathlib.Path(work), options.profile)
        except (subprocess.SubprocessError, OSError) as error:
            print(f"instructions: {error}", file=sys.stderr)
            return 1
    grown = [row for row in counts if row in before and counts[row] > before[row] * GROWTH_MAX]
    print("| call | instructions |" + (" before |" if before else ""))
    print("|---|---|" + ("---|" if before else ""))
    for row, text in ROWS.items():
        print(f"| {text} | {counts[row]} |" + (f" {before.get(row, '-')} |" if before else ""))
    if options.json:
        options.json.write_text(json.dumps(counts, indent=1) + "\n")
    for row in grown:
        print(f"instructions: {ROWS[row]}: {before[row]} before, {counts[row]} now", file=sys.stderr)
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
