//! The handle that other threads hold on a migration: they cancel it and read how far it is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::report::{self, RoundReport};

/// Called on entering every phase, on the migrating thread; tests hold or kill the process there.
pub type PhaseHook<P> = Box<dyn Fn(P) + Send + Sync>;

/// How far a migration is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress<P> {
    /// The phase entered last.
    pub phase: P,
    /// The rounds that are over (the source's side only).
    pub rounds: Vec<RoundReport>,
}

/// No cap was set by [`Control::set_bandwidth`].
const AS_REQUESTED: u64 = u64::MAX;

/// Cancel flag, leave to switch over, bandwidth cap and progress of one migration; `P` is the side's phase type.
pub struct Control<P> {
    cancelled: AtomicBool,
    may_switch: AtomicBool,
    bandwidth_bytes_per_s: AtomicU64,
    progress: Mutex<Progress<P>>,
    hook: Option<PhaseHook<P>>,
}

impl<P: Copy> Control<P> {
    /// A handle for one migration that has not begun; `initial` is its first phase.
    pub fn starting_at(initial: P) -> Self {
        let progress = Mutex::new(Progress { phase: initial, rounds: Vec::new() });
        let bandwidth_bytes_per_s = AtomicU64::new(AS_REQUESTED);
        let (cancelled, may_switch) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { cancelled, may_switch, bandwidth_bytes_per_s, progress, hook: None }
    }

    /// Has `hook` called on entering every phase.
    #[must_use]
    pub fn with_hook(mut self, hook: PhaseHook<P>) -> Self {
        self.hook = Some(hook);
        self
    }

    /// Asks the migration to end. Without effect once the commit point is passed.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// Whether `cancel` was called.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Lets a migration switch over that was asked to await this. The source's side only.
    pub fn switch(&self) {
        self.may_switch.store(true, Ordering::Release);
    }

    /// Whether `switch` was called.
    pub fn may_switch(&self) -> bool {
        self.may_switch.load(Ordering::Acquire)
    }

    /// Whether everything but the switch-over is done, which waits for [`switch`](Self::switch).
    pub fn awaits_switch(&self) -> bool {
        !self.may_switch() && self.lock().rounds.last().is_some_and(RoundReport::awaits_switch)
    }

    /// Caps all streams together from now on, in bytes per second; `None` lifts the cap. The source's side only.
    pub fn set_bandwidth(&self, bytes_per_s: Option<u64>) {
        let value = bytes_per_s.unwrap_or(0).min(AS_REQUESTED - 1);
        self.bandwidth_bytes_per_s.store(value, Ordering::Release);
    }

    /// The cap now, where `requested` was asked for at the beginning.
    pub(crate) fn bandwidth(&self, requested: Option<u64>) -> Option<u64> {
        match self.bandwidth_bytes_per_s.load(Ordering::Acquire) {
            AS_REQUESTED => requested,
            value => Some(value).filter(|value| *value > 0),
        }
    }

    /// How far the migration is.
    pub fn progress(&self) -> Progress<P> {
        self.lock().clone()
    }

    pub(crate) fn enter(&self, phase: P) {
        self.lock().phase = phase;
        if let Some(hook) = &self.hook {
            hook(phase);
        }
    }

    pub(crate) fn finish_round(&self, round: &RoundReport) {
        report::note_round(&mut self.lock().rounds, *round);
    }

    fn lock(&self) -> MutexGuard<'_, Progress<P>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
