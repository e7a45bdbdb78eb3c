//! What the migrator asks of a virtual machine: the verbs of a source and of a destination.
//!
//! The migrator knows neither KVM nor the program in the partition; `vmm` implements these traits, tests implement
//! them over plain memory.

use std::error::Error;
use std::time::Duration;

use partita_rdma::HostMemory;
use serde::{Deserialize, Serialize};

/// An error of the machine behind the trait, passed through with its sources.
pub type MachineError = Box<dyn Error + Send + Sync + 'static>;

/// What [`SourceMachine::switch_cost`] is unless a machine knows better; assumed, not measured.
pub const SWITCH_COST_ASSUMED: Duration = Duration::from_millis(1);

/// Bytes of the unit in which memory is tracked and sent.
pub const PAGE_SIZE: usize = 4096;

/// A run of guest-physical memory. Both sides have the same regions in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Guest-physical address, a multiple of [`PAGE_SIZE`].
    pub address: u64,
    /// Length in bytes, a multiple of [`PAGE_SIZE`].
    pub bytes: u64,
}

/// The part of the time that a vCPU may run, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Share(u16);

impl Share {
    /// It runs whenever it wants to.
    pub const FULL: Self = Self(1000);
    /// The least: a program that stands still does not come to its next phase.
    pub const LEAST: Self = Self(50);

    /// `part` (1 is all), between [`LEAST`](Self::LEAST) and [`FULL`](Self::FULL).
    pub fn of(part: f64) -> Self {
        // The cast takes what is no number as 0, which is clamped as well.
        Self((part * 1000.0) as u16).clamp(Self::LEAST, Self::FULL)
    }

    /// From 0 to 1.
    pub fn part(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

/// Why a pause costs the program little just then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// It sleeps, as a rule for messages: what it waits for hides that much of the blackout.
    Asleep,
    /// It has just said so (`partita_safe_point`).
    SafePoint,
}

/// What the destination has to know to build the machine before the first page arrives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Application the partition belongs to.
    pub application: String,
    /// Rank of the partition.
    pub rank: u32,
    /// Epoch the destination will own: higher than the source's.
    pub epoch: u64,
    /// The memory.
    pub regions: Vec<Region>,
    /// Machine facts that the destination checks (processor features, ABI version, …), opaque to the migrator.
    pub machine: Vec<u8>,
}

/// The running partition on the host it leaves.
///
/// Pages are numbered from 0 within a region. Every method may be called from any thread, one at a time, except
/// `read_pages`, which the stream threads call concurrently.
pub trait SourceMachine: Sync {
    /// What to build on the other side; `epoch` is the one the destination will own.
    fn describe(&self, epoch: u64) -> Result<Description, MachineError>;
    /// Begins dirty tracking; every page counts as dirty afterwards (round 0 sends everything).
    fn start_tracking(&self) -> Result<(), MachineError>;
    /// Ends dirty tracking. The next migration starts from nothing and sends everything.
    fn stop_tracking(&self) -> Result<(), MachineError>;
    /// Adds to `bitmap` (one bit a page, 64 pages a word, little end first) the pages of region `index` that were
    /// written since they were last cleared. Does not clear them. Asked after every round, and once within the first.
    fn dirty(&self, index: usize, bitmap: &mut [u64]) -> Result<(), MachineError>;
    /// Clears the pages set in `bitmap`, which covers `64 * bitmap.len()` pages from `first_page` (a multiple of 64) on,
    /// just before those pages are read: later writes make them dirty again.
    fn clear_dirty(&self, index: usize, first_page: u64, bitmap: &[u64]) -> Result<(), MachineError>;
    /// Takes out of `bitmap`, which begins at `first_page`, the pages that hold zeros because nobody has touched them yet, if that is known
    /// without touching them. Called on the stream threads, after the pages were cleared: one that is written later is dirty.
    fn keep_touched(&self, index: usize, first_page: u64, bitmap: &mut [u64]) -> Result<(), MachineError> {
        let _ = (index, first_page, bitmap);
        Ok(())
    }
    /// Copies `buffer.len()` bytes (a multiple of [`PAGE_SIZE`]) from `first_page` on into `buffer`.
    fn read_pages(&self, index: usize, first_page: u64, buffer: &mut [u8]) -> Result<(), MachineError>;
    /// Has the vCPU run only `share` of every few milliseconds from now on; [`Share::FULL`] undoes it at once.
    fn throttle(&self, share: Share) -> Result<(), MachineError> {
        if share == Share::FULL { Ok(()) } else { Err("this machine cannot be slowed down".into()) }
    }
    /// What pausing and saving here and restoring there takes besides sending: a part of the predicted blackout.
    fn switch_cost(&self) -> Duration {
        SWITCH_COST_ASSUMED
    }
    /// Waits for a good moment to pause, but for `limit` at most.
    fn await_moment(&self, limit: Duration) -> Option<Moment> {
        let _ = limit;
        None
    }
    /// Stops the vCPU and the fabric; when it returns, nothing writes the partition's memory. After an error the
    /// partition still runs.
    fn pause(&self) -> Result<(), MachineError>;
    /// Undoes `pause`.
    fn resume(&self) -> Result<(), MachineError>;
    /// Everything of a paused partition that is not in its memory, as a versioned value.
    /// Called while `read_pages` runs on other threads.
    fn save(&self) -> Result<Vec<u8>, MachineError>;
}

/// The machine being built on the host the partition comes to.
pub trait DestinationMachine: Sync {
    /// Checks the description and builds the whole machine, paused. Refuses what cannot run here.
    fn build(&mut self, description: &Description) -> Result<(), MachineError>;
    /// Whether the memory is known to read as zeros after `build`. Then pages of zeros are not written at all.
    /// Must be `false` when `build` loads anything into the memory.
    fn is_zeroed(&self) -> bool {
        false
    }
    /// Where region `index` is in this process, all of it, after `build`: for one-sided writes into it. None: this machine's memory can
    /// only be written by `write_pages`, and a source that asks for RDMA is refused.
    fn memory(&self, _index: usize) -> Option<HostMemory> {
        None
    }
    /// Makes host memory present behind `bytes` of region `index` from `offset` on, for one-sided writes into it (called on a thread of
    /// its own during round 0, beside `zero_pages` of the same pages: it must keep what is in them).
    fn populate(&self, index: usize, offset: u64, bytes: u64) -> Result<(), MachineError>;
    /// Writes whole pages from `first_page` on.
    fn write_pages(&self, index: usize, first_page: u64, data: &[u8]) -> Result<(), MachineError>;
    /// Zeroes `pages` pages from `first_page` on.
    fn zero_pages(&self, index: usize, first_page: u64, pages: u64) -> Result<(), MachineError>;
    /// Sets the saved state; the machine stays paused. After this only `run` is missing.
    fn restore(&mut self, state: &[u8]) -> Result<(), MachineError>;
    /// Runs. Called once, after the commit.
    fn run(&mut self) -> Result<(), MachineError>;
}
