//! Something that runs and can be moved again and again: a partition (`partita`) or a guest of QEMU (`qemu`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::case::Case;
use super::error::BenchError;
use super::link::Hosts;
use super::observe::Observation;
use super::record::Moved;

/// How long a started process may take to answer; the emulated machine takes long.
pub const START: Duration = Duration::from_secs(180);

/// What all sessions of a case share.
#[derive(Debug)]
pub struct Setup<'a> {
    /// What is measured.
    pub case: &'a Case,
    /// Where.
    pub hosts: &'a Hosts,
    /// The vmm program.
    pub vmm: &'a Path,
    /// QEMU's program.
    pub qemu: &'a Path,
    /// Its accelerator.
    pub accelerator: &'a str,
    /// Guests of `tests/bench`.
    pub programs: &'a Path,
    /// For sockets and logs.
    pub directory: &'a Path,
}

impl Setup<'_> {
    /// Where everything that is started writes its errors.
    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }
}

/// A running guest. Dropping it ends it.
pub trait Session {
    /// Moves it once, to a fresh process.
    ///
    /// # Errors
    /// The migration failed; the session is of no use any longer.
    fn migrate(&mut self, run: u32) -> Result<Moved, BenchError>;

    /// What is seen of it.
    fn observation(&self) -> &Observation;
}
