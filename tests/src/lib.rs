//! Harness of the whole-system tests: real processes, bounded waits, and a look at what they leave behind.
//!
//! Everything a test starts is killed when its [`Bench`] is dropped. Every wait has a limit: that of a promise ([`promised`]) is
//! the promise, twenty times longer in the emulated machine (`PARTITA_EMULATED`); any other ([`wait_for`]) is only against
//! hanging. Programs are found below the workspace, see [`binaries`].

pub mod bench;
pub mod binaries;
pub mod cluster;
pub mod http;
pub mod interrupt;
pub mod machine;
pub mod messages;
pub mod namespaces;
pub mod partition;
pub mod placement;
pub mod process;
pub mod proxy;
pub mod random;
pub mod roaming;
pub mod threads;

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

/// How much longer things take in the emulated machine, and now and then on a busy one.
const SLOWER: u64 = 20;
/// How often a program is made longer.
const ATTEMPTS: u32 = 3;

/// What is promised within `seconds` on a real machine.
pub fn limit(seconds: u64) -> Duration {
    Duration::from_secs(seconds * if is_emulated() { SLOWER } else { 1 })
}

/// Only against hanging: far longer than what takes `seconds` on a real machine takes on one that does anything at all.
pub fn patience(seconds: u64) -> Duration {
    Duration::from_secs(seconds * SLOWER)
}

/// An amount of work for a real machine, or for the emulated one, times `PARTITA_TEST_SCALE` (default 1).
pub fn amount(real: u64, emulated: u64) -> u64 {
    let scale =
        std::env::var("PARTITA_TEST_SCALE").ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(1.0);
    ((if is_emulated() { emulated } else { real } as f64 * scale) as u64).max(1)
}

/// Asks `condition` until it gives something, at most [`patience`]`(seconds)`.
pub fn wait_for<T>(what: &str, seconds: u64, condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    wait(what, patience(seconds), Duration::MAX, condition)
}

/// Asks `condition` until it gives something, which is promised within [`limit`]`(seconds)`. A turn counts for at most a tenth of
/// that: while the whole machine stands still, nobody breaks a promise.
pub fn promised<T>(what: &str, seconds: u64, condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    wait(what, limit(seconds), limit(seconds) / 10, condition)
}

fn wait<T>(
    what: &str,
    limit: Duration,
    turn_max: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let tell_every = Duration::from_secs(15);
    let (mut waited, mut tell) = (Duration::ZERO, tell_every);
    loop {
        let turn = Instant::now();
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if waited >= limit {
            return Err(format!("waited {waited:?} in vain for {what}").into());
        }
        if waited >= tell {
            eprintln!("still waiting for {what}");
            tell += tell_every;
        }
        std::thread::sleep(Duration::from_millis(if is_emulated() { 100 } else { 5 }));
        waited += turn.elapsed().min(turn_max);
    }
}

/// Runs `attempt` with programs that are longer by a factor, until one does not end too early (false): how fast they are depends
/// on the machine.
pub fn with_longer_programs(attempt: impl Fn(u64) -> Result<bool>) -> Result {
    for number in 0..ATTEMPTS {
        if attempt(4_u64.pow(number))? {
            return Ok(());
        }
        println!("a program ended too early; once more, four times as long");
    }
    Err("the program always ended too early: make it longer (PARTITA_TEST_SCALE)".into())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_not_broken_by_a_machine_that_stands_still() {
        let mut turns = 0;
        let kept = promised("it", 1, || {
            turns += 1;
            std::thread::sleep(limit(1) * 2);
            Ok((turns == 2).then_some(()))
        });
        kept.unwrap();
    }

    #[test]
    fn a_promise_that_is_not_kept_is_broken() {
        let start = Instant::now();
        assert!(promised("it", 1, || Ok(None::<()>)).is_err());
        assert!(start.elapsed() >= limit(1));
    }

    #[test]
    fn programs_become_longer_until_they_are_long_enough() {
        let tried = std::cell::RefCell::new(Vec::new());
        let attempt = |enough| {
            let tried = &tried;
            move |factor| {
                tried.borrow_mut().push(factor);
                Ok(factor >= enough)
            }
        };
        with_longer_programs(attempt(3)).unwrap();
        assert!(with_longer_programs(attempt(100)).is_err());
        assert_eq!(*tried.borrow(), [1, 4, 1, 4, 16]);
    }
}
