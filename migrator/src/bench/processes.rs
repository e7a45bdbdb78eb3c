//! The processes of a bench: whatever happens, none is left when it ends.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use migrator::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::error::BenchError;

/// How long a process that was asked to end may take.
const END: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(5);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static CHILDREN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn children() -> MutexGuard<'static, BTreeSet<u32>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP end every child, so that whoever waits for one gets an error and cleans up. By
/// handlers, not by a mask: children would inherit that, and a QEMU that cannot be asked to end has to be killed.
pub fn watch_signals() {
    // Without handlers the signals do what they do to any program.
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let again = INTERRUPTED.swap(true, Ordering::SeqCst);
            let how = if again { Signal::SIGKILL } else { Signal::SIGTERM };
            children().iter().for_each(|pid| signal(*pid, how));
        }
    });
}

/// An error after a signal.
pub fn go_on() -> Result<(), BenchError> {
    if INTERRUPTED.load(Ordering::SeqCst) { Err(BenchError::Interrupted) } else { Ok(()) }
}

/// Sleeps, unless a signal comes.
pub fn sleep(duration: Duration) -> Result<(), BenchError> {
    wait_for(duration, || None::<()>).map(|_| ())
}

/// Asks `condition` until it gives something, for at most `limit`; an error after a signal.
pub fn wait_for<T>(
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<Option<T>, BenchError> {
    let begin = clock::now();
    loop {
        go_on()?;
        if let Some(value) = condition() {
            return Ok(Some(value));
        }
        let left = limit.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        clock::sleep(left.min(TICK));
    }
}

/// A child that is ended when nobody needs it any longer.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts `command` without standard input; what it says on stderr goes to the end of `log`.
    ///
    /// # Errors
    /// With `remedy` if it cannot be started.
    pub fn start(mut command: Command, log: &Path, remedy: &'static str) -> Result<Self, BenchError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |source| BenchError::Start { program: program.clone(), remedy, source };
        let log = fs::OpenOptions::new().create(true).append(true).open(log).map_err(failed)?;
        // Locked, so that a signal finds either no child or a registered one.
        let mut children = children();
        go_on()?;
        let child = command.stdin(Stdio::null()).stderr(log).spawn().map_err(failed)?;
        children.insert(child.id());
        Ok(Self(child))
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        let mut children = children();
        let ended = !matches!(self.0.try_wait(), Ok(None));
        if ended {
            children.remove(&self.0.id());
        }
        ended
    }

    fn ends_within(&mut self, limit: Duration) -> bool {
        let begin = clock::now();
        loop {
            if self.has_ended() {
                return true;
            }
            if begin.elapsed() >= limit {
                return false;
            }
            clock::sleep(TICK);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        signal(self.0.id(), Signal::SIGTERM);
        if !self.ends_within(END) {
            let _ = self.0.kill();
            self.ends_within(END);
        }
    }
}

/// The last line of a log, for an error message.
pub fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    last.map_or_else(|| "it said nothing".to_owned(), |line| line.trim().chars().take(400).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_process_is_ended_and_its_last_words_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "echo first >&2; echo last words >&2; exec sleep 1000"]);
        let process = Process::start(command, &log, "install a shell").unwrap();
        let pid = process.0.id();
        while last_words(&log) != "last words" {
            clock::sleep(TICK);
        }
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        let error = Process::start(Command::new("/no/such"), &log, "do this").unwrap_err();
        assert_eq!((error.to_string().as_str(), error.status()), ("cannot start /no/such: do this", 2));
    }
}
