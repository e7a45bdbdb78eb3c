//! The guest's page tables, edited by the VMM: identity mapping of what the program may touch, with its permissions.
//!
//! One top-level table leads to one directory-pointer table for the lower 512 GiB; tables below are made when first
//! needed and never given back. The tables are in the system area, where no guest code can reach them.

use partita_abi::{PAGE_SIZE, PAGE_TABLES_BASE};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::memory::{Memory, MemoryError};

/// What the program may do with a page. Everything mapped is readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Access {
    /// Readable (and mapped at all).
    pub read: bool,
    /// Writable.
    pub write: bool,
    /// Executable.
    pub execute: bool,
    /// For the stub only.
    pub supervisor: bool,
}

impl Access {
    /// Mapped, but nothing may be done with it (`PROT_NONE`).
    pub const NONE: Self = Self { read: false, write: false, execute: false, supervisor: false };
    /// Read.
    pub const READ: Self = Self { read: true, ..Self::NONE };
    /// Read and write.
    pub const READ_WRITE: Self = Self { write: true, ..Self::READ };
    /// Read and execute.
    pub const READ_EXECUTE: Self = Self { execute: true, ..Self::READ };
    /// The stub's pages.
    pub const STUB: Self = Self { read: true, write: true, execute: true, supervisor: true };

    fn bits(self) -> u64 {
        if !self.read && !self.write && !self.execute {
            return 0;
        }
        // Accessed and dirty are set beforehand, so that the processor does not write the tables.
        PRESENT
            | ACCESSED
            | DIRTY
            | if self.write { WRITE } else { 0 }
            | if self.supervisor { 0 } else { USER }
            | if self.execute { 0 } else { NO_EXECUTE }
    }
}

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const TABLE: u64 = PRESENT | WRITE | USER | ACCESSED;
const LARGE_PAGE: u64 = 2 << 20;
const POINTERS: u64 = PAGE_TABLES_BASE + 2 * PAGE_SIZE;

/// The tables could not be edited.
#[derive(Debug, Error)]
pub enum PagingError {
    /// Not in whole pages or beyond what one top-level entry covers.
    #[error("cannot map {bytes:#x} bytes at {address:#x}")]
    Range {
        /// First byte.
        address: u64,
        /// Length.
        bytes: u64,
    },
    /// The pool is used up; it is sized for everything that can be mapped, so this is a defect.
    #[error("no page table page left")]
    Exhausted,
    /// The system area could not be reached.
    #[error("cannot reach the page tables")]
    Memory(#[from] MemoryError),
}

/// Where the tables are and how much of their pool is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paging {
    next: u64,
    end: u64,
    /// Which of the two identical top-level tables is in use: a change of CR3 is a flush on every kind of KVM.
    flip: bool,
}

impl Paging {
    /// Makes empty tables in fresh memory.
    pub fn new(memory: &Memory) -> Result<Self, PagingError> {
        let (base, bytes) = memory.layout().regions()[crate::memory::SYSTEM];
        for top in [PAGE_TABLES_BASE, PAGE_TABLES_BASE + PAGE_SIZE] {
            memory.write_u64(top, POINTERS | TABLE)?;
        }
        Ok(Self { next: POINTERS + PAGE_SIZE, end: base + bytes, flip: false })
    }

    /// Value for CR3.
    pub fn root(&self) -> u64 {
        PAGE_TABLES_BASE + if self.flip { PAGE_SIZE } else { 0 }
    }

    /// Switches to the other top-level table; the caller sets CR3 to [`Paging::root`].
    pub fn flip(&mut self) {
        self.flip = !self.flip;
    }

    /// Maps `bytes` at `address` to themselves with `access`; what was mapped there before is replaced.
    pub fn map(
        &mut self,
        memory: &Memory,
        address: u64,
        bytes: u64,
        access: Access,
    ) -> Result<(), PagingError> {
        let whole = address.is_multiple_of(PAGE_SIZE) && bytes.is_multiple_of(PAGE_SIZE);
        let end = address.checked_add(bytes).filter(|end| *end <= 1 << 39);
        let (true, Some(end)) = (whole, end) else {
            return Err(PagingError::Range { address, bytes });
        };
        let mut at = address;
        while at < end {
            let directory = self.table(memory, POINTERS + 8 * (at >> 30))?;
            let entry_address = directory + 8 * (at >> 21 & 511);
            if at.is_multiple_of(LARGE_PAGE) && end - at >= LARGE_PAGE {
                self.map_large(memory, entry_address, at, access)?;
                at += LARGE_PAGE;
                continue;
            }
            let table = self.split(memory, entry_address)?;
            let stop = end.min((at / LARGE_PAGE + 1) * LARGE_PAGE);
            let mut entries = Vec::with_capacity(512 * 8);
            for page in (at..stop).step_by(PAGE_SIZE as usize) {
                let entry = if access.bits() == 0 { 0 } else { page | access.bits() };
                entries.extend_from_slice(&entry.to_le_bytes());
            }
            memory.write(table + 8 * (at >> 12 & 511), &entries)?;
            at = stop;
        }
        Ok(())
    }

