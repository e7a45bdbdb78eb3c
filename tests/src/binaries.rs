//! Where the programs under test are, and who builds them.

use std::path::{Path, PathBuf};

use crate::Result;

/// The top of the workspace.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn find(variable: &str, default: &str, name: &str, target: &str) -> Result<PathBuf> {
    let directory = std::env::var_os(variable).map_or_else(|| default.into(), PathBuf::from);
    let path = top().join(directory).join(name);
    path.canonicalize().map_err(|_| {
        format!("{} is missing: `make {target}` builds it (or set {variable})", path.display()).into()
    })
}

/// One of our programs: `PARTITA_BIN`, default `target/release`.
pub fn program(name: &str) -> Result<PathBuf> {
    find("PARTITA_BIN", "target/release", name, "build")
}

/// A guest program, as in `glibc/hello`: `PARTITA_GUESTS`, default `target/programs`.
pub fn guest(name: &str) -> Result<PathBuf> {
    find("PARTITA_GUESTS", "target/programs", name, "guests")
}

/// An MPI program for partitions: `PARTITA_APPS`, default `target/apps`.
pub fn app(name: &str) -> Result<PathBuf> {
    app_for("partita", name)
}

/// An MPI program for partitions (`partita`), for processes with our library (`native`), or for MPICH (`mpich`).
pub fn app_for(library: &str, name: &str) -> Result<PathBuf> {
    let target = if library == "native" { "bench-programs" } else { "guests" };
    find("PARTITA_APPS", "target/apps", &format!("{library}/{name}"), target)
}

/// The program of `messages`, for the same.
pub fn messages_for(library: &str) -> Result<PathBuf> {
    find("PARTITA_BENCH_PROGRAMS", "target/bench", &format!("messages/{library}"), "guests")
}

/// What starts ranks as processes with our library.
pub fn mpirun_native() -> PathBuf {
    top().join("guest-shim/bin/mpirun-native")
}

/// Directory of the guests of `migrator bench`: `PARTITA_BENCH_PROGRAMS`, default `target/bench`.
pub fn bench_programs() -> Result<PathBuf> {
    let beat = find("PARTITA_BENCH_PROGRAMS", "target/bench", "beat", "guests")?;
    Ok(beat.parent().map(Path::to_owned).unwrap_or_default())
}

/// What MPICH printed for a case of `oracle/cases.txt`: `PARTITA_ORACLE`, default `target/oracle`.
pub fn oracle(case: &str, ranks: u32) -> Result<Vec<u8>> {
    let path = find("PARTITA_ORACLE", "target/oracle", &format!("{case}-np{ranks}.txt"), "oracle")?;
    Ok(std::fs::read(path)?)
}

/// Program and arguments of a case of `oracle/cases.txt`.
pub fn case(name: &str) -> Result<(String, Vec<String>)> {
    let text = std::fs::read_to_string(top().join("tests/oracle/cases.txt"))?;
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
    let mut words =
        line.ok_or_else(|| format!("tests/oracle/cases.txt has no case {name}"))?.split_whitespace().skip(1);
    let program = words.next().ok_or("a case without a program")?.to_owned();
    Ok((program, words.map(str::to_owned).collect()))
}
