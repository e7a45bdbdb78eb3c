//! Harness of the whole-system tests: real processes, bounded waits, and a look at what they leave behind.
//!
//! Everything a test starts is killed when its [`Bench`] is dropped; every wait has a limit, twenty times longer in the
//! emulated machine (`PARTITA_EMULATED`). Programs are found below the workspace, see [`binaries`].

pub mod bench;
pub mod binaries;
pub mod cluster;
pub mod http;
pub mod partition;
pub mod placement;
pub mod process;
pub mod proxy;
pub mod random;
pub mod roaming;

use std::time::{Duration, Instant};

pub use bench::Bench;
pub use partition::{Control, State};
pub use process::Process;

/// Whatever went wrong, in words.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// What a test returns.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// Whether this is the emulated machine, where everything takes 20 to 50 times longer.
pub fn is_emulated() -> bool {
    std::env::var_os("PARTITA_EMULATED").is_some()
}

/// A limit for a wait that takes at most `seconds` on a real machine.
pub fn limit(seconds: u64) -> Duration {
    Duration::from_secs(seconds * if is_emulated() { 20 } else { 1 })
}

/// An amount of work for a real machine, or for the emulated one, times `PARTITA_TEST_SCALE` (default 1).
pub fn amount(real: u64, emulated: u64) -> u64 {
    let scale =
        std::env::var("PARTITA_TEST_SCALE").ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(1.0);
    ((if is_emulated() { emulated } else { real } as f64 * scale) as u64).max(1)
}

/// Asks `condition` until it gives something, at most [`limit`]`(seconds)`.
pub fn wait_for<T>(what: &str, seconds: u64, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + limit(seconds);
    let mut tell = Instant::now() + Duration::from_secs(15);
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() >= tell {
            eprintln!("still waiting for {what}");
            tell += Duration::from_secs(15);
        }
        if Instant::now() >= end {
            return Err(format!("waited {:?} in vain for {what}", limit(seconds)).into());
        }
        std::thread::sleep(limit(1) / 200);
    }
}

/// Failures of a test that looks at many things: all are reported, not only the first.
#[derive(Debug, Default)]
pub struct Failures(Vec<String>);

impl Failures {
    /// Notes that something was not as expected.
    pub fn add(&mut self, what: impl Into<String>) {
        let what = what.into();
        eprintln!("FAILED: {what}");
        self.0.push(what);
    }

    /// Notes `what()` unless `right`.
    pub fn check(&mut self, right: bool, what: impl FnOnce() -> String) {
        if !right {
            self.add(what());
        }
    }

    /// Ends the test.
    pub fn finish(self) -> Result {
        match self.0.len() {
            0 => Ok(()),
            count => Err(format!("{count} failures:\n{}", self.0.join("\n")).into()),
        }
    }
}
