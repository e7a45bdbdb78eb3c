"""The programs: where their sources come from, how they are built, how they are run and what says that they worked.

Facts used here: NetPIPE's `-i` sends patterns and checks them instead of measuring; NPB prints "Verification = SUCCESSFUL"
when its result is that of the NPB report; the examples of rsmpi assert what they expect, so their status is the verdict.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import debian_source  # noqa: E402

NETPIPE = ("netpipe", "netpipe_3.7.2.orig.tar.gz", "13dac884ff52951636f651c421f5ff4a853218a95aa28a4a852402ee385a2ab8")
SIMGRID = ("simgrid", "simgrid_3.32.orig.tar.xz", "4b413d8e9d9b29b8e086b2f3edaec5b1149d7eb52b2e134f1ed13d30891ece7b")
RSMPI = "0.8.2"
# static-PIE is Rust's default for a static program; libffi comes with the feature "user-operations" and is built by it.
RSMPI_FEATURES = "user-operations,derive,complex"
TARGET = "x86_64-unknown-linux-gnu"

# Examples that need what is absent by design; the reason is part of the documentation.
RSMPI_EXCLUDED = {
    "spawn": "dynamic processes (MPI_Comm_spawn)",
    "spawn_multiple": "dynamic processes (MPI_Comm_spawn_multiple)",
}
# In a partition there is one thread (clone fails), so what starts one cannot pass there.
RSMPI_THREADS = {"derive_nonthreaded_panic": "a second thread"}


@dataclasses.dataclass
class Case:
    """One run."""

    name: str
    program: str  # key of what the builder made
    ranks: int
    arguments: list
    pattern: str = ""  # must be in the output
    forbidden: str = ""  # must not be
    excluded: str = ""  # why it is not run


def case_list(runner, examples):
    """All cases for a runner."""
    cases = [
        Case("netpipe integrity", "NPmpi", 2, ["-i", "-u", "65536", "-n", "5"], "Integrity check passed", "failed"),
        Case("netpipe integrity, both ways", "NPmpi", 2, ["-i", "-2", "-a", "-u", "65536", "-n", "5"], "Integrity check passed", "failed"),
        Case("netpipe sweep", "NPmpi", 2, ["-u", "262144", "-n", "5", "-o", "/dev/null"], r"262147 bytes .* Mbps", ""),
        Case("netpipe sweep, synchronous", "NPmpi", 2, ["-S", "-u", "65536", "-n", "5", "-o", "/dev/null"], r"65539 bytes .* Mbps", ""),
    ]
    verified = r"Verification\s*=\s*SUCCESSFUL"
    for ranks in (2, 4):
        cases.append(Case(f"npb ep.S, {ranks}", "ep", ranks, [str(ranks), "S"], verified, "UNSUCCESSFUL"))
        cases.append(Case(f"npb is.S, {ranks}", "is", ranks, [str(ranks), "S"], verified, "UNSUCCESSFUL"))
    cases.append(Case("npb is.W, 2", "is", 2, ["2", "W"], verified, "UNSUCCESSFUL"))
    for graph, ranks in (("BH", 5), ("WH", 5), ("SH", 12)):
        cases.append(Case(f"npb dt.S {graph}, {ranks}", "dt", ranks, [str(ranks), "S", graph], verified, "UNSUCCESSFUL"))
    for example in examples:
        excluded = RSMPI_EXCLUDED.get(example) or (RSMPI_THREADS.get(example, "") if runner == "partition" else "")
        cases.append(Case(f"rsmpi {example}", f"rsmpi/{example}", 2, [], excluded=excluded))
    return cases


class Builder:
    """Fetches and builds with the wrappers of one mode."""

    def __init__(self, out, wrappers, native):
        self.fetched, self.out = out, out / ("native" if native else "partition")
        self.wrappers, self.native = wrappers, native
        library = wrappers.parent / "lib" / ("libmpi_native.a" if native else "libmpi.a")
        if not library.exists():
            raise debian_source.SourceError(f"{library} is missing: run `make -C guest-shim` first")
        self.library = library
        self.mode = ["-native"] if native else []
        self.log = self.out / "build.log"
        self.out.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)

    def _unpack(self, package, member):
        archive = debian_source.fetch(self.fetched, *package)
        if not (self.fetched / member).exists():
            debian_source.run(["tar", "-xf", archive, member], self.log, cwd=self.fetched)
        return self.fetched / member

    def _c(self, name, sources, flags):
        """Compiles and links one C program, unless it is newer than the library."""
        target = self.out / name
        if not target.exists() or target.stat().st_mtime < max(p.stat().st_mtime for p in [*sources, self.library]):
            words = [self.wrappers / "mpicc", *self.mode, "-O2", "-w", *flags, *sources, "-o", target, "-lm"]
            debian_source.run(words, self.log)

    def netpipe(self):
        source = self._unpack(NETPIPE, "NetPIPE-3.7.2") / "src"
        # As its makefile does: -DMPI, and gethostname, close and more without a declaration.
        flags = ["-DMPI", "-fcommon", "-std=gnu89", f"-I{source}"]
        self._c("NPmpi", [source / "netpipe.c", source / "mpi.c"], flags)

    def npb(self):
        source = self._unpack(SIMGRID, "simgrid-3.32/examples/smpi/NAS")
        flags = [f"-I{HERE / 'include'}", f"-I{source}"]
        for name, more in (("ep", []), ("is", []), ("dt", [source / "DGraph.c"])):
            files = [source / f"{name}.c", source / "nas_common.c", *more]
            if name == "dt":
                renamed = self.out / "dt.o"
                debian_source.run([self.wrappers / "mpicc", "-O2", "-w", "-Dmain=program_main", *flags, "-c", files[0], "-o", renamed], self.log)
                files = [renamed, HERE / "main.c", *files[1:]]
            self._c(name, files, flags)

    def _rsmpi_source(self):
        """A copy of the crate as the registry has it, outside of any workspace."""
        copy = self.fetched / f"mpi-{RSMPI}"
        if copy.exists():
            return copy
        asking = self.fetched / "asking"
        (asking / "src").mkdir(parents=True, exist_ok=True)
        (asking / "src/lib.rs").write_text("")
        manifest = f'[package]\nname = "asking"\nedition = "2021"\n[dependencies]\nmpi = "={RSMPI}"\n[workspace]\n'
        (asking / "Cargo.toml").write_text(manifest)
        found = subprocess.run(
            ["cargo", "metadata", "--format-version", "1", "--manifest-path", asking / "Cargo.toml"], capture_output=True, text=True
        )
        if found.returncode != 0:
            raise debian_source.SourceError(f"cargo metadata: {found.stderr.strip().splitlines()[-1]}")
        packages = json.loads(found.stdout)["packages"]
        source = next(pathlib.Path(p["manifest_path"]).parent for p in packages if (p["name"], p["version"]) == ("mpi", RSMPI))
        shutil.rmtree(self.fetched / "copying", ignore_errors=True)
        shutil.copytree(source, self.fetched / "copying")
        with open(self.fetched / "copying/Cargo.toml", "a") as file:
            file.write("\n[workspace]\n")
        (self.fetched / "copying").rename(copy)
        return copy

    def rsmpi_examples(self):
        """Names of all examples."""
        manifest = (self._rsmpi_source() / "Cargo.toml").read_text()
        return sorted(re.findall(r'^\[\[example\]\]\nname = "(\w+)"', manifest, re.MULTILINE))

    def rsmpi(self):
        """Builds all examples."""
        source = self._rsmpi_source()
        wrapper = self.out / "mpicc-rsmpi"  # rsmpi takes the name of one program
        wrapper.write_text(f'#!/bin/sh\nexec {self.wrappers}/mpicc-rsmpi {" ".join(self.mode)} "$@"\n')
        wrapper.chmod(0o755)
        environment = {**os.environ, "MPICC": str(wrapper), "CARGO_TARGET_DIR": str(self.out / "cargo")}
        if not self.native:
            environment["RUSTFLAGS"] = "-C target-feature=+crt-static"
        stamp = self.out / "rsmpi.stamp"
        at = ["--quiet", "--locked", "--manifest-path", source / "Cargo.toml", "--target", TARGET]
        if not stamp.exists() or stamp.stat().st_mtime < self.library.stat().st_mtime:
            # Cargo does not see that the library or its header has changed.
            debian_source.run(["cargo", "clean", *at, "--package", "mpi-sys"], self.log, env=environment)
        for example in self.rsmpi_examples():
            if example not in RSMPI_EXCLUDED:
                words = ["cargo", "build", *at, "--features", RSMPI_FEATURES, "--example", example]
                debian_source.run(words, self.log, env=environment)
        stamp.touch()
        (self.out / "rsmpi").unlink(missing_ok=True)
        (self.out / "rsmpi").symlink_to(pathlib.Path("cargo") / TARGET / "debug/examples")
