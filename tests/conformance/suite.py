"""The MPICH test suite as data: fetches the source, reads its test lists and Makefiles, knows what each test is built of.

Facts about the suite used here: a line of a `testlist` is `PROGRAM RANKS [KEY=VALUE…]`; the lines that configure would
leave out start with `@largetest@`; `PROGRAM_SOURCES` and `PROGRAM_CPPFLAGS` of a Makefile.am name what differs from one
source file with the name of the program.
"""

import dataclasses
import pathlib
import re
import shlex
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import debian_source  # noqa: E402

VERSION = "4.0.2"
ARCHIVE = f"mpich_{VERSION}.orig.tar.xz"
DIGEST = "b27039f964afeb6b8a3e009c56b441cbe368c26d6d6476ad3bb7190996875860"
CHAPTERS = ["attr", "coll", "comm", "datatype", "errhan", "group", "info", "init", "pt2pt", "topo"]
FORTRAN_CHAPTERS = ["attr", "coll", "comm", "datatype", "info", "init", "pt2pt", "topo"]
TIME_LIMIT_S = 180  # what the suite itself gives a test without timeLimit


class SuiteError(Exception):
    """The suite could not be had or read."""


@dataclasses.dataclass
class Test:
    """One line of a test list."""

    chapter: str
    program: str
    ranks: int
    arguments: list
    environment: dict
    time_limit_s: int
    result: str  # "" (prints " No Errors"), "TestStatus", "TestErrFatal"
    large: bool
    sources: list
    flags: list

    @property
    def name(self):
        """Unique in the suite, and stable."""
        words = [*self.arguments, *(f"{k}={v}" for k, v in self.environment.items())]
        return f"{self.chapter}/{self.program}/{self.ranks}" + "".join(f",{word}" for word in words)

    @property
    def binary(self):
        return f"{self.chapter}/{self.program}"


def _run(command, log, **options):
    try:
        debian_source.run(command, log, **options)
    except debian_source.SourceError as error:
        raise SuiteError(str(error)) from error


def fetch(out):
    """Debian's source package."""
    try:
        return debian_source.fetch(out, "mpich", ARCHIVE, DIGEST)
    except debian_source.SourceError as error:
        raise SuiteError(str(error)) from error


def prepare(out, wrappers):
    """Unpacks and configures the suite once; returns its directory."""
    source = out / f"mpich-{VERSION}" / "test" / "mpi"
    if (source / ".configured").exists():
        return source
    archive = fetch(out)
    _run(["tar", "-xf", archive, f"mpich-{VERSION}/test/mpi"], out / "configure.log", cwd=out)
    compilers = {"CC": "mpicc", "CXX": "mpicxx", "F77": "mpifort", "FC": "mpifort"}
    compilers |= {f"MPI{key}": value for key, value in compilers.items() if key != "F77"} | {"MPIF77": "mpifort"}
    variables = [f"{key}={wrappers / value} -native" for key, value in compilers.items()]
    options = ["--disable-cxx", "--disable-spawn", "--disable-rma", "--disable-romio"]
    _run(["./configure", *options, *variables], out / "configure.log", cwd=source)
    (source / ".configured").touch()
    return source


def _makefile(path):
    """What a Makefile.am assigns, by name."""
    text = path.read_text().replace("\\\n", " ")
    return dict(re.findall(r"^(\w+)\s*=\s*(.*)$", text, re.MULTILINE))


def _sources(makefile, directory, program):
    named = makefile.get(f"{program}_SOURCES") or makefile.get(f"nodist_{program}_SOURCES")
    if named:
        return named.split()
    for suffix in (".c", ".f", ".f90"):
        if (directory / f"{program}{suffix}").exists():
            return [program + suffix]
    raise SuiteError(f"{directory}/{program}: no source")


def _parse(line, chapter, directory, makefile):
    large = line.startswith("@largetest@")
    program, ranks, *rest = shlex.split(line.removeprefix("@largetest@"))
    options = [word.split("=", 1) for word in rest if "=" in word]
    value = dict(options)
    flags = makefile.get(f"{program}_CPPFLAGS", "").split()
    return Test(
        chapter=chapter,
        program=program,
        ranks=int(ranks),
        arguments=[v for k, v in options if k == "arg"],
        environment=dict(v.split("=", 1) for k, v in options if k == "env"),
        time_limit_s=int(value.get("timeLimit", TIME_LIMIT_S)),
        result=value.get("resultTest", ""),
        large=large,
        sources=_sources(makefile, directory, program),
        flags=[flag for flag in flags if flag.startswith("-D")],
    )


