//! What is measured in the VMM: plain counters, returned by value, never registered anywhere.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Counters of the vCPU thread; written by it, read by anybody.
#[derive(Debug, Default)]
pub struct CpuCounters {
    /// Processor time of earlier processes of this partition, in nanoseconds.
    pub earlier_run_ns: AtomicU64,
    /// Processor time of this thread once it has ended, in nanoseconds.
    pub final_run_ns: AtomicU64,
    /// Processor given up in WAIT or a sleeping call, in nanoseconds.
    pub wait_ns: AtomicU64,
    /// Exits by an MMIO access.
    pub mmio: AtomicU64,
    /// Exits by a port access: system calls and faults.
    pub io: AtomicU64,
    /// Entries that were interrupted by a signal.
    pub interrupted: AtomicU64,
    /// Any other exit.
    pub other: AtomicU64,
    /// System calls.
    pub syscalls: AtomicU64,
}

/// The part of [`CpuCounters`] that moves with a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCounters {
    /// Processor time.
    pub run_ns: u64,
    /// Time asleep.
    pub wait_ns: u64,
    /// Exits: MMIO, port, interrupted, other.
    pub exits: [u64; 4],
    /// System calls.
    pub syscalls: u64,
    /// How often the partition has moved.
    pub migrations: u64,
    /// Sum of blackouts, in nanoseconds.
    pub blackout_ns: u64,
}

/// Adds to a counter. Nothing depends on the order of two counters.
pub fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}

impl CpuCounters {
    /// Starts from what was counted elsewhere.
    pub fn resume(saved: &SavedCounters) -> Self {
        let counters = Self::default();
        counters.earlier_run_ns.store(saved.run_ns, Ordering::Relaxed);
        counters.wait_ns.store(saved.wait_ns, Ordering::Relaxed);
        for (counter, value) in [&counters.mmio, &counters.io, &counters.interrupted, &counters.other]
            .into_iter()
            .zip(saved.exits)
        {
            counter.store(value, Ordering::Relaxed);
        }
        counters.syscalls.store(saved.syscalls, Ordering::Relaxed);
        counters
    }

    /// Exits: MMIO, port, interrupted, other.
    pub fn exits(&self) -> [u64; 4] {
        [&self.mmio, &self.io, &self.interrupted, &self.other].map(|c| c.load(Ordering::Relaxed))
    }
}
