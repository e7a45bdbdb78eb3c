//! A vCPU that runs only a share of every period: a thread of its own holds it between two entries for the rest.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::vcpu::{Interrupter, VcpuError};

/// A share is kept within each of these: short beside what a peer waits for, long beside an exit.
const PERIOD: Duration = Duration::from_millis(10);

/// How long the vCPU runs and how long it is held in a period, for a share between 0 and 1.
fn slices(share: f64) -> (Duration, Duration) {
    let run = PERIOD.mul_f64(share.clamp(0.0, 1.0));
    (run, PERIOD - run)
}

/// Tells everybody who waits that it is over.
#[derive(Debug, Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    /// Waits for `limit` at most; tells whether it was opened.
    fn wait(&self, limit: Duration) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.opened.wait_timeout_while(open, limit, |open| !*open);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }
}

/// Slows a vCPU down while it lives.
#[derive(Debug)]
pub struct Throttle {
    gate: Arc<Gate>,
    thread: Option<JoinHandle<()>>,
}

impl Throttle {
    /// Has the vCPU behind `vcpu` run `share` (between 0 and 1) of the time.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start(vcpu: Interrupter, share: f64) -> Result<Self, VcpuError> {
        let gate = Arc::new(Gate::default());
        let held = gate.clone();
        let (run, hold) = slices(share);
        let turn = move || {
            while !held.wait(run) {
                let gate = held.clone();
                // It ends when the vCPU has ended.
                if vcpu.run_between_entries(move || _ = gate.wait(hold)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("throttle".into()).stack_size(64 << 10).spawn(turn);
        Ok(Self { gate, thread: Some(thread.map_err(VcpuError::Thread)?) })
    }
}

impl Drop for Throttle {
    /// When it returns, the vCPU is not held any longer.
    fn drop(&mut self) {
        self.gate.open();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_every_period_runs_and_the_rest_is_held() {
        for (share, run_us) in
            [(0.05, 500), (0.125, 1250), (0.5, 5000), (1.0, 10_000), (7.0, 10_000), (-1.0, 0)]
        {
            let (run, hold) = slices(share);
            assert_eq!((run, run + hold), (Duration::from_micros(run_us), PERIOD), "{share}");
        }
    }

    #[test]
    fn a_gate_lets_everybody_go_at_once() {
        let gate = Arc::new(Gate::default());
        assert!(!gate.wait(Duration::from_millis(1)));
        let waiting = gate.clone();
        let thread = std::thread::spawn(move || waiting.wait(Duration::from_secs(60)));
        gate.open();
        assert!(thread.join().unwrap() && gate.wait(Duration::ZERO));
    }
}
