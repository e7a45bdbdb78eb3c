//! Time: the one place of the VMM that reads clocks, and the page that gives the guest its time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use partita_abi::{TIME_PAGE, TimePage};
use serde::{Deserialize, Serialize};

use crate::memory::{Memory, MemoryError};

const NS_PER_S: u64 = 1_000_000_000;

/// The host's time stamp counter, which is also the guest's (see `kvm::cpu`).
pub fn time_stamp() -> u64 {
    // SAFETY: every x86-64 processor has RDTSC, and Linux does not forbid it to programs.
    #[allow(unused_unsafe)]
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
}

fn clock_ns(clock: ClockId) -> u64 {
    // These clocks exist on every Linux; were one missing, time would stand still, which is visible at once.
    clock_gettime(clock).map_or(0, |t| t.tv_sec() as u64 * NS_PER_S + t.tv_nsec() as u64)
}

/// Monotonic time of the host, in nanoseconds since an arbitrary point.
pub fn monotonic_ns() -> u64 {
    clock_ns(ClockId::CLOCK_MONOTONIC)
}

/// Time of day of the host, in nanoseconds since 1970.
pub fn realtime_ns() -> u64 {
    clock_ns(ClockId::CLOCK_REALTIME)
}

/// Processor time of the calling thread, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    clock_ns(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// Time since this process was started, in nanoseconds (`/proc/self/stat`, field 22), at the kernel's tick resolution
/// of 10 ms; `None` where `/proc` is missing. Use it only when nothing better is known.
pub fn process_age_ns() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let ticks: u64 = stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok()?;
    Some(clock_ns(ClockId::CLOCK_BOOTTIME).saturating_sub(ticks * (NS_PER_S / 100)))
}

/// Frequency of the time stamp counter in kHz, measured against the monotonic clock over 20 ms. Only for hosts whose KVM
/// does not say.
pub fn measure_tsc_khz() -> u64 {
    let (ns, tsc) = (monotonic_ns(), time_stamp());
    std::thread::sleep(Duration::from_millis(20));
    let (ns, tsc) = (monotonic_ns() - ns, time_stamp() - tsc);
    (u128::from(tsc) * 1_000_000 / u128::from(ns.max(1))) as u64
}

/// Nanoseconds per count of the guest's time stamp counter, as a fixed-point number with 32 fractional bits.
fn multiplier(memory: &Memory) -> Result<u64, MemoryError> {
    memory.read_u64(TIME_PAGE + std::mem::offset_of!(TimePage, multiplier) as u64)
}

/// Counts of the guest's time stamp counter in nanoseconds, at the speed it has now.
pub fn guest_ns(memory: &Memory, counts: u64) -> Result<u64, MemoryError> {
    let ns = (u128::from(counts) * u128::from(multiplier(memory)?)) >> 32;
    Ok(u64::try_from(ns).unwrap_or(u64::MAX))
}

/// Nanoseconds in counts of the guest's time stamp counter, at the speed it has now.
pub fn guest_counts(memory: &Memory, ns: u64) -> Result<u64, MemoryError> {
    let counts = (u128::from(ns) << 32) / u128::from(multiplier(memory)?.max(1));
    Ok(u64::try_from(counts).unwrap_or(u64::MAX))
}

/// The guest's clocks at one moment, as they move with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestTime {
    /// The guest's monotonic clock: nanoseconds since the partition was started, blackouts included.
    pub monotonic_ns: u64,
    /// The host's time of day at that moment.
    pub realtime_ns: u64,
}

impl GuestTime {
    /// The clocks of a partition that starts now.
    pub fn start() -> Self {
        Self { monotonic_ns: 0, realtime_ns: realtime_ns() }
    }

    /// What the guest would read now.
    pub fn read(memory: &Memory) -> Result<Self, MemoryError> {
        let base = memory.read_u64(TIME_PAGE + std::mem::offset_of!(TimePage, tsc_base) as u64)?;
        let passed = guest_ns(memory, time_stamp().saturating_sub(base))?;
        let field = |offset: usize| memory.read_u64(TIME_PAGE + offset as u64);
        Ok(Self {
            monotonic_ns: field(std::mem::offset_of!(TimePage, monotonic_ns))?.saturating_add(passed),
            realtime_ns: field(std::mem::offset_of!(TimePage, realtime_ns))?.saturating_add(passed),
        })
    }

    /// Writes the time page so that the guest reads these clocks plus what passes from now on.
    pub fn write(self, memory: &Memory, tsc_khz: u64) -> Result<(), MemoryError> {
        let word = |offset: usize| memory.atomic_u64(TIME_PAGE + offset as u64);
        let sequence = word(std::mem::offset_of!(TimePage, sequence))?;
        sequence.fetch_or(1, Ordering::SeqCst);
        let multiplier = (u128::from(NS_PER_S) << 32) / (u128::from(tsc_khz.max(1)) * 1000);
        word(std::mem::offset_of!(TimePage, tsc_base))?.store(time_stamp(), Ordering::SeqCst);
        word(std::mem::offset_of!(TimePage, multiplier))?.store(multiplier as u64, Ordering::SeqCst);
        word(std::mem::offset_of!(TimePage, monotonic_ns))?.store(self.monotonic_ns, Ordering::SeqCst);
        word(std::mem::offset_of!(TimePage, realtime_ns))?.store(self.realtime_ns, Ordering::SeqCst);
        sequence.fetch_add(1, Ordering::SeqCst);
        memory.mark_dirty(TIME_PAGE, size_of::<TimePage>() as u64);
        Ok(())
    }

    /// The clocks on arrival: the blackout passed on the guest's clock too, as far as the two hosts' clocks agree; time
    /// never goes back.
    pub fn arrive(self) -> Self {
        let now = realtime_ns();
        let passed = now.saturating_sub(self.realtime_ns);
        Self {
            monotonic_ns: self.monotonic_ns.saturating_add(passed),
            realtime_ns: now.max(self.realtime_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Layout;

    #[test]
    fn guest_time_goes_on_across_a_rewrite_of_the_page() {
        let memory = Memory::new(Layout { program_bytes: 4 << 20, ranks: 1, ring_bytes: 16 << 10 }).unwrap();
        let khz = measure_tsc_khz();
        GuestTime { monotonic_ns: 5_000, realtime_ns: realtime_ns() }.write(&memory, khz).unwrap();
        let first = GuestTime::read(&memory).unwrap();
        assert!(first.monotonic_ns >= 5_000);
        first.arrive().write(&memory, khz).unwrap();
        let second = GuestTime::read(&memory).unwrap();
        assert!(second.monotonic_ns >= first.monotonic_ns);
        assert!(second.realtime_ns >= first.realtime_ns);
        assert_eq!(
            memory.read_u64(TIME_PAGE).unwrap() % 2,
            0,
            "the sequence counter is even when nobody writes"
        );
    }
}