    /// A whole 2 MiB: one large entry, unless a table was made here before (then it is kept and filled).
    fn map_large(&mut self, memory: &Memory, entry: u64, at: u64, access: Access) -> Result<(), PagingError> {
        let present = memory.read_u64(entry)?;
        if present & PRESENT != 0 && present & LARGE == 0 {
            let mut entries = Vec::with_capacity(4096);
            for page in (at..at + LARGE_PAGE).step_by(PAGE_SIZE as usize) {
                let value = if access.bits() == 0 { 0 } else { page | access.bits() };
                entries.extend_from_slice(&value.to_le_bytes());
            }
            memory.write(present & ADDRESS, &entries)?;
        } else {
            let value = if access.bits() == 0 { 0 } else { at | access.bits() | LARGE };
            memory.write_u64(entry, value)?;
        }
        Ok(())
    }

    /// The table behind a directory entry; a large page is split into one that says the same.
    fn split(&mut self, memory: &Memory, entry: u64) -> Result<u64, PagingError> {
        let present = memory.read_u64(entry)?;
        if present & PRESENT != 0 && present & LARGE != 0 {
            let table = self.allocate()?;
            let start = present & ADDRESS & !(LARGE_PAGE - 1);
            let flags = present & !(ADDRESS | LARGE);
            let entries: Vec<u8> = (start..start + LARGE_PAGE)
                .step_by(PAGE_SIZE as usize)
                .flat_map(|page| (page | flags).to_le_bytes())
                .collect();
            memory.write(table, &entries)?;
            memory.write_u64(entry, table | TABLE)?;
            return Ok(table);
        }
        self.table(memory, entry)
    }

    /// The table behind an entry, made when there is none.
    fn table(&mut self, memory: &Memory, entry: u64) -> Result<u64, PagingError> {
        let present = memory.read_u64(entry)?;
        if present & PRESENT != 0 {
            return Ok(present & ADDRESS);
        }
        let table = self.allocate()?;
        memory.write_u64(entry, table | TABLE)?;
        Ok(table)
    }

    fn allocate(&mut self) -> Result<u64, PagingError> {
        let table = self.next;
        if table + PAGE_SIZE > self.end {
            return Err(PagingError::Exhausted);
        }
        self.next += PAGE_SIZE;
        Ok(table)
    }

    /// What the tables say about one page: for tests and for people.
    pub fn lookup(&self, memory: &Memory, address: u64) -> Result<Option<Access>, PagingError> {
        let pointer = memory.read_u64(POINTERS + 8 * (address >> 30 & 511))?;
        if pointer & PRESENT == 0 {
            return Ok(None);
        }
        let mut entry = memory.read_u64((pointer & ADDRESS) + 8 * (address >> 21 & 511))?;
        if entry & PRESENT != 0 && entry & LARGE == 0 {
            entry = memory.read_u64((entry & ADDRESS) + 8 * (address >> 12 & 511))?;
        }
        Ok((entry & PRESENT != 0).then_some(Access {
            read: true,
            write: entry & WRITE != 0,
            execute: entry & NO_EXECUTE == 0,
            supervisor: entry & USER == 0,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Layout;

    #[test]
    fn every_page_says_what_was_mapped_last() {
        let memory = Memory::new(Layout { program_bytes: 64 << 20, ranks: 1, ring_bytes: 16 << 10 }).unwrap();
        let mut paging = Paging::new(&memory).unwrap();
        // A seeded sequence of overlapping maps against a plain array.
        let mut expected = vec![None; (64 << 20) / 4096];
        let kinds = [Access::READ, Access::READ_WRITE, Access::READ_EXECUTE, Access::NONE];
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..300 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let first = (random >> 33) as usize % expected.len();
            let pages = (1 + (random >> 12) as usize % 3000).min(expected.len() - first);
            let access = kinds[(random >> 7) as usize % 4];
            paging.map(&memory, first as u64 * 4096, pages as u64 * 4096, access).unwrap();
            expected[first..first + pages].fill((access != Access::NONE).then_some(access));
        }
        for (page, want) in expected.iter().enumerate() {
            assert_eq!(paging.lookup(&memory, page as u64 * 4096).unwrap(), *want, "page {page}");
        }
    }

    #[test]
    fn ranges_that_are_not_pages_or_too_far_are_refused() {
        let memory = Memory::new(Layout { program_bytes: 8 << 20, ranks: 1, ring_bytes: 16 << 10 }).unwrap();
        let mut paging = Paging::new(&memory).unwrap();
        assert!(paging.map(&memory, 1, 4096, Access::READ).is_err());
        assert!(paging.map(&memory, 0, 4097, Access::READ).is_err());
        assert!(paging.map(&memory, u64::MAX - 4095, 4096, Access::READ).is_err());
        assert!(paging.map(&memory, 1 << 39, 4096, Access::READ).is_err());
    }
}
