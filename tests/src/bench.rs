//! The place of one test: a short temporary directory, the processes started in it, and what they left behind.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::process::{Finished, run};
use crate::{Process, Result, binaries, promised};

/// Marks every process of a test, and its children, in `/proc/PID/environ`.
const MARK: &str = "PARTITA_TEST_BENCH";
/// Standard input of what is started.
const INPUT: &str = "input";

/// Directory and mark of one test.
#[derive(Debug)]
pub struct Bench {
    directory: TempDir,
    started: Cell<u32>,
    certificates: Option<PathBuf>,
}

impl Bench {
    /// A new one; `TMPDIR` has to be a file system with Unix sockets.
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("pt").tempdir()?;
        std::fs::create_dir(directory.path().join("s"))?;
        std::fs::create_dir(directory.path().join("tmp"))?;
        std::fs::create_dir(directory.path().join("log"))?;
        std::fs::write(directory.path().join(INPUT), b"")?;
        Ok(Self { directory, started: Cell::new(0), certificates: None })
    }

    /// Makes certificates for this machine. Whatever is started from now on shows them, and [`Receiver`](crate::partition::Receiver)s
    /// take migrations over TLS.
    pub fn secure(&mut self) -> Result {
        let out = self.path().join("certificates");
        let mut command = self.command(&binaries::program("coordinator")?);
        command.args(["certificates", "--head", "localhost", "--name", "here,127.0.0.1", "--out"]).arg(&out);
        let done = self.run(command, "certificates", None, 10)?;
        if done.status != 0 {
            return Err(format!("coordinator certificates: {}", done.stderr).into());
        }
        self.certificates = Some(out);
        Ok(())
    }

    /// Scheme of addresses at which migrations are taken.
    pub fn scheme(&self) -> &'static str {
        if self.certificates.is_some() { "tls" } else { "tcp" }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where sockets are: `--state-dir` of everything.
    pub fn state(&self) -> PathBuf {
        self.path().join("s")
    }

    /// A command whose temporary files are in the bench and whose children can be found.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env(MARK, self.path()).env("TMPDIR", self.path().join("tmp"));
        if let Some(certificates) = &self.certificates {
            command.env("PARTITA_TLS_CERT", certificates.join("host-here.pem"));
            command.env("PARTITA_TLS_KEY", certificates.join("host-here.key"));
            command.env("PARTITA_TLS_CA", certificates.join("ca.pem"));
        }
        command
    }

    /// `vmm` with arguments.
    pub fn vmm<A: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Command> {
        let mut command = self.command(&binaries::program("vmm")?);
        command.args(arguments);
        Ok(command)
    }

    fn unique(&self, name: &str) -> String {
        self.started.set(self.started.get() + 1);
        format!("{:03}-{name}", self.started.get())
    }

    /// Starts a process, which reads what is [said](Self::say).
    pub fn start(&self, command: Command, name: &str) -> Result<Process> {
        let input = self.path().join(INPUT);
        Process::start(command, &self.path().join("log"), &self.unique(name), Some(&input))
    }

    /// From now on this is what processes that were started find on standard input, which was empty until now.
    pub fn say(&self, text: &str) -> Result {
        Ok(std::fs::write(self.path().join(INPUT), text)?)
    }

    /// Runs a command to its end.
    pub fn run(&self, command: Command, name: &str, stdin: Option<&Path>, seconds: u64) -> Result<Finished> {
        run(command, &self.path().join("log"), &self.unique(name), stdin, seconds)
    }

    /// Processes of this bench that are alive, as "PID COMMAND".
    pub fn processes(&self) -> Vec<(i32, String)> {
        let wanted = format!("{MARK}={}", self.path().display()).into_bytes();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            // A process that has ended and was not waited for has an empty environment.
            if environment.split(|byte| *byte == 0).any(|variable| variable == wanted) {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        found
    }

    /// Files and sockets in the state and temporary directories, except those that may stay (`journal` and the like).
    pub fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut todo = vec![self.state(), self.path().join("tmp")];
        while let Some(directory) = todo.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    todo.push(entry.path());
                }
                found.push(entry.path());
            }
        }
        found
    }

    /// Every process has ended and nothing is left in the directories.
    pub fn assert_nothing_left(&self) -> Result {
        self.assert_no_processes()?;
        let files = self.files();
        if files.is_empty() { Ok(()) } else { Err(format!("left behind: {files:?}").into()) }
    }

    /// Every process has ended.
    pub fn assert_no_processes(&self) -> Result {
        promised("the end of all processes", 5, || Ok(self.processes().is_empty().then_some(())))
            .map_err(|e| format!("{e}: {:?}", self.processes()).into())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}
