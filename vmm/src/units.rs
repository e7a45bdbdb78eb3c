//! Units of work: what a program says of them on its units page, and the share that it is given.

use std::sync::atomic::{AtomicU64, Ordering};

use partita_abi::{PAGE_SIZE, UNITS_PAGE, UnitsPage};
use serde::{Deserialize, Serialize};

use crate::memory::{Memory, MemoryError};

/// What the program says; nothing of it is believed to be true, or even possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Units {
    /// Units of the whole application.
    pub total: u64,
    /// First one of this rank.
    pub first: u64,
    /// Number of them.
    pub count: u64,
    /// Computed since the start.
    pub done: u64,
    /// Elapsed time of that without waiting, in nanoseconds.
    pub cost_ns: u64,
    /// How often the program said that a move would suit it.
    pub safe_points: u64,
    /// Monotonic time of the partition before which none does, in nanoseconds.
    pub not_before_ns: u64,
    /// Newest sharing-out that it was given.
    pub generation: u64,
}

/// What a rank is given: body of `PUT /v1/units`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Number of the sharing-out, above every earlier one.
    pub generation: u64,
    /// Units of this rank in it.
    pub target: u64,
    /// Speed of this host relative to the mean of the application's hosts, in parts per million; 0: unknown.
    #[serde(default)]
    pub speed_ppm: u64,
}

fn word(memory: &Memory, offset: usize) -> Result<&AtomicU64, MemoryError> {
    memory.atomic_u64(UNITS_PAGE + offset as u64)
}

/// How often the program said that a move would suit it.
pub fn safe_points(memory: &Memory) -> Result<u64, MemoryError> {
    Ok(word(memory, std::mem::offset_of!(UnitsPage, safe_points))?.load(Ordering::Relaxed))
}

/// What the program says, if it has defined units.
pub fn read(memory: &Memory) -> Result<Option<Units>, MemoryError> {
    let get = |offset| Ok::<_, MemoryError>(word(memory, offset)?.load(Ordering::Relaxed));
    let total = get(std::mem::offset_of!(UnitsPage, total))?;
    if total == 0 {
        return Ok(None);
    }
    Ok(Some(Units {
        total,
        first: get(std::mem::offset_of!(UnitsPage, first))?,
        count: get(std::mem::offset_of!(UnitsPage, count))?,
        done: get(std::mem::offset_of!(UnitsPage, done))?,
        cost_ns: get(std::mem::offset_of!(UnitsPage, cost_ns))?,
        safe_points: safe_points(memory)?,
        not_before_ns: get(std::mem::offset_of!(UnitsPage, not_before_ns))?,
        generation: get(std::mem::offset_of!(UnitsPage, generation))?,
    }))
}

/// Gives the program a share. False, and nothing is done, when it has one of this generation or a later one already.
pub fn give(memory: &Memory, share: &Share) -> Result<bool, MemoryError> {
    let generation = word(memory, std::mem::offset_of!(UnitsPage, generation))?;
    if share.generation <= generation.load(Ordering::Acquire) {
        return Ok(false);
    }
    word(memory, std::mem::offset_of!(UnitsPage, speed_ppm))?.store(share.speed_ppm, Ordering::Relaxed);
    word(memory, std::mem::offset_of!(UnitsPage, target))?.store(share.target, Ordering::Release);
    // Last: the guest takes the target up with the generation it belongs to.
    generation.store(share.generation, Ordering::Release);
    memory.mark_dirty(UNITS_PAGE, PAGE_SIZE);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Layout;

    #[test]
    fn a_share_is_given_once_and_an_older_one_never() {
        let memory = Memory::new(Layout {
            program_bytes: crate::memory::PROGRAM_BYTES_MIN,
            ranks: 1,
            ring_bytes: 16 << 10,
        })
        .unwrap();
        assert_eq!(read(&memory).unwrap(), None);
        word(&memory, 0).unwrap().store(100, Ordering::Relaxed);
        assert!(give(&memory, &Share { generation: 2, target: 60, speed_ppm: 1_000_000 }).unwrap());
        assert!(!give(&memory, &Share { generation: 2, target: 50, speed_ppm: 0 }).unwrap());
        assert!(!give(&memory, &Share { generation: 1, target: 40, speed_ppm: 0 }).unwrap());
        let target = word(&memory, std::mem::offset_of!(UnitsPage, target)).unwrap().load(Ordering::Relaxed);
        assert_eq!((target, read(&memory).unwrap().map(|units| units.generation)), (60, Some(2)));
    }
}