def tests(source):
    """All tests of the chapters, in the order of the lists; a line that stands twice is one test."""
    chapters = [*CHAPTERS, *(f"f77/{c}" for c in FORTRAN_CHAPTERS), *(f"f90/{c}" for c in FORTRAN_CHAPTERS)]
    found = {}
    for chapter in chapters:
        directory = source / chapter
        template = directory / "testlist.in"
        lines = (template if template.exists() else directory / "testlist").read_text().splitlines()
        makefile = _makefile(directory / "Makefile.am")
        for line in filter(None, (line.strip() for line in lines)):
            if not line.startswith("#"):
                test = _parse(line, chapter, directory, makefile)
                found.setdefault(test.name, test)
    return list(found.values())


class Builder:
    """Compiles and links tests with the wrappers of one mode."""

    def __init__(self, source, out, wrappers, native):
        self.source, self.out, self.wrappers = source, out, wrappers
        self.mode = ["-native"] if native else []
        self.library = wrappers.parent / "lib" / ("libmpi_native.a" if native else "libmpi.a")
        if not self.library.exists():
            raise SuiteError(f"{self.library} is missing: run `make -C guest-shim` first")
        self.headers = max(p.stat().st_mtime for p in (wrappers.parent / "include").glob("mpi*"))
        self.support = []

    def _compile(self, path, flags, target):
        """Compiles unless the object is current. Returns the compiler's words if it failed."""
        if target.exists() and target.stat().st_mtime > max(path.stat().st_mtime, self.headers):
            return None
        target.parent.mkdir(parents=True, exist_ok=True)
        includes = ["include", "dtpools/include", "dtpools"]
        command = [self.wrappers / ("mpicc" if path.suffix == ".c" else "mpifort"), "-O1", "-w", *flags, "-c", path]
        if path.suffix == ".c":
            command += [f"-I{self.source / d}" for d in includes]
        else:
            command += [f"-I{path.parent}", f"-J{target.parent}"]
        return self._carry_out([*command, "-o", target], path.parent)

    def _carry_out(self, command, directory):
        done = subprocess.run(
            list(map(str, command)), cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
        return None if done.returncode == 0 else done.stderr or f"status {done.returncode}"

    def build_support(self):
        """The helper library of the suite. A test that does not find something in it fails to link."""
        types = re.search(r"-DDTP_MPI_DATATYPE=(\S+)", (self.source / "dtpools/src/Makefile").read_text())
        flags = {"dtpools": [f"-DDTP_MPI_DATATYPE={types[1] if types else ''}"], "util": []}
        helpers = [self.source / "util" / f"{n}.c" for n in ("mtest", "mtest_common", "mtest_single", "dtypes")]
        helpers += sorted((self.source / "dtpools/src").glob("*.c"))
        for path in helpers:
            target = self.out / "support" / f"{path.stem}.o"
            words = self._compile(path, flags["dtpools" if "dtpools" in path.parts else "util"], target)
            if words is None:
                self.support.append(target)
            else:
                print(f"conformance: helper {path.name} does not compile:\n{words}", file=sys.stderr)

    def build(self, test):
        """Builds the program of a test. Returns its path and no words, or none and the compiler's words."""
        binary = self.out / test.chapter / test.program
        chapter = self.source / test.chapter
        objects = []
        sources = [*test.sources]
        if test.chapter.startswith("f"):
            sources.insert(0, f"../../util/mtest_{test.chapter[:3]}" + (".f" if test.chapter.startswith("f77") else ".f90"))
        for name in sources:
            target = self.out / test.chapter / f"{test.program}.{pathlib.Path(name).name}.o"
            words = self._compile((chapter / name).resolve(), test.flags, target)
            if words is not None:
                binary.unlink(missing_ok=True)
                return None, words
            objects.append(target)
        newest = max(p.stat().st_mtime for p in [*objects, *self.support, self.library])
        if not binary.exists() or binary.stat().st_mtime < newest:
            fortran = not all(name.endswith(".c") for name in sources)
            linker = self.wrappers / ("mpifort" if fortran else "mpicc")
            words = self._carry_out([linker, *self.mode, *objects, *self.support, "-lm", "-o", binary], chapter)
            if words is not None:
                binary.unlink(missing_ok=True)
                return None, words
        return binary, None
