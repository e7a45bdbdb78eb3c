#!/usr/bin/env python3
"""Records what the programs of tests/apps print under MPICH: the reference for runs in partitions.

usage: run.py --apps DIR --out DIR [--np N,N...] [--runner COMMAND] [--compare DIR] [CASE...]

Runs DIR/PROGRAM of every case in cases.txt with `mpirun.mpich -np N` and stores its standard output in
OUT/<case>-np<N>.txt. A case is run again only when its program or its line in cases.txt has changed since.
With --compare nothing is kept: the cases are run (always) and compared with the recordings in that directory; use
it with --runner, for example `--apps OUT/native --runner guest-shim/bin/mpirun-native --compare OUT/oracle`.
The runner is called as RUNNER -np N PROGRAM ARGUMENTS.

Exit status: 0 all well, 1 a run failed or differs, 2 wrong use.
"""

import argparse
import hashlib
import pathlib
import shlex
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
TIMEOUT_S = 600  # only against hanging: ranks of MPICH poll, and a busy machine has few processors for them


def cases(path):
    """Yields (name, program, arguments) of each line of cases.txt."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if len(words) < 2:
            sys.exit(f"{path}:{number}: a case is a name, a program and its arguments")
        yield words[0], words[1], words[2:]


def digest(program, arguments):
    h = hashlib.sha256(program.read_bytes())
    h.update("\0".join(arguments).encode())
    return h.hexdigest()


def run(runner, ranks, program, arguments):
    """Standard output of a run, or None after a line on stderr."""
    command = [*runner, "-np", str(ranks), str(program), *arguments]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"oracle: {error}", file=sys.stderr)
        return None
    if done.returncode != 0:
        print(f"oracle: {shlex.join(command)}: status {done.returncode}\n{done.stderr.decode(errors='replace')}", file=sys.stderr)
        return None
    return done.stdout


def record(options, name, ranks, program, arguments):
    """Runs one case unless its recording is current. Returns whether all is well."""
    text, stamp = options.out / f"{name}-np{ranks}.txt", options.out / f".{name}-np{ranks}.sha256"
    current = digest(program, arguments)
    if text.exists() and stamp.exists() and stamp.read_text() == current:
        return True
    start = time.monotonic()
    output = run(options.runner, ranks, program, arguments)
    if output is None:
        return False
    text.write_bytes(output)
    stamp.write_text(current)
    print(f"oracle: {name} np {ranks}: recorded in {time.monotonic() - start:.1f} s")
    return True


def compare(options, name, ranks, program, arguments):
    """Runs one case and compares it with its recording. Returns whether they are equal."""
    expected = options.compare / f"{name}-np{ranks}.txt"
    if not expected.exists():
        print(f"oracle: {expected} is missing: record it first", file=sys.stderr)
        return False
    start = time.monotonic()
    output = run(options.runner, ranks, program, arguments)
    if output is None:
        return False
    if output != expected.read_bytes():
        print(f"oracle: {name} np {ranks}: DIFFERS\n-{expected.read_text()}+{output.decode(errors='replace')}", file=sys.stderr)
        return False
    print(f"oracle: {name} np {ranks}: equal, {time.monotonic() - start:.1f} s")
    return True


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].removeprefix("usage: "))
    parser.add_argument("--apps", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--np", default="2,4")
    parser.add_argument("--runner", default="mpirun.mpich", type=shlex.split)
    parser.add_argument("--cases", type=pathlib.Path, default=HERE / "cases.txt")
    parser.add_argument("--compare", type=pathlib.Path)
    parser.add_argument("only", nargs="*", metavar="CASE")
    options = parser.parse_args()
    if (options.out is None) == (options.compare is None):
        parser.error("give either --out or --compare")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    bad = 0
    for name, program, arguments in cases(options.cases):
        path = options.apps.resolve() / program
        if options.only and name not in options.only:
            continue
        if not path.exists():
            print(f"oracle: {path} is missing: build it with tests/apps/Makefile", file=sys.stderr)
            bad += 1
            continue
        for ranks in map(int, options.np.split(",")):
            step = compare if options.compare else record
            bad += not step(options, name, ranks, path, arguments)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
