//! A child process whose output goes to files and which never outlives the test.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Result, wait_for};

/// A started process. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    status: Option<i32>,
}

impl Process {
    /// Starts `command`; its output goes to `NAME.out` and `NAME.err` in `directory`. Standard input is empty unless `stdin`
    /// names a file.
    pub fn start(mut command: Command, directory: &Path, name: &str, stdin: Option<&Path>) -> Result<Self> {
        let (stdout, stderr) = (directory.join(format!("{name}.out")), directory.join(format!("{name}.err")));
        command.stdin(match stdin {
            Some(path) => File::open(path)?.into(),
            None => Stdio::null(),
        });
        command.stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
        let child = command.spawn().map_err(|e| format!("cannot start {name} ({command:?}): {e}"))?;
        Ok(Self { name: name.to_owned(), child, stdout, stderr, status: None })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> Vec<u8> {
        std::fs::read(&self.stdout).unwrap_or_default()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// Exit status, 128 + signal for a killed process; `None` while it runs.
    pub fn status(&mut self) -> Result<Option<i32>> {
        if self.status.is_none() {
            self.status =
                self.child.try_wait()?.map(|s| s.code().unwrap_or_else(|| 128 + s.signal().unwrap_or(0)));
        }
        Ok(self.status)
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, seconds: u64) -> Result<i32> {
        let what = format!("the end of {}", self.name);
        wait_for(&what, seconds, || self.status()).map_err(|e| format!("{e}\n{}", self.describe()).into())
    }

    /// `kill -9`, and waits for the process to be gone.
    pub fn kill(&mut self) -> Result {
        if self.status()?.is_none() {
            self.signal(Signal::SIGKILL)?;
            self.wait(5)?;
        }
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result {
        Ok(kill(Pid::from_raw(self.pid()), signal)?)
    }

    /// Output so far, for messages about failures.
    pub fn describe(&self) -> String {
        format!(
            "{}: stdout {:?}\n{}: stderr {}",
            self.name,
            tail(&self.stdout()),
            self.name,
            tail(self.stderr().as_bytes())
        )
    }
}

fn tail(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(2000)..]).into_owned()
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a finished command left.
#[derive(Debug)]
pub struct Finished {
    /// Exit status, 128 + signal for a killed process.
    pub status: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
    /// How long it took, seconds.
    pub seconds: f64,
}

/// Runs `command` to its end.
pub fn run(
    command: Command,
    directory: &Path,
    name: &str,
    stdin: Option<&Path>,
    seconds: u64,
) -> Result<Finished> {
    let start = Instant::now();
    let mut process = Process::start(command, directory, name, stdin)?;
    let status = process.wait(seconds)?;
    Ok(Finished {
        status,
        stdout: process.stdout(),
        stderr: process.stderr(),
        seconds: start.elapsed().as_secs_f64(),
    })
}
