//! The program's address space: what is mapped where, the brk heap, and the mmap area that grows down from the stack.
//!
//! Virtual = physical, so mapping is permission, not placement: an address always means the same bytes. Pages that are
//! unmapped are given back to the host and read as zero when they are mapped again.

use std::collections::BTreeMap;

use partita_abi::{PAGE_SIZE, PROGRAM_BASE};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::memory::{Memory, MemoryError};
use crate::paging::{Access, Paging, PagingError};

const LARGE_PAGE: u64 = 2 << 20;
/// Most mappings a program may have; Linux has the same kind of limit (`vm.max_map_count`).
const MAPPINGS_MAX: usize = 65_530;

/// Why an address space call failed.
#[derive(Debug, Error)]
pub enum SpaceError {
    /// No room, or too many mappings.
    #[error("no room left in the partition's memory")]
    NoMemory,
    /// Arguments that make no sense.
    #[error("the range is not in whole pages of the program's memory")]
    Invalid,
    /// The tables could not be edited.
    #[error("cannot edit the page tables")]
    Paging(#[from] PagingError),
    /// Memory could not be reached.
    #[error("cannot reach guest memory")]
    Memory(#[from] MemoryError),
}

/// Bookkeeping of one address space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// start → (end, access); no two overlap.
    mappings: BTreeMap<u64, (u64, Access)>,
    brk_start: u64,
    brk: u64,
    area_top: u64,
    /// Permissions were taken away since the last flush.
    stale: bool,
}

impl Space {
    /// An empty space whose heap starts at `brk` and whose mmap area ends at `area_top`.
    pub fn new(brk: u64, area_top: u64) -> Self {
        Self { mappings: BTreeMap::new(), brk_start: brk, brk, area_top, stale: false }
    }

