//! Memory of a partition: the three regions of its guest and the file area, checked access for the VMM, and which pages the VMM
//! wrote.
//!
//! Pages written by the vCPU are in KVM's dirty log; pages written by the VMM itself (system calls, fabric, loader) are
//! in the bitmap that `vm-memory` keeps for every region. A migration asks for both together (`partition`).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};

use partita_abi::{
    MEMORY_BYTES_MAX, PAGE_SIZE, RANKS_MAX, RING_BYTES_MAX, RING_BYTES_MIN, RINGS_BASE, SYSTEM_BASE,
    ring_area_bytes,
};
use partita_rdma::HostMemory;
use thiserror::Error;
use vm_memory::bitmap::{AtomicBitmap, Bitmap};
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap, MmapRegion,
};

/// Index of the program's memory in [`Memory::regions`].
pub const PROGRAM: usize = 0;
/// Index of the ring area.
pub const RINGS: usize = 1;
/// Index of the system area.
pub const SYSTEM: usize = 2;
/// Index of the file area: the content of the partition's files. KVM does not know of it.
pub const FILES: usize = 3;

/// Where the file area begins: an address that no page table of a guest leads to.
pub const FILES_BASE: u64 = 0x78_0000_0000;
/// Bytes of the file area. Pages that no file ever had take no memory of the host.
pub const FILE_AREA_BYTES: u64 = 1 << 30;

