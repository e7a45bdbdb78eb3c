#!/usr/bin/env python3
"""Runs the MPICH test suite (Debian source package mpich) on Partita's MPI library and compares with what is expected.

usage: run.py --out DIR [--runner native|partition] [--vmm PROGRAM] [--memory SIZE] [--jobs N] [--sample] [--chapter C]...
              [--only TEXT]... [--time-scale F] [--markdown FILE] [--list] [--build-only] [--resume]

Fetches, configures and builds the suite in DIR, runs every test with its ranks, arguments and time limit, and counts it
as passed when it prints " No Errors", nothing after it went wrong and the status is 0 (tests that must end in an error say
so in their list). DIR/results-RUNNER.json has every test, standard output a table per chapter. expected.txt names every
test that is left out, with the excluded feature that it uses, and every known failure with its reason; memory.txt the tests that
need more than --memory in a partition. Nothing is built twice, and every test is run; --resume keeps the results that
DIR/progress-RUNNER.jsonl has of a run that was cut off. partitions.md ends the document that --markdown writes.

Exit status: 0 all as expected, 1 a test that is expected to pass failed (or a line of expected.txt is wrong), 2 wrong use.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import suite

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent.parent

# What is absent by design, and how a source that needs it looks. A line of expected.txt that says "excluded FEATURE" is
# refused unless the sources of the test match.
FEATURES = {
    "one-sided": r"\bMPI_(Win_?\w*|Put|Get|Accumulate|Get_accumulate|Rput|Rget|Fetch_and_op|WIN_\w+)\b",
    "files": r"\bMPI_(File_?\w*|FILE_\w+|Register_datarep)\b",
    "sessions": r"\bMPI_(Session\w*|Comm_create_from_group|Intercomm_create_from_groups|Group_from_session_pset)\b",
    "dynamic-processes": r"\bMPI_(Comm_(spawn\w*|accept|connect|join)|Open_port|Publish_name|Lookup_name)\b",
    "tools": r"\bMPI_T_\w+\b",
    "large-counts": r"\bMPI_\w+_c\b",
    "threads": r"\bMPI_THREAD_MULTIPLE\b|\bMTest_Start_thread\b",
    "mpich-only": r"\bMPI_Delete_error_\w+\b|\bMPIX_\w+\b|\bMPICH_\w+\b|\bMPIR_\w+\b",
    "launcher": r"mpiexec|timeout",
    "large-memory": "",  # lines that the suite itself leaves out unless --enable-large-tests
}


def expectations(path):
    """Reads expected.txt: {test or program: (verdict, words)}."""
    found = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split(None, 2)
        if len(words) < 3 or words[1] not in ("excluded", "fails"):
            sys.exit(f"{path}:{number}: a line is TEST excluded FEATURE… or TEST fails REASON")
        if words[1] == "excluded" and words[2].split()[0].rstrip(":") not in FEATURES:
            sys.exit(f"{path}:{number}: no such feature, there are: {', '.join(FEATURES)}")
        found[words[0]] = (words[1], words[2])
    return found


def mebibytes(size):
    """256M or 3G as a number."""
    found = re.fullmatch(r"(\d+)([MG])", size)
    if not found:
        sys.exit(f"conformance: {size} is no size: say 256M or 3G")
    return int(found[1]) * (1024 if found[2] == "G" else 1)


def memory_needs(path):
    """Reads memory.txt: {test or program: size of a partition}."""
    lines = [line.split() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    return {name: size for name, size in lines}


def memory(options, test):
    """What a partition of this test gets: --memory, or what memory.txt says if that is more."""
    needed = options.needs.get(test.name) or options.needs.get(test.binary) or options.memory
    return max(options.memory, needed, key=mebibytes)


def expectation(expected, test):
    """The line for a test: by its whole name, or by its program."""
    return expected.get(test.name) or expected.get(test.binary) or ("passes", "")


def uses_feature(source, test, feature):
    if feature == "large-memory":
        return test.large
    texts = [(source / test.chapter / name).read_text(errors="replace") for name in test.sources]
    return any(re.search(FEATURES[feature], text, re.IGNORECASE) for text in texts)


def command(options, test, program):
    if options.runner == "native":
        return [TOP / "guest-shim/bin/mpirun-native", "-np", str(test.ranks), program, *test.arguments]
    environment = [word for k, v in test.environment.items() for word in ("--env", f"{k}={v}")]
    return [options.vmm, "run", "--np", str(test.ranks), "--memory", memory(options, test), *environment, program, *test.arguments]


def execute(options, test, program):
    """Runs a test. Returns (status or None after the time limit, output)."""
    limit_s = test.time_limit_s * options.time_scale
    words = [str(word) for word in command(options, test, program)]
    with tempfile.TemporaryDirectory(prefix="conformance-") as work, tempfile.TemporaryFile() as output:
        run = subprocess.Popen(
            words,
            cwd=work,
            env={**os.environ, **test.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = run.wait(limit_s)
        except subprocess.TimeoutExpired:
            status = None
            os.killpg(run.pid, signal.SIGTERM)
            try:
                run.wait(5)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(run.pid, signal.SIGKILL)  # ranks that outlive their launcher
        except ProcessLookupError:
            pass
        run.wait()
        output.seek(0)
        return status, output.read(1 << 20).decode(errors="replace")


def judge(test, status, output):
    """Why the test did not pass, or nothing."""
    if status is None:
        return "time limit"
    if test.result:
        return "" if status != 0 else "the status must not be 0"
    if status != 0:
        return f"status {status}"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if not any(re.fullmatch(r"No [Ee]rrors|Test Passed", line) for line in lines):
        return "no line \"No Errors\""
    other = [line for line in lines if not re.fullmatch(r"No [Ee]rrors|Test Passed", line)]
    return f"prints more: {other[0][:100]}" if other else ""


def one(options, builder, test):
    """Builds and runs a test."""
    start = time.monotonic()
    result = {"test": test.name, "chapter": test.chapter, "ranks": test.ranks}
    try:
        program, words = builder.build(test)
    except suite.SuiteError as error:
        program, words = None, str(error)
    if program is None:
        errors = re.findall(r"(?:error: .*|Error: .*|undefined reference to .*)", words)
        return result | {"verdict": "failed", "why": "does not build: " + "; ".join(dict.fromkeys(errors[:4])), "output": words[:4000]}
    if options.build_only:
        return result | {"verdict": "passed", "why": "built"}
    status, output = execute(options, test, program)
    why = judge(test, status, output)
    result |= {"verdict": "failed" if why else "passed", "why": why, "seconds": round(time.monotonic() - start, 2)}
    return result | ({"output": output[:4000]} if why else {})


def table(results):
    """Rows of chapter, run, passed, failed, excluded; with sums for C and Fortran."""
    rows, sums = {}, {}
    for result in results:
        language = result["chapter"].split("/")[0] if "/" in result["chapter"] else "C"
        for key, into in ((result["chapter"], rows), (language, sums)):
            row = into.setdefault(key, dict.fromkeys(("run", "passed", "failed", "excluded"), 0))
            row[result["verdict"]] += 1
            row["run"] += result["verdict"] != "excluded"
    return {**rows, **{f"all of {key}": row for key, row in sums.items()}}


def render(rows):
    lines = ["| chapter | run | passed | failed | excluded | passed of run |", "|---|---|---|---|---|---|"]
    for name, row in rows.items():
        share = f"{100 * row['passed'] / row['run']:.1f} %" if row["run"] else "-"
        lines.append(f"| {name} | {row['run']} | {row['passed']} | {row['failed']} | {row['excluded']} | {share} |")
    return "\n".join(lines)


def markdown(options, results, path):
    """The document: table, failures, exclusions."""
    lines = [
        "# Conformance",
        "",
        f"Generated by `tests/conformance/run.py --markdown`; runner: {options.runner}. The suite is that of MPICH {suite.VERSION} as in",
        "Debian's source package. A test is a line of a test list; `a/b/4` is program b of chapter a with 4 ranks.",
        "",
        render(table(results)),
        "",
    ]
    for title, verdict in (("Failures", "failed"), ("Left out, by the feature that the test uses", "excluded")):
        chosen = [r for r in results if r["verdict"] == verdict]
        lines += [f"## {title}", "", *(f"- `{r['test']}`: {r['reason'] or r['why']}" for r in chosen), "" if chosen else "None.\n"]
    if options.runner == "native":
        lines += [(HERE / "partitions.md").read_text()]
    path.write_text("\n".join(lines).rstrip() + "\n")


def select(options, tests):
    if options.sample:
        names = set((HERE / "sample.txt").read_text().split())
        tests = [test for test in tests if test.name in names]
        lacking = names - {test.name for test in tests}
        if lacking:
            sys.exit(f"conformance: sample.txt names what is not in the suite: {' '.join(sorted(lacking))}")
    if options.chapter:
        tests = [test for test in tests if test.chapter in options.chapter]
    if options.only:
        tests = [test for test in tests if any(text in test.name for text in options.only)]
    return tests


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--runner", choices=("native", "partition"), default="native")
    parser.add_argument("--vmm", type=pathlib.Path, default=TOP / "target/release/vmm")
    parser.add_argument("--memory", default="256M", help="of a partition; tests named in memory.txt get more")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--sample", action="store_true", help="only the tests of sample.txt")
    parser.add_argument("--chapter", action="append", help="attr, f77/coll, …")
    parser.add_argument("--only", action="append", metavar="TEXT", help="only tests with this in their name")
    parser.add_argument("--time-scale", type=float, default=1.0, help="for slow machines: multiplies every time limit")
    parser.add_argument("--markdown", type=pathlib.Path)
    parser.add_argument("--build-only", action="store_true", help="build the tests and run none (to run them on another machine)")
    parser.add_argument("--resume", action="store_true", help="go on where a run that was cut off ended")
    parser.add_argument("--list", action="store_true", help="print the names of the tests and end")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.vmm = options.vmm.resolve()
    options.needs = memory_needs(HERE / "memory.txt")
    mebibytes(options.memory)
    if options.runner == "partition" and shutil.which(str(options.vmm)) is None:
        parser.error(f"{options.vmm} is missing: build it or name it with --vmm")
    return options


def kept(progress):
    """Results of a run that was cut off, by test; its last line may be torn."""
    found = {}
    for line in progress.read_text().splitlines() if progress.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        found[entry["test"]] = entry
    return found


def carry_out(options, source, chosen, expected):
    """Results of all chosen tests, in their order."""
    builder = suite.Builder(source, options.out / f"build-{options.runner}", TOP / "guest-shim/bin", options.runner == "native")
    builder.build_support()
    pool = concurrent.futures.ThreadPoolExecutor(options.jobs)
    progress = options.out / f"progress-{options.runner}.jsonl"
    done = kept(progress) if options.resume else {}
    journal = progress.open("a" if options.resume else "w") if not options.build_only else None
    # Tests of one program share its objects, so one job does them all.
    groups = {}
    for test in chosen:
        groups.setdefault(test.binary, []).append(test)

    def work(group):
        found = []
        for test in group:
            verdict, words = expectation(expected, test)
            if verdict == "excluded":
                entry = {"test": test.name, "chapter": test.chapter, "ranks": test.ranks, "verdict": "excluded", "why": words}
            elif test.name in done:
                entry = done[test.name]
            else:
                entry = one(options, builder, test)
                if journal:
                    print(json.dumps(entry), file=journal, flush=True)
                print(f"{entry['verdict']} {test.name} {entry.get('seconds', '')} {entry['why']}", flush=True)
            found.append(entry | {"expected": verdict, "reason": words})
        return found

    results = {entry["test"]: entry for group in pool.map(work, groups.values()) for entry in group}
    return [results[test.name] for test in chosen]


def main():
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    expected = expectations(HERE / "expected.txt")
    try:
        source = suite.prepare(options.out, TOP / "guest-shim/bin")
        tests = suite.tests(source)
        chosen = select(options, tests)
        if options.list:
            print("\n".join(test.name for test in chosen))
            return 0
        wrong = check_expectations(source, tests, expected, options.needs)
        results = carry_out(options, source, chosen, expected)
    except suite.SuiteError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 1
    if options.build_only:
        for entry in results:
            if entry["verdict"] == "failed" and entry["expected"] == "passes":
                print(f"conformance: {entry['test']}: {entry['why']}", file=sys.stderr)
        return 0
    (options.out / f"results-{options.runner}.json").write_text(json.dumps(results, indent=1) + "\n")
    print(render(table(results)))
    if options.markdown:
        markdown(options, results, options.markdown)
    for entry in results:
        if entry["verdict"] == "failed" and entry["expected"] == "passes":
            wrong.append(f"{entry['test']} failed: {entry['why']}")
        elif entry["verdict"] == "passed" and entry["expected"] == "fails":
            print(f"conformance: {entry['test']} passes now: take its line out of expected.txt", file=sys.stderr)
    for line in wrong:
        print(f"conformance: {line}", file=sys.stderr)
    return 1 if wrong else 0


def check_expectations(source, tests, expected, needs):
    """Lines of expected.txt and memory.txt that name nothing, or a feature that the test does not use."""
    wrong = []
    names = {test.name for test in tests} | {test.binary for test in tests}
    wrong += [f"expected.txt names {name}, which is not in the suite" for name in expected if name not in names]
    wrong += [f"memory.txt names {name}, which is not in the suite" for name in needs if name not in names]
    for test in tests:
        verdict, words = expectation(expected, test)
        feature = words.split(":")[0].split()[0] if words else ""
        if verdict == "excluded" and not uses_feature(source, test, feature):
            wrong.append(f"expected.txt leaves out {test.name} for {feature}, which its sources do not use")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