    /// Whether translations have to be flushed before the program runs on; asking clears it.
    pub fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.stale)
    }

    /// Whether the program may read (or write) all of a range.
    pub fn allows(&self, address: u64, bytes: u64, write: bool) -> bool {
        let Some(end) = address.checked_add(bytes) else { return false };
        let mut at = address;
        while at < end {
            let Some((_, (stop, access))) = self.mappings.range(..=at).next_back() else { return false };
            if *stop <= at || !access.read || (write && !access.write) {
                return false;
            }
            at = *stop;
        }
        true
    }

    fn is_free(&self, start: u64, end: u64) -> bool {
        self.mappings.range(..end).next_back().is_none_or(|(_, (stop, _))| *stop <= start)
    }

    /// Maps a range; segments of one program may share their border pages, whose permissions then add up.
    pub fn add(
        &mut self,
        memory: &Memory,
        paging: &mut Paging,
        start: u64,
        bytes: u64,
        access: Access,
    ) -> Result<(), SpaceError> {
        let shared = self.mappings.range(..start + bytes).next_back().map(|(s, (e, a))| (*s, *e, *a));
        let mut from = start;
        if let Some((_, end, other)) = shared.filter(|(_, end, _)| *end > start) {
            let both = Access {
                read: true,
                write: access.write || other.write,
                execute: access.execute || other.execute,
                supervisor: false,
            };
            self.set(memory, paging, start, end.min(start + bytes), both)?;
            from = end;
        }
        if from < start + bytes {
            self.set(memory, paging, from, start + bytes, access)?;
        }
        Ok(())
    }

    /// Records and maps `start..end`, replacing what was there.
    fn set(
        &mut self,
        memory: &Memory,
        paging: &mut Paging,
        start: u64,
        end: u64,
        access: Access,
    ) -> Result<(), SpaceError> {
        self.cut(start, end)?;
        paging.map(memory, start, end - start, access)?;
        // Neighbours of the same kind grow together, so that a heap stays one mapping.
        let mut first = start;
        let mut last = end;
        if let Some((s, (e, a))) = self.mappings.range(..start).next_back().map(|(s, v)| (*s, *v))
            && e == start
            && a == access
        {
            self.mappings.remove(&s);
            first = s;
        }
        if let Some((e, a)) = self.mappings.get(&end).copied()
            && a == access
        {
            self.mappings.remove(&end);
            last = e;
        }
        self.mappings.insert(first, (last, access));
        Ok(())
    }

    /// Forgets `start..end`, splitting mappings at its borders.
    fn cut(&mut self, start: u64, end: u64) -> Result<(), SpaceError> {
        if self.mappings.len() >= MAPPINGS_MAX {
            return Err(SpaceError::NoMemory);
        }
        let touched: Vec<_> = self
            .mappings
            .range(..end)
            .rev()
            .take_while(|(_, (stop, _))| *stop > start)
            .map(|(s, (e, a))| (*s, *e, *a))
            .collect();
        for (s, e, access) in touched {
            self.mappings.remove(&s);
            if s < start {
                self.mappings.insert(s, (start, access));
            }
            if e > end {
                self.mappings.insert(end, (e, access));
            }
        }
        Ok(())
    }

    /// `brk(2)`: moves the end of the heap if that is possible; returns where it is then.
    pub fn set_brk(&mut self, memory: &Memory, paging: &mut Paging, wanted: u64) -> Result<u64, SpaceError> {
        if wanted < self.brk_start || wanted > self.area_top {
            return Ok(self.brk);
        }
        let (old, new) = (self.brk.next_multiple_of(PAGE_SIZE), wanted.next_multiple_of(PAGE_SIZE));
        if new > old {
            if !self.is_free(old, new) {
                return Ok(self.brk);
            }
            self.set(memory, paging, old, new, Access::READ_WRITE)?;
        } else if new < old {
            self.unmap(memory, paging, new, old - new)?;
        }
        self.brk = wanted;
        Ok(self.brk)
    }

    /// `mmap(2)` without the file: finds room (or takes exactly `fixed`) and maps it. The memory is zero.
    pub fn map(
        &mut self,
        memory: &Memory,
        paging: &mut Paging,
        fixed: Option<u64>,
        bytes: u64,
        access: Access,
    ) -> Result<u64, SpaceError> {
        let bytes = Self::whole_pages(bytes)?;
        let start = match fixed {
            Some(address) => {
                self.check(memory, address, bytes)?;
                self.unmap(memory, paging, address, bytes)?;
                address
            }
            None => self.find(bytes).ok_or(SpaceError::NoMemory)?,
        };
        self.set(memory, paging, start, start + bytes, access)?;
        Ok(start)
    }

    fn whole_pages(bytes: u64) -> Result<u64, SpaceError> {
        match bytes.checked_next_multiple_of(PAGE_SIZE) {
            Some(0) => Err(SpaceError::Invalid),
            Some(bytes) => Ok(bytes),
            None => Err(SpaceError::NoMemory),
        }
    }

    fn check(&self, memory: &Memory, address: u64, bytes: u64) -> Result<(), SpaceError> {
        let end = address.checked_add(bytes).ok_or(SpaceError::Invalid)?;
        let inside = address >= PROGRAM_BASE && end <= memory.layout().program_bytes;
        if inside && address.is_multiple_of(PAGE_SIZE) { Ok(()) } else { Err(SpaceError::Invalid) }
    }

    /// The highest hole of `bytes` below the top of the area; large ones are aligned for large pages.
    fn find(&self, bytes: u64) -> Option<u64> {
        let alignment = if bytes >= LARGE_PAGE { LARGE_PAGE } else { PAGE_SIZE };
        let floor = self.brk.next_multiple_of(PAGE_SIZE) + PAGE_SIZE;
        let mut top = self.area_top;
        for (start, (end, _)) in self.mappings.range(..self.area_top).rev() {
            let candidate = top.checked_sub(bytes).map(|a| a & !(alignment - 1));
            if let Some(candidate) = candidate
                && candidate >= *end
                && candidate >= floor
            {
                return Some(candidate);
            }
            top = top.min(*start);
        }
        top.checked_sub(bytes).map(|a| a & !(alignment - 1)).filter(|a| *a >= floor)
    }

    /// `munmap(2)`: unmaps and gives the pages back to the host.
    pub fn unmap(
        &mut self,
        memory: &Memory,
        paging: &mut Paging,
        start: u64,
        bytes: u64,
    ) -> Result<(), SpaceError> {
        let bytes = Self::whole_pages(bytes)?;
        self.check(memory, start, bytes)?;
        let end = start + bytes;
        let touched: Vec<_> = self
            .mappings
            .range(..end)
            .rev()
            .take_while(|(_, (stop, _))| *stop > start)
            .map(|(s, (e, _))| (*s.max(&start), *e.min(&end)))
            .collect();
        self.cut(start, end)?;
        for (s, e) in touched {
            paging.map(memory, s, e - s, Access::NONE)?;
            memory.release(s, e - s)?;
            self.stale = true;
        }
        Ok(())
    }

    /// `mprotect(2)`: every page of the range has to be mapped.
    pub fn protect(
        &mut self,
        memory: &Memory,
        paging: &mut Paging,
        start: u64,
        bytes: u64,
        access: Access,
    ) -> Result<(), SpaceError> {
        if bytes == 0 {
            return Ok(());
        }
        let bytes = Self::whole_pages(bytes)?;
        self.check(memory, start, bytes)?;
        let end = start + bytes;
        let mut at = start;
        let mut weaker = false;
        while at < end {
            let Some((_, (stop, old))) = self.mappings.range(..=at).next_back() else {
                return Err(SpaceError::NoMemory);
            };
            if *stop <= at {
                return Err(SpaceError::NoMemory);
            }
            weaker |= (old.write && !access.write)
                || (old.execute && !access.execute)
                || (old.read && !access.read);
            at = *stop;
        }
        self.set(memory, paging, start, end, access)?;
        if weaker {
            memory.forget_translations(start, bytes)?;
            self.stale = true;
        }
        Ok(())
    }

    /// `mremap(2)` with `MREMAP_MAYMOVE`: in place when there is room, else a new place with the old content.
    pub fn remap(
        &mut self,
        memory: &Memory,
        paging: &mut Paging,
        start: u64,
        old_bytes: u64,
        new_bytes: u64,
        may_move: bool,
    ) -> Result<u64, SpaceError> {
        let (old_bytes, new_bytes) = (Self::whole_pages(old_bytes)?, Self::whole_pages(new_bytes)?);
        self.check(memory, start, old_bytes)?;
        let access = match self.mappings.range(..=start).next_back() {
            Some((_, (stop, access))) if *stop >= start + old_bytes => *access,
            _ => return Err(SpaceError::Invalid),
        };
        if new_bytes <= old_bytes {
            if new_bytes < old_bytes {
                self.unmap(memory, paging, start + new_bytes, old_bytes - new_bytes)?;
            }
            return Ok(start);
        }
        let (old_end, new_end) =
            (start + old_bytes, start.checked_add(new_bytes).ok_or(SpaceError::Invalid)?);
        if new_end <= self.area_top && self.is_free(old_end, new_end) {
            self.set(memory, paging, old_end, new_end, access)?;
            return Ok(start);
        }
        if !may_move {
            return Err(SpaceError::NoMemory);
        }
        let target = self.map(memory, paging, None, new_bytes, access)?;
        let mut buffer = vec![0; (256 << 10).min(old_bytes as usize)];
        let mut done = 0;
        while done < old_bytes {
            let part = (old_bytes - done).min(buffer.len() as u64) as usize;
            memory.read(start + done, &mut buffer[..part])?;
            memory.write(target + done, &buffer[..part])?;
            done += part as u64;
        }
        self.unmap(memory, paging, start, old_bytes)?;
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Layout;

    fn fresh() -> (Memory, Paging, Space) {
        let memory = Memory::new(Layout { program_bytes: 64 << 20, ranks: 1, ring_bytes: 16 << 10 }).unwrap();
        let paging = Paging::new(&memory).unwrap();
        (memory, paging, Space::new(8 << 20, 48 << 20))
    }

    #[test]
    fn unmapped_memory_comes_back_as_zero_and_is_found_again() {
        let (memory, mut paging, mut space) = fresh();
        for _ in 0..10_000 {
            let address = space.map(&memory, &mut paging, None, 1 << 20, Access::READ_WRITE).unwrap();
            let mut byte = [9];
            memory.read(address, &mut byte).unwrap();
            assert_eq!(byte, [0]);
            memory.write(address, &[1]).unwrap();
            space.unmap(&memory, &mut paging, address, 1 << 20).unwrap();
            assert!(!space.allows(address, 1, false));
        }
    }

    #[test]
    fn a_full_area_refuses_and_recovers() {
        let (memory, mut paging, mut space) = fresh();
        let mut all = Vec::new();
        while let Ok(address) = space.map(&memory, &mut paging, None, 3 << 20, Access::READ_WRITE) {
            all.push(address);
        }
        assert!(all.len() >= 9, "{} pieces", all.len());
        let hole = all[4];
        space.unmap(&memory, &mut paging, hole, 3 << 20).unwrap();
        assert_eq!(space.map(&memory, &mut paging, None, 3 << 20, Access::READ_WRITE).unwrap(), hole);
    }

    #[test]
    fn protection_is_checked_page_by_page() {
        let (memory, mut paging, mut space) = fresh();
        let address = space.map(&memory, &mut paging, None, 4 * PAGE_SIZE, Access::READ_WRITE).unwrap();
        space.protect(&memory, &mut paging, address + PAGE_SIZE, PAGE_SIZE, Access::READ).unwrap();
        assert!(space.take_stale());
        assert!(space.allows(address, 4 * PAGE_SIZE, false));
        assert!(!space.allows(address, 4 * PAGE_SIZE, true));
        assert!(space.allows(address + 2 * PAGE_SIZE, 2 * PAGE_SIZE, true));
        assert!(space.protect(&memory, &mut paging, address, 5 * PAGE_SIZE, Access::READ).is_err());
    }

    #[test]
    fn remap_keeps_the_content() {
        let (memory, mut paging, mut space) = fresh();
        let first = space.map(&memory, &mut paging, None, PAGE_SIZE, Access::READ_WRITE).unwrap();
        memory.write(first, b"content").unwrap();
        let moved = space.remap(&memory, &mut paging, first, PAGE_SIZE, 5 << 20, true).unwrap();
        let mut text = [0; 7];
        memory.read(moved, &mut text).unwrap();
        assert_eq!(&text, b"content");
        assert!(!space.allows(first, 1, false) || first == moved);
    }

    #[test]
    fn the_heap_grows_and_shrinks() {
        let (memory, mut paging, mut space) = fresh();
        assert_eq!(space.set_brk(&memory, &mut paging, 0).unwrap(), 8 << 20);
        assert_eq!(space.set_brk(&memory, &mut paging, (9 << 20) + 5).unwrap(), (9 << 20) + 5);
        assert!(space.allows((9 << 20) + 4, 1, true));
        assert_eq!(space.set_brk(&memory, &mut paging, 8 << 20).unwrap(), 8 << 20);
        assert!(!space.allows(8 << 20, 1, false));
        assert_eq!(space.set_brk(&memory, &mut paging, 1 << 40).unwrap(), 8 << 20);
    }
}