/// Why guest memory could not be made or reached.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The size asked for is impossible.
    #[error("{bytes} bytes of memory: give at least {min} and at most {max}, in whole pages")]
    Size {
        /// What was asked for.
        bytes: u64,
        /// Least possible.
        min: u64,
        /// Most possible.
        max: u64,
    },
    /// The host refused the mapping.
    #[error("cannot map {bytes} bytes of guest memory at {address:#x}")]
    Map {
        /// Guest address.
        address: u64,
        /// Length.
        bytes: u64,
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An address outside of guest memory.
    #[error("guest address {address:#x} (+{bytes} bytes) is not memory")]
    Range {
        /// First byte.
        address: u64,
        /// Length.
        bytes: u64,
        /// Cause.
        #[source]
        source: GuestMemoryError,
    },
    /// Sizes of rings that cannot be.
    #[error("no partition has {ranks} ranks with rings of {ring_bytes} bytes")]
    Rings {
        /// Ranks of the application.
        ranks: u32,
        /// Data bytes of a ring.
        ring_bytes: u32,
    },
    /// The host could not populate or release pages.
    #[error("the host cannot {what} {bytes} bytes of guest memory at {address:#x}")]
    Advise {
        /// What was attempted.
        what: &'static str,
        /// First byte.
        address: u64,
        /// Length.
        bytes: u64,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// Sizes that decide the memory layout of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layout {
    /// Memory of the program, in bytes.
    pub program_bytes: u64,
    /// Partitions of the application.
    pub ranks: u32,
    /// Data bytes of each ring.
    pub ring_bytes: u32,
}

/// Least memory of a partition.
pub const PROGRAM_BYTES_MIN: u64 = 4 << 20;

impl Layout {
    /// Address and length of each of the guest's regions, in the order of the indices above.
    pub fn regions(&self) -> [(u64, u64); 3] {
        let rings = ring_area_bytes(self.ranks, self.ring_bytes);
        [(0, self.program_bytes), (RINGS_BASE, rings), (SYSTEM_BASE, self.system_bytes(rings))]
    }

    /// Shared pages and vDSO, then one page table page for every 2 MiB that can be mapped, one for every GiB, and the top.
    fn system_bytes(&self, rings: u64) -> u64 {
        let tables = |bytes: u64| bytes.div_ceil(2 << 20) + 1 + bytes.div_ceil(1 << 30) + 1;
        (16 + tables(self.program_bytes) + tables(rings) + 10) * PAGE_SIZE
    }

    /// Refuses sizes that no partition has.
    pub fn check(&self) -> Result<(), MemoryError> {
        let rings = RING_BYTES_MIN..=RING_BYTES_MAX;
        if self.ranks == 0
            || self.ranks > RANKS_MAX
            || !rings.contains(&self.ring_bytes)
            || !self.ring_bytes.is_power_of_two()
        {
            return Err(MemoryError::Rings { ranks: self.ranks, ring_bytes: self.ring_bytes });
        }
        let max = MEMORY_BYTES_MAX;
        if self.program_bytes < PROGRAM_BYTES_MIN
            || self.program_bytes > max
            || !self.program_bytes.is_multiple_of(PAGE_SIZE)
        {
            return Err(MemoryError::Size { bytes: self.program_bytes, min: PROGRAM_BYTES_MIN, max });
        }
        Ok(())
    }
}

/// A program with so much memory gets huge pages where the host has them: its first touch of memory, and of memory that has moved, costs a
/// fault for every 2 MiB instead of every 4 KiB, both in the host and in what KVM shadows. Below, the memory that this wastes counts more.
const HUGE_PAGES_FROM: u64 = 128 << 20;

/// The memory of one partition.
pub struct Memory {
    map: GuestMemoryMmap<AtomicBitmap>,
    layout: Layout,
    /// Opened when it is first asked; none where this process may not.
    pagemap: OnceLock<Option<File>>,
}

impl Memory {
    /// Maps fresh, zero memory of the given layout.
    pub fn new(layout: Layout) -> Result<Self, MemoryError> {
        layout.check()?;
        let mut regions = Vec::with_capacity(4);
        for (address, bytes) in layout.regions().into_iter().chain([(FILES_BASE, FILE_AREA_BYTES)]) {
            let fail = |source: Box<dyn std::error::Error + Send + Sync>| MemoryError::Map {
                address,
                bytes,
                source,
            };
            let length = usize::try_from(bytes).map_err(|e| fail(Box::new(e)))?;
            let mapping = MmapRegion::<AtomicBitmap>::new(length).map_err(|e| fail(Box::new(e)))?;
            let region = GuestRegionMmap::new(mapping, GuestAddress(address))
                .ok_or_else(|| fail("the address range overflows".into()))?;
            regions.push(region);
        }
        let map = GuestMemoryMmap::from_regions(regions).map_err(|e| MemoryError::Map {
            address: 0,
            bytes: layout.program_bytes,
            source: Box::new(e),
        })?;
        let memory = Self { map, layout, pagemap: OnceLock::new() };
        if layout.program_bytes >= HUGE_PAGES_FROM {
            // Only a matter of speed: a kernel without huge pages refuses, and nothing is lost.
            let _ = memory.advise(0, layout.program_bytes, libc::MADV_HUGEPAGE, "use huge pages for");
        }
        Ok(memory)
    }

    /// The sizes it was made with.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// (address, length, host address) of every region; the guest's come before [`FILES`].
    pub fn regions(&self) -> Vec<(u64, u64, u64)> {
        self.map
            .iter()
            .map(|region| {
                let host = region
                    .get_host_address(vm_memory::MemoryRegionAddress(0))
                    .unwrap_or(std::ptr::null_mut());
                (region.start_addr().0, region.len(), host as u64)
            })
            .collect()
    }

    /// Copies guest memory out.
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), MemoryError> {
        self.map.read_slice(buffer, GuestAddress(address)).map_err(|source| MemoryError::Range {
            address,
            bytes: buffer.len() as u64,
            source,
        })
    }

    /// Copies into guest memory and marks the pages dirty.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        self.map.write_slice(bytes, GuestAddress(address)).map_err(|source| MemoryError::Range {
            address,
            bytes: bytes.len() as u64,
            source,
        })
    }

    /// Reads a little-endian word.
    pub fn read_u64(&self, address: u64) -> Result<u64, MemoryError> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes a little-endian word.
    pub fn write_u64(&self, address: u64, value: u64) -> Result<(), MemoryError> {
        self.write(address, &value.to_le_bytes())
    }

    /// Host address of `bytes` contiguous bytes of guest memory.
    ///
    /// The pointer stays valid as long as `self`; the guest may change what is behind it at any time, and a writer
    /// has to call [`Memory::mark_dirty`] afterwards.
    pub fn host_pointer(&self, address: u64, bytes: u64) -> Result<*mut u8, MemoryError> {
        let outside = |source| MemoryError::Range { address, bytes, source };
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        if !self.map.check_range(GuestAddress(address), length) {
            return Err(outside(GuestMemoryError::InvalidGuestAddress(GuestAddress(address))));
        }
        GuestMemoryBackend::get_host_address(&self.map, GuestAddress(address)).map_err(outside)
    }

    /// The first `bytes` of region `index`, to be written by one-sided writes. It keeps the memory mapped.
    pub fn open(self: Arc<Self>, index: usize, bytes: u64) -> Option<HostMemory> {
        let region = self.map.iter().nth(index).filter(|region| bytes <= region.len())?;
        let start = NonNull::new(region.get_host_address(vm_memory::MemoryRegionAddress(0)).ok()?)?;
        let bytes = usize::try_from(bytes).ok()?;
        // SAFETY: the region has that many bytes and is mapped, readable and writable, as long as `self`, which the result keeps; files that are mapped
        // over parts of it do not change that, and we hold no references into it but to atomics.
        Some(unsafe { HostMemory::new(start, bytes, self) })
    }

    /// A 32-bit word shared with the guest.
    pub fn atomic_u32(&self, address: u64) -> Result<&AtomicU32, MemoryError> {
        assert!(address.is_multiple_of(4), "our own layouts are aligned");
        let pointer = self.host_pointer(address, 4)?;
        // SAFETY: the pointer is valid for `self`'s life, aligned (checked above; mappings are page aligned), and the
        // word is only ever accessed atomically by us; the guest is another processor.
        Ok(unsafe { AtomicU32::from_ptr(pointer.cast()) })
    }

    /// A 64-bit word shared with the guest.
    pub fn atomic_u64(&self, address: u64) -> Result<&AtomicU64, MemoryError> {
        assert!(address.is_multiple_of(8), "our own layouts are aligned");
        let pointer = self.host_pointer(address, 8)?;
        // SAFETY: as in `atomic_u32`.
        Ok(unsafe { AtomicU64::from_ptr(pointer.cast()) })
    }

    /// Marks pages that were written through [`Memory::host_pointer`] or an atomic. Call it after the write.
    pub fn mark_dirty(&self, address: u64, bytes: u64) {
        if let Some((region, offset)) = self.map.to_region_addr(GuestAddress(address)) {
            region.bitmap().mark_dirty(offset.0 as usize, bytes as usize);
        }
    }

    /// Takes the pages of region `index` that the VMM wrote since the last call, as a bitmap of 64 pages a word.
    pub fn take_written(&self, index: usize) -> Vec<u64> {
        let region = self.map.iter().nth(index).expect("regions are numbered by us");
        region.get_mmap().bitmap().get_and_reset()
    }

    /// Takes out of `bitmap` (64 pages a word) the pages of region `index`, from `first_page` on, that nobody has touched since they were
    /// mapped or released: they read as zero, and reading them would make them. Only where no file was ever mapped over them, and
    /// where the kernel tells.
    pub fn keep_touched(&self, index: usize, first_page: u64, bitmap: &mut [u64]) -> Result<(), MemoryError> {
        if index != PROGRAM && index != FILES {
            return Ok(());
        }
        let (start, bytes, host) = self.regions()[index];
        let pages = (bytes / PAGE_SIZE).saturating_sub(first_page).min(PAGES_PER_WORD * bitmap.len() as u64);
        let mut entries = vec![0; pages as usize * PAGEMAP_ENTRY];
        // One entry for every virtual page of this process.
        let at = (host / PAGE_SIZE + first_page) * PAGEMAP_ENTRY as u64;
        let pagemap = self.pagemap.get_or_init(|| File::open("/proc/self/pagemap").ok());
        let Some(pagemap) = pagemap else { return Ok(()) };
        pagemap.read_exact_at(&mut entries, at).map_err(|source| MemoryError::Advise {
            what: "look up the pages of",
            address: start + first_page * PAGE_SIZE,
            bytes: pages * PAGE_SIZE,
            source,
        })?;
        for (page, entry) in entries.as_chunks::<PAGEMAP_ENTRY>().0.iter().enumerate() {
            if u64::from_ne_bytes(*entry) & PAGEMAP_TOUCHED == 0 {
                bitmap[page / PAGES_PER_WORD as usize] &= !(1 << (page as u64 % PAGES_PER_WORD));
            }
        }
        Ok(())
    }

    /// Makes host pages present behind a range. Without it the first touch costs microseconds a page.
    pub fn populate(&self, address: u64, bytes: u64) -> Result<(), MemoryError> {
        self.advise(address, bytes, libc::MADV_POPULATE_WRITE, "populate")
    }

    /// Gives pages back to the host; they read as zero afterwards. Also drops every mapping the hypervisor made of them.
    pub fn release(&self, address: u64, bytes: u64) -> Result<(), MemoryError> {
        self.advise(address, bytes, libc::MADV_DONTNEED, "release")?;
        self.mark_dirty(address, bytes);
        Ok(())
    }

    fn advise(&self, address: u64, bytes: u64, advice: i32, what: &'static str) -> Result<(), MemoryError> {
        let pointer = self.host_pointer(address, bytes)?;
        // SAFETY: the range was checked to be our own anonymous mapping, and no Rust object lives in it.
        match unsafe { libc::madvise(pointer.cast(), bytes as usize, advice) } {
            0 => Ok(()),
            _ => Err(MemoryError::Advise { what, address, bytes, source: io::Error::last_os_error() }),
        }
    }

    /// Puts the file behind a range (whole pages), shared with whoever else maps it. The guest must not be running.
    pub fn map_shared(&self, address: u64, bytes: u64, file: &OwnedFd) -> Result<(), MemoryError> {
        self.map_over(address, bytes, file, libc::MAP_SHARED, "share")
    }

    /// Keeps what is in a range that was [`Memory::map_shared`], but for itself: what this side writes from now on nobody else
    /// sees. The guest must not be running.
    pub fn map_private(&self, address: u64, bytes: u64, file: &OwnedFd) -> Result<(), MemoryError> {
        self.map_over(address, bytes, file, libc::MAP_PRIVATE, "take back")
    }

    fn map_over(
        &self,
        address: u64,
        bytes: u64,
        file: &OwnedFd,
        kind: i32,
        what: &'static str,
    ) -> Result<(), MemoryError> {
        let pointer = self.host_pointer(address, bytes)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the range is inside our own mapping, which stays one as a whole; no Rust reference to it exists except
        // to atomic words, which stay mapped words; the file was checked to be long enough and cannot shrink.
        let mapped = unsafe {
            libc::mmap(pointer.cast(), bytes as usize, access, kind | libc::MAP_FIXED, file.as_raw_fd(), 0)
        };
        if mapped == libc::MAP_FAILED {
            return Err(MemoryError::Advise { what, address, bytes, source: io::Error::last_os_error() });
        }
        Ok(())
    }

    /// Takes every mapping of a range away from the hypervisor's tables without changing its content, so that the next
    /// access looks at the guest's page tables again (needed where KVM shadows them, see `docs/decisions/0002-paging.md`).
    pub fn forget_translations(&self, address: u64, bytes: u64) -> Result<(), MemoryError> {
        let pointer = self.host_pointer(address, bytes)?;
        for protection in [libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE] {
            // SAFETY: the range is our own mapping; it is readable throughout, and the VMM writes it only from the
            // thread that calls this (the vCPU thread serving a system call).
            if unsafe { libc::mprotect(pointer.cast(), bytes as usize, protection) } != 0 {
                let source = io::Error::last_os_error();
                return Err(MemoryError::Advise { what: "re-protect", address, bytes, source });
            }
        }
        Ok(())
    }
}

/// Bytes of an entry of `/proc/self/pagemap` (Linux, Documentation/admin-guide/mm/pagemap.rst).
const PAGEMAP_ENTRY: usize = 8;
/// Bits of an entry: the page is present, or swapped out.
const PAGEMAP_TOUCHED: u64 = 1 << 63 | 1 << 62;

/// Pages per bitmap word.
pub const PAGES_PER_WORD: u64 = 64;

/// Number of 64-page words that cover `bytes`.
pub fn bitmap_words(bytes: u64) -> usize {
    bytes.div_ceil(PAGE_SIZE * PAGES_PER_WORD) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        Memory::new(Layout { program_bytes: 8 << 20, ranks: 2, ring_bytes: 16 << 10 }).unwrap()
    }

    #[test]
    fn what_the_vmm_writes_is_dirty_once() {
        let memory = memory();
        memory.write(0x1_2345, &[1, 2, 3]).unwrap();
        assert_eq!(memory.take_written(PROGRAM)[0], 1 << 0x12);
        assert_eq!(memory.take_written(PROGRAM)[0], 0);
    }

    #[test]
    fn addresses_outside_of_memory_are_refused() {
        let memory = memory();
        let mut byte = [0];
        assert!(memory.read(8 << 20, &mut byte).is_err());
        assert!(memory.read(u64::MAX, &mut byte).is_err());
        assert!(memory.host_pointer((8 << 20) - 4, 8).is_err());
        assert!(memory.write(RINGS_BASE - 1, &[0]).is_err());
    }

    #[test]
    fn nothing_can_be_read_and_written_behind_a_full_file_area() {
        let memory = memory();
        memory.write(FILES_BASE + FILE_AREA_BYTES, &[]).unwrap();
        memory.read(FILES_BASE + FILE_AREA_BYTES, &mut []).unwrap();
        assert!(memory.write(FILES_BASE + FILE_AREA_BYTES, &[0]).is_err());
    }

    #[test]
    fn an_opened_region_is_the_memory_and_outlives_it() {
        let memory = Arc::new(memory());
        let regions = memory.layout().regions();
        let open = |index, bytes| memory.clone().open(index, bytes);
        assert!(open(FILES + 1, 0).is_none());
        assert!(open(FILES, FILE_AREA_BYTES + 1).is_none());
        let system = open(SYSTEM, regions[SYSTEM].1).unwrap();
        assert_eq!(system.bytes() as u64, regions[SYSTEM].1);
        memory.write(SYSTEM_BASE + 5, &[1, 2, 3]).unwrap();
        drop(memory);
        let mut bytes = [0; 5];
        system.read(4, &mut bytes);
        assert_eq!(bytes, [0, 1, 2, 3, 0]);
    }

    #[test]
    fn released_pages_read_as_zero_and_are_dirty() {
        let memory = memory();
        memory.write(0x10_0000, &[7; 4096]).unwrap();
        memory.take_written(PROGRAM);
        memory.release(0x10_0000, 4096).unwrap();
        let mut bytes = [1; 4096];
        memory.read(0x10_0000, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 4096]);
        assert_eq!(memory.take_written(PROGRAM)[4], 1);
    }

    #[test]
    fn only_what_was_touched_is_kept() {
        let memory = memory();
        let touched = |index, first_page| {
            let mut bitmap = [u64::MAX; 2];
            memory.keep_touched(index, first_page, &mut bitmap).unwrap();
            bitmap
        };
        assert_eq!(touched(PROGRAM, 64), [0, 0]);
        memory.write(64 * PAGE_SIZE, &[1]).unwrap();
        memory.write(130 * PAGE_SIZE, &[1; 2 * PAGE_SIZE as usize]).unwrap();
        assert_eq!(touched(PROGRAM, 64), [1, 0b1100]);
        memory.release(131 * PAGE_SIZE, PAGE_SIZE).unwrap();
        assert_eq!(touched(PROGRAM, 64), [1, 0b0100]);
        memory.write(FILES_BASE, &[1]).unwrap();
        assert_eq!(touched(FILES, 0), [1, 0]);
        assert_eq!(touched(RINGS, 0), [u64::MAX; 2], "files may have been mapped over them");
        // The last pages of the region.
        assert_eq!(touched(PROGRAM, (8 << 20) / PAGE_SIZE - 64), [0, u64::MAX]);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for program_bytes in [0, 4096, (8 << 20) + 1, MEMORY_BYTES_MAX + PAGE_SIZE] {
            assert!(matches!(
                Memory::new(Layout { program_bytes, ranks: 1, ring_bytes: 16 << 10 }),
                Err(MemoryError::Size { .. })
            ));
        }
    }
}
